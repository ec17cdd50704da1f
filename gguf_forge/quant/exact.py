"""Blocks made of codes and scales that are given, not searched for: the GGUF types as grids, and what each holds.

Knows the layouts of blocks (ggml-common.h) and which whole numbers each takes; must not know where codes come from.
Most types hold scale * code with codes from `low` to `high`; those of superblocks do where one scale serves a whole
superblock, its own small scales being one (33 of Q3_K, which counts from 32).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_forge import _native
from gguf_forge.types import TensorType, tensor_type

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Home:
    """A type as a grid: codes from `low` to `high`, one scale for `span` elements.

    `offset`: how a minimum is given, if at all: "minimum" one float16 for each span; "steps" a whole number, up to
    `most`, of scales to be subtracted. `encode(codes, scales, offsets)` takes (blocks, elements of a block), and
    (blocks,) float16 scales and offsets.
    """

    type: TensorType
    low: int
    high: int
    span: int
    encode: Callable[[Array, Array, Array | None], Bytes]
    offset: str = ""
    most: int = 0

    @property
    def bpw(self) -> float:
        """Bits per weight."""
        return self.type.bpw


#: Types whose blocks the core makes.
_NATIVE = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")


def blocks(
    home: Home,
    codes: Array,
    scales: Array,
    offsets: Array | None = None,
    *,
    zeros: Array | None = None,
    flip: bool = False,
    packed: int | None = None,
) -> Bytes:
    """Rows of blocks: uint8 (rows, bytes). `codes` are whole numbers (rows, width); `scales` float16, `offsets` as the
    home takes them and `zeros`, to be subtracted from codes, by group of columns, (rows, groups). `flip` changes the
    sign of code - zero. `packed`: two codes share a byte, the first in the low half, each less this number. What does
    not fit is cut off: the caller has looked.
    """
    count, width = codes.shape
    if packed is not None:
        width *= 2
    groups = scales.shape[1]
    made = np.empty((count, home.type.row_bytes(width)), np.uint8)
    if home.type.name in _NATIVE and codes.dtype.itemsize == 1:
        halves = [None if x is None else np.ascontiguousarray(x, np.float16) for x in (scales, offsets)]
        less = None if zeros is None else np.ascontiguousarray(zeros, np.int16)
        codes = np.ascontiguousarray(codes)
        bits, low = (8, 0) if packed is None else (4, packed)
        _native.grid_blocks(
            home.type.id, codes, bits, low, count, width, width // groups, less, flip, halves[0], halves[1], made
        )
        return made
    if packed is not None:
        fields = np.stack((codes & np.uint8(15), codes >> np.uint8(4)), axis=-1).reshape(count, width)
        codes = fields if not packed else fields.astype(np.int16) + np.int16(packed)
    if zeros is not None or flip:
        by_group = codes.reshape(count, groups, -1).astype(np.int16)
        if zeros is not None:
            by_group -= zeros.astype(np.int16)[..., None]
        codes = (-by_group if flip else by_group).reshape(count, width)
    repeat = width // groups // home.span
    given = None if offsets is None else np.repeat(offsets, repeat, axis=1).reshape(-1)
    by_span = np.repeat(scales, repeat, axis=1).reshape(-1)
    made[:] = home.encode(codes.reshape(-1, home.type.block_size), by_span, given).reshape(made.shape)
    return made


def _halves(values: Array) -> Bytes:
    """float16 numbers as their bytes, (n, 2)."""
    return np.ascontiguousarray(values, np.float16).view(np.uint8).reshape(-1, 2)


def _field(codes: Array, zero: int) -> Bytes:
    """Codes as unsigned fields."""
    if codes.dtype == np.uint8 and not zero:
        return codes
    return (codes.astype(np.int16) + np.int16(zero)).astype(np.uint8)


def _nibbles(fields: Bytes) -> Bytes:
    """Element i in the low half of byte i, and i + half a block in the high one."""
    half = fields.shape[-1] // 2
    fifteen, four = np.uint8(15), np.uint8(4)
    return (fields[..., :half] & fifteen) | (fields[..., half:] & fifteen) << four


def _quarters(fields: Bytes) -> Bytes:
    """Runs of 128 elements: element i in the lowest bits of byte i, i + 32, 64 and 96 above it."""
    runs: Bytes = fields.reshape(len(fields), -1, 4, 32) & np.uint8(3)
    found = runs[:, :, 0] | runs[:, :, 1] << np.uint8(2) | runs[:, :, 2] << np.uint8(4) | runs[:, :, 3] << np.uint8(6)
    made: Bytes = found.reshape(len(fields), -1)
    return made


def _fifth_bits(fields: Bytes) -> Bytes:
    """The fifth bits of 32 elements, one word."""
    return np.packbits(fields >> 4 & 1, axis=-1, bitorder="little")


def _q4_0(codes: Array, scales: Array, _: Array | None) -> Bytes:
    return np.concatenate([_halves(scales), _nibbles(_field(codes, 8))], axis=1)


def _q4_1(codes: Array, scales: Array, minima: Array | None) -> Bytes:
    assert minima is not None
    return np.concatenate([_halves(scales), _halves(minima), _nibbles(_field(codes, 0))], axis=1)


def _q5_0(codes: Array, scales: Array, _: Array | None) -> Bytes:
    fields = _field(codes, 16)
    return np.concatenate([_halves(scales), _fifth_bits(fields), _nibbles(fields)], axis=1)


def _q5_1(codes: Array, scales: Array, minima: Array | None) -> Bytes:
    assert minima is not None
    fields = _field(codes, 0)
    return np.concatenate([_halves(scales), _halves(minima), _fifth_bits(fields), _nibbles(fields)], axis=1)


def _q8_0(codes: Array, scales: Array, _: Array | None) -> Bytes:
    return np.concatenate([_halves(scales), codes.astype(np.int8).view(np.uint8)], axis=1)


def _q2_0(codes: Array, scales: Array, _: Array | None) -> Bytes:
    four = _field(codes, 1).reshape(len(codes), -1, 4)
    packed = four[..., 0] | four[..., 1] << np.uint8(2) | four[..., 2] << np.uint8(4) | four[..., 3] << np.uint8(6)
    return np.concatenate([_halves(scales), packed], axis=1)


def _tq2_0(codes: Array, scales: Array, _: Array | None) -> Bytes:
    return np.concatenate([_quarters(_field(codes, 1)), _halves(scales)], axis=1)


def _trits(fields: Bytes, width: int, count: int) -> Bytes:
    """Fields of 0 to 2, `count` a byte, in 256ths of 3^5: element i the first of byte i, i + width the next."""
    digits = fields.reshape(len(fields), count, width).astype(np.uint16)
    whole = np.zeros((len(fields), width), np.uint16)
    for number in range(5):
        whole = whole * np.uint16(3) + (digits[:, number] if number < count else np.uint16(0))
    return ((whole * np.uint16(256) + np.uint16(242)) // np.uint16(243)).astype(np.uint8)


def _tq1_0(codes: Array, scales: Array, _: Array | None) -> Bytes:
    fields = _field(codes, 1)
    runs = ((0, 160, 32, 5), (160, 240, 16, 5), (240, 256, 4, 4))
    packed = [_trits(fields[:, start:stop], width, count) for start, stop, width, count in runs]
    return np.concatenate([*packed, _halves(scales)], axis=1)


def _q2_k(codes: Array, scales: Array, steps: Array | None) -> Bytes:
    assert steps is not None
    small = np.repeat((1 | steps.astype(np.uint8) << np.uint8(4))[:, None], 16, axis=1)
    halves = _halves(scales)
    return np.concatenate([small, _quarters(_field(codes, 0)), halves, halves], axis=1)


def _q3_k(codes: Array, scales: Array, _: Array | None) -> Bytes:
    fields = _field(codes, 4)
    high = np.packbits((fields >> 2).reshape(-1, 8, 32) & 1, axis=1, bitorder="little").reshape(-1, 32)
    small = np.broadcast_to(np.array([0x11] * 8 + [0xAA] * 4, np.uint8), (len(codes), 12))
    return np.concatenate([high, _quarters(fields), small, _halves(scales)], axis=1)


def _k_nibbles(fields: Bytes) -> Bytes:
    """Runs of 64 elements: element i in the low half of byte i, and i + 32 in the high one."""
    return _nibbles(fields.reshape(-1, 64)).reshape(len(fields), -1)


def _small_scales(steps: Array) -> Bytes:
    """Scales of one and minima of `steps`, both of 6 bits, for the 8 runs of a superblock of Q4_K and Q5_K."""
    step = steps.astype(np.uint8)[:, None]
    own = np.full((len(steps), 4), 1, np.uint8)
    minima = np.repeat(step & 63 | (step >> 4) << np.uint8(6), 4, axis=1)
    both = np.repeat(1 | (step & 15) << np.uint8(4), 4, axis=1)
    return np.concatenate([own, minima, both], axis=1)


def _q4_k(codes: Array, scales: Array, steps: Array | None) -> Bytes:
    assert steps is not None
    halves = _halves(scales)
    return np.concatenate([halves, halves, _small_scales(steps), _k_nibbles(_field(codes, 0))], axis=1)


def _q5_k(codes: Array, scales: Array, steps: Array | None) -> Bytes:
    assert steps is not None
    halves, fields = _halves(scales), _field(codes, 0)
    high = np.packbits((fields >> 4).reshape(-1, 8, 32) & 1, axis=1, bitorder="little").reshape(-1, 32)
    return np.concatenate([halves, halves, _small_scales(steps), high, _k_nibbles(fields)], axis=1)


def _q6_k(codes: Array, scales: Array, _: Array | None) -> Bytes:
    runs = _field(codes, 32).reshape(-1, 2, 4, 32)
    low = (runs[:, :, :2] & 15) | (runs[:, :, 2:] & 15) << np.uint8(4)
    small = np.ones((len(codes), 16), np.uint8)
    high = _quarters((runs >> np.uint8(4)).reshape(len(codes), -1))
    return np.concatenate([low.reshape(len(codes), -1), high, small, _halves(scales)], axis=1)


def _homes() -> list[Home]:
    rows: list[tuple[str, int, int, int, Callable[[Array, Array, Array | None], Bytes], str, int]] = [
        ("TQ1_0", -1, 1, 256, _tq1_0, "", 0),
        ("TQ2_0", -1, 1, 256, _tq2_0, "", 0),
        ("Q2_0", -1, 2, 64, _q2_0, "", 0),
        ("Q2_K", 0, 3, 256, _q2_k, "steps", 15),
        ("Q3_K", -4, 3, 256, _q3_k, "", 0),
        ("Q4_0", -8, 7, 32, _q4_0, "", 0),
        ("Q4_K", 0, 15, 256, _q4_k, "steps", 63),
        ("Q4_1", 0, 15, 32, _q4_1, "minimum", 0),
        ("Q5_0", -16, 15, 32, _q5_0, "", 0),
        ("Q5_K", 0, 31, 256, _q5_k, "steps", 63),
        ("Q5_1", 0, 31, 32, _q5_1, "minimum", 0),
        ("Q6_K", -32, 31, 256, _q6_k, "", 0),
        ("Q8_0", -128, 127, 32, _q8_0, "", 0),
    ]
    return [Home(tensor_type(name), *rest) for name, *rest in rows]  # type: ignore[arg-type]


#: The types that hold given codes, the smallest first.
HOMES: Mapping[str, Home] = MappingProxyType({home.type.name: home for home in _homes()})
