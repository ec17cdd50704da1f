"""Decoders in plain NumPy of the lattice, uneven, ternary and small float types; adds them to those of tests.reference.

The lattices' codes are read from native/grids.h, which is where they are written down; what is made of them is not.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.reference import DECODERS, Blocks, Floats, decoder, floats, half, nibbles, word_bits

GRIDS = Path(__file__).resolve().parents[1] / "native" / "grids.h"
Ints = NDArray[np.int64]


@cache
def lattice(name: str) -> Ints:
    """Points of a lattice as small integers: (points, 8) of 0..2 for IQ1 and IQ2, (points, 4) of 0..7 for IQ3."""
    body = re.search(rf"#define GRID_{name}\(P\)((?:.*\\\n)*.*)", GRIDS.read_text(encoding="ascii"))
    assert body is not None
    codes = np.array([int(c) for c in re.findall(r"P\((\d+)\)", body[1])])
    size, bits = (4, 3) if name.startswith("IQ3") else (8, 2)
    return codes[:, None] >> bits * np.arange(size) & (1 << bits) - 1


def words(b: Blocks, kind: str) -> Ints:
    """Little-endian integers of all columns."""
    return np.ascontiguousarray(b).view(kind).astype(np.int64)


def low_high(b: Blocks) -> Ints:
    """Both nibbles of each byte, in order."""
    return np.stack([b & 15, b >> 4], axis=2).reshape(len(b), -1).astype(np.int64)


def even_signs(sevens: Ints) -> Floats:
    """(n, k) words of seven sign bits -> (n, 8 k) factors 1 or -1, an even number of -1 in each eight."""
    bits = sevens[..., None] >> np.arange(7) & 1
    eighth = bits.sum(axis=-1, keepdims=True) & 1
    return floats(1 - 2 * np.concatenate([bits, eighth], axis=-1)).reshape(len(sevens), -1)


def any_signs(b: Blocks) -> Floats:
    return floats(1 - 2 * word_bits(b))


def points(name: str, levels: list[int], index: Ints) -> Floats:
    """(n, k) indices -> (n, k * components) values."""
    return floats(np.array(levels)[lattice(name)[index]]).reshape(len(index), -1)


def spread(scales: Floats, width: int = 256) -> Floats:
    return np.repeat(scales, width // scales.shape[1], axis=1)


IQ2_LEVELS = [8, 25, 43]
IQ3_XXS_LEVELS = [4, 12, 20, 28, 36, 44, 52, 62]
IQ4_LEVELS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
E2M1_TWICE = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]
HALF, QUARTER = np.float32(0.5), np.float32(0.25)


@decoder("IQ2_XXS")
def iq2_xxs(b: Blocks) -> Floats:
    parts = b[:, 2:].reshape(-1, 8, 8)
    word = words(parts[..., 4:].reshape(len(b), -1), "<u4")
    scale = half(b, 0) * (HALF + floats(word >> 28)) * QUARTER
    signs = even_signs((word[..., None] >> 7 * np.arange(4) & 127).reshape(len(b), -1))
    index = parts[..., :4].reshape(len(b), -1).astype(np.int64)
    return spread(scale) * points("IQ2_XXS", IQ2_LEVELS, index) * signs


@decoder("IQ2_XS")
def iq2_xs(b: Blocks) -> Floats:
    q = words(b[:, 2:66], "<u2")
    scale = half(b, 0) * (HALF + floats(low_high(b[:, 66:]))) * QUARTER
    return spread(scale) * points("IQ2_XS", IQ2_LEVELS, q & 511) * even_signs(q >> 9)


@decoder("IQ2_S")
def iq2_s(b: Blocks) -> Floats:
    high = (b[:, 66:74, None] >> 2 * np.arange(4) & 3).reshape(len(b), -1).astype(np.int64)
    scale = half(b, 0) * (HALF + floats(low_high(b[:, 74:]))) * QUARTER
    return spread(scale) * points("IQ2_S", IQ2_LEVELS, b[:, 2:34] | high << 8) * any_signs(b[:, 34:66])


@decoder("IQ3_XXS")
def iq3_xxs(b: Blocks) -> Floats:
    word = words(b[:, 66:], "<u4")
    scale = half(b, 0) * (HALF + floats(word >> 28)) * HALF
    signs = even_signs((word[..., None] >> 7 * np.arange(4) & 127).reshape(len(b), -1))
    return spread(scale) * points("IQ3_XXS", IQ3_XXS_LEVELS, b[:, 2:66].astype(np.int64)) * signs


@decoder("IQ3_S")
def iq3_s(b: Blocks) -> Floats:
    index = b[:, 2:66] | word_bits(b[:, 66:74]).astype(np.int64) << 8
    scale = half(b, 0) * floats(1 + 2 * low_high(b[:, 106:]))
    return spread(scale) * points("IQ3_S", list(range(1, 17, 2)), index) * any_signs(b[:, 74:106])


@decoder("IQ1_S")
def iq1_s(b: Blocks) -> Floats:
    high = words(b[:, 34:], "<u2")
    index = b[:, 2:34] | (high[..., None] >> 3 * np.arange(4) & 7).reshape(len(b), -1) << 8
    shift = np.where(high >> 15, np.float32(-0.125), np.float32(0.125))
    return spread(half(b, 0) * floats(2 * (high >> 12 & 7) + 1)) * (points("IQ1", [-1, 0, 1], index) + spread(shift))


@decoder("IQ1_M")
def iq1_m(b: Blocks) -> Floats:
    word = words(b[:, 48:], "<u2")
    d = (word >> 12 << 4 * np.arange(4)).sum(axis=1).astype("<u2").view("<f2").astype(np.float32)[:, None]
    high = low_high(b[:, 32:48])
    shift = np.where(high & 8, np.float32(-0.125), np.float32(0.125))
    scale = d * floats(2 * (word[..., None] >> 3 * np.arange(4) & 7).reshape(len(b), -1) + 1)
    return spread(scale) * (points("IQ1", [-1, 0, 1], b[:, :32] | (high & 7) << 8) + spread(shift))


@decoder("IQ4_NL")
def iq4_nl(b: Blocks) -> Floats:
    return half(b, 0) * floats(np.array(IQ4_LEVELS)[nibbles(b[:, 2:])])


@decoder("IQ4_XS")
def iq4_xs(b: Blocks) -> Floats:
    high = words(b[:, 2:4], "<u2") >> 2 * np.arange(8) & 3
    scale = half(b, 0) * floats((high << 4 | low_high(b[:, 4:8])) - 32)
    levels = np.array(IQ4_LEVELS)[nibbles(b[:, 8:].reshape(-1, 16))]
    return spread(scale) * floats(levels).reshape(len(b), 256)


@decoder("MXFP4")
def mxfp4(b: Blocks) -> Floats:
    return np.ldexp(floats(np.array(E2M1_TWICE)[nibbles(b[:, 1:])]), b[:, :1].astype(np.int32) - 128)


@decoder("NVFP4")
def nvfp4(b: Blocks) -> Floats:
    d = b[:, :4].astype(np.int32)
    exponent, mantissa = d >> 3 & 15, floats(d & 7)
    scale = np.where(exponent, np.ldexp(1 + mantissa / 8, exponent - 7), np.ldexp(mantissa, -9)) / 2
    scale[d == 127] = 0
    levels = floats(np.array(E2M1_TWICE)[nibbles(b[:, 4:].reshape(-1, 8))])
    return spread(scale.astype(np.float32), 64) * levels.reshape(len(b), 64)


@decoder("TQ1_0")
def tq1_0(b: Blocks) -> Floats:
    def digits(part: Blocks, count: int) -> Ints:
        """The first `count` base-3 digits of each byte / 256, all first digits first."""
        fraction = part.astype(np.int64)
        planes = []
        for _ in range(count):
            fraction = (fraction & 255) * 3
            planes.append(fraction >> 8)
        return np.concatenate(planes, axis=1)

    trits = np.concatenate([digits(b[:, :32], 5), digits(b[:, 32:48], 5), digits(b[:, 48:52], 4)], axis=1)
    return floats(trits - 1) * half(b, 52)


@decoder("TQ2_0")
def tq2_0(b: Blocks) -> Floats:
    planes = b[:, :64].reshape(-1, 2, 1, 32) >> 2 * np.arange(4)[:, None] & 3
    return floats(planes.reshape(len(b), 256).astype(np.int64) - 1) * half(b, 64)


@decoder("Q1_0")
def q1_0(b: Blocks) -> Floats:
    return half(b, 0) * floats(2 * word_bits(b[:, 2:]) - 1)


@decoder("Q2_0")
def q2_0(b: Blocks) -> Floats:
    fields = (b[:, 2:, None] >> 2 * np.arange(4) & 3).reshape(len(b), 64)
    return floats(fields.astype(np.int64) - 1) * half(b, 0)


@decoder("Q8_1")
def q8_1(b: Blocks) -> Floats:
    return floats(b[:, 4:].view(np.int8)) * half(b, 0)


@decoder("Q8_K")
def q8_k(b: Blocks) -> Floats:
    d: Floats = np.ascontiguousarray(b[:, :4]).view("<f4")
    return floats(np.ascontiguousarray(b[:, 4:260]).view(np.int8)) * d


__all__ = ["DECODERS"]
