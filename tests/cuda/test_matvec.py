"""Products with vectors, emulated on the host, against float64 sums over the weights that the core decodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge.types import TENSOR_TYPES
from tests.cuda import host
from tests.cuda.products import Exact
from tests.native import conftest as core


def aligned(values: NDArray[Any]) -> NDArray[Any]:
    whole = np.empty(values.size + 16, values.dtype)
    at = -whole.ctypes.data % 16 // values.itemsize
    found = whole[at : at + values.size].reshape(values.shape)
    found[:] = values
    return found


def check(
    name: str, rows: int, width: int, vectors: int, most: int, dtype: type, grid: int | None, capability: int
) -> None:
    kind = TENSOR_TYPES[name.upper()]
    rng = np.random.default_rng(rows * width + vectors)
    weights = rng.standard_normal((rows, width)).astype(np.float32) * rng.random((rows, 1)).astype(np.float32)
    blocks = core.encode(weights, kind, None, core.ISAS[-1])
    x = aligned(rng.standard_normal((vectors, width)).astype(dtype))
    made = host.matvec(name, blocks, x, rows, most, grid, capability)
    assert Exact(core.decode(blocks, kind, core.ISAS[-1])).near(made, x)


@pytest.mark.parametrize("capability", host.CAPABILITIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["f32", "f16"])
@pytest.mark.parametrize("name", host.PRODUCTS)
def test_against_float64(name: str, dtype: type, capability: int) -> None:
    """Rows and widths that fill no warp and no chunk, vectors that fill no group, any grid."""
    per = TENSOR_TYPES[name.upper()].block_size
    shapes = ((1, 1, 1, 1, None), (9, 7, 1, 1, 1), (5, 5, 6, 4, None), (24, 9, 4, 4, 3))
    for rows, blocks, vectors, most, grid in shapes:
        check(name, rows, per * blocks, vectors, most, dtype, grid, capability)
    check(name, 3, 4096, 2, 1, dtype, None, capability)
    check(name, 17, 2048 + per, 3, 4, dtype, None, capability)


@pytest.mark.parametrize("capability", host.CAPABILITIES)
@pytest.mark.parametrize("name", host.PRODUCTS)
def test_the_same_in_every_grid_and_at_any_address(name: str, capability: int) -> None:
    kind = TENSOR_TYPES[name.upper()]
    rng = np.random.default_rng(1)
    blocks = core.encode(rng.standard_normal((37, 512)).astype(np.float32), kind, None, core.ISAS[-1])
    x = aligned(rng.standard_normal((5, 512)).astype(np.float32))
    wanted = host.matvec(name, blocks, x, 37, 4, None, capability)
    for most, grid, shift in ((4, 1, 0), (4, 7, 1), (1, None, 14), (1, 3, 4)):
        moved = np.empty(blocks.size + 64, np.uint8)
        moved = moved[-moved.ctypes.data % 16 + shift :][: blocks.size]
        moved[:] = blocks.reshape(-1)
        assert (host.matvec(name, moved, x, 37, most, grid, capability) == wanted).all()


@pytest.mark.parametrize("capability", host.CAPABILITIES)
@pytest.mark.parametrize("name", host.PRODUCTS)
def test_numbers_of_any_size(name: str, capability: int) -> None:
    """Large and small ones side by side, each in a place of its own; what is no number spoils its vector alone."""
    kind, width = TENSOR_TYPES[name.upper()], 512
    rng = np.random.default_rng(4)
    blocks = core.encode(rng.standard_normal((20, width)).astype(np.float32), kind, None, core.ISAS[-1])
    exact = Exact(core.decode(blocks, kind, core.ISAS[-1]))
    x = aligned((rng.standard_normal((5, width)) * 2.0 ** rng.integers(-100, 100, (5, width))).astype(np.float32))
    x[1, rng.permutation(width)[5:]] = 0
    x[2], x[3, 300], x[4, 2] = 0, np.inf, np.nan
    for most in (1, 4):
        made = host.matvec(name, blocks, x, 20, most, None, capability)
        assert exact.near(made[:3], x[:3])
        assert (made[2] == 0).all()
        assert not np.isfinite(made[3:5]).any()


@pytest.mark.parametrize("capability", host.CAPABILITIES)
@pytest.mark.parametrize("name", host.PRODUCTS)
@pytest.mark.parametrize(("dtype", "number"), [(np.float32, 1 + 2**-9 + 2**-17), (np.float16, 1 + 2**-10)])
def test_every_bit_of_a_number_counts(name: str, dtype: type, number: float, capability: int) -> None:
    """A number that is the sum of as many of 8 bits as can be, alone in its vector: any place of 32, any chunk."""
    kind, width = TENSOR_TYPES[name.upper()], 768
    weights = np.random.default_rng(5).standard_normal((3, width)).astype(np.float32)
    blocks = core.encode(weights, kind, None, core.ISAS[-1])
    exact = core.decode(blocks, kind, core.ISAS[-1]).astype(np.float64)
    x = aligned(number * np.eye(width, dtype=dtype)[::17])
    error = np.abs(host.matvec(name, blocks, x, 3, 4, None, capability) - number * exact.T[::17])
    assert (error <= 32 * 2.0**-24 * np.abs(exact).max(axis=1)).all()
