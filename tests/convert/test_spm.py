"""SentencePiece vocabularies: llama.cpp cuts texts with them as the Hub's library does, nothing is lost silently."""

import io
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

import gguf_forge
from gguf_forge.convert import vocab
from gguf_forge.convert.files import convert_checkpoint
from gguf_forge.convert.vocab import load_vocab
from gguf_forge.convert.vocab.tokens import TokenType
from gguf_forge.errors import CheckpointError, FormatError, LimitError
from gguf_forge.format.values import Value
from tests.convert.spm_cut import MARK, Cutter
from tests.convert.test_vocab import C, J, T, load
from tests.convert.vocab_cases import BASES, FIXTURES, Edit

M, A, S = "tokenizer.model", "added_tokens.json", "special_tokens_map.json"
SCORES, TOKENS, TYPES = (f"tokenizer.ggml.{key}" for key in ("scores", "tokens", "token_type"))
TEXTS = [
    "def main(argv):\n    \"\"\"Return the exit status.\"\"\"\n    return 0 if argv else 2",
    "The quick brown fox jumps over the lazy dog, doesn't it?",
    "class Reader:  # two  spaces, three   spaces\n\t\tpass\n\n\nimport os",
    "naïve café Ünïcode Привет 你好 🙂 ½ \u200b",
    "x = 1234567890 ** 3.14e-10 >= 0xFF != ~y",
    "a",
    "".join(f"{char}{char * n}|" for char in "=- \n" for n in range(1, 20)),
]
"""Each begins with no space: the Hub's Metaspace adds none there, llama.cpp always does."""

SPM = ("llama", "gemma", "gemma3", "phi3")


def as_the_hub(keys: dict[str, Value], tokenizer: Tokenizer, texts: list[str] = TEXTS) -> None:
    cutter = Cutter(keys)
    for text in texts:
        assert cutter.cut(text) == tokenizer.encode(text, add_special_tokens=False).ids, text


def hub(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / J))


def folder_of(tmp_path: Path) -> Path:
    (found,) = tmp_path.iterdir()
    return found


def tokens_of(keys: dict[str, Value]) -> list[tuple[str, int]]:
    return list(zip(keys[TOKENS].value, keys[TYPES].value.tolist(), strict=True))


# From tokenizer.json alone.

PREFIXED = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
BARE = normalizers.Replace(" ", MARK)
PREPARED: dict[str, tuple[Any, Any, bool]] = {
    "prepend": (PREFIXED, None, True),
    "always": (None, pre_tokenizers.Metaspace(prepend_scheme="always", split=False), True),
    "first": (None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), True),
    "split": (None, pre_tokenizers.Metaspace(prepend_scheme="first", split=True), True),
    "never": (None, pre_tokenizers.Metaspace(prepend_scheme="never", split=False), False),
    "replace": (BARE, None, False),
    "gemma-of-transformers-5": (BARE, pre_tokenizers.Split(" ", "merged_with_previous"), False),
}


def prepared(name: str) -> list[Edit]:
    tokenizer = hub(FIXTURES / "sentencepiece")
    tokenizer.normalizer, tokenizer.pre_tokenizer = PREPARED[name][:2]
    written = json.loads(tokenizer.to_str())
    return [("set", J, part, written[part]) for part in ("normalizer", "pre_tokenizer")]


def resaved(*, keep_model: bool = False) -> list[Edit]:
    """What transformers 5 leaves of a folder's tokenizer."""
    edits: list[Edit] = [("remove", S), ("drop", T, "added_tokens_decoder")]
    return edits if keep_model else [*edits, ("remove", M)]


@pytest.mark.parametrize("how", PREPARED)
def test_merges_without_scores_cut_as_the_hub_does(tmp_path: Path, how: str) -> None:
    keys, _ = load(tmp_path, "llama", *resaved(), *prepared(how))
    as_the_hub(keys, hub(folder_of(tmp_path)))
    prefix = keys.get("tokenizer.ggml.add_space_prefix")
    assert PREPARED[how][2] == (prefix is None or prefix.value)


@pytest.mark.parametrize("base", SPM)
def test_each_family_has_the_same_tokens_from_either_file(tmp_path: Path, base: str) -> None:
    fitting = prepared("replace" if base.startswith("gemma") else "prepend")
    with_model, _ = load(tmp_path / "model", base, *fitting)
    without, notes = load(tmp_path / "json", base, *resaved(), *fitting)
    assert notes == []
    assert tokens_of(without) == tokens_of(with_model)
    assert {k for k in {**with_model, **without} if with_model.get(k) != without.get(k)} == {SCORES}
    as_the_hub(without, hub(folder_of(tmp_path / "json")))


def test_the_score_is_minus_the_rank_of_the_first_merge(tmp_path: Path) -> None:
    keys, _ = load(tmp_path, "llama", *resaved())
    merges = json.loads((FIXTURES / "sentencepiece" / J).read_text(encoding="utf-8"))["model"]["merges"]
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), rank)
    found = dict(zip(keys[TOKENS].value, keys[SCORES].value.tolist(), strict=True))
    assert {token: found[token] for token in ranks} == {token: -rank for token, rank in ranks.items()}
    assert {score for token, score in found.items() if token not in ranks} == {-len(merges)}


@pytest.mark.parametrize("pairs", [False, True])
def test_a_vocabulary_the_hubs_library_trained(tmp_path: Path, pairs: bool) -> None:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()])
    from tokenizers.trainers import BpeTrainer

    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False, limit_alphabet=60)
    tokenizer.train_from_iterator(TEXTS[:3] * 3, trainer)
    written = json.loads(tokenizer.to_str())
    written["added_tokens"] = written["added_tokens"][:3]
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in written["model"]["merges"]]
    written["model"]["merges"] = merges if pairs else [" ".join(merge) for merge in merges]
    keys, notes = load(tmp_path, "llama", *resaved(), ("write", J, json.dumps(written)))
    as_the_hub(keys, Tokenizer.from_str(json.dumps(written)))
    assert any("puts a space before a text only" in note for note in notes)


def test_fewer_tokens_than_rows_are_padded(tmp_path: Path) -> None:
    added: Edit = ("added", "<new>", {"special": True, "normalized": False})
    keys, notes = load(tmp_path, "llama", *resaved(), ("set", C, "vocab_size", 2064), added, ("remove", T))
    assert notes == []
    assert tokens_of(keys)[2047:2051] == [
        (keys[TOKENS].value[2047], TokenType.NORMAL),
        ("<new>", TokenType.CONTROL),
        ("[PAD2049]", TokenType.UNUSED),
        ("[PAD2050]", TokenType.UNUSED),
    ]
    assert len(keys[TOKENS].value) == len(keys[SCORES].value) == 2064
    as_the_hub(keys, hub(folder_of(tmp_path)))


def test_more_tokens_than_rows_are_left_out_and_said(tmp_path: Path) -> None:
    added: Edit = ("added", "<new>", {"special": True, "normalized": False})
    keys, notes = load(tmp_path, "llama", ("remove", M), added)
    assert len(keys[TOKENS].value) == 2048
    assert notes == ["added token 2048 is left out: vocab_size is 2048"]


def test_special_tokens_without_an_id_get_the_next_ones_as_from_the_hub(tmp_path: Path) -> None:
    edits: list[Edit] = [("set", C, "vocab_size", 2100), ("set", T, "pad_token", "<|mypad|>")]
    keys, _ = load(tmp_path / "json", "llama", *resaved(), *edits)
    assert tokens_of(keys)[2048] == ("<|mypad|>", TokenType.CONTROL)
    keys, notes = load(tmp_path / "model", "llama", *edits)
    assert tokens_of(keys)[2048] == ("[PAD2048]", TokenType.UNUSED)
    assert any("'<|mypad|>' (tokenizer_config.json: pad_token) has no id in any file" in note for note in notes)


@pytest.mark.parametrize("base", ["qwen2", "gpt2"])
def test_families_of_byte_level_vocabularies_take_one_of_sentencepieces(tmp_path: Path, base: str) -> None:
    text = (FIXTURES / "sentencepiece" / J).read_text(encoding="utf-8")
    files: list[Edit] = [("write", J, text), ("remove", "vocab.json"), ("remove", "merges.txt")]
    keys, notes = load(tmp_path, base, *files, ("set", C, "vocab_size", 2048), ("write", T, "{}"))
    assert keys["tokenizer.ggml.model"].value == "llama"
    as_the_hub(keys, hub(folder_of(tmp_path)))
    assert notes == [f"--pre {BASES[base].pre} has no effect: a vocabulary of {M}'s kind has no pre-tokenizer"]


@pytest.mark.parametrize("base", SPM)
def test_no_bos_is_added_where_tokenizer_json_adds_none(tmp_path: Path, base: str) -> None:
    edits: list[Edit] = [("set", J, "post_processor", None), ("drop", T, "add_bos_token"), ("drop", T, "add_eos_token")]
    keys, _ = load(tmp_path / "silent", base, *resaved(), *edits)
    assert keys["tokenizer.ggml.add_bos_token"].value is False
    keys, _ = load(tmp_path / "said", base, *resaved(), *edits, ("set", T, "add_bos_token", True))
    assert keys["tokenizer.ggml.add_bos_token"].value is True


def test_what_has_no_form_in_gguf_is_said(tmp_path: Path) -> None:
    nfkc = json.loads(hub(FIXTURES / "sentencepiece").to_str())["normalizer"]
    nfkc["normalizers"].insert(0, {"type": "NFKC"})
    _, notes = load(tmp_path / "nfkc", "llama", *resaved(), ("set", J, "normalizer", nfkc))
    assert any("NFKC changes texts in a way GGUF has no key for" in note for note in notes)
    model = json.loads((FIXTURES / "sentencepiece" / J).read_text(encoding="utf-8"))["model"]
    dropped = {**model, "merges": model["merges"][:1000]}
    _, notes = load(tmp_path / "unmade", "llama", *resaved(), ("set", J, "model", dropped))
    assert any("no merge makes" in note for note in notes)


# Added tokens.

CHAT = [("<|im_start|>", True), ("<|im_end|>", True), ("<tool>", False)]


def chat(*places: str, special: bool = True) -> list[Edit]:
    """Tokens of a chat format in some of the files."""
    listed = {2048 + i: {"content": text, "special": flag and special, "normalized": False, "lstrip": False,
              "rstrip": False, "single_word": False} for i, (text, flag) in enumerate(CHAT)}  # fmt: skip
    edits: list[Edit] = [("set", C, "vocab_size", 2064)]
    if J in places:
        edits += [("append", J, "added_tokens", {"id": number, **token}) for number, token in listed.items()]
    if T in places:
        edits.append(("set", T, "added_tokens_decoder", {str(number): token for number, token in listed.items()}))
    if A in places:
        edits.append(("write", A, json.dumps({token["content"]: number for number, token in listed.items()})))
    if S in places:
        edits.append(("write", S, json.dumps({"additional_special_tokens": [t for t, flag in CHAT if flag]})))
    return edits


@pytest.mark.parametrize("base", SPM)
@pytest.mark.parametrize("places", [(J,), (T,), (J, T), (A, S), (J, A, S), (J, T, A, S)], ids="+".join)
def test_no_added_token_is_lost_wherever_it_is_listed(tmp_path: Path, base: str, places: tuple[str, ...]) -> None:
    keys, notes = load(tmp_path, base, *resaved(keep_model=True), *chat(*places))
    assert tokens_of(keys)[2048:2052] == [
        ("<|im_start|>", TokenType.CONTROL),
        ("<|im_end|>", TokenType.CONTROL),
        ("<tool>", TokenType.USER_DEFINED),
        ("[PAD2051]", TokenType.UNUSED),
    ]
    assert notes == []


def test_added_tokens_json_alone_has_no_flags(tmp_path: Path) -> None:
    keys, _ = load(tmp_path, "llama", *resaved(keep_model=True), *chat(A))
    assert {kind for _, kind in tokens_of(keys)[2048:2051]} == {TokenType.USER_DEFINED}


def test_a_piece_that_is_added_or_named_is_special(tmp_path: Path) -> None:
    plain = tokens_of(load(tmp_path / "plain", "llama")[0])
    number, text = 2000, plain[2000][0]
    entry = {"id": number, "content": text, "special": True, "normalized": False, "lstrip": False, "rstrip": False}
    added: Edit = ("append", J, "added_tokens", {**entry, "single_word": False})
    named: Edit = ("set", T, "extra_special_tokens", [text])
    for name, edit in (("added", added), ("named", named)):
        for keep_model in (True, False):
            where = tmp_path / name / str(keep_model)
            keys, _ = load(where, "llama", *resaved(keep_model=keep_model), edit)
            changed = [i for i, (a, b) in enumerate(zip(plain, tokens_of(keys), strict=True)) if a != b and i != 0]
            assert changed == [number]
            assert tokens_of(keys)[number] == (text, TokenType.CONTROL)


CONTRADICTIONS: dict[str, tuple[list[Edit], str, tuple[int, str, TokenType]]] = {
    "text": (
        [*chat(J), ("set", T, "added_tokens_decoder", {"2048": {"content": "<|user|>", "special": True}})],
        r"token 2048 is '<\|im_start\|>' in tokenizer\.json, '<\|user\|>' in tokenizer_config\.json: the former",
        (2048, "<|im_start|>", TokenType.CONTROL),
    ),
    "id": (
        [*chat(J), ("write", A, '{"<|im_end|>": 2055}')],
        r"token '<\|im_end\|>' has id 2049 in tokenizer\.json, 2055 in added_tokens\.json: the former",
        (2055, "[PAD2055]", TokenType.UNUSED),
    ),
    "flag": (
        [*chat(J), ("set", T, "added_tokens_decoder", {"2050": {"content": "<tool>", "special": True}})],
        r"token '<tool>' is special in tokenizer_config\.json, not in tokenizer\.json: tokenizer_config",
        (2050, "<tool>", TokenType.CONTROL),
    ),
    "piece": (
        [("set", C, "vocab_size", 2064), ("write", A, '{"</s>": 2050}')],
        r"token '</s>' has id 2 in tokenizer\.json, 2050 in added_tokens\.json: the former",
        (2050, "[PAD2050]", TokenType.UNUSED),
    ),
    "piece-of-model": (
        [("remove", J), ("set", C, "vocab_size", 2064), ("write", A, '{"</s>": 2050}')],
        r"token '</s>' has id 2 in tokenizer\.model, 2050 in added_tokens\.json: the former",
        (2050, "[PAD2050]", TokenType.UNUSED),
    ),
    "role": (
        [("write", S, '{"eos_token": "<unk>"}')],
        r"eos_token is '</s>' in tokenizer_config\.json, '<unk>' in special_tokens_map\.json: the former",
        (2, "</s>", TokenType.CONTROL),
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions_are_said_and_decided(tmp_path: Path, name: str) -> None:
    edits, said, (number, text, kind) = CONTRADICTIONS[name]
    keys, notes = load(tmp_path, "llama", *resaved(keep_model=True), *edits)
    assert tokens_of(keys)[number] == (text, kind)
    assert [note for note in notes if re.search(said, note)]
    Cutter(keys)  # no text twice


def test_a_newer_tokenizer_json_beside_the_base_models_file_counts(tmp_path: Path) -> None:
    model = json.loads((FIXTURES / "sentencepiece" / J).read_text(encoding="utf-8"))["model"]
    tokens = {("zzq" if number == 2047 else text): number for text, number in model["vocab"].items()}
    newer: Edit = ("set", J, "model", {**model, "vocab": {**tokens, "zzqz": 2048}})
    keys, notes = load(tmp_path, "llama", *resaved(keep_model=True), newer, ("set", C, "vocab_size", 2049))
    assert [text for text, _ in tokens_of(keys)[2047:]] == ["zzq", "zzqz"]
    (said,) = [note for note in notes if "different vocabularies" in note]
    assert "token 2047 is" in said
    assert "tokenizer.json is followed" in said


def test_a_byte_level_tokenizer_json_beside_another_models_file_counts(tmp_path: Path) -> None:
    data = (FIXTURES / "sentencepiece" / M).read_bytes()
    keys, _ = load(tmp_path / "alone", "llama-bpe")
    base = BASES["llama-bpe"]
    folder = folder_of(tmp_path / "alone")
    (folder / M).write_bytes(data)
    notes: list[str] = []
    config = json.loads((folder / C).read_text(encoding="utf-8"))
    assert load_vocab(folder, config, base.parts, pre=base.pre, note=notes.append) == keys
    assert any("hold different vocabularies" in note for note in notes)


# tokenizer.model itself.


def trained(**how: Any) -> bytes:
    out = io.BytesIO()
    lines = [line for text in TEXTS[:3] for line in text.split("\n") if line.strip()] * 4
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, minloglevel=2, num_threads=1, hard_vocab_limit=False, **how
    )
    return out.getvalue()


def load_model(folder: Path, data: bytes, vocab_size: int, **settings: Any) -> tuple[dict[str, Value], list[str]]:
    """The vocabulary of a Llama folder with this tokenizer.model alone."""
    folder.mkdir(parents=True)
    (folder / M).write_bytes(data)
    (folder / T).write_text(json.dumps(settings), encoding="utf-8")
    base = BASES["llama"]
    (folder / C).write_text(json.dumps({**base.config, "vocab_size": vocab_size}), encoding="utf-8")
    notes: list[str] = []
    return load_vocab(folder, {"vocab_size": vocab_size}, base.parts, note=notes.append), notes


PLAIN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}


def test_pieces_a_user_defined_are_typed_so(tmp_path: Path) -> None:
    how = {"model_type": "bpe", "vocab_size": 400, "byte_fallback": True, **PLAIN}
    data = trained(user_defined_symbols=["<sep>", "<|x|>"], **how)
    keys, notes = load_model(tmp_path / "a", data, 400)
    typed = dict(tokens_of(keys))
    assert (typed["<sep>"], typed["<|x|>"]) == (TokenType.USER_DEFINED, TokenType.CONTROL)
    assert notes == []
    keys, _ = load_model(tmp_path / "b", data, 400, additional_special_tokens=["<sep>"])
    assert dict(tokens_of(keys))["<sep>"] == TokenType.CONTROL


def test_a_model_that_prepends_no_space_says_so(tmp_path: Path) -> None:
    data = trained(model_type="bpe", vocab_size=400, byte_fallback=True, add_dummy_prefix=False, **PLAIN)
    keys, _ = load_model(tmp_path / "a", data, 400)
    assert keys["tokenizer.ggml.add_space_prefix"].value is False
    keys, notes = load_model(tmp_path / "b", data, 400, add_prefix_space=True)
    assert keys["tokenizer.ggml.add_space_prefix"].value is True
    assert notes == [
        "tokenizer.ggml.add_space_prefix is True, though by the tokenizer's own file it would be False"
    ]


def test_pieces_without_bytes_are_remarked(tmp_path: Path) -> None:
    """llama.cpp looks for the piece of a byte then, and ends its process where there is none."""
    for fallback in (True, False):
        data = trained(model_type="bpe", vocab_size=400, byte_fallback=fallback, **PLAIN)
        _, notes = load_model(tmp_path / str(fallback), data, 400)
        assert any("no pieces for bytes" in note for note in notes) is not fallback


@pytest.mark.parametrize("how", ["never", "first", "prepend", "replace"])
def test_tokenizer_json_says_whether_a_space_is_prepended(tmp_path: Path, how: str) -> None:
    keys, notes = load(tmp_path, "llama", *resaved(keep_model=True), *prepared(how))
    prefix = keys.get("tokenizer.ggml.add_space_prefix")
    assert PREPARED[how][2] == (prefix is None or prefix.value)
    as_the_hub(keys, hub(folder_of(tmp_path)))
    assert notes == []


def test_two_tokens_of_one_text_are_said(tmp_path: Path) -> None:
    twin: Edit = ("write", A, '{"[PAD2050]": 2049}')
    _, notes = load(tmp_path, "llama", ("set", C, "vocab_size", 2064), twin)
    assert notes == ["tokens 2049 and 2050 are both '[PAD2050]': llama.cpp does not load such a vocabulary"]


def test_what_llama_cpp_does_not_normalise_is_said(tmp_path: Path) -> None:
    data = trained(model_type="bpe", vocab_size=400, byte_fallback=True)
    _, notes = load_model(tmp_path / "a", data, 400)
    undone = "normalises characters and removes extra spaces, llama.cpp does not"
    assert notes == [f"tokenizer.model {undone}: some texts will get other tokens"]


# Unigram.


def unigram(pieces: sentencepiece.SentencePieceProcessor, *, byte_fallback: bool) -> Tokenizer:
    scored = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.vocab_size())]
    tokenizer = Tokenizer(models.Unigram(scored, 0, byte_fallback))
    tokenizer.normalizer = PREFIXED
    tokenizer.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ("<unk>", "<s>", "</s>")])
    return tokenizer


@pytest.mark.parametrize("bytes_too", [False, True])
@pytest.mark.parametrize("file", [J, M])
def test_a_unigram_vocabulary_is_cut_by_probability(tmp_path: Path, file: str, bytes_too: bool) -> None:
    data = trained(model_type="unigram", vocab_size=400 if bytes_too else 200, byte_fallback=bytes_too, **PLAIN)
    pieces = sentencepiece.SentencePieceProcessor()
    pieces.LoadFromSerializedProto(data)
    tokenizer = unigram(pieces, byte_fallback=bytes_too)
    size = pieces.vocab_size()
    keys, notes = load_model(tmp_path / "a", data, size)
    if file == J:
        tokenizer.save(str(tmp_path / "a" / J))
        (tmp_path / "a" / M).unlink()
        notes.clear()
        keys = load_vocab(tmp_path / "a", {"vocab_size": size}, BASES["llama"].parts, note=notes.append)
    assert keys["tokenizer.ggml.model"].value == "t5"
    assert keys["tokenizer.ggml.unknown_token_id"].value == 0
    assert keys["tokenizer.ggml.add_bos_token"].value is (file == M)
    assert keys["tokenizer.ggml.add_eos_token"].value is False
    scores = dict(zip(keys[TOKENS].value, keys[SCORES].value.tolist(), strict=True))
    normal = [i for i in range(size) if not (pieces.is_control(i) or pieces.is_byte(i) or pieces.is_unknown(i))]
    assert [scores[pieces.id_to_piece(i)] for i in normal] == [pieces.get_score(i) for i in normal]
    as_the_hub(keys, tokenizer, [TEXTS[0], TEXTS[1], TEXTS[2].expandtabs()])
    if bytes_too:
        as_the_hub(keys, tokenizer, ["tabs\tand\nlines ~ ` @"])
        assert "\n" in scores
        assert [note for note in notes if "does not fall back on bytes" in note]


def test_a_unigram_vocabulary_keeps_its_normalizers_rules(tmp_path: Path) -> None:
    data = trained(model_type="unigram", vocab_size=200)
    keys, _ = load_model(tmp_path / "a", data, 200)
    assert keys["tokenizer.ggml.remove_extra_whitespaces"].value is True
    assert keys["tokenizer.ggml.add_space_prefix"].value is True
    assert bytes(keys["tokenizer.ggml.precompiled_charsmap"].value) in data


# Files that are not what they should be, and places that are no text.

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d7a2146" * 8 + "\nsize 4976698\n"


@pytest.mark.parametrize(
    ("base", "file"),
    [("llama", M), ("llama", J), ("llama", T), ("llama", A), ("llama", "chat_template.jinja"), ("qwen2", J),
     ("bert", J), ("bert", "vocab.txt"), ("gpt2", "vocab.json"), ("gpt2", "merges.txt")],
)  # fmt: skip
def test_a_git_lfs_pointer_is_called_one(tmp_path: Path, base: str, file: str) -> None:
    needed: list[Edit] = [("remove", J)] if file in ("vocab.txt", "vocab.json", "merges.txt") else []
    if file in ("vocab.json", "merges.txt"):
        needed.append(("drop", T, "added_tokens_decoder"))
    with pytest.raises(FormatError, match=rf"{file}: is a Git LFS pointer, not the data; run `git lfs pull`"):
        load(tmp_path, base, *needed, ("write", file, POINTER))


@pytest.mark.parametrize(("file", "loader"), [("x.tiktoken", vocab.tiktoken), ("spiece.model", vocab.t5)])
def test_a_git_lfs_pointer_in_place_of_other_vocabularies(tmp_path: Path, file: str, loader: vocab.Loader) -> None:
    (tmp_path / file).write_text(POINTER, encoding="utf-8")
    with pytest.raises(FormatError, match=rf"{file}: is a Git LFS pointer"):
        load_vocab(tmp_path, {}, (loader,))


def test_a_sentencepiece_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    data = trained(model_type="char", vocab_size=60)
    with pytest.raises(CheckpointError, match=r"tokenizer\.model: a SentencePiece model of kind 4"):
        load_model(tmp_path / "a", data, 60)


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text")
def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9-7B"))
    shutil.copytree(FIXTURES.parent / "models" / "Micro-Gemma3-200K", folder)
    (planned,) = convert_checkpoint(folder, tmp_path / "out.gguf", "f32")
    with gguf_forge.open(planned.path) as file:
        assert len(file.metadata[TOKENS]) == 3200
    (folder / M).write_bytes(b"no model")
    with pytest.raises(CheckpointError, match=r"tokenizer\.model: not a SentencePiece model"):
        convert_checkpoint(folder, tmp_path / "out.gguf", "f32")


def test_a_file_beside_the_weights_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gguf_forge.convert.vocab.folder.MAX_FILE_BYTES", 20000)
    with pytest.raises(LimitError, match=r"tokenizer\.model: 29045 bytes, more than the limit of 20000"):
        load(tmp_path, "llama", ("remove", J))
