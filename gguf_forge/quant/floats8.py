"""8-bit floats beside scales, as float32 or any other type, by the native core. Knows arrays; not files or tools."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge import _native
from gguf_forge.quant.codec import refused
from gguf_forge.types import TensorType, tensor_type

_F32 = tensor_type("F32")
#: The 8-bit floats there are, by the names that checkpoints give them.
FORMATS = frozenset(_native.FLOATS8)


def encode_floats8(
    codes: NDArray[Any],
    form: str,
    scales: NDArray[np.float32],
    group: int,
    type: TensorType,
    *,
    first_row: int = 0,
    strict: bool = False,
    squares: NDArray[np.float64] | None = None,
) -> NDArray[np.uint8]:
    """Rows of 8-bit floats times their scales, rounded to float32, encoded as `type` in the calling thread.

    codes: bytes, (rows, width), of the `form` that FORMATS names. scales: float32 (rows, ceil(width / group)), one for
    each `group` columns. strict: as of `encode_rows`. squares: None, or two numbers to which are added the squared
    errors that the type makes and the squares of the values. Returns uint8 (rows, row bytes of `type`), the bytes that
    `encode_rows` makes of the products.
    Raises QuantError; positions in its message are rows, counted from `first_row`, and columns.
    """
    rows, width = codes.shape
    if scales.shape != (rows, -(-width // group)):
        raise ValueError(f"scales {scales.shape} are not for {rows} rows of {width} in groups of {group}")
    found = np.empty((rows, width // type.block_size * type.block_bytes), np.uint8)
    if found.size:
        octets, factors = np.ascontiguousarray(codes), np.ascontiguousarray(scales, np.float32)
        kind = _native.FLOATS8[form]
        status, where = _native.convert_floats8(
            kind, octets, rows, width, group, factors, type.id, found, squares, strict
        )
        if status != _native.OK:
            raise refused(status, where, width, form, type, first_row)
    return found


def decode_floats8(codes: NDArray[Any], form: str, scales: NDArray[np.float32], group: int) -> NDArray[np.float32]:
    """The same as float32: (rows, width)."""
    return encode_floats8(codes, form, scales, group, _F32).view(np.float32)
