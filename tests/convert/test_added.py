"""Added tokens whose files contradict themselves, and what acts on a text that GGUF has no key for, or no form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gguf_forge.convert.vocab import TokenType
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.hub import open_tokenizer
from gguf_forge.errors import ConversionError
from tests.convert.test_vocab import C, J, T, load
from tests.convert.vocab_cases import BASES, FIXTURES, Edit, make_folder

MAP = "special_tokens_map.json"


def tokens_of(keys: dict[str, Any]) -> tuple[list[str], list[int]]:
    return list(keys["tokenizer.ggml.tokens"].value), [int(kind) for kind in keys["tokenizer.ggml.token_type"].value]


def test_an_id_left_open_moves_no_added_token(tmp_path: Path) -> None:
    """The Hub's library numbers added tokens from the count of the others on, onto the last of them."""
    plain, kinds = tokens_of(load(tmp_path / "a", "qwen2")[0])
    model = (Folder(FIXTURES / "bytelevel").object(J) or {})["model"]
    opened = plain.index("prefix")
    vocab = {text: number for text, number in model["vocab"].items() if number != opened}
    merges = [rule for rule in model["merges"] if "".join(rule) != "prefix"]
    edit = ("set", J, "model", {**model, "vocab": vocab, "merges": merges})
    keys, notes = load(tmp_path / "b", "qwen2", edit)
    expected = [f"[PAD{opened}]" if number == opened else token for number, token in enumerate(plain)]
    assert tokens_of(keys)[0] == expected
    assert [kind for number, kind in enumerate(tokens_of(keys)[1]) if number != opened] == [
        kind for number, kind in enumerate(kinds) if number != opened
    ]
    assert any(f"no token has id {opened}" in note for note in notes)


@pytest.mark.parametrize("base", ["qwen2", "llama"])
def test_a_flag_is_no_token(tmp_path: Path, base: str) -> None:
    plain = tokens_of(load(tmp_path / "a", base)[0])
    edits = [("set", T, "add_bos_token", "true"), ("set", T, "add_eos_token", "the")]
    assert tokens_of(load(tmp_path / "b", base, *edits)[0]) == plain


@pytest.mark.parametrize(
    ("own", "older", "expected"),
    [
        ({"additional_special_tokens": ["<a>"]}, {"additional_special_tokens": ["<m>"]}, ["<a>"]),
        ({"additional_special_tokens": []}, {"additional_special_tokens": ["<m>"]}, []),
        ({}, {"additional_special_tokens": ["<m>"]}, ["<m>"]),
        ({"extra_special_tokens": ["<a>"]}, {"extra_special_tokens": ["<a>", "<m>"]}, ["<a>", "<m>"]),
    ],
)
def test_the_older_list_of_special_tokens_gives_way(
    tmp_path: Path, own: dict[str, Any], older: dict[str, Any], expected: list[str]
) -> None:
    """Only where tokenizer_config.json lists no added tokens special_tokens_map.json is read (transformers 5.24)."""
    edits: list[Edit] = [("drop", T, key) for key in ("added_tokens_decoder", "additional_special_tokens")]
    edits += [("set", T, key, value) for key, value in own.items()]
    edits += [("write", MAP, "{}"), *(("set", MAP, key, value) for key, value in older.items())]
    folder = Folder(make_folder(tmp_path, BASES["qwen2"], edits))
    named = open_tokenizer(folder).special_tokens
    assert [token for token in named if token in ("<a>", "<m>")] == expected


def test_an_added_token_does_not_take_a_bytes_place(tmp_path: Path) -> None:
    added = ("added", "<0x41>", {"special": False, "normalized": False})
    keys, notes = load(tmp_path, "llama", ("set", C, "vocab_size", 2100), added)
    tokens, kinds = tokens_of(keys)
    assert kinds[tokens.index("<0x41>")] == TokenType.BYTE
    assert any("'<0x41>'" in note for note in notes)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {}),
        ({"do_lower_case": True, "strip_accents": None}, {}),
        ({"do_lower_case": False}, {"lowercase": False}),
        ({"strip_accents": False}, {"strip_accents": False}),
        ({"do_lower_case": False, "strip_accents": True}, {"lowercase": False, "strip_accents": True}),
    ],
)
def test_vocab_txt_alone_is_prepared_as_the_settings_say(
    tmp_path: Path, settings: dict[str, Any], expected: dict[str, bool]
) -> None:
    edits: list[Edit] = [("drop", T, "do_lower_case"), ("drop", T, "strip_accents"), ("remove", J)]
    edits += [("set", T, key, value) for key, value in settings.items()]
    keys, _ = load(tmp_path, "bert", *edits)
    prefix = "tokenizer.ggml.normalizer."
    assert {key.removeprefix(prefix): keys[key].value for key in keys if key.startswith(prefix)} == expected


@pytest.mark.parametrize(
    ("normalizer", "expected"),
    [
        (None, {"lowercase": False}),
        ({"type": "StripAccents"}, {"lowercase": False, "strip_accents": True}),
        ({"type": "Lowercase"}, {"lowercase": True}),
    ],
)
def test_a_wordpiece_vocabulary_without_a_normalizer_is_cased(
    tmp_path: Path, normalizer: dict[str, Any] | None, expected: dict[str, bool]
) -> None:
    keys, _ = load(tmp_path, "bert", ("set", J, "normalizer", normalizer))
    prefix = "tokenizer.ggml.normalizer."
    assert {key.removeprefix(prefix): keys[key].value for key in keys if key.startswith(prefix)} == expected


def model_with(base: str, **changes: Any) -> Edit:
    model = (Folder(FIXTURES / BASES[base].files).object(J) or {})["model"]
    return ("set", J, "model", {**model, **changes})


WORDS = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}


@pytest.mark.parametrize(
    ("base", "edit", "message"),
    [
        ("qwen2", model_with("qwen2", end_of_word_suffix="</w>"), "end_of_word_suffix is '</w>'"),
        ("qwen2", ("set", J, "model", WORDS), "a WordLevel vocabulary, but this family has one of BPE's kind"),
        ("bert", model_with("bert", continuing_subword_prefix="@@"), "continuing_subword_prefix is '@@'"),
        ("bert", ("set", J, "model", WORDS), "a WordLevel vocabulary, but this family has one of WordPiece's kind"),
    ],
)
def test_a_vocabulary_of_another_kind_is_refused(tmp_path: Path, base: str, edit: Edit, message: str) -> None:
    plain = ("set", T, "tokenizer_class", "PreTrainedTokenizerFast")
    with pytest.raises(ConversionError, match=message):
        load(tmp_path, base, edit, plain, ("set", C, "model_type", "unknown"))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("set", J, "normalizer", {"type": "NFKC"}), "tokenizer.json: NFKC changes texts"),
        (("set", J, "normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}),
         "tokenizer.json: Lowercase changes texts"),
        (("set", J, "pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}),
         "tokenizer.json puts a space before a text"),
    ],
)  # fmt: skip
def test_what_llama_cpp_does_not_do_to_a_text_is_remarked(tmp_path: Path, edit: Edit, message: str) -> None:
    assert not any("tokenizer.json" in note for note in load(tmp_path / "a", "llama-bpe")[1])
    assert any(note.startswith(message) for note in load(tmp_path / "b", "llama-bpe", edit)[1])
