"""What is read of quantized weights, watched: numbers that are none, and tensors that do not fit, are named.

The last look at what a format's module made. Must not know formats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gguf_forge.errors import CheckpointError
from gguf_forge.source.packed.form import Array, Grid, PackedTensor, Part, Rows
from gguf_forge.source.tensor import tensor_field
from gguf_forge.types import tensor_type

F16 = tensor_type("F16")
#: The bits of infinity in F16; those of NaN are above.
_INFINITY = 0x7C00


def guarded(weight: PackedTensor) -> PackedTensor:
    """The weight, whose rows raise CheckpointError that names it where a value is not finite or parts do not fit."""
    if 0 in weight.shape:
        raise _error(weight, f"a matrix {list(weight.shape)} has no weights")
    width = weight.shape[-1]

    def values(rows: Array, start: int) -> None:
        _require_finite(weight, rows.reshape(len(rows), -1), start)

    grid, blocks = weight.grid, weight.blocks
    if grid is not None:
        grid = _each_part(weight, grid)
    if blocks is not None:
        halves = blocks.type is F16

        def of_blocks(rows: Array, start: int) -> None:
            if halves:
                _require_finite(weight, rows.view(np.float16), start)

        wide = blocks.type.row_bytes(width)
        blocks = replace(blocks, rows=_watched(weight, blocks.rows, wide, of_blocks))
    return replace(weight, values=_watched(weight, weight.values, width, values), grid=grid, blocks=blocks)


def _each_part(weight: PackedTensor, grid: Grid) -> Grid:
    def part(of: Part | None) -> Part | None:
        return None if of is None else Part(of.width, _watched(weight, of.rows, of.width))

    codes, scales = part(grid.codes), part(grid.scales)
    assert codes is not None
    assert scales is not None
    return replace(grid, codes=codes, scales=scales, zeros=part(grid.zeros), minima=part(grid.minima))


def _watched(weight: PackedTensor, read: Rows, width: int, look: Callable[[Array, int], None] | None = None) -> Rows:
    def rows(start: int, stop: int) -> Array:
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                found = read(start, stop)
        except (TypeError, ValueError, IndexError, ArithmeticError) as error:
            raise _error(weight, f"its tensors do not fit together in rows {start} to {stop - 1}") from error
        if found.shape != (stop - start, width):
            raise _error(weight, f"its tensors hold {list(found.shape)} of rows {start} to {stop - 1}, {width} wide")
        if look is not None:
            look(found, start)
        return found

    return rows


def _require_finite(weight: PackedTensor, rows: Array, start: int) -> None:
    if rows.dtype == np.float16:  # whose bits are quicker to look at than its values
        sound = not rows.size or int((rows.view(np.uint16) & 0x7FFF).max()) < _INFINITY
    else:
        sound = bool(np.isfinite(rows).all())
    if not sound:
        bad = start + int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise _error(weight, f"a value in row {bad} is not finite: a scale, a minimum, or a float itself")


def _error(weight: PackedTensor, rule: str) -> CheckpointError:
    what = f"{weight.method}: {rule}"
    return CheckpointError(what, path=weight.file.path, field=tensor_field(weight.name))
