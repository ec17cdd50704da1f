"""The verbs of the conversion tables: from the rows of source tensors to the rows of one output, and back.

Knows arrays and shapes; must not know names, files, or model families. Every verb states its result's shape and type
from those of its inputs alone, so a checkpoint is planned without its weights. Arithmetic is done in the type the
reference works in: F32, except that an F16 tensor stays F16 (BF16 carries no arithmetic and becomes F32).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gguf_forge.errors import ConversionError
from gguf_forge.types import TensorType, tensor_type

Array = npt.NDArray[Any]

F32 = tensor_type("F32")
F16 = tensor_type("F16")
BF16 = tensor_type("BF16")

#: Bytes a verb that must visit a whole tensor (a transpose) holds of its source at a time.
SLAB_BYTES = 8 << 20


@dataclass(frozen=True)
class Facts:
    """What verbs and hyperparameters may depend on besides tensors: the resolved configuration and the folder."""

    config: Mapping[str, Any]
    directory: Path


@dataclass(frozen=True)
class View:
    """Rows to be had: a tensor of which any run of rows can be computed.

    `rows(start, stop)` counts rows over the flattened leading axes and gives a C-contiguous array
    (stop - start, width) of the type's NumPy form (BF16 as uint16, packed blocks as uint8). Runs must start at a
    multiple of `granule` rows, and end at one or at the last row.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    rows: Callable[[int, int], Array]
    granule: int = 1

    @property
    def width(self) -> int:
        """Elements of a row."""
        return self.shape[-1] if self.shape else 1

    @property
    def count(self) -> int:
        """Number of rows."""
        return prod(self.shape[:-1])

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def read(self) -> Array:
        """The whole tensor in its shape."""
        return self.rows(0, self.count).reshape(self.shape)


class Verb(Protocol):
    """One way to make an output from its sources."""

    def view(self, sources: Sequence[View], facts: Facts) -> View | None:
        """The output; None when the configuration says that there is none."""

    def undo(self, outputs: Sequence[View], shapes: Sequence[tuple[int, ...]], facts: Facts) -> list[View]:
        """The sources again, of the given shapes. ConversionError where the verb keeps too little for that."""


def widen(rows: Array, kind: TensorType) -> Array:
    """Float values in which to calculate: BF16 bits become float32, the rest stays."""
    if kind is BF16:
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows


def of_array(name: str, values: Array) -> View:
    """A view of an array in memory: float32, float16, or uint16 standing for BF16."""
    kinds = {"f4": F32, "f2": F16, "u2": BF16}
    kind = kinds[values.dtype.str[1:]]
    width = values.shape[-1] if values.ndim else 1
    flat = np.ascontiguousarray(values).reshape(-1, width)
    return View(name, values.shape, kind, lambda start, stop: flat[start:stop].copy())


def _only(sources: Sequence[View]) -> View:
    if len(sources) != 1:
        raise ConversionError(f"expected one source tensor, got {len(sources)}: {', '.join(s.name for s in sources)}")
    return sources[0]


def _permuted(source: View, group: int, order: Callable[[Array], Array]) -> View:
    """Rows reordered within groups of `group` rows; a vector is reordered as if its elements were rows."""
    vector = len(source.shape) == 1
    count = source.width if vector else source.count
    if group == 0 or count % group:
        raise ConversionError(f"{source.name}: {count} rows are not a whole number of groups of {group}")

    def rows(start: int, stop: int) -> Array:
        data = source.rows(start, stop)
        parts = data.reshape(-1, group, 1 if vector else source.width)
        return np.ascontiguousarray(order(parts)).reshape(data.shape)

    return replace(source, rows=rows, granule=1 if vector else group)


@dataclass(frozen=True)
class Copy:
    """The source as it is."""

    def view(self, sources: Sequence[View], facts: Facts) -> View:
        return _only(sources)

    def undo(self, outputs: Sequence[View], shapes: Sequence[tuple[int, ...]], facts: Facts) -> list[View]:
        return [_only(outputs)]


@dataclass(frozen=True)
class RopePermute:
    """Rotary halves interleaved: in each head, row j of half i goes to row 2j + i.

        (head, half, pair, ...) -> (head, pair, half, ...)

    `heads` names the config keys of the number of heads, the first present and not null being used.
    """

    heads: tuple[str, ...]

    def _group(self, rows: int, name: str, facts: Facts) -> int:
        key = next((k for k in self.heads if facts.config.get(k) is not None), self.heads[-1])
        heads = facts.config.get(key)
        if not isinstance(heads, int) or heads <= 0:
            raise ConversionError(f"config.json: {key} must be a positive number, got {heads!r}")
        if rows % (2 * heads):
            raise ConversionError(f"{name}: {rows} rows cannot be divided into {heads} heads of two halves")
        return rows // heads

    def view(self, sources: Sequence[View], facts: Facts) -> View:
        source = _only(sources)
        group = self._group(source.shape[0], source.name, facts)
        return _permuted(source, group, lambda p: p.reshape(len(p), 2, group // 2, -1).swapaxes(1, 2))

    def undo(self, outputs: Sequence[View], shapes: Sequence[tuple[int, ...]], facts: Facts) -> list[View]:
        output = _only(outputs)
        group = self._group(output.shape[0], output.name, facts)
        return [_permuted(output, group, lambda p: p.reshape(len(p), group // 2, 2, -1).swapaxes(1, 2))]


@dataclass(frozen=True)
class Transpose:
    """The two axes of a matrix exchanged; other shapes are left as they are."""

    def view(self, sources: Sequence[View], facts: Facts) -> View:
        source = _only(sources)
        if len(source.shape) != 2:
            return source
        height, width = source.shape

        def rows(start: int, stop: int) -> Array:
            step = max(1, SLAB_BYTES // max(1, source.type.row_bytes(width)))
            step = max(source.granule, step // source.granule * source.granule)
            parts = []
            for at in range(0, height, step):
                slab = source.rows(at, min(height, at + step))
                parts.append(np.ascontiguousarray(slab[:, start:stop].T))
            return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

        return View(source.name, (width, height), source.type, rows)

    def undo(self, outputs: Sequence[View], shapes: Sequence[tuple[int, ...]], facts: Facts) -> list[View]:
        return [self.view(outputs, facts)]


@dataclass(frozen=True)
class Add:
    """A constant added to every element."""

    term: float

    def view(self, sources: Sequence[View], facts: Facts) -> View:
        return self._shifted(_only(sources), self.term)

    def undo(self, outputs: Sequence[View], shapes: Sequence[tuple[int, ...]], facts: Facts) -> list[View]:
        return [self._shifted(_only(outputs), -self.term)]

    @staticmethod
    def _shifted(source: View, term: float) -> View:
        kind = F16 if source.type is F16 else F32
        delta = np.float16(term) if kind is F16 else np.float32(term)
        return replace(source, type=kind, rows=lambda a, b: widen(source.rows(a, b), source.type) + delta)


def _joined(sources: Sequence[View], shape: tuple[int, ...]) -> View:
    """Sources of one type and width, one below the other."""
    edges = [0]
    for source in sources:
        edges.append(edges[-1] + source.count)
    granule = max(s.granule for s in sources)

    def rows(start: int, stop: int) -> Array:
        parts = [
            source.rows(max(start, low) - low, min(stop, high) - low)
            for source, low, high in zip(sources, edges[:-1], edges[1:], strict=True)
            if start < high and stop > low
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return View(sources[0].name, shape, sources[0].type, rows, granule)


def _slice(source: View, start: int, shape: tuple[int, ...]) -> View:
    """`shape` rows of the source from row `start` on."""
    return replace(source, shape=shape, rows=lambda a, b: source.rows(start + a, start + b))


def _same(sources: Sequence[View]) -> View:
    first = sources[0]
    for source in sources[1:]:
        if source.shape != first.shape or source.type is not first.type:
            raise ConversionError(
                f"{source.name} is {source.type} {list(source.shape)}, but {first.name}, "
                f"to be stacked with it, is {first.type} {list(first.shape)}"
            )
    return first


@dataclass(frozen=True)
class Stack:
    """Equal tensors under a new first axis: the experts of a layer."""

    def view(self, sources: Sequence[View], facts: Facts) -> View:
        first = _same(sources)
        if len(first.shape) < 2:
            rows = [replace(s, shape=(1, *s.shape)) for s in sources]
            return _joined(rows, (len(sources), *first.shape))
        return _joined(sources, (len(sources), *first.shape))

    def undo(self, outputs: Sequence[View], shapes: Sequence[tuple[int, ...]], facts: Facts) -> list[View]:
        output = _only(outputs)
        step = output.count // output.shape[0]
        return [_slice(output, i * step, output.shape[1:]) for i in range(output.shape[0])]


@dataclass(frozen=True)
class Concat:
    """Tensors of one width, one below the other along their first axis."""

    def view(self, sources: Sequence[View], facts: Facts) -> View:
        first = sources[0]
        for source in sources[1:]:
            if source.shape[1:] != first.shape[1:] or source.type is not first.type:
                raise ConversionError(f"{source.name} {list(source.shape)} does not continue {first.name}")
        if len(first.shape) == 1:
            values = [s.read() for s in sources]
            return of_array(first.name, np.concatenate(values))
        return _joined(sources, (sum(s.shape[0] for s in sources), *first.shape[1:]))

    def undo(self, outputs: Sequence[View], shapes: Sequence[tuple[int, ...]], facts: Facts) -> list[View]:
        output, start, parts = _only(outputs), 0, []
        for shape in shapes:
            if len(shape) == 1:
                parts.append(of_array(output.name, output.read()[start : start + shape[0]]))
                start += shape[0]
            else:
                parts.append(_slice(output, start, shape))
                start += prod(shape[:-1])
        return parts


@dataclass(frozen=True)
class Split:
    """Part `index` of `count` equal parts along the last axis but one: gate or up of a fused projection."""

    index: int
    count: int

    def view(self, sources: Sequence[View], facts: Facts) -> View:
        source = _only(sources)
        if len(source.shape) < 2 or source.shape[-2] % self.count:
            raise ConversionError(f"{source.name} {list(source.shape)} cannot be split into {self.count} equal parts")
        whole = source.shape[-2]
        part = whole // self.count
        if len(source.shape) == 2:
            return _slice(source, self.index * part, (part, source.width))

        def rows(start: int, stop: int) -> Array:
            parts, at = [], start
            while at < stop:
                block, inner = divmod(at, part)
                take = min(stop - at, part - inner)
                first = block * whole + self.index * part + inner
                parts.append(source.rows(first, first + take))
                at += take
            return parts[0] if len(parts) == 1 else np.concatenate(parts)

        return View(source.name, (*source.shape[:-2], part, source.width), source.type, rows)

    def undo(self, outputs: Sequence[View], shapes: Sequence[tuple[int, ...]], facts: Facts) -> list[View]:
        if len(outputs) != self.count:
            raise ConversionError(f"{outputs[0].name}: {self.count} parts are needed, {len(outputs)} given")
        first = _same(outputs)
        if len(first.shape) == 2:
            return [_joined(outputs, shapes[0])]
        values = np.concatenate([o.read() for o in outputs], axis=-2)
        return [of_array(first.name, values)]


@dataclass(frozen=True)
class FirstRows:
    """No more than the first `limit(facts)` rows: an embedding padded beyond its vocabulary."""

    limit: Callable[[Facts], int]

    def view(self, sources: Sequence[View], facts: Facts) -> View:
        source = _only(sources)
        keep = min(source.shape[0], self.limit(facts))
        return _slice(source, 0, (keep, *source.shape[1:]))

    def undo(self, outputs: Sequence[View], shapes: Sequence[tuple[int, ...]], facts: Facts) -> list[View]:
        output = _only(outputs)
        if output.shape != tuple(shapes[0]):
            raise ConversionError(f"{output.name}: the rows beyond {output.shape[0]} were not kept")
        return [output]


@dataclass(frozen=True)
class PickRows:
    """Single rows of a matrix, by number, in the order `pick(facts)` gives them: a classifier out of a vocabulary."""

    pick: Callable[[Facts], Sequence[int]]

    def view(self, sources: Sequence[View], facts: Facts) -> View:
        source = _only(sources)
        picked = tuple(self.pick(facts))
        outside = [i for i in picked if not 0 <= i < source.count]
        if outside or len(source.shape) != 2:
            raise ConversionError(f"{source.name} {list(source.shape)} has no row {outside or list(picked)}")

        def rows(start: int, stop: int) -> Array:
            parts = [source.rows(i, i + 1) for i in picked[start:stop]]
            return np.concatenate(parts) if parts else source.rows(0, 0)

        return replace(source, shape=(len(picked), source.width), rows=rows)

    def undo(self, outputs: Sequence[View], shapes: Sequence[tuple[int, ...]], facts: Facts) -> list[View]:
        raise ConversionError(f"{_only(outputs).name}: only {len(self.pick(facts))} rows were kept")


@dataclass(frozen=True)
class Computed:
    """A tensor made from the configuration alone: float32, or None when the model has none."""

    make: Callable[[Facts], Array | None]

    def view(self, sources: Sequence[View], facts: Facts) -> View | None:
        values = self.make(facts)
        return None if values is None else of_array("computed", np.asarray(values, np.float32))

    def undo(self, outputs: Sequence[View], shapes: Sequence[tuple[int, ...]], facts: Facts) -> list[View]:
        return []


COPY = Copy()
STACK = Stack()
CONCAT = Concat()
TRANSPOSE = Transpose()
