"""Rows to be had: a tensor of which any run of rows can be computed, and the ways to make one view of others.

Knows arrays, shapes and how rows are read in few pieces; must not know verbs, names of tensors, or model families.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gguf_forge.errors import ConversionError
from gguf_forge.types import TensorType, tensor_type

Array = npt.NDArray[Any]
Numbers = npt.NDArray[np.integer[Any]]

F32 = tensor_type("F32")
F16 = tensor_type("F16")
BF16 = tensor_type("BF16")

#: Row numbers of this many views are kept at a time; they are computed again when they are wanted again.
_KEPT_NUMBERS = 8
#: Rows that are not wanted are read along with the others up to this many times as many as are.
_WASTE = 2


@dataclass(frozen=True)
class View:
    """Rows to be had: a tensor of which any run of rows can be computed.

    `rows(start, stop)` counts rows over the flattened leading axes and gives a C-contiguous array
    (stop - start, width) of the type's NumPy form (BF16 as uint16, packed blocks as uint8). Of a `vector` (a bias, one
    of each expert, too) every element counts as a row where rows are moved. `raw`, where the tensor is as its file
    holds it, gives rows in the file's own element type (8-bit floats and bytes as uint8). `stored`, of weights that
    another tool quantized, is the same rows as that tool stored them, wherever rows were only moved.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    rows: Callable[[int, int], Array]
    vector: bool = False
    raw: Callable[[int, int], Array] | None = field(default=None, compare=False)
    stored: Stored | None = field(default=None, compare=False)

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
        """The whole tensor in its shape (of packed blocks, the last axis counts bytes)."""
        values = self.rows(0, self.count)
        return values.reshape(self.shape if not self.type.quantized else (*self.shape[:-1], values.shape[-1]))


@dataclass(frozen=True)
class Stored:
    """Rows of quantized weights as codes and scales, or as blocks of a GGUF type; `parts` are moved as the rows are.

    Of 8-bit floats, whose form `floats` names and which no type of GGUF holds, `parts` are codes and scales.
    Of a grid (see `source.packed.Grid`, whose fields these are) `parts` are codes, scales and, with `offset`, zeros or
    minima. Of blocks they are the blocks, and `factors` what multiplies each matrix of a stack, if anything does.
    `method` names the format, for reports. `orders`: the rows' columns in the order in which the parts have them, for
    all rows or for each matrix of a stack (None: as they are); empty where parts and rows agree.
    """

    method: str
    parts: tuple[View, ...]
    offset: Literal["", "zeros", "minima"] = ""
    group: int = 0
    low: int = 0
    high: int = 0
    factors: tuple[float, ...] = ()
    packed: bool = False
    orders: tuple[Numbers | None, ...] = field(default=(), compare=False)
    floats: str = ""

    def moved(self, shape: tuple[int, ...], move: Callable[[View, tuple[int, ...]], View]) -> Stored | None:
        """The parts moved each by `move(part, its shape)`; `shape` is the tensor's new one, of the width it had.

        None where matrices of a stack have columns in orders of their own: which rows are whose is not known any more.
        """
        if len(self.orders) > 1:
            return None
        return replace(self, parts=tuple(move(part, (*shape[:-1], part.width)) for part in self.parts))


def of_array(name: str, values: Array) -> View:
    """A view of an array in memory: float32, float16, or uint16 standing for BF16."""
    kinds = {"f4": F32, "f2": F16, "u2": BF16}
    kind = kinds[values.dtype.str[1:]]
    width = values.shape[-1] if values.ndim else 1
    flat = np.ascontiguousarray(values).reshape(-1, width)
    return View(name, values.shape, kind, lambda start, stop: flat[start:stop].copy(), vector=values.ndim < 2)


def only(sources: Sequence[View]) -> View:
    """The one source. ConversionError when there are more, or none."""
    if len(sources) != 1:
        raise ConversionError(f"expected one source tensor, got {len(sources)}: {', '.join(s.name for s in sources)}")
    return sources[0]


def changed(source: View, **fields: Any) -> View:
    """The source with other fields; no longer as its file holds it, nor, if rows are others, as a tool stored it."""
    if not fields.keys().isdisjoint(("rows", "type")):
        fields.setdefault("stored", None)
    return replace(source, raw=None, **fields)


def widen(rows: Array, kind: TensorType) -> Array:
    """Float values in which to calculate: BF16 bits become float32, the rest stays."""
    if kind is BF16:
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows


def require_alike(sources: Sequence[View], *, first_axis: bool = True) -> View:
    """The first of sources that have one type and one shape (less the first axis, if that may differ)."""
    first = sources[0]
    skip = 0 if first_axis else 1
    for source in sources[1:]:
        if source.shape[skip:] != first.shape[skip:] or source.type is not first.type:
            raise ConversionError(
                f"{source.name} is {source.type} {list(source.shape)}, but {first.name}, "
                f"to be joined with it, is {first.type} {list(first.shape)}"
            )
    return first


def joined(sources: Sequence[View], shape: tuple[int, ...]) -> View:
    """Sources of one type and width, one below the other."""
    edges = [0]
    for source in sources:
        edges.append(edges[-1] + source.count)
    starts = np.array(edges)

    def rows(start: int, stop: int) -> Array:
        first, last = np.searchsorted(starts, (start, max(stop - 1, start)), side="right") - 1
        parts = [
            source.rows(max(start, low) - low, min(stop, high) - low)
            for source, (low, high) in zip(sources[first : last + 1], pairwise(edges[first : last + 2]), strict=True)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    stored = _stored_together([source.stored for source in sources], shape)
    return View(sources[0].name, shape, sources[0].type, rows, sources[0].vector, stored=stored)


def _stored_together(given: Sequence[Stored | None], shape: tuple[int, ...]) -> Stored | None:
    """Stored forms of sources one below the other, where they are of one kind; None where they are not."""
    forms = [form for form in given if form is not None]
    if len(forms) != len(given):
        return None
    first, stacked = forms[0], len(shape) > 2 and shape[0] == len(forms)
    kinds = {
        (form.offset, form.floats, form.group, form.packed and form.low, *((p.type, p.width) for p in form.parts))
        for form in forms
    }
    if len(kinds) > 1 or (not stacked and len({form.factors for form in forms}) > 1):
        return None
    orders: tuple[Numbers | None, ...] = ()
    if any(form.orders for form in forms):
        if not stacked or any(len(form.orders) > 1 for form in forms):
            return None
        orders = tuple(form.orders[0] if form.orders else None for form in forms)
    parts = tuple(
        joined(pieces, (*shape[:-1], pieces[0].width)) for pieces in zip(*(form.parts for form in forms), strict=True)
    )
    factors = tuple(factor for form in forms for factor in form.factors) if stacked else first.factors
    low, high = min(form.low for form in forms), max(form.high for form in forms)
    return replace(first, parts=parts, low=low, high=high, factors=factors, orders=orders)


def sliced(source: View, start: int, shape: tuple[int, ...]) -> View:
    """`shape` rows of the source from row `start` on."""
    stored = source.stored and source.stored.moved(shape, lambda part, at: sliced(part, start, at))
    return changed(source, shape=shape, rows=lambda a, b: source.rows(start + a, start + b), stored=stored)


def reshaped(source: View, shape: tuple[int, ...]) -> View:
    """The same elements in the same order under another shape. ConversionError if they are not as many."""
    if prod(shape) != source.elements:
        raise ConversionError(f"{source.name} {list(source.shape)} cannot take the shape {list(shape)}")
    width, old = (shape[-1] if shape else 1), source.width
    if width == old or not source.elements:
        return changed(source, shape=shape, stored=source.stored and source.stored.moved(shape, reshaped))
    if source.type.quantized:
        raise ConversionError(f"{source.name}: rows of {source.type} blocks cannot get another width")

    def rows(start: int, stop: int) -> Array:
        low, high = start * width // old, -(-stop * width // old)
        block = source.rows(low, high).reshape(-1)
        begin = start * width - low * old
        return np.ascontiguousarray(block[begin : begin + (stop - start) * width]).reshape(stop - start, width)

    return changed(source, shape=shape, rows=rows)


class RowNumbers:
    """Row numbers computed when they are wanted, and kept only while few others are: a large model has many."""

    _kept: deque[weakref.ref[RowNumbers]] = deque()  # noqa: RUF012 - shared on purpose: a bound on all of them
    _lock = threading.Lock()

    def __init__(self, make: Callable[[], Numbers]) -> None:
        self._make = make
        self._numbers: Numbers | None = None

    def get(self) -> Numbers:
        """The numbers, flat."""
        numbers = self._numbers
        if numbers is None:
            numbers = self._numbers = self._make().reshape(-1)
            self._keep(weakref.ref(self))
        return numbers

    @classmethod
    def _keep(cls, newest: weakref.ref[RowNumbers]) -> None:
        """Lets the oldest forget their numbers. Holds no one alive, and needs no finalizer that would want the lock."""
        with cls._lock:
            cls._kept.append(newest)
            oldest = [cls._kept.popleft()() for _ in range(len(cls._kept) - _KEPT_NUMBERS)]
        for one in oldest:
            if one is not None:
                one._numbers = None


def gathered(source: View, shape: tuple[int, ...], numbers: RowNumbers) -> View:
    """Rows of the source by number, in the order of `numbers`; `shape` is the result's, of the source's width."""

    def rows(start: int, stop: int) -> Array:
        return _read(source, numbers.get()[start:stop])

    stored = source.stored and source.stored.moved(shape, lambda part, at: gathered(part, at, numbers))
    return changed(source, shape=shape, rows=rows, stored=stored)


def _read(source: View, wanted: Numbers) -> Array:
    """The wanted rows, read in as few pieces as do not read much more than is wanted."""
    if not wanted.size:
        return source.rows(0, 0)
    low, high = int(wanted.min()), int(wanted.max()) + 1
    if high - low == wanted.size and bool((np.diff(wanted) == 1).all()):
        return source.rows(low, high)
    if high - low <= _WASTE * wanted.size:
        return np.ascontiguousarray(source.rows(low, high)[wanted - low])
    order = np.argsort(wanted, kind="stable")
    ordered = wanted[order]
    breaks = np.flatnonzero(np.diff(ordered) > 1) + 1
    pieces = [source.rows(int(piece[0]), int(piece[-1]) + 1)[piece - piece[0]] for piece in np.split(ordered, breaks)]
    found = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    result = np.empty_like(found)
    result[order] = found
    return result


class Kept:
    """The last values computed for one number (a matrix of a stack), for threads that read rows of it in turn."""

    def __init__(self, make: Callable[[int], Array]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._at = -1
        self._values: Array | None = None

    def get(self, number: int) -> Array:
        """The values of this number; whoever asks meanwhile waits rather than computing them again."""
        with self._lock:
            if self._values is None or self._at != number:
                self._values = None
                self._values, self._at = self._make(number), number
            return self._values

    def release(self) -> None:
        """Forgets the values: nobody will read them again."""
        with self._lock:
            self._values, self._at = None, -1
