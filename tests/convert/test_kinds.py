"""Vocabularies of further kinds equal the reference's: keys, types, bytes, order; and damaged ones end in one line."""

from __future__ import annotations

import base64
import json
import lzma
import shutil
from pathlib import Path
from typing import Any

import pytest

from gguf_forge.convert import vocab
from gguf_forge.convert.vocab import load_vocab
from gguf_forge.convert.vocab.check import check_vocabulary
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.protobuf import read_piece_model
from gguf_forge.convert.vocab.ranks import read_ranks, split
from gguf_forge.convert.vocab.sentencepiece import open_pieces
from gguf_forge.convert.vocab.source_text import pattern_of, read_constants, special_tokens_of
from gguf_forge.convert.vocab.tiktoken import CLASSES, read_tiktoken
from gguf_forge.convert.vocab.tokens import SPACE_MARK
from gguf_forge.errors import CheckpointError, ConversionError, ForgeError
from gguf_forge.format.values import Value
from tests.convert.differences import KINDS as APART
from tests.convert.kinds import CASES, GOLDEN, KINDS, Case
from tests.convert.vocab_cases import summary

REFERENCE: dict[str, list[list[str]]] = json.loads(lzma.decompress(GOLDEN.read_bytes()))


def read(case: Case, folder: Path | None = None, **how: Any) -> dict[str, Value]:
    place = KINDS / case.folder if folder is None else folder
    settings = {"pre": case.pre, "note": lambda _: None, "architecture": "llama", "native": case.native}
    return load_vocab(place, case.config, case.parts, **(settings | how))


@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference(name: str) -> None:
    found = summary(read(CASES[name]))
    apart = APART[name].keys if name in APART else frozenset()
    assert [row for row in found if row[0] not in apart] == [row for row in REFERENCE[name] if row[0] not in apart]
    assert {row[0] for row in found if row not in REFERENCE[name]} == apart


def test_every_case_has_a_result() -> None:
    assert set(REFERENCE) == set(CASES)


def test_t5_may_be_in_tokenizer_json_alone(tmp_path: Path) -> None:
    """transformers 5 saves T5's vocabulary so. Here it is made of the pieces of spiece.model."""
    model = read_piece_model(KINDS / "t5" / "spiece.model")
    pieces = open_pieces(Folder(KINDS / "t5"), None, lambda _: None, "spiece.model")
    charsmap = base64.b64encode(model.charsmap).decode()
    metaspace = {"type": "Metaspace", "replacement": SPACE_MARK, "prepend_scheme": "always", "split": True}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    document = {
        "version": "1.0",
        "added_tokens": [{"id": n, "content": pieces.tokens[n], **special} for n in range(3)],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap} if charsmap else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, end],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, end, {"Sequence": {"id": "B", "type_id": 1}}, end],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": metaspace,
        "model": {
            "type": "Unigram",
            "unk_id": 2,
            "vocab": list(zip(pieces.tokens, pieces.scores or (), strict=True)),
            "byte_fallback": False,
        },
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    shutil.copy(KINDS / "t5" / "tokenizer_config.json", tmp_path)
    alone, reference = read(CASES["t5"], tmp_path), read(CASES["t5"])
    assert alone["tokenizer.ggml.model"].value == "t5"
    assert list(alone["tokenizer.ggml.tokens"].value[: len(pieces.tokens)]) == pieces.tokens
    for key in ("precompiled_charsmap", "remove_extra_whitespaces", "add_space_prefix"):
        name = f"tokenizer.ggml.{key}"
        assert summary({name: alone[name]}) == summary({name: reference[name]})
    assert alone["tokenizer.ggml.add_eos_token"].value is True
    for key in ("scores", "token_type"):
        both = (list(keys[f"tokenizer.ggml.{key}"].value) for keys in (alone, reference))
        found, wanted = (numbers[3 : len(pieces.tokens)] for numbers in both)
        assert found == wanted


def test_xlm_robertas_class_knows_its_special_tokens(tmp_path: Path) -> None:
    """Without tokenizer_config.json, too, they are no text."""
    folder = copied("xlmr-json", tmp_path)
    plain = summary(read(CASES["xlmr-json"], folder))
    (folder / "tokenizer_config.json").unlink()
    (folder / "config.json").write_text('{"model_type": "xlm-roberta"}', encoding="utf-8")
    bare = summary(read(CASES["xlmr-json"], folder))
    key = "tokenizer.ggml.token_type"
    assert [row for row in bare if row[0] == key] == [row for row in plain if row[0] == key]


def test_without_a_community_template_none_is_written() -> None:
    assert "tokenizer.chat_template" not in read(CASES["tekken"], community_template=False)


def test_a_version_without_a_known_template_says_what_to_do(tmp_path: Path) -> None:
    folder = copied("tekken-v11", tmp_path)
    edit(folder / "tekken.json", lambda data: data["config"].update(version="v99"))
    with pytest.raises(ConversionError, match=r"version v99: add chat_template\.jinja, or .*--disable-mistral"):
        read(CASES["tekken-v11"], folder)
    (folder / "chat_template.jinja").write_text("J", encoding="utf-8")
    assert read(CASES["tekken-v11"], folder)["tokenizer.chat_template"].value == "J"


def test_the_last_version_of_several_files_counts(tmp_path: Path) -> None:
    folder = copied("spm", tmp_path)
    shutil.copy(folder / "tokenizer.model.v3", folder / "tokenizer.model")
    shutil.copy(folder / "tokenizer.model.v3", folder / "tokenizer.model.v7m1")
    assert read(CASES["spm-v3"], folder)["tokenizer.chat_template"].value == "mistral-v7"


def test_a_draft_takes_the_vocabulary_of_its_target(tmp_path: Path) -> None:
    target = (KINDS / "rwkv", (vocab.rwkv_world,))
    case = Case("none", "", (vocab.of_target, vocab.ids(mask=7)), {"vocab_size": 300})
    found = read(case, tmp_path, target=target)
    assert list(found)[:-1] == list(read(CASES["rwkv"]))
    assert found["tokenizer.ggml.mask_token_id"].value == 7
    with pytest.raises(ConversionError, match="--target-model-dir"):
        read(case, tmp_path)


def copied(folder: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(KINDS / folder, tmp_path / folder))


def edit(path: Path, change: Any) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


BROKEN: dict[str, tuple[str, str, Any, str]] = {
    "t5-cut": ("t5", "spiece.model", _cut, r"spiece\.model: not a SentencePiece model"),
    "t5-empty": ("t5", "spiece.model", lambda p: p.write_bytes(b""), r"spiece\.model: "),
    "xlmr-cut": ("xlmr", "sentencepiece.bpe.model", _cut, r"sentencepiece\.bpe\.model: not a SentencePiece model"),
    "ranks-word": ("qwen", "qwen.tiktoken", lambda p: p.write_text("IQ== 0\nx\n"), r"line 2 is not base64 and a rank"),
    "ranks-twice": ("qwen", "qwen.tiktoken", lambda p: p.write_text("IQ== 0\nIg== 0\n"), "two tokens have one rank"),
    "ranks-orphan": ("qwen", "qwen.tiktoken", lambda p: p.write_text("IQ== 0\nISEh 1\n"), "no two tokens of lower"),
    "tekken-json": ("tekken", "tekken.json", lambda p: p.write_text("{"), r"tekken\.json: not JSON"),
    "tekken-bare": ("tekken", "tekken.json", lambda p: p.write_text("{}"), r"not a tekken vocabulary: KeyErr"),
    "tekken-hole": (
        "tekken", "tekken.json", lambda p: edit(p, lambda d: d["vocab"].pop(300)), "no token of rank 300, of 416"
    ),
    "tekken-bytes": (
        "tekken", "tekken.json", lambda p: edit(p, lambda d: d["vocab"][0].update(token_bytes="IQ==")), "not the bytes"
    ),
    "tekken-orphan": (
        "tekken",
        "tekken.json",
        lambda p: edit(p, lambda d: d["vocab"][300].update(token_bytes=base64.b64encode(b"\xff\0\xff").decode())),
        "no two tokens make the one of rank 300",
    ),
    "tekken-many": (
        "tekken",
        "tekken.json",
        lambda p: edit(p, lambda d: d["config"].update(default_num_special_tokens=3)),
        "20 special tokens, of which 3",
    ),
    "tekken-unlisted": (
        "tekken-v11",
        "tekken.json",
        lambda p: edit(p, lambda d: d.pop("special_tokens")),
        "no special_tokens, which files of version v11 list",
    ),
    "tekken-unnamed": (
        "tekken-v11",
        "tekken.json",
        lambda p: edit(p, lambda d: d["special_tokens"][1].update(token_str="<bos>")),
        "no special token <s>",
    ),
    "rwkv-length": ("rwkv", "rwkv_vocab_v20230424.txt", lambda p: p.write_text("1 'ab' 3\n"), "line 1 is not an id"),
    "rwkv-code": ("rwkv", "rwkv_vocab_v20230424.txt", lambda p: p.write_text("1 f() 3\n"), "line 1 is not an id"),
    "rwkv-deep": ("rwkv", "rwkv_vocab_v20230424.txt", lambda p: p.write_text(f"1 {'(' * 9999} 3\n"), "line 1 is not"),
    "dna-length": ("dna", "tokenizer_config.json", lambda p: edit(p, lambda d: d.update(k=4)), "DNA have 4 bases"),
    "plamo-line": ("plamo", "tokenizer.jsonl", lambda p: p.write_text('["a", 0]\n["b"]\n'), "line 2 is not a list"),
    "plamo-object": ("plamo", "tokenizer.jsonl", lambda p: p.write_text("{}\n"), "line 1 is not a list"),
    "plamo-missing": (
        "plamo", "tokenizer.jsonl", lambda p: p.write_text('["a", 0, "NORMAL"]\n'), "bos_token .* is not in tokenizer"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    kind, file, change, message = BROKEN[name]
    folder = copied(kind, tmp_path)
    change(folder / file)
    case = next(case for case in CASES.values() if case.folder == kind)
    with pytest.raises(ForgeError, match=message) as caught:
        read(case, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["t5", "xlmr", "qwen", "kimi", "rwkv", "plamo", "dna"])
def test_a_size_no_model_has_is_refused(name: str) -> None:
    case = CASES[name]
    for size in (1 << 40, 1 if name in ("qwen", "kimi", "rwkv", "dna") else 1 << 30):
        with pytest.raises(ConversionError):
            load_vocab(KINDS / case.folder, {**case.config, "vocab_size": size}, case.parts, pre=case.pre)


def test_ranks_split_as_they_were_merged() -> None:
    ranks = read_ranks(KINDS / "qwen" / "qwen.tiktoken")
    for token, rank in ranks.items():
        parts = split(ranks, token)
        assert b"".join(parts) == token
        assert len(parts) == (1 if len(token) == 1 else 2)
        assert all(ranks[part] < rank for part in parts if len(token) > 1)


def test_a_python_file_is_read_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    source = f"""
open({str(marker)!r}, "w")
A = "<|a|>"
B: str = "<|b|>"
MORE = [f"<|more_{{i}}|>" for i in range(2, 5)]
ALL = tuple(enumerate((A, B) + tuple(MORE), start=10))
PARTS = ["[\\\\p{{Han}}]+", "\\\\p{{N}}{{1,3}}"]
PAT = "|".join(PARTS)
HUGE = "x" * 10**9
BOMB = [0] * 10**9
DOUBLED = "ab"
{"DOUBLED = DOUBLED + DOUBLED" + chr(10) if False else ""}
CALLED = __import__("os").getcwd()
UNKNOWN = (A, missing)
"""
    source += "DOUBLED = DOUBLED + DOUBLED\n" * 60
    (tmp_path / "tokenization_x.py").write_text(source, encoding="utf-8")
    constants = read_constants(Folder(tmp_path))
    assert special_tokens_of(constants) == ["<|a|>", "<|b|>", "<|more_2|>", "<|more_3|>", "<|more_4|>"]
    assert pattern_of(constants) == r"[\p{Han}]+|\p{N}{1,3}"
    assert not marker.exists()
    assert not {"HUGE", "BOMB", "CALLED", "UNKNOWN"} & set(constants)
    assert len(constants["DOUBLED"]) <= 1 << 16


@pytest.mark.parametrize("text", ["def (", "x = " + "(" * 5000 + ")" * 5000, "\0", "x = " + "-" * 9999 + "1"])
def test_a_python_file_that_is_none_has_no_constants(text: str, tmp_path: Path) -> None:
    (tmp_path / "tokenization_x.py").write_text(text, encoding="utf-8")
    assert read_constants(Folder(tmp_path)) == {}


def test_without_its_python_file_a_known_class_tells_special_tokens(tmp_path: Path) -> None:
    folder = copied("qwen", tmp_path)
    (folder / "tokenization_qwen.py").unlink()
    found = read_tiktoken(Folder(folder))
    assert found is not None
    assert list(found.special) == list(CLASSES["QWenTokenizer"].special)
    assert next(iter(found.special.values())) == len(found.ranks)
    assert found.pattern == CLASSES["QWenTokenizer"].pattern


def test_the_numbers_of_a_published_vocabulary_fit_its_class() -> None:
    assert 151643 + len(CLASSES["QWenTokenizer"].special) == 151851  # Qwen 1's tokens
    assert 127957 + len(CLASSES["HYTokenizer"].special) == 128167  # Hunyuan-A13B's vocab_size
    assert 128000 + len(CLASSES["llama 3"].special) == 128256  # Llama 3's vocab_size
    assert 200000 + len(CLASSES["llama 4"].special) == 202048  # Llama 4's vocab_size
    assert CLASSES["llama 4"].special.index("<|image|>") == 90  # its config.json: image_token_index 200090, and
    assert CLASSES["llama 4"].special.index("<|patch|>") == 92  # patches
    assert CLASSES["HYTokenizer"].special[2] == "<|bos|>"  # id 127959, which the reference writes as Hunyuan's BOS


@pytest.mark.long
def test_metas_own_file_is_known_by_its_size(tmp_path: Path) -> None:
    """No file beside it says what it is; this one's tokens are all those of two bytes, and some of three."""
    tokens = [*(bytes([a]) for a in range(256)), *(bytes([a, b]) for a in range(256) for b in range(256))]
    tokens += [bytes([a]) + token for a in (32, 33) for token in tokens[256:]][: 128000 - len(tokens)]
    lines = (f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens))
    (tmp_path / "tokenizer.model").write_text("\n".join(lines), encoding="ascii")
    found = load_vocab(tmp_path, {"vocab_size": 128256}, (vocab.spm, vocab.bpe, vocab.tiktoken))
    assert found["tokenizer.ggml.pre"].value == "llama-bpe"
    ids = {key.split(".")[2]: found[key].value for key in found if key.endswith(("_id", "_token"))}
    assert ids == {
        "bos_token_id": 128000, "eos_token_id": 128001, "eot_token_id": 128009, "eom_token_id": 128008,
        "add_bos_token": True,
    }  # fmt: skip
    assert list(found["tokenizer.ggml.tokens"].value)[128006] == "<|start_header_id|>"
    checked = check_vocabulary(tmp_path, {key: value.value for key, value in found.items()})
    assert checked.alike, checked.lines()
    assert checked.file == "tokenizer.model"
    assert load_vocab(tmp_path, {}, (vocab.tiktoken,), pre="smaug-bpe")["tokenizer.ggml.pre"].value == "smaug-bpe"


def test_a_field_of_the_wrong_kind_in_a_piece_model_is_named(tmp_path: Path) -> None:
    for data in (b"\x12\x02\x1a\x00", b"\x1a\x02\x10\x05", b"\x12\x7f", b"\x0b", b"\x80" * 12):
        (tmp_path / "m").write_bytes(data)
        with pytest.raises(CheckpointError, match="not a SentencePiece model"):
            read_piece_model(tmp_path / "m")


def test_plamo_3_is_a_kind_of_its_own_and_says_what_it_puts_before_a_text(tmp_path: Path) -> None:
    folder = copied("plamo", tmp_path)
    lines = folder / "tokenizer.jsonl"
    marks = ["<|plamo:tag|>", "<|plamo:begin_", ":plamo|>", "<|plamo:x|>"]
    lines.write_text(
        lines.read_text(encoding="utf-8") + "".join(f'{json.dumps([mark, 0.0, "CONTROL"])}\n' for mark in marks),
        encoding="utf-8",
    )
    edit(
        folder / "tokenizer_config.json",
        lambda data: data.update(tokenizer_class="Plamo3Tokenizer", add_bos_token=True, add_eos_token=False),
    )
    found = load_vocab(folder, {}, (vocab.plamo3,))
    tokens = list(found["tokenizer.ggml.tokens"].value)
    assert found["tokenizer.ggml.model"].value == "plamo3"
    assert tokens[found["tokenizer.ggml.eot_token_id"].value] == "<|plamo:tag|>"
    types = dict(zip(tokens, found["tokenizer.ggml.token_type"].value, strict=True))
    assert [int(types[mark]) for mark in marks] == [3, 1, 1, 3]
    assert [found[f"tokenizer.ggml.add_{name}_token"].value for name in ("bos", "eos")] == [True, False]
    with pytest.raises(ConversionError, match=r"<\|plamo:tag\|>, which ends a turn, is not in tokenizer\.jsonl"):
        load_vocab(KINDS / "plamo", {}, (vocab.plamo3,))
