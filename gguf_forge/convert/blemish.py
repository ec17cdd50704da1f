"""Numbers in the rows of an output that are NaN or infinite: which is the first, and what a reader should know of it.

They come with the source, or of values too large for the type: a number past the end of F16, a block whose scale is.
llama-quantize refuses them in all it reads and writes. Knows rows and types; must not know what is done about them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gguf_forge.convert.view import Array
from gguf_forge.quant.codec import encode_rows, first_not_finite
from gguf_forge.types import TensorType, tensor_type


@dataclass(frozen=True, order=True)
class Blemish:
    """The first such number of some rows: its row in the tensor, and where and what it is."""

    row: int
    text: str


def first_blemish(
    made: Array, kind: TensorType, read: Callable[[], Array], source: TensorType, first_row: int
) -> Blemish | None:
    """Looks through rows made as `kind` of those that `read` gives, of type `source`; C-contiguous, one axis of rows.

    None where all numbers are finite. `first_row`: the number of the first row in its tensor.
    """
    at = first_not_finite(made, kind)
    if at is None:
        return None
    row, block = divmod(at, made[0].nbytes // kind.block_bytes)
    column = block * kind.block_size
    values = _values(read()[row], source)[column : column + kind.block_size]
    if kind.quantized:
        place = f"at row {first_row + row}, columns {column} to {column + kind.block_size - 1}"
        text = f"a block of {kind} whose scale is not finite {place}"
        return Blemish(first_row + row, text if kind is source else f"{text}, where values reach {_peak(values):.6g}")
    place = f"at row {first_row + row}, column {column}"
    value = float(values[0])
    if np.isfinite(value):
        return Blemish(first_row + row, f"{value:.6g} {place} is too large for {kind}")
    return Blemish(first_row + row, f"{'NaN' if np.isnan(value) else 'an infinity'} {place}")


def _values(row: Array, kind: TensorType) -> Array:
    """One row as floats: float64 as it is, the rest as float32."""
    if kind.name == "F64":
        return row
    floats: Array = encode_rows(row.reshape(1, -1), kind, tensor_type("F32")).view(np.float32)[0]
    return floats


def _peak(values: Array) -> float:
    return float(np.abs(values).max())
