"""Rows of a run as a file holds them: encoded, fitted or straight from codes, and looked at.

Knows rows and types; must not know files, nor who asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from gguf_forge.convert.blemish import Blemish, first_blemish
from gguf_forge.convert.metrics import Metrics
from gguf_forge.convert.view import F32, Array, View
from gguf_forge.errors import QuantError, escaped
from gguf_forge.quant.codec import encode_rows
from gguf_forge.quant.encoders import PROCESSORS, Encoder
from gguf_forge.quant.floats8 import encode_floats8
from gguf_forge.types import TensorType

Floats = npt.NDArray[np.float32]
Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Run:
    """Rows `start` to `stop` - 1 of a view."""

    view: View
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Bytes of source, as `progress` counts them."""
        return (self.stop - self.start) * self.view.type.row_bytes(self.view.width)


@dataclass(frozen=True)
class Made:
    """Rows encoded, the first number in them that is not finite, and what they add to a tensor's error, if asked."""

    blocks: Array
    blemish: Blemish | None
    squares: tuple[float, float] | None


@contextmanager
def named(tensor: str) -> Iterator[None]:
    """What goes wrong with a tensor's rows is said with its name."""
    try:
        yield
    except QuantError as error:
        raise QuantError(error.text, field=f'tensor "{escaped(tensor)}"') from None


class Rows:
    """Rows start..stop-1 of a view, read when they are wanted: as values, or as the 8-bit floats that they are of."""

    def __init__(self, view: View, start: int, stop: int) -> None:
        self._view, self._start, self._stop = view, start, stop
        self.of_floats8 = view.stored is not None and bool(view.stored.floats)

    @cached_property
    def values(self) -> Array:
        """The rows as numbers or blocks."""
        return self._view.rows(self._start, self._stop)

    @cached_property
    def _parts(self) -> tuple[Array, Array]:
        assert self._view.stored is not None
        codes, scales = self._view.stored.parts
        return codes.rows(self._start, self._stop), scales.rows(self._start, self._stop)

    def straight(self, kind: TensorType, strict: bool, measured: bool) -> Made:
        """Encoded from the codes themselves: values are only ever a few at a time."""
        view, stored = self._view, self._view.stored
        assert stored is not None
        codes, scales = self._parts
        squares = np.zeros(2) if measured else None
        with named(view.name):
            made = encode_floats8(
                codes, stored.floats, scales, stored.group, kind,
                first_row=self._start, strict=strict, squares=squares,
            )  # fmt: skip
        found = first_blemish(made, kind, lambda: self.values, view.type, self._start)
        return Made(made, found, None if squares is None else (float(squares[0]), float(squares[1])))


def made_of(
    rows: Array,
    taken: Run,
    kind: TensorType,
    weights: Weights | None,
    strict: bool,
    metrics: Metrics | None,
    measured: bool,
    encoder: Encoder = PROCESSORS,
) -> Made:
    """Rows as read, encoded and looked at."""
    blocks, source = encode(rows, taken, kind, weights, strict, metrics, encoder), taken.view.type
    found = first_blemish(blocks, kind, lambda: rows, source, taken.start)
    return Made(blocks, found, _squares(blocks, kind, rows, source) if measured else None)


def _squares(made: Array, kind: TensorType, rows: Array, source: TensorType) -> tuple[float, float]:
    """The sum of squared errors of encoded rows, and that of the squared values themselves, added up in float32."""
    values, found = (encode_rows(x, t, F32).view(np.float32).reshape(-1) for x, t in ((rows, source), (made, kind)))
    error = found - values
    return float(error @ error), float(values @ values)


def encode(
    rows: Array,
    taken: Run,
    kind: TensorType,
    weights: Weights | None,
    strict: bool,
    metrics: Metrics | None,
    encoder: Encoder = PROCESSORS,
) -> Array:
    """Rows as read, fitted where they can be, or as `encoder` makes them. Raises QuantError with the tensor's name."""
    view = taken.view
    if kind is view.type:
        return rows
    with named(view.name):
        if metrics is None and (weights is None or len(weights) == 1):
            of_all = None if weights is None else weights[0]
            return encoder.encode_rows(rows, view.type, kind, of_all, taken.start, strict)
        height = view.shape[-2] if len(view.shape) > 1 else view.count // (1 if weights is None else len(weights))
        parts = []
        for matrix, low, high in _spans(taken.start, taken.stop, height):
            part = rows[low - taken.start : high - taken.start]
            of_matrix = None if weights is None else weights[matrix if len(weights) > 1 else 0]
            plain = partial(encoder.encode_rows, part, view.type, kind, of_matrix, low, strict)
            metric = None if metrics is None else metrics.of(view.name, matrix, kind)
            parts.append(plain() if metric is None else metric.encode_or(_values(part, view), kind, plain))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _values(rows: Array, view: View) -> Floats:
    return encode_rows(rows, view.type, F32).view(np.float32).reshape(len(rows), view.width)


def _spans(start: int, stop: int, height: int) -> Iterator[tuple[int, int, int]]:
    """The matrices of `height` rows that rows start..stop touch: (matrix, first row, row after the last)."""
    at = start
    while at < stop:
        end = min(stop, (at // height + 1) * height)
        yield at // height, at, end
        at = end
