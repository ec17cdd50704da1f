"""Matrices of words turned, and blocks of codes that are given: every instruction set against NumPy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from gguf_forge import _native
from gguf_forge.quant.exact import HOMES
from tests.native.conftest import ISAS

NATIVE = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
SHAPES = [(1, 1), (7, 15), (8, 16), (16, 17), (40, 33), (131, 48), (256, 64)]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_words_are_turned(isa: str, height: int, width: int) -> None:
    """Any bits: as floats they are NaNs, infinities and subnormal numbers too."""
    words = np.random.default_rng(height).integers(0, 2**32, (height, width + 3), dtype=np.uint32)[:, 1 : 1 + width]
    found = np.empty((width, height), np.uint32)
    _native.turn_words(words, found, isa)
    assert np.array_equal(found, words.T)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_nibbles_are_turned(isa: str, height: int, width: int) -> None:
    words = np.random.default_rng(height).integers(0, 2**32, (height, width + 3), dtype=np.uint32)[:, 1 : 1 + width]
    found = np.empty((8 * width, -(-height // 8)), np.uint32)
    _native.turn_nibbles(words, bytes(ORDER), found, isa)
    fields = (words[..., None] >> (4 * np.array(ORDER, np.uint32)) & 15).reshape(height, -1).T
    padded = np.zeros((8 * width, -(-height // 8), 8), np.uint32)
    padded.reshape(8 * width, -1)[:, :height] = fields
    assert np.array_equal(found, np.bitwise_or.reduce(padded << (4 * np.arange(8, dtype=np.uint32)), axis=-1))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_hold_codes_less_zeros(isa: str, name: str, bits: int) -> None:
    home, rng = HOMES[name], np.random.default_rng(bits)
    rows, width, group = 3, 192, 64
    scales, minima = (rng.standard_normal((rows, width // group)).astype(np.float16) for _ in range(2))
    given = minima if home.offset else None
    span = home.high - home.low
    signs = (False,) if home.offset else (False, True)
    for flip, low in product(signs, (0, -8) if bits == 4 and not home.offset else (0,)):
        fields = rng.integers(0, min(16, span + 1), (rows, width), dtype=np.uint8)
        top = int(fields.max())
        zeros = None if home.offset else rng.integers(0, 2, (rows, width // group)).astype(np.int16)
        codes = fields.astype(np.int16) + (0 if home.offset else low if bits == 4 else -top // 2)
        stored = (fields[:, ::2] | fields[:, 1::2] << 4) if bits == 4 else codes.astype(np.int8)
        stored = np.ascontiguousarray(stored)
        found = np.empty((rows, home.type.row_bytes(width)), np.uint8)
        status = _native.grid_blocks(
            home.type.id, stored, bits, low, rows, width, group, zeros, flip, scales, given, found, isa
        )
        steps = codes.reshape(rows, -1, group) - (0 if zeros is None else zeros[..., None])
        wanted = np.clip(-steps if flip else steps, -32768, 32767).reshape(-1, 32)
        repeated = [None if x is None else np.repeat(x, group // 32, axis=1).reshape(-1) for x in (scales, given)]
        blocks = home.encode(wanted, repeated[0], repeated[1])  # type: ignore[arg-type]
        assert status == 0
        assert np.array_equal(found, blocks.reshape(found.shape))


@pytest.mark.parametrize("isa", ISAS)
def test_what_is_no_grid_is_refused(isa: str) -> None:
    codes, scales = np.zeros((1, 64), np.uint8), np.zeros((1, 2), np.float16)
    out = np.zeros(200, np.uint8)

    def status(
        kind: int, bits: int, group: int, minima: np.ndarray[tuple[int, ...], np.dtype[np.float16]] | None
    ) -> int:
        return _native.grid_blocks(kind, codes, bits, 0, 1, 64, group, None, False, scales, minima, out, isa)

    assert status(2, 8, 32, None) == 0
    for kind in (0, 1, 4, 9, -1, 12345):
        assert status(kind, 8, 32, None) == _native.E_TYPE
    assert status(2, 8, 32, scales) == status(3, 8, 32, None) == _native.E_TYPE
    for bits, group in ((8, 0), (8, 16), (8, 48), (8, -32), (5, 32)):
        assert status(2, bits, group, None) == _native.E_WIDTH
