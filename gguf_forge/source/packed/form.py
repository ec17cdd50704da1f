"""The one form in which quantized weights of any tool are handed on: codes, scales of groups of columns, offsets.

Knows arrays of rows; must not know how a tool packs them, nor what GGUF makes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_forge.errors import CheckpointError
from gguf_forge.quant.floats8 import decode_floats8
from gguf_forge.source.input_file import InputFile
from gguf_forge.source.packed.bits import dense
from gguf_forge.source.packed.slabs import columns
from gguf_forge.source.tensor import SourceTensor, tensor_field
from gguf_forge.types import TensorType, tensor_type

Array = npt.NDArray[Any]
Rows = Callable[[int, int], Array]
"""Rows start..stop-1 over the flattened leading axes, as a C-contiguous array (stop - start, width)."""

F32 = tensor_type("F32")
#: Element types of scales, zeros and minima.
FLOATS = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of one kind of number, `width` of them in each."""

    width: int
    rows: Rows


@dataclass(frozen=True, eq=False)
class Grid:
    """Weights on a grid: in each group of `group` columns of a row, scale * (code - zero) or scale * code + minimum.

    `codes` are whole numbers from `low` to `high` (uint8, int8 or int16), one for each element; where they are
    `packed`, bytes of two codes less `low` each, the first in the low half. `scales` float32, or float16 as they are
    stored, one for each group; `zeros` whole numbers (int16) and `minima` float32 likewise, at most one of the two.
    """

    codes: Part
    scales: Part
    group: int
    low: int
    high: int
    zeros: Part | None = None
    minima: Part | None = None
    packed: bool = False

    def _codes(self, start: int, stop: int) -> Array:
        """Codes of these rows, one for each element."""
        codes = self.codes.rows(start, stop)
        return unpacked(codes, self.low) if self.packed else codes

    def values(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """The weights of these rows: the exact value of each, rounded once to float32."""
        codes, scales = self._codes(start, stop), self.scales.rows(start, stop)
        shape = (stop - start, -1, self.group)
        if self.minima is not None:
            wide = codes.reshape(shape) * scales.astype(np.float64)[..., None]
            wide += self.minima.rows(start, stop)[..., None]
            return wide.astype(np.float32).reshape(stop - start, -1)
        zeros = None if self.zeros is None else self.zeros.rows(start, stop)[..., None]
        if zeros is not None and zeros.dtype.kind == "f":
            wide = (codes.reshape(shape) - zeros.astype(np.float64)) * scales[..., None]
            return wide.astype(np.float32).reshape(stop - start, -1)
        steps = codes.reshape(shape).astype(np.float32)
        if zeros is not None:
            steps -= zeros
        # A scale of 24 bits times a small whole number is rounded once, here.
        steps *= scales[..., None]
        return steps.reshape(stop - start, -1)

    def largest(self, count: int) -> float:
        """A number that no weight of `count` rows exceeds in magnitude."""
        found = float(np.abs(self.scales.rows(0, count)).max(initial=0)) * (self.high - self.low)
        return float(found if self.minima is None else found + np.abs(self.minima.rows(0, count)).max(initial=0))

    def ordered(self, order: Array) -> Rows:
        """The weights where column i belongs to group order[i], wherever the columns of a group lie."""

        def values(start: int, stop: int) -> Array:
            found = self._codes(start, stop).astype(np.float32)
            if self.zeros is not None:
                found -= self.zeros.rows(start, stop)[:, order]
            found *= self.scales.rows(start, stop)[:, order]
            return found

        return values

    def by_groups(self, order: Array) -> tuple[Grid, Array | None] | None:
        """The grid where column i belongs to group order[i], and which column of the weight each of its columns is.

        None for the latter where each stays at its place: groups may have any numbers and be of any size, as long as
        they lie in whole runs of 32. None where not even sorted columns make such runs.
        """
        if _run(order) % _SPAN == 0:
            return self._regrouped(order), None
        columns = np.argsort(order, kind="stable")
        if _run(order[columns]) % _SPAN:
            return None

        def codes(start: int, stop: int) -> Array:
            stored = self.codes.rows(start, stop)
            if not self.packed:
                return np.ascontiguousarray(stored[:, columns])
            fields = dense(stored, 4)[:, columns]
            return fields[:, 0::2] | fields[:, 1::2] << np.uint8(4)

        return replace(self, codes=Part(self.codes.width, codes))._regrouped(order[columns]), columns

    def _regrouped(self, order: Array) -> Grid:
        """The grid with the scale and zero of each run of columns of one group, by that group's number."""
        group = _run(order)
        numbers = order[::group]

        def picked(part: Part | None) -> Part | None:
            if part is None or np.array_equal(numbers, np.arange(part.width)):
                return part
            return Part(numbers.size, lambda start, stop: np.ascontiguousarray(part.rows(start, stop)[:, numbers]))

        scales = picked(self.scales)
        assert scales is not None
        return replace(self, group=group, scales=scales, zeros=picked(self.zeros), minima=picked(self.minima))


#: Columns that a block of GGUF gives one scale, at the least that matters here.
_SPAN = 32


@dataclass(frozen=True, eq=False)
class Floats:
    """Weights as 8-bit floats, times a scale for each `group` columns of a row.

    `form` is one that quant.floats8 names; `codes` are bytes, one for each element; `scales` float32.
    """

    form: str
    codes: Part
    scales: Part
    group: int

    def values(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """The weights of these rows: each product rounded to float32."""
        return decode_floats8(self.codes.rows(start, stop), self.form, self.scales.rows(start, stop), self.group)


#: Why such weights have no grid that is handed on.
UNEVEN = "groups are made of inputs that do not lie together (act-order), and are no whole blocks of 32 even sorted"


def _run(order: Array) -> int:
    """The most columns by which the columns can be counted off so that all those counted together are of one group."""
    changes = np.flatnonzero(np.diff(order)) + 1
    return int(np.gcd.reduce(changes, initial=order.size))


@dataclass(frozen=True, eq=False)
class Blocks:
    """Weights whose bits are those of a GGUF type: `rows` are its blocks, uint8. `scale` multiplies all, if given."""

    type: TensorType
    rows: Rows
    scale: float | None = None


@dataclass(frozen=True, eq=False)
class PackedTensor:
    """A weight of a checkpoint quantized by another tool, under the name and shape that the plain one would have.

    `rows` gives float32 values. `grid` or `blocks` is how they are stored, where that is a form GGUF might hold;
    otherwise `why` says what stands in the way, and `floats` is what 8-bit floats make their values of. `dtype` is the
    element type of the floats that stand for the weight, `method` a word or two for reports, `stored` the largest
    tensor that it is made of. Without a grid, `largest()` is a number that no weight exceeds in magnitude: scales are
    read for it. `order`, if given, are the weight's columns in the order of the grid's, which has those of a group side
    by side.
    """

    name: str
    shape: tuple[int, ...]
    method: str
    stored: SourceTensor
    values: Rows
    dtype: str = "F32"
    grid: Grid | None = None
    blocks: Blocks | None = None
    floats: Floats | None = None
    why: str = ""
    largest: Callable[[], float] = lambda: float("inf")
    order: Array | None = None
    strides: None = None

    @property
    def type(self) -> TensorType:
        """The type of the values that `rows` gives."""
        return F32

    @property
    def file(self) -> InputFile:
        """Where its codes lie."""
        return self.stored.file

    @property
    def offset(self) -> int:
        """At which byte its codes begin."""
        return self.stored.offset

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the codes."""
        return self.stored.nbytes

    def rows(self, start: int, stop: int) -> Array:
        """Values of rows start..stop-1 over the flattened leading axes, float32 (stop - start, width)."""
        return self.values(start, stop)

    def part(self, number: int, name: str) -> PackedTensor:
        """One of the matrices of a stack, as a weight of its own."""
        height = prod(self.shape[1:-1])
        first = number * height

        def rows(of: Rows) -> Rows:
            return lambda start, stop: of(first + start, first + stop)

        def moved(part: Part) -> Part:
            return Part(part.width, rows(part.rows))

        grid, blocks = self.grid, self.blocks
        if grid is not None:
            zeros, minima = (part and moved(part) for part in (grid.zeros, grid.minima))
            grid = replace(grid, codes=moved(grid.codes), scales=moved(grid.scales), zeros=zeros, minima=minima)
        if blocks is not None:
            blocks = replace(blocks, rows=rows(blocks.rows))
        floats = self.floats
        if floats is not None:
            floats = replace(floats, codes=moved(floats.codes), scales=moved(floats.scales))
        shape, values = self.shape[1:], rows(self.values)
        return replace(self, name=name, shape=shape, values=values, grid=grid, blocks=blocks, floats=floats)

    def read(self) -> Array:
        """All values, in the tensor's shape."""
        return self.values(0, prod(self.shape[:-1])).reshape(self.shape)


AnyTensor = SourceTensor | PackedTensor


def on_grid(
    module: str, shape: tuple[int, int], method: str, stored: SourceTensor, grid: Grid, dtype: str, order: Array | None
) -> PackedTensor:
    """The weight of a layer on a grid, of which column i belongs to group order[i], if that is given."""
    name, most = f"{module}.weight", partial(grid.largest, shape[0])
    if order is None:
        return PackedTensor(name, shape, method, stored, grid.values, dtype, grid=grid)
    found = grid.by_groups(order)
    values = grid.ordered(order)
    if found is None:
        return PackedTensor(name, shape, method, stored, values, dtype, why=UNEVEN, largest=most)
    sorted_grid, columns = found
    return PackedTensor(name, shape, method, stored, values, dtype, grid=sorted_grid, largest=most, order=columns)


def unpacked(codes: Array, low: int) -> Array:
    """Codes that lie two to a byte, each less `low`, one for each element: uint8, or int8 where some are negative."""
    fields = dense(codes, 4)
    return fields if not low else (fields + np.uint8(low & 0xFF)).view(np.int8)


def require(condition: bool, tensor: SourceTensor, rule: str) -> None:
    """CheckpointError naming the tensor and the rule, unless the condition holds."""
    if not condition:
        raise CheckpointError(
            f"{tensor.dtype} {list(tensor.shape)}: {rule}", path=tensor.file.path, field=tensor_field(tensor.name)
        )


def group_order(index: SourceTensor, inputs: int, groups: int, group: int) -> Array | None:
    """Each input's group, as a tensor names it; None where those of a group lie together (or all are -1)."""
    require(index.shape == (inputs,), index, f"must name the group of each of {inputs} inputs")
    require(index.type.name.startswith("I"), index, "must be whole numbers")
    found = np.asarray(index.read(), np.int64)
    if bool((found == -1).all()):
        return None
    require(bool(((found >= 0) & (found < groups)).all()), index, f"names a group beyond the {groups} there are")
    return None if bool((found == np.arange(inputs) // group).all()) else found


def require_floats(tensor: SourceTensor) -> None:
    """CheckpointError for anything but floats of 16 bits and more, or powers of two."""
    require(tensor.dtype in (*FLOATS, "F8_E8M0"), tensor, "must be floats")


def require_words(tensor: SourceTensor) -> None:
    """CheckpointError for anything but words of 32 bits."""
    require(tensor.dtype in ("I32", "U32"), tensor, "must be words of 32 bits")


def require_octets(tensor: SourceTensor) -> None:
    """CheckpointError for anything but bytes."""
    require(tensor.dtype in ("U8", "I8"), tensor, "must be bytes")


def require_group(tensor: SourceTensor, group: int, inputs: int, said: object) -> None:
    """CheckpointError where the configuration says another size of groups; nothing, 0 and -1 say none."""
    wanted = said if isinstance(said, int) and not isinstance(said, bool) and said > 0 else group
    require(group == min(wanted, inputs), tensor, f"has groups of {group}, and the configuration says {wanted}")


def floats(tensor: SourceTensor) -> Rows:
    """Rows of a matrix of floats as float32. CheckpointError for whole numbers."""
    require_floats(tensor)
    return lambda start, stop: _widened(tensor, tensor.rows(start, stop))


def column_floats(tensor: SourceTensor) -> Rows:
    """Columns of a matrix of floats, as rows of float32. CheckpointError for whole numbers."""
    require_floats(tensor)
    read = columns(tensor)

    return lambda start, stop: _widened(tensor, np.ascontiguousarray(read(start, stop).T))


def scale_rows(tensor: SourceTensor) -> Rows:
    """Rows of a matrix of scales as float32; halves as they are, as most types of GGUF store them."""
    return tensor.rows if tensor.type.name == "F16" else floats(tensor)


def scale_columns(tensor: SourceTensor) -> Rows:
    """Columns of a matrix of scales, as rows of float32; halves as they are."""
    if tensor.type.name != "F16":
        return column_floats(tensor)
    read = columns(tensor)
    return lambda start, stop: np.ascontiguousarray(read(start, stop).T)


def float_values(tensor: SourceTensor) -> Array:
    """All values of a small tensor of floats, as float32. CheckpointError for whole numbers."""
    require_floats(tensor)
    return _widened(tensor, tensor.read())


def _widened(tensor: SourceTensor, values: Array) -> Array:
    """Values read of a tensor of floats, as float32: those of BF16 come as their bits."""
    if tensor.type.name == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(values, np.float32)


def as_column(tensor: SourceTensor) -> SourceTensor:
    """A vector as a matrix of one column."""
    return SourceTensor(tensor.name, tensor.element, (tensor.size, 1), tensor.file, tensor.offset, None)
