"""llama.cpp gives texts the tokens that the Hub's library gives them, with each kind of SentencePiece vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

import gguf_forge
from gguf_forge.format.values import Value
from tests.convert.spm_cut import Cutter
from tests.convert.test_spm import PLAIN, PREPARED, TEXTS, load_model, prepared, resaved, trained
from tests.convert.test_vocab import J, load
from tests.runtime import llama

pytest.importorskip("xllamacpp", reason="needs xllamacpp: make test-runtime")
pytestmark = pytest.mark.runtime


def tokens(keys: dict[str, Value], folder: Path) -> list[list[int]]:
    path = folder / "vocab.gguf"
    with gguf_forge.GGUFWriter(path) as writer:
        writer.add("general.architecture", "llama")
        for key, value in keys.items():
            writer.add(key, value)
    return llama.tokenize(path, TEXTS)


@pytest.mark.parametrize("how", PREPARED)
def test_tokenizer_json_alone(tmp_path: Path, how: str) -> None:
    keys, _ = load(tmp_path, "llama", *resaved(), *prepared(how))
    (folder,) = tmp_path.iterdir()
    hub = Tokenizer.from_file(str(folder / J))
    assert tokens(keys, tmp_path) == [hub.encode(text, add_special_tokens=False).ids for text in TEXTS]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_the_tests_cut_as_llama_cpp_does(tmp_path: Path, kind: str) -> None:
    data = trained(model_type=kind, vocab_size=400, byte_fallback=True, user_defined_symbols=["<sep>"], **PLAIN)
    keys, _ = load_model(tmp_path / "a", data, 400)
    cutter = Cutter(keys)
    assert tokens(keys, tmp_path) == [cutter.cut(text) for text in TEXTS]
