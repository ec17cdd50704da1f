"""Numbers rounded to a checkpoint's type: what they may have been before, and which scales of F16 may have made them.

Knows element types of floats; must not know grids or tensors.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gguf_forge.convert.view import BF16, F16, F32, Array, widen
from gguf_forge.quant.codec import encode_rows
from gguf_forge.types import TensorType

Reals = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

#: Bits of a significand, the hidden one too; and the least exponent of numbers that have all of them.
BITS = {BF16: 8, F16: 11, F32: 24}
_LEAST = {BF16: -126, F16: -14, F32: -126}
_LARGEST_HALF = 0x7BFF


def rounded(values: Singles, source: TensorType) -> Singles:
    """To the nearest number of the source's type, as float32."""
    if source is F32 or not values.size:
        return values
    if source is F16:
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    flat = np.ascontiguousarray(values).reshape(-1, values.shape[-1])
    found: Singles = widen(encode_rows(flat, F32, BF16).view(np.uint16), BF16)
    return found.reshape(values.shape)


def bounds(values: Singles, source: TensorType) -> tuple[Reals, Reals]:
    """The least and the largest number that rounds to each of these, which are positive and of the source's type."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    least = np.float32(2.0 ** _LEAST[source])
    power = np.maximum((bits & np.uint32(0x7F800000)).view(np.float32), least).astype(np.float64)
    real, half = values.astype(np.float64), power * 0.5 ** BITS[source]
    # Below a power of two numbers lie twice as close.
    return real - np.where((real == power) & (power > least), half / 2, half), real + half


def halves(low: Array, high: Array) -> tuple[Array, Array]:
    """The first and the last positive number of F16 from `low` to `high`, or next to them: their bits, int32."""
    with np.errstate(over="ignore"):
        bits = [edge.astype(np.float16).view(np.uint16).astype(np.int32) for edge in (low, high)]
    return np.clip(bits[0], 1, _LARGEST_HALF), np.clip(bits[1], 0, _LARGEST_HALF)


def of_bits(bits: Array) -> Singles:
    """Numbers of F16 by their bits, as float32."""
    found: Singles = bits.astype(np.uint16).view(np.float16).astype(np.float32)
    return found
