"""What a model keeps of a context, against the buffers that llama.cpp allocated for one model of each architecture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.errors import RequestError
from gguf_forge.quality.memory import Use, cache
from gguf_forge.types import tensor_type

SEEN = json.loads((Path(__file__).parents[2] / "fixtures/golden/context_memory.json").read_text(encoding="utf-8"))
MIB = 1 << 20
LLAMA = {
    "general.architecture": "llama",
    "llama.block_count": 32,
    "llama.embedding_length": 4096,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
}
GEMMA = {
    "general.architecture": "gemma3",
    "gemma3.block_count": 6,
    "gemma3.embedding_length": 1152,
    "gemma3.attention.head_count": 4,
    "gemma3.attention.head_count_kv": 1,
    "gemma3.attention.key_length": 256,
    "gemma3.attention.value_length": 256,
    "gemma3.attention.sliding_window": 512,
}


@pytest.mark.parametrize("model", SEEN["models"], ids=lambda m: str(m["metadata"]["general.architecture"]))
def test_a_cache_is_what_llama_cpp_allocates(model: dict[str, Any]) -> None:
    for (context, whole, sequences), buffers in zip(SEEN["uses"], model["buffers"], strict=True):
        ours = cache(model["metadata"], Use(context, sequences=sequences, whole_windows=bool(whole))).nbytes
        # Each buffer is reported in MiB with two digits.
        assert ours / MIB == pytest.approx(sum(buffers), abs=0.0051 * max(1, len(buffers)))


def test_of_a_llama_3_8b() -> None:
    # 32 layers, 2 x 1024 numbers of 2 bytes a token: 128 KiB; of Q8_0, 34 bytes for 32 numbers.
    assert cache(LLAMA, Use(8192)).nbytes == 8192 * 32 * 2 * 1024 * 2
    q8 = tensor_type("Q8_0")
    assert cache(LLAMA, Use(8192, key_type=q8, value_type=q8)).nbytes == 8192 * 32 * 2 * 1024 // 32 * 34
    assert cache(LLAMA, Use(8192, sequences=4)).nbytes == 4 * cache(LLAMA, Use(8192)).nbytes


def test_a_window_does_not_grow_with_the_context() -> None:
    near, far = (cache(GEMMA, Use(context)).by_kind() for context in (4096, 32768))
    assert near["window"] == far["window"] == 5 * 1024 * 2 * 256 * 2
    assert far["context"] == 8 * near["context"]


@given(st.integers(1, 1 << 17), st.integers(1, 1 << 17))
def test_more_context_never_needs_less(a: int, b: int) -> None:
    low, high = sorted((a, b))
    assert cache(GEMMA, Use(low)).nbytes <= cache(GEMMA, Use(high)).nbytes


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("block_count", None, "llama.block_count is missing"),
        ("block_count", 0, "llama.block_count is 0"),
        ("block_count", 10**9, "llama.block_count is 1000000000"),
        ("attention.head_count_kv", "eight", "not a number"),
        ("attention.head_count_kv", [8] * 31, "lists 31 numbers for 32 layers"),
        ("attention.key_length", -1, "which no model has"),
    ],
)
def test_metadata_that_lies_is_refused(key: str, value: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        cache({**LLAMA, f"llama.{key}": value}, Use(4096))


def test_a_cache_type_that_does_not_fit_is_refused() -> None:
    odd = {**LLAMA, "llama.attention.key_length": 20, "llama.attention.head_count_kv": 1}
    with pytest.raises(RequestError, match="multiples of 32, found 20"):
        cache(odd, Use(4096, key_type=tensor_type("Q8_0")))
