"""The element types of checkpoints: size, NumPy form, and what a read returns. Knows nothing of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_forge.types import TENSOR_TYPES, TensorType


@dataclass(frozen=True)
class Dtype:
    """One element type as a checkpoint names it.

    `bits` is the size of an element in the file. `stored` is the NumPy type of the bytes as they lie there, None for
    elements smaller than a byte and complex ones. `returned` is the tensor type that reads give, None where there is
    none. `table` holds the float32 value of each code of an 8-bit float.
    """

    name: str
    bits: int
    stored: np.dtype[Any] | None
    returned: TensorType | None
    table: npt.NDArray[np.float32] | None = None


def _small_float(exponent_bits: int, bias: int, kind: str) -> npt.NDArray[np.float32]:
    """The 256 values of an 8-bit float.

    `kind` says what the largest exponent means: "ieee" infinities and NaNs, "fn" values except the all-ones codes
    (NaN), "fnuz" values, and 0x80 is the only NaN.
    """
    mantissa_bits = 7 - exponent_bits
    codes = np.arange(256)
    exponent = (codes & 0x7F) >> mantissa_bits
    mantissa = (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    magnitude = np.where(
        exponent == 0, np.ldexp(mantissa, 1 - bias), np.ldexp(1 + mantissa, np.maximum(exponent, 1) - bias)
    )
    if kind == "ieee":
        top = exponent == (1 << exponent_bits) - 1
        magnitude[top] = np.where(mantissa[top] == 0, np.inf, np.nan)
    elif kind == "fn":
        magnitude[(codes & 0x7F) == 0x7F] = np.nan
    values = np.where(codes & 0x80, -magnitude, magnitude).astype(np.float32)
    if kind == "fnuz":
        values[0x80] = np.nan
    return values


def _powers_of_two() -> npt.NDArray[np.float32]:
    return np.append(np.ldexp(np.float32(1), np.arange(255) - 127), np.float32(np.nan)).astype(np.float32)


def _rows() -> list[Dtype]:
    plain = {
        "F64": ("<f8", "F64"),
        "F32": ("<f4", "F32"),
        "F16": ("<f2", "F16"),
        "BF16": ("<u2", "BF16"),
        "I64": ("<i8", "I64"),
        "I32": ("<i4", "I32"),
        "I16": ("<i2", "I16"),
        "I8": ("i1", "I8"),
        # ggml has no unsigned integers: the next wider signed type holds every value.
        "BOOL": ("u1", "I8"),
        "U8": ("u1", "I16"),
        "U16": ("<u2", "I32"),
        "U32": ("<u4", "I64"),
        "U64": ("<u8", None),
    }
    small = {
        "F8_E4M3": _small_float(4, 7, "fn"),
        "F8_E5M2": _small_float(5, 15, "ieee"),
        "F8_E4M3FNUZ": _small_float(4, 8, "fnuz"),
        "F8_E5M2FNUZ": _small_float(5, 16, "fnuz"),
        "F8_E8M0": _powers_of_two(),
    }
    rows = []
    for name, (form, returned) in plain.items():
        stored = np.dtype(form)
        rows.append(Dtype(name, stored.itemsize * 8, stored, TENSOR_TYPES[returned] if returned else None))
    rows += [Dtype(name, 8, np.dtype(np.uint8), TENSOR_TYPES["F32"], table) for name, table in small.items()]
    rows += [Dtype(name, bits, None, None) for name, bits in {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64}.items()]
    return rows


#: Every element type a safetensors file may name.
DTYPES: Mapping[str, Dtype] = MappingProxyType({row.name: row for row in _rows()})

#: NumPy type of the arrays that reads give, by tensor type.
RETURNED_ARRAY: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "F64": np.dtype(np.float64),
        "F32": np.dtype(np.float32),
        "F16": np.dtype(np.float16),
        "BF16": np.dtype(np.uint16),
        "I64": np.dtype(np.int64),
        "I32": np.dtype(np.int32),
        "I16": np.dtype(np.int16),
        "I8": np.dtype(np.int8),
    }
)
