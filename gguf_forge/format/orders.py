"""Tensors' bytes in the other byte order: which bytes of a block are numbers of several bytes. Decodes nothing.

The numbers are those that ggml's decoder (ggml-quants.c) reads as such on the machine it runs on, whatever its
structures call them: 5-bit types' high bits, and some types' signs and scales, are bytes there and read as numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from gguf_forge.errors import UnsupportedError
from gguf_forge.types import TensorType

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

_HALF = ((0, 2),)
_TWO_HALVES = ((0, 2), (2, 2))


def _row(start: int, width: int, count: int, step: int | None = None) -> tuple[tuple[int, int], ...]:
    return tuple((start + i * (step or width), width) for i in range(count))


#: Offset and width, in bytes, of each number of several bytes in a block.
NUMBERS: Mapping[str, tuple[tuple[int, int], ...]] = MappingProxyType(
    {
        "Q1_0": _HALF, "Q2_0": _HALF, "Q4_0": _HALF, "Q4_1": _TWO_HALVES, "Q5_0": (*_HALF, (2, 4)),
        "Q5_1": (*_TWO_HALVES, (4, 4)), "Q8_0": _HALF, "Q8_1": _TWO_HALVES, "MXFP4": (), "NVFP4": (),
        "TQ1_0": ((52, 2),), "TQ2_0": ((64, 2),),
        "Q2_K": ((80, 2), (82, 2)), "Q3_K": ((108, 2),), "Q4_K": _TWO_HALVES, "Q5_K": _TWO_HALVES, "Q6_K": ((208, 2),),
        "Q8_K": ((0, 4), *_row(260, 2, 16)),
        "IQ2_XXS": (*_HALF, *_row(6, 4, 8, 8)),  # of eight bytes four are indices, four a number
        "IQ2_XS": (*_HALF, *_row(2, 2, 32)), "IQ2_S": _HALF, "IQ3_XXS": (*_HALF, *_row(66, 4, 8)), "IQ3_S": _HALF,
        "IQ1_S": (*_HALF, *_row(34, 2, 8)), "IQ1_M": _row(48, 2, 4), "IQ4_NL": _HALF, "IQ4_XS": (*_HALF, (2, 2)),
    }
)  # fmt: skip


def swapped(data: Bytes, kind: TensorType) -> Bytes:
    """Whole blocks, or plain numbers, in the other byte order: a new flat array. UnsupportedError for another type."""
    if not kind.quantized:
        return data.reshape(-1).view(f"u{kind.block_bytes}").byteswap().view(np.uint8)
    numbers = NUMBERS.get(kind.name)
    if numbers is None:
        raise UnsupportedError(f"{kind.name} blocks are not brought into another byte order")
    source = data.reshape(-1, kind.block_bytes)
    order = np.arange(kind.block_bytes)
    for start, width in numbers:
        order[start : start + width] = order[start : start + width][::-1]
    return source[:, order].reshape(-1)
