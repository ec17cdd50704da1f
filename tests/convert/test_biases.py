"""Biases that llama.cpp does not read are refused, those that it reads are not."""

from __future__ import annotations

import pytest

from gguf_forge.convert.biases import READ, require_read
from gguf_forge.convert.registry import architectures
from gguf_forge.errors import ConversionError
from tests.convert import headers

CASES = headers.load()
#: A Qwen3 with a bias of its attention's output, which the reference converts and llama.cpp refuses.
UNREAD = "Q3-bias"


@pytest.mark.parametrize("name", [name for name in CASES if name != UNREAD])
def test_what_models_have_is_read(name: str) -> None:
    require_read((tensor for tensor, _ in CASES[name].tensors), CASES[name].arch.name)


def test_a_bias_without_a_place_is_refused() -> None:
    case = CASES[UNREAD]
    with pytest.raises(ConversionError, match=r"blk\.0\.attn_output\.bias: llama\.cpp's qwen3 has no place"):
        require_read((tensor for tensor, _ in case.tensors), case.arch.name)
    require_read((tensor for tensor, _ in case.tensors), "llama")


def test_the_architectures_are_known_ones() -> None:
    """A misspelt name would refuse what llama.cpp reads."""
    assert {name for names in READ.values() for name in names} - {arch.name for arch in architectures()} == set()
