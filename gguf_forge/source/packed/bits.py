"""Small whole numbers out of the words they are packed in. Knows bits; must not know tensors or tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_forge import _native

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
    fields = np.empty((*octets.shape[:-1], octets.shape[-1] * 8 // bits), np.uint8)
    _native.fields(octets, octets.size, bits, fields)
    return fields


def turned(words: Array) -> Array:
    """A matrix of 32-bit words (height, width) as (width, height): fields that run down columns then lie in rows."""
    found = np.empty(words.shape[::-1], words.dtype)
    _native.turn_words(_by_rows(words), found)
    return found


def across(words: Array, order: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Fields of 4 bits along the rows of a matrix of 32-bit words (height, width), turned, two a byte, the first in the
    low half: (8 * width, 4 * ceil(height / 8)), zero beyond `height` fields.

    Of the eight of a word, row i of the result is field order[i].
    """
    height, width = words.shape
    found = np.empty((8 * width, -(-height // 8)), np.uint32)
    _native.turn_nibbles(_by_rows(words), bytes(order), found)
    return found.view(np.uint8)


def _by_rows(words: Array) -> Array:
    """A matrix of 32-bit words whose rows are contiguous, whatever lies between them."""
    fits = words.itemsize == 4 and (words.strides[1] == 4 or words.shape[1] == 1) and words.strides[0] >= 0
    return words if fits else np.ascontiguousarray(words, np.uint32)


def two_complement(fields: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """Fields of 4 bits in two's complement as whole numbers."""
    return ((fields ^ np.uint8(8)) - np.uint8(8)).view(np.int8)


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
