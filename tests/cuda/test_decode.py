"""Decode kernels, emulated on the host, against the golden bytes and the core: every type, every kind of result."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge import _native
from gguf_forge.types import TENSOR_TYPES, TensorType
from tests.cuda import host
from tests.native.conftest import ISAS
from tests.native.test_golden import CASES, HASHES, NAMES, load

DECODED = [t for t in TENSOR_TYPES.values() if t.decodes]
TILE = host.CONSTANTS["FORGE_DECODE_TILE"]
AS_TYPE = {"f32": "F32", "f16": "F16", "bf16": "BF16"}


def expected(kind: TensorType, data: NDArray[np.uint8], count: int, result: str) -> NDArray[Any]:
    """What the core makes of `count` blocks."""
    out = np.empty(count * kind.block_size, host.RESULTS[result])
    to = TENSOR_TYPES[AS_TYPE[result]]
    status = _native.convert(kind.id, data, to.id, out, 1, out.size, None, ISAS[-1])
    assert status == (_native.OK, -1)
    return out


def same(a: NDArray[Any], b: NDArray[Any], result: str) -> bool:
    """The same bits, or both NaN."""
    wide = {"f32": 32, "f16": 16, "bf16": 16}[result]
    top = {"f32": 0x7F800000, "f16": 0x7C00, "bf16": 0x7F80}[result]
    x, y = (v.view(np.uint32 if wide == 32 else np.uint16).astype(np.int64) for v in (a, b))
    magnitude = (1 << wide - 1) - 1
    nan = ((x & magnitude) > top) & ((y & magnitude) > top)
    return bool(((x == y) | nan).all())


def decoded(
    kind: TensorType, data: NDArray[np.uint8], count: int, result: str, grid: int | None = None, past: int = 0
) -> NDArray[Any]:
    """The kernel's result, `past` elements behind a boundary of 64 bytes; what lies around it must stay."""
    size = np.dtype(host.RESULTS[result]).itemsize
    guard = 64 // size
    whole = np.full(3 * guard + count * kind.block_size + past, 0x5A5A, host.RESULTS[result])
    before = -whole.ctypes.data % 64 // size + past
    out = whole[before : before + count * kind.block_size]
    fitting = -(-count * kind.block_size // TILE)
    host.decode(kind.name.lower(), data, count, out, result, grid or max(fitting, 1))
    assert (whole[:before] == 0x5A5A).all()
    assert (whole[before + out.size :] == 0x5A5A).all()
    return out


def random_blocks(kind: TensorType, count: int, seed: int) -> NDArray[np.uint8]:
    """Any bytes: all levels, all scales, among them NaN, infinities and denormals."""
    return np.random.default_rng(seed).integers(0, 256, count * kind.block_bytes, np.uint8)


@pytest.mark.parametrize(("kind", "mode"), CASES, ids=NAMES)
def test_golden(kind: TensorType, mode: str) -> None:
    data = load(kind.name)[mode]
    made = decoded(kind, data, data.size // kind.block_bytes, "f32")
    assert hashlib.sha256(made.astype("<f4").tobytes()).hexdigest() == HASHES[kind.name][mode]


@pytest.mark.parametrize("result", host.RESULTS)
@pytest.mark.parametrize("kind", DECODED, ids=lambda t: t.name)
def test_equals_the_core(kind: TensorType, result: str) -> None:
    per_tile = TILE // kind.block_size
    for seed, count in enumerate((1, 3, per_tile - 1, per_tile, 2 * per_tile + 1)):
        data = random_blocks(kind, count, seed)
        assert same(decoded(kind, data, count, result), expected(kind, data, count, result), result), f"{count} blocks"


@pytest.mark.parametrize("result", host.RESULTS)
@pytest.mark.parametrize("kind", DECODED, ids=lambda t: t.name)
def test_any_grid_and_any_address(kind: TensorType, result: str) -> None:
    per_tile = TILE // kind.block_size
    for grid, count, shift, past in ((1, 2 * per_tile + 5, 0, 0), (5, per_tile + 2, 1, 1), (2, 5, 7, 3), (1, 2, 15, 1)):
        data = random_blocks(kind, count, 10 + shift)
        moved = np.empty(data.size + 32, np.uint8)[shift : shift + data.size]
        moved[:] = data
        made = decoded(kind, moved, count, result, grid, past)
        assert same(made, expected(kind, data, count, result), result), f"grid {grid}, {count} blocks"


@pytest.mark.parametrize("result", ["f16", "bf16"])
def test_halves_round_as_the_core_rounds(result: str) -> None:
    """Floats around every half float and half way between two."""
    halves = np.arange(1 << 16, dtype=np.uint16)
    floats = halves.view(np.float16).astype(np.float32) if result == "f16" else (halves.astype(np.uint32) << 16)
    bits = np.ascontiguousarray(floats).view(np.uint32).astype(np.int64)
    near = np.concatenate([bits + step for step in (-0x1001, -0x1000, -1, 0, 1, 0x0FFF, 0x1000, 0x8000)])
    data = (near % (1 << 32)).astype(np.uint32).view(np.uint8)
    kind = TENSOR_TYPES["F32"]
    assert same(decoded(kind, data, near.size, result), expected(kind, data, near.size, result), result)


@pytest.mark.parametrize("kind", DECODED, ids=lambda t: t.name)
def test_nothing_is_made_of_nothing(kind: TensorType) -> None:
    assert decoded(kind, np.empty(16, np.uint8), 0, "f32").size == 0
