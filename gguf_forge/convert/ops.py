"""The verbs of the conversion tables: from the rows of source tensors to the rows of outputs, and back.

Knows arrays and shapes; must not know names, files, or model families. Every verb states its results' shapes and types
from those of its inputs alone, so a checkpoint is planned without its weights. Arithmetic is done in the type the
reference works in: F32, except that an F16 tensor stays F16 (BF16 carries no arithmetic and becomes F32).

Verbs compose: `Rows(split) | Each(TRANSPOSE, COPY)` splits a tensor and transposes the first part. A verb for one
tensor does the same to each it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from gguf_forge.convert.facts import Facts
from gguf_forge.convert.view import (
    F16,
    F32,
    Array,
    Kept,
    Numbers,
    RowNumbers,
    View,
    changed,
    gathered,
    joined,
    of_array,
    only,
    require_alike,
    reshaped,
    sliced,
    widen,
)
from gguf_forge.errors import ConversionError
from gguf_forge.types import tensor_type

#: Bytes a verb that must visit a whole tensor (a transpose) holds of its source at a time.
SLAB_BYTES = 8 << 20
#: A matrix of at most this many bytes is transposed at once and kept while its rows are asked for.
MATRIX_BYTES = 96 << 20
_MAX_NAMED = 2

Views = Sequence[View]


class Verb:
    """One way to make outputs from sources."""

    def views(self, sources: Views, facts: Facts) -> list[View]:
        """The outputs, in order; none when the configuration says that there is none."""
        raise NotImplementedError

    def undo(self, outputs: Views, like: Views, facts: Facts) -> list[View]:
        """The sources again, with the shapes and types of `like`. ConversionError where too little was kept."""
        raise ConversionError(f"{outputs[0].name if outputs else 'output'}: cannot be turned back into its source")

    def __or__(self, other: Verb) -> Verb:
        return Chain((self, other))


@dataclass(frozen=True)
class Chain(Verb):
    """Verbs one after the other, each given what the one before made."""

    verbs: tuple[Verb, ...]

    def views(self, sources: Views, facts: Facts) -> list[View]:
        made = list(sources)
        for verb in self.verbs:
            made = verb.views(made, facts)
        return made

    def undo(self, outputs: Views, like: Views, facts: Facts) -> list[View]:
        steps = [list(like)]
        for verb in self.verbs[:-1]:
            steps.append(verb.views(steps[-1], facts))
        made = list(outputs)
        for verb, before in zip(reversed(self.verbs), reversed(steps), strict=True):
            made = verb.undo(made, before, facts)
        return made

    def __or__(self, other: Verb) -> Verb:
        return Chain((*self.verbs, other))


class Single(Verb):
    """A verb for one tensor: of several it makes as many, each by itself."""

    def one(self, source: View, facts: Facts) -> View:
        """The output."""
        raise NotImplementedError

    def back(self, output: View, like: View, facts: Facts) -> View:
        """The source again."""
        raise ConversionError(f"{output.name}: cannot be turned back into {like.name}")

    def views(self, sources: Views, facts: Facts) -> list[View]:
        return [self.one(source, facts) for source in sources]

    def undo(self, outputs: Views, like: Views, facts: Facts) -> list[View]:
        return [self.back(output, source, facts) for output, source in zip(outputs, like, strict=True)]


class Each(Verb):
    """A verb for each of the tensors given, in their order."""

    def __init__(self, *verbs: Verb) -> None:
        self.verbs = verbs

    def views(self, sources: Views, facts: Facts) -> list[View]:
        pairs = zip(self.verbs, sources, strict=True)
        return [view for verb, source in pairs for view in verb.views([source], facts)]

    def undo(self, outputs: Views, like: Views, facts: Facts) -> list[View]:
        pairs = zip(self.verbs, outputs, like, strict=True)
        return [view for verb, output, source in pairs for view in verb.undo([output], [source], facts)]


@dataclass(frozen=True)
class Copy(Single):
    """The source as it is."""

    def one(self, source: View, facts: Facts) -> View:
        return source

    def back(self, output: View, like: View, facts: Facts) -> View:
        return output


Take = Callable[[Any, Facts], Any]
"""From the numbers of the sources' rows, in their shape, to the numbers wanted, in the shape wanted.

With one source an array of shape `source.shape[:-1]`; with several a list of such arrays, no number twice. A tuple
stands for several outputs. Of a vector, and of a bias of any shape, the elements are the rows.
"""


@dataclass(frozen=True)
class Rows(Verb):
    """Rows moved: reordered, taken apart, put together, left out, under another shape.

    `take` says which: `Rows(lambda r, facts: r.reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1))` interleaves the
    halves of each head. See `Take`.
    """

    take: Take

    def views(self, sources: Views, facts: Facts) -> list[View]:
        upright = [_by_rows(source) for source in sources]
        first = require_alike(upright, first_axis=False) if len({s.width for s in upright}) > 1 else upright[0]
        whole = upright[0] if len(upright) == 1 else joined(upright, (sum(s.count for s in upright), first.width))
        made = []
        for index, wanted in enumerate(self._wanted(upright, facts)):
            if wanted.size and not 0 <= int(wanted.min()) <= int(wanted.max()) < whole.count:
                raise ConversionError(f"{first.name} {list(sources[0].shape)} has no row {int(wanted.max())}")
            numbers = RowNumbers(lambda index=index: self._wanted(upright, facts)[index])  # type: ignore[misc]
            view = gathered(whole, (*wanted.shape, first.width), numbers)
            made.append(_as_stored(view, sources[0]))
        return made

    def undo(self, outputs: Views, like: Views, facts: Facts) -> list[View]:
        upright = [_by_rows(source) for source in like]
        total = sum(source.count for source in upright)
        wanted = [w.reshape(-1) for w in self._wanted(upright, facts)]
        kept = np.unique(np.concatenate(wanted)).size
        if kept != total or len(wanted) != len(outputs):
            raise ConversionError(f"{outputs[0].name}: {total - kept} of {total} rows of {like[0].name} were not kept")
        parts = [_by_rows(changed(output, vector=like[0].vector)) for output in outputs]
        whole = parts[0] if len(parts) == 1 else joined(parts, (sum(p.count for p in parts), parts[0].width))
        found, start = [], 0
        for source in upright:
            low, high = start, start + source.count

            def inverse(low: int = low, high: int = high) -> Numbers:
                forward = np.concatenate([w.reshape(-1) for w in self._wanted(upright, facts)])
                back = np.empty(total, np.int64)
                back[forward[::-1]] = np.arange(forward.size)[::-1]
                return back[low:high]

            view = gathered(whole, source.shape, RowNumbers(inverse))
            found.append(_as_stored(view, source))
            start = high
        return [reshaped(view, source.shape) for view, source in zip(found, like, strict=True)]

    def _wanted(self, upright: Views, facts: Facts) -> list[Numbers]:
        starts = np.cumsum([0, *(source.count for source in upright)])
        parts = [
            np.arange(start, start + source.count, dtype=np.int64).reshape(source.shape[:-1])
            for start, source in zip(starts[:-1].tolist(), upright, strict=True)
        ]
        try:
            made = self.take(parts[0] if len(parts) == 1 else parts, facts)
        except (ValueError, IndexError, ZeroDivisionError, ConversionError) as error:
            shapes = ", ".join(f"{s.name} {list(s.shape)}" for s in upright[:_MAX_NAMED])
            why = error.text if isinstance(error, ConversionError) else f"rows do not fit config.json: {error}"
            raise ConversionError(f"{shapes}: {why}") from None
        return [np.asarray(part) for part in (made if isinstance(made, (tuple, list)) else (made,))]


def _by_rows(source: View) -> View:
    """With the elements of a vector or bias as rows of one."""
    if not source.vector:
        return source
    return reshaped(source, (*source.shape, 1))


def _as_stored(view: View, source: View) -> View:
    """Without the axis of one that `_by_rows` added."""
    if not source.vector:
        return view
    return changed(reshaped(view, view.shape[:-1] or (view.elements,)), vector=True)


@dataclass(frozen=True)
class Columns(Single):
    """Columns moved: `take` is given their numbers and returns those wanted, in order."""

    take: Callable[[Numbers, Facts], Numbers]

    def one(self, source: View, facts: Facts) -> View:
        wanted = np.asarray(self.take(np.arange(source.width), facts)).reshape(-1)
        return self._picked(source, wanted)

    def back(self, output: View, like: View, facts: Facts) -> View:
        wanted = np.asarray(self.take(np.arange(like.width), facts)).reshape(-1)
        if np.unique(wanted).size != like.width:
            raise ConversionError(f"{output.name}: not all columns of {like.name} were kept")
        return self._picked(output, np.argsort(wanted))

    @staticmethod
    def _picked(source: View, wanted: Numbers) -> View:
        shape = (*source.shape[:-1], wanted.size)
        return changed(source, shape=shape, rows=lambda a, b: np.ascontiguousarray(source.rows(a, b)[:, wanted]))


@dataclass(frozen=True)
class Reshape(Single):
    """The same elements in the same order under the shape `shape(old shape, facts)`: a squeeze, an axis added."""

    shape: Callable[[tuple[int, ...], Facts], Sequence[int]]

    def one(self, source: View, facts: Facts) -> View:
        shape = tuple(self.shape(source.shape, facts))
        return changed(reshaped(source, shape), vector=len(shape) == 1)

    def back(self, output: View, like: View, facts: Facts) -> View:
        return reshaped(output, like.shape)


@dataclass(frozen=True)
class Transpose(Single):
    """The last two axes exchanged, of a matrix or of each matrix of a stack; a vector stays as it is."""

    def one(self, source: View, facts: Facts) -> View:
        if source.vector or len(source.shape) < 2:
            return source
        height, width = source.shape[-2:]
        shape = (*source.shape[:-2], width, height)
        if source.type.row_bytes(width) * height > MATRIX_BYTES:
            return changed(source, shape=shape, rows=_by_slabs(source, height, width))

        def matrix(number: int) -> Array:
            return np.ascontiguousarray(source.rows(number * height, (number + 1) * height).T)

        kept = Kept(matrix)

        def rows(start: int, stop: int) -> Array:
            parts = []
            while start < stop:
                number, inner = divmod(start, width)
                take = min(stop - start, width - inner)
                parts.append(kept.get(number)[inner : inner + take])
                start += take
                if start == source.elements // height:
                    kept.release()
            return parts[0].copy() if len(parts) == 1 else np.concatenate(parts)

        return changed(source, shape=shape, rows=rows)

    def back(self, output: View, like: View, facts: Facts) -> View:
        return self.one(output, facts)


def _by_slabs(source: View, height: int, width: int) -> Callable[[int, int], Array]:
    """Rows of the transposes of matrices too large to be held: each run of them visits the matrix in slabs."""
    step = max(1, SLAB_BYTES // max(1, source.type.row_bytes(width)))

    def rows(start: int, stop: int) -> Array:
        parts = []
        while start < stop:
            number, inner = divmod(start, width)
            take = min(stop - start, width - inner)
            base = number * height
            slabs = [
                np.ascontiguousarray(
                    source.rows(base + at, base + min(height, at + step))[:, inner : inner + take].T
                )
                for at in range(0, height, step)
            ]
            parts.append(slabs[0] if len(slabs) == 1 else np.concatenate(slabs, axis=1))
            start += take
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return rows


Function = Callable[[Array, Facts], Array]


@dataclass(frozen=True)
class Elementwise(Single):
    """A function of every element, calculated in float32 (float16 where the source is). `inverse` undoes it."""

    function: Function
    inverse: Function | None = None

    def one(self, source: View, facts: Facts) -> View:
        return self._applied(self.function, source, facts)

    def back(self, output: View, like: View, facts: Facts) -> View:
        if self.inverse is None:
            return super().back(output, like, facts)
        return self._applied(self.inverse, output, facts)

    @staticmethod
    def _applied(function: Function, source: View, facts: Facts) -> View:
        kind = F16 if source.type is F16 else F32
        if source.type not in FLOATS:
            raise ConversionError(f"{source.name}: cannot calculate with {source.type}")

        def rows(start: int, stop: int) -> Array:
            values = widen(source.rows(start, stop), source.type)
            return np.ascontiguousarray(function(values, facts).astype(values.dtype, copy=False))

        return changed(source, type=kind, rows=rows)


FLOATS = frozenset({F32, F16, tensor_type("BF16")})


def add(term: float) -> Elementwise:
    """A constant added to every element."""
    return Elementwise(lambda x, _: x + x.dtype.type(term), lambda x, _: x - x.dtype.type(term))


def scale(factor: Callable[[Facts], float]) -> Elementwise:
    """Every element times a number that follows from the configuration."""
    return Elementwise(lambda x, f: x * x.dtype.type(factor(f)), lambda x, f: x / x.dtype.type(factor(f)))


@dataclass(frozen=True)
class Stack(Verb):
    """Equal tensors under a new first axis: the experts of a layer."""

    def views(self, sources: Views, facts: Facts) -> list[View]:
        first = require_alike(sources)
        if len(first.shape) < 2:
            rows = [changed(s, shape=(1, *first.shape)) for s in sources]
            stacked = joined(rows, (len(sources), *first.shape))
        else:
            stacked = joined(sources, (len(sources), *first.shape))
        return [changed(stacked, vector=first.vector)]

    def undo(self, outputs: Views, like: Views, facts: Facts) -> list[View]:
        output = only(outputs)
        step = output.count // output.shape[0]
        return [
            changed(sliced(output, i * step, source.shape or (1,)), vector=source.vector)
            for i, source in enumerate(like)
        ]


@dataclass(frozen=True)
class Concat(Verb):
    """Tensors of one width, one below the other along their first axis (the elements of biases, too)."""

    def views(self, sources: Views, facts: Facts) -> list[View]:
        first = require_alike(sources, first_axis=False)
        if len(first.shape) == 1:
            return JOINED.views(sources, facts)
        return [changed(joined(sources, (sum(s.shape[0] for s in sources), *first.shape[1:])), vector=first.vector)]

    def undo(self, outputs: Views, like: Views, facts: Facts) -> list[View]:
        if like and len(like[0].shape) == 1:
            return JOINED.undo(outputs, like, facts)
        output, start, parts = only(outputs), 0, []
        for source in like:
            parts.append(sliced(output, start, source.shape))
            start += source.count
        return parts


@dataclass(frozen=True)
class Whole(Verb):
    """A function of whole tensors: what needs more than a row at a time. Holds its sources and its result.

    `function(arrays, facts)` is given float32 arrays (float16 where the source is) and returns an array;
    `shape(shapes, facts)` says its shape, by default that of the first source.
    """

    function: Callable[[list[Array], Facts], Array]
    shape: Callable[[list[tuple[int, ...]], Facts], Sequence[int]] = lambda shapes, _: shapes[0]

    def views(self, sources: Views, facts: Facts) -> list[View]:
        shape = tuple(self.shape([s.shape for s in sources], facts))
        kind = F16 if all(s.type is F16 for s in sources) else F32

        def make(_: int) -> Array:
            made = self.function([widen(s.read(), s.type) for s in sources], facts)
            if made.shape != shape:
                raise ConversionError(f"{sources[0].name}: made {list(made.shape)} where {list(shape)} was planned")
            return np.ascontiguousarray(made, np.float16 if kind is F16 else np.float32).reshape(prod(shape[:-1]), -1)

        kept = Kept(make)

        def rows(start: int, stop: int) -> Array:
            return kept.get(0)[start:stop].copy()

        return [View(sources[0].name, shape, kind, rows, vector=len(shape) == 1)]


@dataclass(frozen=True)
class Cast(Single):
    """Whole numbers (ids, tables) as another type of number: I32 of I64. ConversionError for values it cannot hold."""

    type: str

    def one(self, source: View, facts: Facts) -> View:
        kind = tensor_type(self.type)
        dtype = _DTYPES[kind.name]

        def rows(start: int, stop: int) -> Array:
            values = widen(source.rows(start, stop), source.type)
            found: Array = values.astype(dtype)
            if kind.name.startswith("I") and bool((found != values).any()):
                raise ConversionError(f"{source.name}: not every value is a {kind}")
            return found

        return changed(source, type=kind, rows=rows)

    def back(self, output: View, like: View, facts: Facts) -> View:
        return Cast(like.type.name).one(output, facts)


_DTYPES: dict[str, type[np.generic]] = {
    **{f"I{bits}": getattr(np, f"int{bits}") for bits in (8, 16, 32, 64)},
    "F32": np.float32,
    "F64": np.float64,
    "F16": np.float16,
}


@dataclass(frozen=True)
class Computed(Verb):
    """A tensor made from the configuration alone: float32, or none when the model has none."""

    make: Callable[[Facts], Array | None]

    def views(self, sources: Views, facts: Facts) -> list[View]:
        values = self.make(facts)
        return [] if values is None else [of_array("computed", np.asarray(values, np.float32))]

    def undo(self, outputs: Views, like: Views, facts: Facts) -> list[View]:
        return []


COPY = Copy()
STACK = Stack()
CONCAT = Concat()
TRANSPOSE = Transpose()
#: Elements or rows of all sources in one row of them.
JOINED = Rows(lambda parts, _: np.concatenate(parts) if isinstance(parts, list) else parts)
#: What state-space models make of the logarithm they store. Through float64, which rounds to the same float32 on every
#: CPU; of NumPy's float32 exponentials two in five are off in the last bit, and which ones depends on the CPU.
NEG_EXP = Elementwise(
    lambda x, _: -np.exp(x.astype(np.float64)).astype(np.float32),
    lambda x, _: np.log(-x.astype(np.float64)).astype(np.float32),
)
#: Axes of one left out.
SQUEEZE = Reshape(lambda shape, _: [n for n in shape if n != 1] or [1])
