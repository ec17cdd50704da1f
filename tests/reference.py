"""Decoders in plain NumPy, written from the drawings in native/codec/, to check the native ones against another mind.

Each takes blocks (n, block bytes) as uint8 and returns (n, block size) float32. All arithmetic is in float32, in the
order the formula under the drawing states it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Blocks = NDArray[np.uint8]
Floats = NDArray[np.float32]
DECODERS: dict[str, Callable[[Blocks], Floats]] = {}


def decoder(name: str) -> Callable[[Callable[[Blocks], Floats]], Callable[[Blocks], Floats]]:
    def register(function: Callable[[Blocks], Floats]) -> Callable[[Blocks], Floats]:
        DECODERS[name] = function
        return function

    return register


def half(b: Blocks, at: int) -> Floats:
    """The half float at a byte of each block, as a column."""
    return np.ascontiguousarray(b[:, at : at + 2]).view("<f2").astype(np.float32)


def floats(levels: NDArray[np.integer]) -> Floats:
    return levels.astype(np.float32)


def nibbles(b: Blocks) -> NDArray[np.int32]:
    """Lower nibbles of all bytes, then the upper ones."""
    return np.concatenate([b & 15, b >> 4], axis=1).astype(np.int32)


def word_bits(b: Blocks) -> NDArray[np.int32]:
    return np.unpackbits(b, axis=1, bitorder="little").astype(np.int32)


@decoder("F16")
def f16(b: Blocks) -> Floats:
    return half(b, 0)


@decoder("BF16")
def bf16(b: Blocks) -> Floats:
    return (b.astype(np.uint32)[:, 1:] << 24 | b.astype(np.uint32)[:, :1] << 16).view(np.float32)


@decoder("Q4_0")
def q4_0(b: Blocks) -> Floats:
    return floats(nibbles(b[:, 2:]) - 8) * half(b, 0)


@decoder("Q4_1")
def q4_1(b: Blocks) -> Floats:
    return floats(nibbles(b[:, 4:])) * half(b, 0) + half(b, 2)


@decoder("Q5_0")
def q5_0(b: Blocks) -> Floats:
    return floats((nibbles(b[:, 6:]) | word_bits(b[:, 2:6]) << 4) - 16) * half(b, 0)


@decoder("Q5_1")
def q5_1(b: Blocks) -> Floats:
    return floats(nibbles(b[:, 8:]) | word_bits(b[:, 4:8]) << 4) * half(b, 0) + half(b, 2)


@decoder("Q8_0")
def q8_0(b: Blocks) -> Floats:
    return floats(b[:, 2:].view(np.int8)) * half(b, 0)


def pairs_of_bits(q: Blocks) -> NDArray[np.int32]:
    """64 bytes to 256 two-bit fields: bits 2k and 2k + 1 of byte 32 h + i are element 128 h + 32 k + i."""
    split = q.reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8).reshape(1, 1, 4, 1) & 3
    return split.reshape(-1, 256).astype(np.int32)


def six_bit_scales(p: Blocks) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The 12 bytes of Q4_K and Q5_K as eight scales and eight mins."""
    s, m, both = (p[:, i : i + 4].astype(np.int32) for i in (0, 4, 8))
    scales = np.concatenate([s & 63, both & 15 | s >> 6 << 4], axis=1)
    mins = np.concatenate([m & 63, both >> 4 | m >> 6 << 4], axis=1)
    return scales, mins


def by_sub_blocks(levels: NDArray[np.int32], scale: Floats, minimum: Floats) -> Floats:
    """scale and minimum: (n, sub-blocks)."""
    split = floats(levels).reshape(levels.shape[0], scale.shape[1], -1)
    return (scale[:, :, None] * split - minimum[:, :, None]).reshape(levels.shape)


@decoder("Q2_K")
def q2_k(b: Blocks) -> Floats:
    s = b[:, :16]
    return by_sub_blocks(pairs_of_bits(b[:, 16:80]), half(b, 80) * floats(s & 15), half(b, 82) * floats(s >> 4))


@decoder("Q3_K")
def q3_k(b: Blocks) -> Floats:
    upper = b[:, None, :32] >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1) & 1
    levels = pairs_of_bits(b[:, 32:96]) | upper.reshape(-1, 256).astype(np.int32) << 2
    low = nibbles(b[:, 96:104])
    high = np.concatenate([b[:, 104:108] >> shift & 3 for shift in (0, 2, 4, 6)], axis=1).astype(np.int32)
    scale = half(b, 108) * floats((low | high << 4) - 32)
    return (scale[:, :, None] * floats(levels - 4).reshape(-1, 16, 16)).reshape(-1, 256)


@decoder("Q4_K")
def q4_k(b: Blocks) -> Floats:
    scales, mins = six_bit_scales(b[:, 4:16])
    levels = np.concatenate([nibbles(b[:, at : at + 32]) for at in range(16, 144, 32)], axis=1)
    return by_sub_blocks(levels, half(b, 0) * floats(scales), half(b, 2) * floats(mins))


@decoder("Q5_K")
def q5_k(b: Blocks) -> Floats:
    scales, mins = six_bit_scales(b[:, 4:16])
    fifth = b[:, None, 16:48] >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1) & 1
    levels = np.concatenate([nibbles(b[:, at : at + 32]) for at in range(48, 176, 32)], axis=1)
    levels |= fifth.reshape(-1, 256).astype(np.int32) << 4
    return by_sub_blocks(levels, half(b, 0) * floats(scales), half(b, 2) * floats(mins))


@decoder("Q6_K")
def q6_k(b: Blocks) -> Floats:
    levels = np.concatenate([nibbles(b[:, at : at + 64]) for at in (0, 64)], axis=1)
    levels |= pairs_of_bits(b[:, 128:192]) << 4
    scale = half(b, 208) * floats(b[:, 192:208].view(np.int8))
    return (scale[:, :, None] * floats(levels - 32).reshape(-1, 16, 16)).reshape(-1, 256)
