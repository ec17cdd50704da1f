"""Every cut and every kind of encoder against llama.cpp itself, on texts that put everything beside everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gguf_forge
from gguf_forge import values
from gguf_forge.convert.vocab import load_vocab, probes
from gguf_forge.convert.vocab.byte_level import CHAR_OF_BYTE
from gguf_forge.convert.vocab.cuts import CUTS, Cut
from gguf_forge.convert.vocab.encode import GGUFTokenizer
from gguf_forge.convert.vocab.tokens import SPACE_MARK, TokenType
from gguf_forge.format.layout import ValueType
from gguf_forge.format.values import Value
from tests.convert.kinds import CASES, KINDS
from tests.convert.vocab_cases import BASES, make_folder
from tests.runtime import llama

pytest.importorskip("xllamacpp")

DNA = [
    "a <dna>GATTCACCCCCCGATTCA</dna> GATTCA", "<dna>gattcaNNNNNNGA</dna><dna></dna>x</dna>", "x<dna>CCC", "</dna><dna>",
    "<dna>GA\u00e9TTCA<dna>GATT CAGATT<|endoftext|>CCCCCC</dna>", "<dna>\u4e2d\u4e2dA\ue000GATTCA\ue000</dna>",
]  # fmt: skip
TEXTS = [*probes.chosen_texts(), *probes.pair_texts(), *probes.joined_texts(4)]


def write(path: Path, keys: dict[str, Any]) -> None:
    with gguf_forge.GGUFWriter(path) as writer:
        writer.add("general.architecture", "llama")
        for key, value in keys.items():
            writer.add(key, value)


def numbers(kind: ValueType, items: list[Any]) -> Value:
    return values.array(kind, items)


def pairing_vocabulary(cut: Cut) -> dict[str, Any]:
    """Tokens of one and of two symbols, every two of which merge: where a word begins shows in all that follows."""
    if cut.raw:
        symbols = sorted({char for text in TEXTS for char in text.replace(" ", SPACE_MARK)})
        symbols = [*symbols[:: max(1, len(symbols) // 120)], SPACE_MARK, "\n"]
        tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    else:
        symbols = sorted({CHAR_OF_BYTE[byte] for text in TEXTS for byte in text.encode()})
        tokens = []
    symbols = list(dict.fromkeys(symbols))
    pairs = [(left, right) for left in symbols for right in symbols]
    tokens += symbols + [left + right for left, right in pairs]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": cut.names[0],
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": numbers(ValueType.INT32, [int(TokenType.NORMAL)] * len(tokens)),
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in pairs],
        "tokenizer.ggml.add_bos_token": False,
    }


def read(path: Path) -> dict[str, Any]:
    with gguf_forge.open(path) as file:
        return {key: file.metadata[key] for key in file.metadata}


def assert_alike(path: Path, texts: list[str]) -> None:
    texts = [text for text in texts if "\0" not in text]
    tokenizer = GGUFTokenizer(read(path))
    for text, expected in zip(texts, llama.tokenize(path, texts), strict=True):
        assert tokenizer.encode(text) == expected, text


@pytest.mark.long
@pytest.mark.parametrize("cut", [c for c in CUTS if c.names[0] != "whitespace"], ids=lambda cut: cut.names[0])
def test_a_cut_is_llama_cpps(cut: Cut, tmp_path: Path) -> None:
    write(tmp_path / "v.gguf", pairing_vocabulary(cut))
    assert_alike(tmp_path / "v.gguf", TEXTS)


def texts_for(keys: dict[str, Any]) -> list[str]:
    kinds = (TokenType.CONTROL, TokenType.USER_DEFINED)
    rows = zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"], strict=True)
    special = [token for token, kind in rows if kind in kinds and token.strip()]
    texts = [*TEXTS, *DNA, *probes.damaged_texts(20), *probes.with_tokens(special[:8])]
    return [probes.assigned(text) for text in texts] if keys["tokenizer.ggml.model"] == "bert" else texts


@pytest.mark.parametrize("name", ["t5", "t5-bpe", "xlmr", "xlmr-json", "qwen", "spm-v3", "tekken", "rwkv", "dna"])
def test_a_kind_is_encoded_as_llama_cpp_does(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    keys = load_vocab(
        KINDS / case.folder, case.config, case.parts, pre=case.pre, note=lambda _: None, architecture="llama",
        native=case.native,
    )  # fmt: skip
    write(tmp_path / "v.gguf", keys)
    assert_alike(tmp_path / "v.gguf", texts_for(read(tmp_path / "v.gguf")))


@pytest.mark.parametrize("name", BASES)
def test_a_familys_vocabulary_is_encoded_as_llama_cpp_does(name: str, tmp_path: Path) -> None:
    base = BASES[name]
    folder = make_folder(tmp_path, base, [])
    keys = load_vocab(folder, base.config, base.parts, pre=base.pre, note=lambda _: None)
    write(tmp_path / "v.gguf", keys)
    assert_alike(tmp_path / "v.gguf", texts_for(read(tmp_path / "v.gguf")))
