"""Names of pre-tokenizers where token ids and definition do not say the same, or say too little."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from gguf_forge.convert.vocab import load_vocab
from gguf_forge.convert.vocab.cuts import LLAMA3_REGEX
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.hub import open_tokenizer
from gguf_forge.convert.vocab.recognize import fingerprint
from gguf_forge.errors import ConversionError
from tests.convert.test_vocab import DIGITS_AND_BYTES, C, J, T, recognized
from tests.convert.vocab_cases import BASES, FIXTURES, Edit, make_folder


def known_by_ids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **names: tuple[Edit, ...]) -> None:
    """Let the fingerprints of vocabularies made by these edits be those of the names."""
    known = {}
    for name, edits in names.items():
        tokenizer = open_tokenizer(Folder(make_folder(tmp_path / name, BASES["llama-bpe"], list(edits))))
        known[fingerprint(tokenizer)] = name.replace("_", "-")
    monkeypatch.setattr("gguf_forge.convert.vocab.recognize._NAME_OF", known)


def cut(regex: str, *, whole: bool) -> tuple[Edit, ...]:
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    parts = {"type": "Sequence", "pretokenizers": [split, letters]}
    model = {**json.loads((FIXTURES / "bytelevel" / J).read_text(encoding="utf-8"))["model"], "ignore_merges": whole}
    return ("set", J, "pre_tokenizer", parts), ("set", J, "model", model)


def begun_with(token: str, number: int) -> Edit:
    piece, text = {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    special = {token: {"id": token, "ids": [number], "tokens": [token]}}
    processor = {"type": "TemplateProcessing", "single": [piece, text], "pair": [piece, text, text]}
    return ("set", J, "post_processor", {**processor, "special_tokens": special})


BEGUN = begun_with("<|endoftext|>", 600)


def test_words_that_stay_whole_tell_names_apart_that_give_the_same_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Llama 3's first tokenizer.json puts no token before a text, as Smaug's, which merges words that are tokens."""
    whole, merged = cut(LLAMA3_REGEX, whole=True), cut(LLAMA3_REGEX, whole=False)
    known_by_ids(monkeypatch, tmp_path / "k", smaug_bpe=merged, llama_bpe=(*whole, BEGUN))
    assert recognized(tmp_path / "a", *whole)[0] == "llama-bpe"
    assert recognized(tmp_path / "b", *merged) == ("smaug-bpe", [])
    assert recognized(tmp_path / "c", *whole, BEGUN) == ("llama-bpe", [])
    assert recognized(tmp_path / "d", *merged, BEGUN) == ("llama-bpe", [])


def test_another_token_before_a_text_leaves_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of names that cut alike the one of the vocabulary counts, whatever was put at a text's ends since."""
    digits = ("set", J, "pre_tokenizer", DIGITS_AND_BYTES)
    known_by_ids(monkeypatch, tmp_path / "k", command_r=(digits, BEGUN))
    name, notes = recognized(tmp_path / "a", digits)
    assert name == "command-r"
    assert "by its definition" in notes[0]
    monkeypatch.undo()
    assert recognized(tmp_path / "b", digits)[0] == "starcoder"


def test_ids_that_are_known_do_not_hide_a_cut_that_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = cut(LLAMA3_REGEX.replace("{1,3}", "{1,4}"), whole=True)
    known_by_ids(monkeypatch, tmp_path / "k", llama_bpe=other)
    name, notes = recognized(tmp_path / "a", *other)
    assert name == "llama-bpe"
    assert len(notes) == 1
    assert "none that is known by its definition" in notes[0]
    with pytest.raises(ConversionError, match="the nearest known is 'llama-bpe'"):
        recognized(tmp_path / "b", *other, BEGUN)


def test_no_token_begins_a_text_unless_the_tokenizer_puts_it_there(tmp_path: Path) -> None:
    """llama.cpp begins texts of llama-bpe with a BOS token, of its own choice where the file names none."""
    whole = cut(LLAMA3_REGEX, whole=True)
    base = dataclasses.replace(BASES["llama-bpe"], pre=None)
    key = "tokenizer.ggml.add_bos_token"
    cases: list[tuple[tuple[Edit, ...], bool | None]] = [
        ((), False),
        ((BEGUN,), True),
        ((("set", T, "add_bos_token", True),), True),
        (cut(LLAMA3_REGEX, whole=False), None),
    ]
    for number, (edits, expected) in enumerate(cases):
        folder = make_folder(tmp_path / str(number), base, [("set", J, "post_processor", None), *whole, *edits])
        keys = load_vocab(folder, Folder(folder).object(C) or {}, base.parts, note=lambda _: None)
        assert (keys[key].value if key in keys else None) is expected
