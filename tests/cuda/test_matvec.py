"""Products with vectors, emulated on the host, against float64 sums over the weights that the core decodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge.types import TENSOR_TYPES
from tests.cuda import host
from tests.native import conftest as core

KINDS = [TENSOR_TYPES[name.upper()] for name in host.PRODUCTS]
#: A sum of n terms in float32 is right to n roundings of 2^-24 of the sum of magnitudes in any order. Lanes add 1/32 of
#: the terms and 5 sums; levels, scales and numbers are as exact as in float64, but for the products of scales.
BOUND = 2.0**-24


def aligned(values: NDArray[Any]) -> NDArray[Any]:
    whole = np.empty(values.size + 16, values.dtype)
    at = -whole.ctypes.data % 16 // values.itemsize
    found = whole[at : at + values.size].reshape(values.shape)
    found[:] = values
    return found


def check(name: str, rows: int, width: int, vectors: int, most: int, dtype: type, grid: int | None = None) -> None:
    kind = TENSOR_TYPES[name.upper()]
    rng = np.random.default_rng(rows * width + vectors)
    weights = rng.standard_normal((rows, width)).astype(np.float32) * rng.random((rows, 1)).astype(np.float32)
    blocks = core.encode(weights, kind, None, core.ISAS[-1])
    x = aligned(rng.standard_normal((vectors, width)).astype(dtype))
    made = host.matvec(name, blocks, x, rows, most, grid)
    exact = core.decode(blocks, kind, core.ISAS[-1]).astype(np.float64)
    true = x.astype(np.float64) @ exact.T
    # of levels times numbers and of minimums times numbers apart, which may be larger than their difference
    size = np.abs(x.astype(np.float64)) @ (np.abs(exact) + 2 * np.abs(exact).max(axis=1, keepdims=True)).T
    assert (np.abs(made - true) <= (width / 32 + 16) * BOUND * size).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["f32", "f16"])
@pytest.mark.parametrize("name", host.PRODUCTS)
def test_against_float64(name: str, dtype: type) -> None:
    """Rows and widths that fill no warp and no chunk, vectors that fill no group, any grid."""
    per = TENSOR_TYPES[name.upper()].block_size
    for rows, blocks, vectors, most, grid in ((1, 1, 1, 1, None), (9, 7, 1, 1, 1), (5, 5, 6, 4, None), (8, 9, 4, 4, 3)):
        check(name, rows, per * blocks, vectors, most, dtype, grid)
    check(name, 3, 4096, 2, 1, dtype)
    check(name, 3, 4096, 3, 4, dtype)


@pytest.mark.parametrize("name", host.PRODUCTS)
def test_the_same_in_every_grid_and_at_any_address(name: str) -> None:
    kind = TENSOR_TYPES[name.upper()]
    rng = np.random.default_rng(1)
    blocks = core.encode(rng.standard_normal((37, 512)).astype(np.float32), kind, None, core.ISAS[-1])
    x = aligned(rng.standard_normal((5, 512)).astype(np.float32))
    wanted = host.matvec(name, blocks, x, 37, 4)
    for most, grid, shift in ((4, 1, 0), (4, 7, 1), (1, None, 14), (1, 3, 4)):
        moved = np.empty(blocks.size + 64, np.uint8)
        moved = moved[-moved.ctypes.data % 16 + shift :][: blocks.size]
        moved[:] = blocks.reshape(-1)
        assert (host.matvec(name, moved, x, 37, most, grid) == wanted).all()
