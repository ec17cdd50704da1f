"""Tensors of more than 2^32 elements and bytes: the last CTAs of launches whose other CTAs are left out.

Memory is holes in files; what the last CTAs touch is little.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge.types import TENSOR_TYPES
from tests.cuda import host
from tests.native import conftest as core

MOST = 1 << 32
Promised = Callable[[int, Any], NDArray[Any]]
#: One type of each shape of kernel, a width that no block and no tile fits twice into 2^32, and the importance.
SHAPES = [("f16", False), ("q8_0", False), ("q4_0", True), ("q4_k", False), ("iq1_s", True), ("iq2_xs", True)]
WIDTH = 256 * 129


@pytest.fixture
def promised(tmp_path: Path) -> Iterator[Callable[[int, Any], NDArray[Any]]]:
    """Makes zeros that take no room until they are written: files of holes."""

    def zeros(count: int, dtype: Any) -> NDArray[Any]:
        return np.memmap(tmp_path / f"{len(list(tmp_path.iterdir()))}", dtype, "w+", shape=(count,))

    yield zeros
    for path in tmp_path.iterdir():
        path.unlink()


def size_of(count: int) -> ctypes.c_uint64:
    return ctypes.c_uint64(count)


@pytest.mark.parametrize("result", host.RESULTS)
@pytest.mark.parametrize("name", ["f16", "q8_0", "q4_k", "iq3_s"])
def test_decode(name: str, result: str, promised: Promised) -> None:
    kind, tile = TENSOR_TYPES[name.upper()], host.CONSTANTS["FORGE_DECODE_TILE"]
    count = (MOST + 3 * tile // 2) // kind.block_size
    few = 5 * tile // 4 // kind.block_size  # reaches into the last two tiles
    blocks = promised(count * kind.block_bytes, np.uint8)
    out = promised(count * kind.block_size, host.RESULTS[result])
    last = np.random.default_rng(1).integers(0, 256, few * kind.block_bytes, np.uint8)
    blocks[-last.size :] = last
    grid = -(-count * kind.block_size // tile)
    args = (host.pointer(blocks), host.pointer(out), size_of(count))
    host.launch(f"forge_decode_{name}_{result}", grid, host.CONSTANTS["FORGE_DECODE_THREADS"], *args, first=grid - 2)
    wanted = np.empty(few * kind.block_size, host.RESULTS[result])
    host.decode(name, last, few, wanted, result, 2)
    assert out[-wanted.size :].tobytes() == wanted.tobytes()


@pytest.mark.parametrize(("name", "importance"), SHAPES)
def test_encode(name: str, importance: bool, promised: Promised) -> None:
    """The last row of many, and the place of a value there that is refused."""
    kind, row = TENSOR_TYPES[name.upper()], host.ENCODERS[name]
    rng = np.random.default_rng(2)
    rows = MOST // WIDTH + 2
    values, blocks = promised(rows * WIDTH, np.float32), promised(rows * kind.row_bytes(WIDTH), np.uint8)
    x = rng.standard_normal((1, WIDTH)).astype(np.float32)
    weights = rng.random(WIDTH).astype(np.float32) if importance else None
    values[-WIDTH:] = x[0]
    squares = promised(rows, np.float32)
    if row.row_squares:
        threads = host.CONSTANTS["FORGE_ROW_THREADS"]
        grid = -(-rows // threads)
        args = (host.pointer(values), host.pointer(squares), size_of(rows), size_of(WIDTH))
        host.launch("forge_row_mean_squares", grid, threads, *args, first=grid - 1)
    count = rows * WIDTH // kind.block_size
    grid = -(-count // row.blocks)
    in_row = -(-(WIDTH // kind.block_size) // row.blocks) + 1

    def run() -> int:
        failure = ctypes.c_uint64((1 << 64) - 1)
        pointers = [host.pointer(a) for a in (values, weights, squares, host.lattice_of(name), blocks)]
        told = ctypes.c_void_p(ctypes.addressof(failure))
        limit = ctypes.c_float(host.FLT_MAX)
        args = (*pointers, size_of(rows), size_of(WIDTH), limit, told)
        host.launch(f"forge_encode_{name}", grid, row.threads, *args, first=grid - in_row)
        return failure.value

    assert run() == (1 << 64) - 1
    wanted = core.encode(x, kind, weights, core.ISAS[-1])[0]
    assert (blocks[-wanted.size :] == wanted).all()
    if kind.quantized:
        values[-2] = np.inf
        assert run() == 2 * (rows * WIDTH - 2)


@pytest.mark.parametrize("name", ["q4_0", "q4_k"])
def test_matvec(name: str, promised: Promised) -> None:
    kind, threads = TENSOR_TYPES[name.upper()], host.CONSTANTS["FORGE_MATVEC_THREADS"]
    width, few = 4096, 5
    rows = 2 * MOST // width + few  # more than 2^32 bytes of blocks
    x = np.random.default_rng(3).standard_normal((few, width)).astype(np.float32)
    last = core.encode(x, kind, None, core.ISAS[-1])
    blocks, y = promised(rows * kind.row_bytes(width), np.uint8), promised(2 * rows, np.float32)
    blocks[-last.size :] = last.reshape(-1)
    given = np.empty(2 * width + 4, np.float32)
    vectors = given[-given.ctypes.data % 16 // 4 :][: 2 * width].reshape(2, width)
    vectors[:] = x[:2]
    grid = -(-rows // host.CONSTANTS["FORGE_MATVEC_ROWS"])
    args = (host.pointer(blocks), host.pointer(vectors), host.pointer(y), size_of(rows), size_of(width), size_of(2))
    host.launch(f"forge_matvec_{name}_f32_4", grid, threads, *args, first=grid - 2)
    assert (y.reshape(2, rows)[:, -few:] == host.matvec(name, last, vectors, few, 4)).all()
