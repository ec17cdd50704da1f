"""Where two models differ: keys, tensors by shape, type and bytes, and how far apart their values are. Must not print.

How files are laid out does not count: shards, padding and slack, versions, the order of keys and tensors.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from gguf_forge.errors import UnsupportedError
from gguf_forge.format.layout import LIMITS, SLACK_KEY, Limits
from gguf_forge.format.reader import GGUFFile, Tensor, UnknownTensor
from gguf_forge.format.values import Value
from gguf_forge.opening import open as open_file
from gguf_forge.whole.copying import Progress, first_difference

StrPath = str | os.PathLike[str]

#: Elements decoded at a time: whole blocks of every type.
RUN_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class KeyDifference:
    """A key that one file lacks (None), or has with another type or value."""

    key: str
    old: Value | None
    new: Value | None

    @property
    def elements(self) -> tuple[int, int] | None:
        """Of arrays of one type: how many elements differ, and the number of the first. What one lacks differs."""
        if self.old is None or self.new is None or self.old.element is None or self.old.element is not self.new.element:
            return None
        pairs = zip_longest(_items(self.old), _items(self.new), fillvalue=None)
        differing = [i for i, (a, b) in enumerate(pairs) if not _alike(a, b)]
        return (len(differing), differing[0]) if differing else None


@dataclass(frozen=True)
class Apart:
    """How far the values of `b` are from those of `a`, of one shape, decoded to float32; sums are taken in float64.

    rmse: root mean square of the differences. relative: that as a share of the root mean square of a's values. largest:
    the largest difference. nonfinite: how many pairs were left out, as one of them is a NaN or infinite.
    """

    rmse: float
    relative: float
    largest: float
    nonfinite: int


@dataclass(frozen=True)
class TensorDifference:
    """A tensor that one file lacks (None), or has with another shape, type, or other bytes.

    differs: of "shape", "type", "data" (bytes of one type and shape that differ, from number `first_byte` on).
    values: how far apart values are, where that was asked for and shapes are one. why: why there is no more to say of
    their data; with no more in `differs`, they may be the same.
    """

    name: str
    old: Tensor | UnknownTensor | None
    new: Tensor | UnknownTensor | None
    differs: Sequence[str] = ()
    first_byte: int | None = None
    values: Apart | None = None
    why: str | None = None


@dataclass(frozen=True)
class Differences:
    """What differs between two models; `same` if nothing does. keys, tensors: in the order of the first file, what only
    the second has at the end. endian: both byte orders where they differ. same_order: of keys, and of tensors.
    """

    keys: Sequence[KeyDifference]
    tensors: Sequence[TensorDifference]
    endian: tuple[str, str] | None
    same_order: Mapping[str, bool]
    compared: str

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.keys or self.tensors or self.endian)

    def __repr__(self) -> str:
        return f"<Differences: {len(self.keys)} keys, {len(self.tensors)} tensors>"


def diff_files(
    a: StrPath,
    b: StrPath,
    *,
    headers_only: bool = False,
    values: bool = False,
    limits: Limits = LIMITS,
    progress: Progress | None = None,
) -> Differences:
    """Compares two GGUF files, or sets of shards: the keys and tensors that differ.

    `headers_only` reads no tensor's bytes. `values` decodes those that differ in type or bytes and says how far apart
    they are. `progress` is called with bytes of the first file done and all. Raises what `open` raises.
    """
    with ExitStack() as stack:
        one, two = (stack.enter_context(open_file(path, limits=limits, unknown_types=True)) for path in (a, b))
        every = [key for key in dict.fromkeys((*one.metadata, *two.metadata)) if key != SLACK_KEY]
        keys = [KeyDifference(key, _value(one, key), _value(two, key)) for key in every]
        keys = [found for found in keys if found.old != found.new]
        tensors = _tensors(one, two, headers_only, values, progress)
        for file in (one, two):
            file.check_unchanged()
        order = {
            "keys": [k for k in one.metadata if k in two.metadata] == [k for k in two.metadata if k in one.metadata],
            "tensors": _common(one, two) == _common(two, one),
        }
        endian = None if one.endian == two.endian else (one.endian, two.endian)
        return Differences(keys, tensors, endian, order, "headers" if headers_only else "values" if values else "bytes")


def _common(one: GGUFFile, two: GGUFFile) -> list[str]:
    names = {t.name for t in two.listing()}
    return [t.name for t in one.listing() if t.name in names]


def _value(file: GGUFFile, key: str) -> Value | None:
    return file.metadata.stored(key) if key in file.metadata else None


def _tensors(
    one: GGUFFile, two: GGUFFile, headers_only: bool, values: bool, progress: Progress | None
) -> list[TensorDifference]:
    old, new = ({t.name: t for t in file.listing()} for file in (one, two))
    total, done = sum(t.nbytes for t in one.tensors.values()), 0
    found = []
    for name in dict.fromkeys((*old, *new)):
        a, b = old.get(name), new.get(name)
        difference = TensorDifference(name, a, b) if a is None or b is None else _compared(a, b, headers_only, values)
        if difference is not None:
            found.append(difference)
        if isinstance(a, Tensor) and progress is not None:
            done += a.nbytes
            progress(done, total)
    return found


def _compared(
    a: Tensor | UnknownTensor, b: Tensor | UnknownTensor, headers_only: bool, values: bool
) -> TensorDifference | None:
    differs = [what for what, same in (("shape", a.shape == b.shape), ("type", _type(a) == _type(b))) if not same]
    why, at, apart = None, None, None
    if isinstance(a, UnknownTensor) or isinstance(b, UnknownTensor):
        why = "a type that is not read"
    elif not headers_only:
        if not differs and (at := first_difference(a, b)) is not None:
            differs.append("data")
        if values and differs and a.shape == b.shape:
            try:
                apart = values_apart(a, b)
            except UnsupportedError as error:
                why = error.text
    return TensorDifference(a.name, a, b, differs, at, apart, why) if differs or why else None


def _type(tensor: Tensor | UnknownTensor) -> Any:
    return tensor.type_id if isinstance(tensor, UnknownTensor) else tensor.type


def values_apart(a: Tensor, b: Tensor) -> Apart:
    """How far the values of two tensors of one shape are apart. UnsupportedError where one cannot be decoded."""
    elements = math.prod(a.shape)
    squares = weight = largest = 0.0
    counted = 0
    for start in range(0, elements, RUN_ELEMENTS):
        stop = min(start + RUN_ELEMENTS, elements)
        x, y = (t.read_values(start, stop).astype(np.float64) for t in (a, b))
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(x) & np.isfinite(y)
            apart = np.abs(y - x)[finite]
        counted += len(apart)
        squares += float(apart @ apart)
        weight += float(x[finite] @ x[finite])
        largest = max(largest, float(apart.max(initial=0.0)))
    rmse = math.sqrt(squares / counted) if counted else 0.0
    relative = math.sqrt(squares / weight) if weight else (0.0 if not squares else math.inf)
    return Apart(rmse, relative, largest, elements - counted)


def _items(value: Value) -> list[Any]:
    found = value.value
    return list(found) if isinstance(found, list) else list(found.tolist())


def _alike(a: Any, b: Any) -> bool:
    return bool(a == b) or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))
