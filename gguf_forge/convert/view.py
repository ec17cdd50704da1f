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
from typing import Any

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
    holds it, gives rows in the file's own element type (8-bit floats and bytes as uint8).
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    rows: Callable[[int, int], Array]
    vector: bool = False
    raw: Callable[[int, int], Array] | None = field(default=None, compare=False)

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
    """The source with other fields; no longer as its file holds it."""
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
            for source, (low, high) in zip(
                sources[first : last + 1], pairwise(edges[first : last + 2]), strict=True
            )
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return View(sources[0].name, shape, sources[0].type, rows, sources[0].vector)


def sliced(source: View, start: int, shape: tuple[int, ...]) -> View:
    """`shape` rows of the source from row `start` on."""
    return changed(source, shape=shape, rows=lambda a, b: source.rows(start + a, start + b))


def reshaped(source: View, shape: tuple[int, ...]) -> View:
    """The same elements in the same order under another shape. ConversionError if they are not as many."""
    if prod(shape) != source.elements:
        raise ConversionError(f"{source.name} {list(source.shape)} cannot take the shape {list(shape)}")
    width, old = (shape[-1] if shape else 1), source.width
    if width == old or not source.elements:
        return changed(source, shape=shape)
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

    return changed(source, shape=shape, rows=rows)


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
    pieces = [
        source.rows(int(piece[0]), int(piece[-1]) + 1)[piece - piece[0]] for piece in np.split(ordered, breaks)
    ]
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
