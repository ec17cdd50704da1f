"""Small whole numbers out of the words they are packed in. Knows bits; must not know tensors or tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def dense(words: Array, bits: int) -> npt.NDArray[np.uint8]:
    """Fields of `bits` bits, 1 to 8, from the least significant bit on, across the words of the last axis.

    `words` are unsigned or signed, of any size, little-endian; a rest smaller than a field at the end is left out.
    """
    octets = np.ascontiguousarray(words).view(np.uint8)
    if bits == 8:
        return octets
    if 8 % bits:
        single = np.unpackbits(octets, axis=-1, bitorder="little")
        count = single.shape[-1] // bits
        fields = single[..., : count * bits].reshape(*single.shape[:-1], count, bits)
        return np.packbits(fields, axis=-1, bitorder="little")[..., 0]
    per = 8 // bits
    fields = np.empty((*octets.shape, per), np.uint8)
    mask = (1 << bits) - 1
    for i in range(per):
        np.right_shift(octets, i * bits, out=fields[..., i])
    fields &= np.uint8(mask)
    return fields.reshape(*octets.shape[:-1], octets.shape[-1] * per)


def spaced(words: Array, bits: int) -> npt.NDArray[np.uint8]:
    """As `dense`, but no field crosses a word of 32 bits: the bits left over in each are unused."""
    flat = np.ascontiguousarray(words).view(np.uint32)
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    fields = (flat[..., None] >> shifts & np.uint32((1 << bits) - 1)).astype(np.uint8)
    return fields.reshape(*flat.shape[:-1], -1)


def planar(words: Array, bits: int) -> npt.NDArray[np.uint8]:
    """Fields of 32 at a time, taken apart into planes of 4, 2 and 1 bits: each plane so many words, dense in itself."""
    flat = np.ascontiguousarray(words).view(np.uint32)
    groups = flat.reshape(*flat.shape[:-1], -1, bits)
    found = np.zeros((*groups.shape[:-1], 32), np.uint8)
    low = 0
    for plane in planes(bits):
        found |= dense(groups[..., low : low + plane], plane) << np.uint8(low)
        low += plane
    return found.reshape(*flat.shape[:-1], -1)


def planes(bits: int) -> Sequence[int]:
    """The widths of the planes of `planar` fields, the lowest bits first."""
    return [width for width in (8, 4, 2, 1) if bits & width]
