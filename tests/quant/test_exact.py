"""Codes and scales into blocks: what comes out of every type is what went in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_forge.quant.codec import dequantize
from gguf_forge.quant.exact import HOMES, Home, blocks

CASES = [pytest.param(home, id=name) for name, home in HOMES.items()]


def _scales(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray[tuple[int, int], np.dtype[np.float16]]:
    return np.ldexp(rng.uniform(-1, 1, shape), rng.integers(-8, 4, shape)).astype(np.float16)


@pytest.mark.parametrize("home", CASES)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 3), count=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_a_block_holds_its_codes(home: Home, seed: int, rows: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    width = count * home.type.block_size
    codes = rng.integers(home.low, home.high + 1, (rows, width)).astype(np.int16)
    scales = _scales(rng, (rows, width // home.span))
    offsets: np.ndarray[Any, Any] | None = None
    if home.offset == "steps":
        offsets = rng.integers(0, home.most + 1, scales.shape).astype(np.int16)
    elif home.offset:
        offsets = _scales(rng, (rows, width // home.span))
    made = blocks(home, codes, scales, offsets)
    assert made.shape == (rows, home.type.row_bytes(width))
    exact = codes.reshape(rows, -1, home.span) * scales.astype(np.float64)[..., None]
    if home.offset == "steps":
        assert offsets is not None
        exact -= (offsets * scales.astype(np.float64))[..., None]
    elif offsets is not None:
        exact += offsets.astype(np.float64)[..., None]
    assert np.array_equal(dequantize(made, home.type), exact.reshape(rows, width).astype(np.float32))


@pytest.mark.parametrize("home", CASES)
def test_the_least_and_the_largest_code_fit_and_no_other(home: Home) -> None:
    beyond = [home.low - 1, home.high + 1]
    if home.type.name == "TQ2_0":
        beyond.pop()  # a field of two bits counts on, but no ternary type has a weight of 2
    for code, fits in ((home.low, True), (home.high, True), *((code, False) for code in beyond)):
        codes = np.full((1, home.type.block_size), code, np.int16)
        scales = np.ones((1, home.type.block_size // home.span), np.float16)
        offsets = np.zeros(scales.shape, np.float16) if home.offset else None
        made = dequantize(blocks(home, codes, scales, offsets), home.type)
        assert np.array_equal(made, codes.astype(np.float32)) is fits
