"""8-bit floats beside scales: FP8 of transformers, FBGEMM, llm-compressor, ModelOpt, Quark, torchao, Mistral; MXFP8.

`weight` F8_E4M3 or F8_E5M2 (out, in); the scale multiplies: one for all, one for each row, or one for each tile of rows
and columns, the last of which may be smaller. Scales are floats, or powers of two as bytes (E8M0).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gguf_forge.quant.floats8 import FORMATS, encode_floats8
from gguf_forge.source.dtypes import DTYPES
from gguf_forge.source.packed.form import (
    FLOATS,
    Array,
    Blocks,
    Floats,
    PackedTensor,
    Part,
    Rows,
    float_values,
    floats,
    require,
)
from gguf_forge.source.tensor import SourceTensor
from gguf_forge.types import tensor_type

F16 = tensor_type("F16")
_E8M0 = np.asarray(DTYPES["F8_E8M0"].table)
WHY = "8-bit floats have no GGUF type"


def stacked(
    name: str, weight: SourceTensor, scale: SourceTensor, *, method: str, tile: tuple[int, int] | None = None
) -> PackedTensor:
    """A stack of matrices (matrices, out, in), called `name`, times the scales of each: one, or as of one matrix."""
    require(len(weight.shape) == 3 and weight.dtype in FORMATS, weight, "must be a stack of 8-bit floats")
    count, out, width = weight.shape
    require(scale.size % count == 0 and len(scale.shape) > 1 and scale.shape[0] == count, scale, f"must be for {count}")
    own = scale.shape[1:] if scale.size > count else (1, 1)
    rows, columns = (out, width) if scale.size == count else _tile(weight, scale, tile, (out, width), own)
    high = -(-out // rows)
    scales = _all(scale).reshape(count * high, -(-width // columns))
    require(bool(np.isfinite(scales).all()), scale, "must be finite")
    flat = SourceTensor(weight.name, weight.element, (count * out, width), weight.file, weight.offset, None)

    def scale_rows(start: int, stop: int) -> Array:
        number, inside = np.divmod(np.arange(start, stop), out)
        found: Array = scales[number * high + inside // rows]
        return found

    made = Floats(weight.dtype, Part(width, flat.stored_rows), Part(scales.shape[1], scale_rows), columns)
    most = float(np.abs(scales).max(initial=0)) * _most(weight)
    what = f"{method}, stacked"
    return PackedTensor(name, weight.shape, what, weight, made.values, floats=made, why=WHY, largest=lambda: most)


def scaled(
    module: str,
    weight: SourceTensor,
    scale: SourceTensor,
    *,
    method: str,
    tile: tuple[int, int] | None = None,
    arranged: Callable[[Array], Array] | None = None,
) -> PackedTensor:
    """The weight times its scales. `tile`: rows and columns of one scale, where the shapes do not say. `arranged` puts
    scales stored in another order into a matrix.

    ConversionError where the scales are not as many as rows, tiles, or one. A scale for the whole tensor leaves 8-bit
    floats that F16 holds, to be multiplied by it.
    """
    floating = weight.dtype in FORMATS and weight.size > 0
    require(len(weight.shape) == 2 and floating, weight, "must be a matrix of 8-bit floats")
    out, width = weight.shape
    if scale.size == 1:
        factor = float(np.asarray(_all(scale)).reshape(()))
        require(np.isfinite(factor), scale, "must be finite")
        one = Part(1, lambda start, stop: np.full((stop - start, 1), factor, np.float32))
        whole = Floats(weight.dtype, Part(width, weight.stored_rows), one, max(1, width))

        def half(start: int, stop: int) -> Array:
            ones = np.ones((stop - start, 1), np.float32)
            return encode_floats8(weight.stored_rows(start, stop), weight.dtype, ones, max(1, width), F16)

        return PackedTensor(
            f"{module}.weight",
            weight.shape,
            f"{method}, one scale",
            weight,
            whole.values,
            floats=whole,
            blocks=Blocks(F16, half, factor) if weight.dtype == "F8_E4M3" else None,
            why=WHY,
            largest=lambda: abs(factor) * _most(weight),
        )
    scales = _all(scale) if arranged is None else arranged(_all(scale))
    own = scales.shape if scales.ndim == 2 else (*scales.shape, 1)
    rows, columns = _tile(weight, scale, tile, weight.shape, own)
    scales = scales.reshape(-(-out // rows), -(-width // columns))
    require(bool(np.isfinite(scales).all()), scale, "must be finite")
    of_rows = Part(scales.shape[1], lambda start, stop: scales[np.arange(start, stop) // rows])
    made = Floats(weight.dtype, Part(width, weight.stored_rows), of_rows, columns)
    what = "rows" if (rows, columns) == (1, width) else f"tiles of {rows} x {columns}"
    return PackedTensor(
        f"{module}.weight",
        weight.shape,
        f"{method}, {what}",
        weight,
        made.values,
        floats=made,
        why=WHY,
        largest=lambda: float(np.abs(scales).max(initial=0)) * _most(weight),
    )


def _most(weight: SourceTensor) -> float:
    """The largest finite number of an element type."""
    table = np.asarray(weight.element.table)
    return float(table[np.isfinite(table)].max())


def _tile(
    weight: SourceTensor,
    scale: SourceTensor,
    tile: tuple[int, int] | None,
    matrix: tuple[int, ...],
    shape: tuple[int, ...],
) -> tuple[int, int]:
    """Rows and columns of a matrix that share a scale; `shape` is that of the matrix's scales."""
    out, width = matrix
    if shape == (out, 1):
        return 1, width
    found = tile or (128, 128)
    wanted = (-(-out // found[0]), -(-width // found[1]))
    if shape != wanted and shape == (out, -(-width // 32)):
        return 1, 32
    require(shape == wanted, scale, f"{weight.name} {list(weight.shape)} wants {list(wanted)} of tiles {list(found)}")
    return found


def _all(scale: SourceTensor) -> Array:
    """All scales as float32; bytes are exponents."""
    if scale.dtype == "U8":
        flat = scale.read().astype(np.uint8)
        return _E8M0[flat]
    require(scale.dtype in (*FLOATS, "F8_E8M0"), scale, "must be floats, or powers of two")
    return float_values(scale)


def tile_of(config: object) -> tuple[int, int] | None:
    """A configuration's size of tiles, [rows, columns]."""
    if isinstance(config, list) and len(config) == 2 and all(isinstance(n, int) and n > 0 for n in config):
        return config[0], config[1]
    return None


def rows_of(scale: SourceTensor) -> Rows:
    """Rows of a matrix of scales, which may be bytes of exponents, as float32."""
    if scale.dtype == "U8":
        return lambda start, stop: _E8M0[scale.stored_rows(start, stop)]
    return floats(scale)
