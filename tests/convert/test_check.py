"""Checking a vocabulary by its own tokenizer: sound ones pass, spoilt ones are seen, and real ones encode right."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

import gguf_forge
from gguf_forge.convert.vocab import load_vocab, probes
from gguf_forge.convert.vocab.check import Difference, TokenizerCheck, check_vocabulary
from gguf_forge.convert.vocab.encode import GGUFTokenizer
from gguf_forge.convert.vocab.encode.charsmap import Charsmap
from gguf_forge.convert.vocab.encode.matching import unescaped
from gguf_forge.convert.vocab.encode.merging import merge
from gguf_forge.convert.vocab.protobuf import read_piece_model
from gguf_forge.errors import CheckpointError, UnsupportedError
from tests.convert.kinds import CASES, KINDS
from tests.convert.vocab_cases import BASES, Edit, make_folder

Keys = dict[str, Any]
PIECES = {"t5": "spiece.model", "t5-bpe": "tokenizer.model", "xlmr": "sentencepiece.bpe.model"}
PIECES["spm-v3"] = "tokenizer.model.v3"
REAL = os.environ.get("GGUF_VOCABS")


def of_kind(name: str) -> tuple[Path, Keys]:
    case = CASES[name]
    folder = KINDS / case.folder
    found = load_vocab(
        folder, case.config, case.parts, pre=case.pre, note=lambda _: None, architecture="llama", native=case.native
    )
    return folder, {key: value.value for key, value in found.items()}


def of_base(name: str, tmp_path: Path, *edits: Edit) -> tuple[Path, Keys]:
    base = BASES[name]
    folder = make_folder(tmp_path, base, list(edits))
    found = load_vocab(folder, base.config, base.parts, pre=base.pre, note=lambda _: None)
    return folder, {key: value.value for key, value in found.items()}


@pytest.mark.parametrize("name", ["t5", "t5-bpe", "xlmr", "qwen", "spm-v3", "rwkv", "dna"])
def test_a_sound_vocabulary_is_alike(name: str) -> None:
    folder, keys = of_kind(name)
    found = check_vocabulary(folder, keys, native=CASES[name].native)
    assert found.differences == ()
    assert found.alike
    assert found.texts > 90
    assert found.lines() == [f"the tokenizer is that of {found.file}: {found.texts} texts encode alike"]


def test_what_llama_cpp_cuts_otherwise_is_seen() -> None:
    """Its tekken knows the case of ASCII letters only."""
    folder, keys = of_kind("tekken")
    found = check_vocabulary(folder, keys, native=True)
    assert found.differences
    assert [difference.text for difference in found.differences if difference.text.isascii()] == []


@pytest.mark.parametrize("name", ["llama", "gpt2", "llama-bpe", "phi3", "qwen2"])
def test_the_vocabulary_of_a_family_is_alike(name: str, tmp_path: Path) -> None:
    folder, keys = of_base(name, tmp_path)
    if name in ("qwen2", "llama-bpe"):  # these stand in for other cuts, which the fixture does not have
        keys["tokenizer.ggml.pre"] = "gpt-2"
    assert check_vocabulary(folder, keys).differences == ()


def test_a_kind_without_texts_is_not_checked(tmp_path: Path) -> None:
    folder, keys = of_kind("plamo")
    assert check_vocabulary(folder, keys).lines() == [
        "the tokenizer is not checked: no texts can be encoded with a vocabulary of kind 'plamo2'"
    ]
    found = check_vocabulary(tmp_path, of_kind("rwkv")[1])
    assert not found.alike
    assert "has no tokenizer that can be asked" in found.lines()[0]


def _reversed(key: str) -> Callable[[Keys], None]:
    return lambda keys: keys.update({key: list(keys[key])[::-1]})


def _set(key: str, value: Any) -> Callable[[Keys], None]:
    return lambda keys: keys.update({f"tokenizer.ggml.{key}": value})


def _swapped(first: int, second: int) -> Callable[[Keys], None]:
    def swap(keys: Keys) -> None:
        tokens = list(keys["tokenizer.ggml.tokens"])
        tokens[first], tokens[second] = tokens[second], tokens[first]
        keys["tokenizer.ggml.tokens"] = tokens

    return swap


def _flat(keys: Keys) -> None:
    keys["tokenizer.ggml.scores"] = [0.0] * len(keys["tokenizer.ggml.tokens"])


SPOILT: dict[str, tuple[str, Callable[[Keys], None]]] = {
    "another-cut": ("gpt2", _set("pre", "command-r")),
    "no-merges": ("gpt2", _set("merges", [])),
    "merges-reversed": ("gpt2", _reversed("tokenizer.ggml.merges")),
    "tokens-swapped": ("gpt2", _swapped(300, 301)),
    "eos-added": ("gpt2", _set("add_eos_token", True)),
    "special-plain": ("gpt2", lambda keys: _set("token_type", [1] * len(keys["tokenizer.ggml.tokens"]))(keys)),
    "no-prefix": ("llama", _set("add_space_prefix", False)),
    "no-scores": ("llama", _flat),
    "no-bos": ("llama", _set("add_bos_token", False)),
    "other-bos": ("llama", _set("bos_token_id", 5)),
    "no-charsmap": ("t5", _set("precompiled_charsmap", [])),
    "spaces-kept": ("t5", _set("remove_extra_whitespaces", False)),
    "no-unigram-scores": ("t5", _flat),
    "unigram-merged": ("t5", _set("model", "llama")),
    "ranks-as-gpt2": ("qwen", _set("pre", "command-r")),
    "spm-swapped": ("spm-v3", _swapped(300, 301)),
    "rwkv-swapped": ("rwkv", _swapped(40, 41)),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_vocabulary_is_seen(name: str, tmp_path: Path) -> None:
    kind, spoil = SPOILT[name]
    folder, keys = of_base(kind, tmp_path) if kind in BASES else of_kind(kind)
    assert check_vocabulary(folder, keys).differences == ()
    spoil(keys)
    found = check_vocabulary(folder, keys)
    assert found.differences
    assert not found.alike
    assert found.lines()[0].endswith(f"texts encode otherwise than by {found.file}")


def test_what_only_composition_would_mend_is_said(tmp_path: Path) -> None:
    edits: list[Edit] = [("set", "tokenizer.json", "normalizer", {"type": "NFC"})]
    folder, keys = of_base("gpt2", tmp_path, *edits)
    found = check_vocabulary(folder, keys)
    assert found.differences
    assert all(difference.composed for difference in found.differences)
    assert "(alike once composed, which llama.cpp does not do)" in found.lines()[1]


def test_many_differences_are_counted_and_few_shown() -> None:
    apart = tuple(Difference(f"text {i}" * 9, (1, 2, 3), (1, 2, 9)) for i in range(8))
    wrapped = Difference("w", (0, 1), (1,), wrapped=True)
    lines = TokenizerCheck("a.json", 99, (*apart, wrapped), None, ["a", "b"]).lines()
    assert lines[0] == "9 of 99 texts encode otherwise than by a.json"
    assert lines[1].endswith("...': after 2 tokens <3>, but llama.cpp reads <9>")
    assert lines[6] == "and 3 more"
    assert lines[7] == "'w': after 0 tokens 'a' 'b', but llama.cpp reads 'b' (with the tokens at its ends)"


@pytest.mark.parametrize("name", PIECES)
def test_pieces_are_found_as_sentencepiece_finds_them(name: str) -> None:
    folder, keys = of_kind(name)
    model: Any = sentencepiece.SentencePieceProcessor(model_file=str(folder / PIECES[name]))
    tokenizer = GGUFTokenizer(keys)
    tokens = list(keys["tokenizer.ggml.tokens"])
    for text in [*probes.chosen_texts(), *probes.pair_texts(), *probes.joined_texts(20)]:
        pieces = [model.id_to_piece(number) for number in model.encode(text)]
        assert [tokens[number] for number in tokenizer.encode(text)] == pieces, text


def test_the_table_of_characters_is_sentencepieces() -> None:
    path = KINDS / "t5" / "spiece.model"
    model: Any = sentencepiece.SentencePieceProcessor(model_file=str(path))
    table = Charsmap(read_piece_model(path).charsmap)
    assert table.map("\uff21\u00bdx\u3000e\u0301\n") == "A1\u20442x \u00e9 "
    for text in [*probes.chosen_texts(), *probes.pair_texts(), *probes.damaged_texts(20)]:
        squeezed = "".join("\u2581" + word for word in table.map(text).split(" ") if word)
        assert squeezed == model.normalize(text), text


@pytest.mark.parametrize("data", [b"", b"\1\0\0\0", b"\2\0\0\0\0\0", b"\4\0\0\0\0\0\0\xff"])
def test_a_damaged_table_of_characters_is_named(data: bytes) -> None:
    with pytest.raises(CheckpointError, match="precompiled_charsmap"):
        Charsmap(data).map("abc")


def test_the_leftmost_of_equals_merges_first() -> None:
    assert merge("aaaa", lambda a, b: 0.0 if a + b in ("aa", "aaa") else None) == ["aaa", "a"]
    ranks = {("b", "c"): 0.0, ("a", "b"): 1.0, ("bc", "d"): 2.0}
    assert merge("abcd", lambda a, b: ranks.get((a, b))) == ["a", "bcd"]
    assert merge("", lambda *_: 0.0) == []


def test_escapes_of_bytes() -> None:
    for data in (b"\0\n\t\r\\'\"", bytes(range(256)), b"", b"\\x41"):
        assert unescaped(repr(data)[2:-1]) == data


def test_keys_that_cannot_be_read_are_named() -> None:
    with pytest.raises(UnsupportedError, match=r"tokenizer\.ggml\.model 'plamo2'"):
        GGUFTokenizer({"tokenizer.ggml.model": "plamo2"})
    with pytest.raises(UnsupportedError, match=r"tokenizer\.ggml\.pre 'nonesuch'"):
        GGUFTokenizer({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "nonesuch"})


def test_phi_3s_special_tokens_take_the_space_after_them(tmp_path: Path) -> None:
    special = "</s>"
    _, keys = of_base("phi3", tmp_path)
    plain, named = GGUFTokenizer(keys), GGUFTokenizer({**keys, "general.name": "Tiny Phi-3"})
    assert named.encode(f"a{special}  b") == named.encode(f"a{special}b") == plain.encode(f"a{special}b")
    assert plain.encode(f"a{special}  b") != plain.encode(f"a{special}b")


def test_the_public_function_takes_a_file_or_metadata(tmp_path: Path) -> None:
    folder = Path(__file__).resolve().parents[2] / "fixtures" / "models" / "PyLlama-7M"
    (planned,) = gguf_forge.convert_checkpoint(folder, tmp_path / "a.gguf", "Q8_0")
    for file in (planned.path, planned.metadata):
        found = gguf_forge.check_tokenizer(folder, file)
        assert (found.alike, found.file) == (True, "tokenizer.model")
    with pytest.raises(gguf_forge.InputError, match="not a folder"):
        gguf_forge.check_tokenizer(planned.path, planned.path)


@pytest.mark.skipif(REAL is None, reason="GGUF_VOCABS names no folder of vocabularies (.gguf, .gguf.inp, .gguf.out)")
@pytest.mark.parametrize("path", sorted(Path(REAL or "").glob("*.gguf")) if REAL else [], ids=lambda path: path.stem)
def test_a_published_vocabulary_encodes_the_published_texts(path: Path) -> None:
    texts = path.with_name(path.name + ".inp")
    if not texts.is_file():
        pytest.skip("no texts were published for it")
    with gguf_forge.open(path) as file:
        tokenizer = GGUFTokenizer({key: file.metadata[key] for key in file.metadata})
    rows = path.with_name(path.name + ".out").read_text(encoding="utf-8").split("\n")
    pairs = list(zip(texts.read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n"), rows, strict=False))
    assert len(pairs) > 40
    for text, row in pairs:
        assert tokenizer.encode(text) == [int(number) for number in row.split()], text
