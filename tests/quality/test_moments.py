"""Second moments: the core against float64, and how inputs are cut into blocks and work into shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_forge import _native
from gguf_forge.quality.moments import PANEL, UNIT, block_sizes, shares, sliced
from gguf_forge.quant.calibration import SIDE, triangle, unpacked


def summed(rows: np.ndarray, isa: str | None = None, threads: int = 1) -> np.ndarray:
    """The sums of products of inputs (tokens, width), in tiles."""
    tiles = np.zeros((triangle(rows.shape[1]), SIDE * SIDE), np.float32)
    for panel in range(0, len(rows), PANEL):
        slices = sliced(rows[panel : panel + PANEL])
        for first, last in shares(len(slices), threads):
            _native.moments(slices, slices.shape[1], len(slices), first, last, tiles, isa)
    return tiles


@pytest.mark.parametrize("width", [1, 15, 16, 17, 40, 256, 300])
@pytest.mark.parametrize("tokens", [1, 7, 256, 600])
def test_sums_are_those_of_float64(width: int, tokens: int) -> None:
    rng = np.random.default_rng(width * 1000 + tokens)
    rows = (rng.standard_normal((tokens, width)) * rng.lognormal(size=width)).astype(np.float32)
    found = unpacked(summed(rows).reshape(-1, SIDE, SIDE), width)
    exact = rows.T.astype(np.float64) @ rows
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    assert np.array_equal(found, found.T)
    assert np.abs((found - exact) / scale).max() < 2e-6


def test_a_million_tokens_stay_accurate() -> None:
    rng = np.random.default_rng(1)
    rows = (rng.standard_normal((21 * PANEL, 16)) + 3).astype(np.float32)  # not centred: sums that only grow
    tiles = np.zeros((1, SIDE * SIDE), np.float32)
    panels = [sliced(rows[i : i + PANEL]) for i in range(0, len(rows), PANEL)]
    turns = 260
    for turn in range(21 * turns):
        _native.moments(panels[turn % len(panels)], PANEL, 1, 0, 1, tiles)
    exact = rows.T.astype(np.float64) @ rows * turns
    found = unpacked(tiles.reshape(-1, SIDE, SIDE), 16)
    assert np.abs(found / exact - 1).max() < 5e-5


@given(st.integers(1, 70), st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**31))
@settings(max_examples=40)
def test_every_instruction_set_and_number_of_threads_gives_the_same_bytes(
    width: int, tokens: int, threads: int, seed: int
) -> None:
    rows = np.random.default_rng(seed).standard_normal((tokens, width)).astype(np.float32)
    found = {summed(rows, isa, n).tobytes() for isa in _native.isa_names() for n in (1, threads)}
    assert len(found) == 1


@given(st.integers(1, 20000), st.none() | st.integers(16, 20000))
def test_blocks_cover_the_width_and_are_no_wider_than_asked(width: int, most: int | None) -> None:
    sizes = block_sizes(width, most)
    assert sum(sizes) == width
    assert min(sizes) > 0
    if most is None or width <= most:
        assert sizes == [width]
    elif most >= UNIT:
        assert all(size % UNIT == 0 for size in sizes[:-1])
        assert max(sizes) <= most
    else:
        assert max(sizes) <= most


@given(st.integers(1, 400), st.integers(1, 64))
def test_shares_cover_each_row_of_tiles_once(count: int, threads: int) -> None:
    rows = [row for first, last in shares(count, threads) for row in range(first, last)]
    assert rows == list(range(count))
