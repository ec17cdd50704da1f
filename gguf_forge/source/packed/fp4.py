"""4-bit floats of OCP MX and NVIDIA: MXFP4 and NVFP4 of compressed-tensors, ModelOpt, MLX, Quark, AutoRound.

Codes lie two in a byte, the first in the low half. GGUF's blocks hold the same codes and scales in another order
(ggml-common.h: block_mxfp4, block_nvfp4), so that no bit of them changes. A code s e e m (E2M1) is 0, 0.5, 1, 1.5, 2,
3, 4 or 6, with its sign. MXFP6's codes are multiples of 1/8: whole numbers beside a power of two.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gguf_forge.source.dtypes import DTYPES
from gguf_forge.source.packed.bits import dense
from gguf_forge.source.packed.form import (
    Array,
    Blocks,
    Grid,
    PackedTensor,
    Part,
    Rows,
    float_values,
    require,
    require_octets,
)
from gguf_forge.source.packed.fp8 import rows_of
from gguf_forge.source.tensor import SourceTensor
from gguf_forge.types import tensor_type

MXFP4, NVFP4 = tensor_type("MXFP4"), tensor_type("NVFP4")
_MAGNITUDES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
E2M1 = np.concatenate([_MAGNITUDES, -_MAGNITUDES])
_E4M3, _E8M0 = (np.asarray(DTYPES[name].table) for name in ("F8_E4M3", "F8_E8M0"))


def regrouped(octets: Array, run: int) -> Array:
    """Codes two in a byte, the first low, as bytes of element i (low) and i + run / 2 (high) of each run."""
    values = dense(octets, 4).reshape(*octets.shape[:-1], -1, 2, run // 2)
    return values[..., 0, :] | values[..., 1, :] << np.uint8(4)


def mx(
    module: str, codes: SourceTensor, scales: SourceTensor, *, method: str, read: Rows | None = None
) -> PackedTensor:
    """MXFP4: a scale, a power of two, for each 32 inputs. `read` gives rows of bytes of scales in another order."""
    shape, octets = _shape(codes), _octets(codes)
    groups = shape[-1] // 32
    require(shape[-1] % 32 == 0, codes, "its inputs must come in groups of 32")
    fits = read is not None or tuple(scales.shape) == (*shape[:-1], groups)
    require(fits, scales, f"must be {[*shape[:-1], groups]}")
    require(scales.dtype in ("U8", "F8_E8M0"), scales, "must be exponents, a byte each")
    exponents = read or _rows(scales)

    def blocks(start: int, stop: int) -> Array:
        found = np.empty((stop - start, groups, MXFP4.block_bytes), np.uint8)
        found[..., 0] = exponents(start, stop)
        require(not (found[..., 0] == 0xFF).any(), scales, "has an exponent that is no number (255)")
        found[..., 1:] = regrouped(octets(start, stop), 32)
        return found.reshape(stop - start, -1)

    def values(start: int, stop: int) -> Array:
        found = E2M1[dense(octets(start, stop), 4)].reshape(stop - start, groups, 32)
        found = found * _E8M0[exponents(start, stop)].astype(np.float64)[..., None]
        return np.asarray(found, np.float32).reshape(stop - start, -1)

    return PackedTensor(f"{module}.weight", shape, method, codes, values, blocks=Blocks(MXFP4, blocks))


def nv(
    module: str,
    codes: SourceTensor,
    scales: SourceTensor,
    scale: SourceTensor | None,
    *,
    method: str,
    factor: Callable[[float], tuple[float, Callable[[Array], Array]]] = lambda s: (s, lambda x: x * s),
    rows: Rows | None = None,
) -> PackedTensor:
    """NVFP4: a scale of E4M3 for each 16 inputs, and one of the whole tensor, which `factor` makes a multiplier.

    `rows` gives rows of bytes of scales that are stored in another order.
    """
    shape, octets = _shape(codes), _octets(codes)
    groups = shape[-1] // 16
    require(shape[-1] % 16 == 0, codes, "its inputs must come in groups of 16")
    fits = rows is not None or tuple(scales.shape) == (*shape[:-1], groups)
    require(fits, scales, f"must be {[*shape[:-1], groups]}")
    require(scales.dtype in ("F8_E4M3", "U8"), scales, "must be 8-bit floats")
    read = rows or _rows(scales)
    one, times = (1.0, None) if scale is None else factor(float(float_values(scale).astype(np.float64).reshape(())))
    require(np.isfinite(one) and one > 0, scale or scales, "must be positive and finite")

    def blocks(start: int, stop: int) -> Array:
        found = np.empty((stop - start, groups // 4, NVFP4.block_bytes), np.uint8)
        stored = read(start, stop)
        require(not (stored >= 0x7F).any(), scales, "has a scale that is negative or no number")
        found[..., :4] = stored.reshape(stop - start, -1, 4)
        found[..., 4:] = regrouped(octets(start, stop), 16).reshape(stop - start, groups // 4, 32)
        return found.reshape(stop - start, -1)

    def values(start: int, stop: int) -> Array:
        found = E2M1[dense(octets(start, stop), 4)].reshape(stop - start, groups, 16)
        found = found * _E4M3[read(start, stop)].astype(np.float64)[..., None]
        return (found if times is None else times(found)).astype(np.float32).reshape(stop - start, -1)

    held = Blocks(NVFP4, blocks, None if scale is None else one) if shape[-1] % 64 == 0 else None
    why = "" if held else "NVFP4 needs inputs in runs of 64"
    return PackedTensor(f"{module}.weight", shape, method, codes, values, blocks=held, why=why)


def mx6(module: str, codes: SourceTensor, scales: SourceTensor, *, method: str) -> PackedTensor:
    """MXFP6 (E2M3): four codes in three bytes, from the least significant bit on; a power of two for each 32 inputs."""
    require_octets(codes)
    require(scales.dtype in ("U8", "F8_E8M0"), scales, "must be exponents, a byte each")
    require(len(codes.shape) == 2, codes, "must be a matrix")
    out, width = codes.shape[0], codes.shape[1] * 8 // 6
    groups = width // 32
    require(scales.shape == (out, groups) and groups * 24 == codes.shape[1], scales, f"must be {[out, groups]}")
    magnitudes = [(m if e == 0 else (8 + m) << (e - 1)) for e in range(4) for m in range(8)]
    table = np.array([*magnitudes, *(-m for m in magnitudes)], np.int8)
    powers = rows_of(scales)
    grid = Grid(
        Part(width, lambda start, stop: table[dense(codes.stored_rows(start, stop), 6)]),
        Part(groups, lambda start, stop: powers(start, stop) / np.float32(8)),
        32,
        -60,
        60,
    )

    def values(start: int, stop: int) -> Array:
        found = grid.values(start, stop)
        negative = dense(codes.stored_rows(start, stop), 6) & 32
        return np.copysign(found, np.where(negative, np.float32(-1), np.float32(1)))  # zero has a sign, too

    return PackedTensor(f"{module}.weight", (out, width), method, codes, values, grid=grid)


def _shape(codes: SourceTensor) -> tuple[int, ...]:
    return (*codes.shape[:-1], codes.shape[-1] * 2 * (codes.element.bits // 8))


def flat(tensor: SourceTensor) -> SourceTensor:
    """The tensor as a matrix of its rows."""
    if len(tensor.shape) == 2:
        return tensor
    count = tensor.size // tensor.shape[-1]
    return SourceTensor(tensor.name, tensor.element, (count, tensor.shape[-1]), tensor.file, tensor.offset, None)


def _rows(tensor: SourceTensor) -> Rows:
    matrix = flat(tensor)
    return lambda start, stop: matrix.stored_rows(start, stop).view(np.uint8)


def _octets(codes: SourceTensor) -> Rows:
    require(len(codes.shape) > 1 and codes.size > 0, codes, "must be a matrix")
    require(codes.dtype in ("U8", "I8", "U32"), codes, "must be bytes of two codes")
    return _rows(codes)
