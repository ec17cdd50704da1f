"""Whole numbers beside scales: symmetric grids, and those whose zero is a whole number too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from gguf_forge.convert.grids.kind import Kind, Parts, Runs, all_lie
from gguf_forge.convert.grids.rounding import BITS, bounds, halves, of_bits, rounded
from gguf_forge.convert.view import F16, F32, Array, Stored, View
from gguf_forge.types import TensorType, tensor_type

I8 = tensor_type("I8")
#: Groups, and elements of each, of a first look.
_FEW, _ELEMENTS = 4, 64


@dataclass(frozen=True)
class Steps:
    """scale * code: columns that share a scale (0 for a row), the range of codes, and codes that the largest may have.

    With `zeros` a group's codes span no more than `high`, wherever they begin: they are kept from 0 on, beside a zero.
    """

    text: str
    type: str
    group: int
    low: int
    high: int
    largest: tuple[int, ...]
    zeros: bool = False
    whole: bool = False

    def fits(self, width: int) -> bool:
        """Whether groups are whole."""
        return width % (self.group or 32) == 0

    def may(self, rows: Array, source: TensorType) -> bool:
        """Whether some scale serves the beginning of each of the first groups."""
        values = rows.reshape(-1, self.group or rows.shape[1])
        top = np.abs(values).max(axis=1)
        some = np.flatnonzero(top)[:_FEW]
        if not some.size:
            return True
        begun = values[some, :_ELEMENTS]
        low, high = bounds(top[some], source)
        counts = np.array(self.largest, np.float64)
        first, last = halves(low[:, None] / counts, high[:, None] / counts)
        number = np.arange(int((last - first).max(initial=-1)) + 1)
        tried = first[..., None] + number
        scales = of_bits(np.maximum(np.minimum(tried, last[..., None]), 1)).reshape(len(some), -1, 1)
        made = rounded(scales * np.rint(begun[:, None] / scales), source)
        good = (made == begun[:, None]).all(axis=2) & (tried <= last[..., None]).reshape(len(some), -1)
        return bool(good.any(axis=1).all())

    def read(self, rows: Array, source: TensorType, start: int = 0) -> tuple[Array, ...] | None:
        """Codes (int8, as the rows; uint8 beside zeros), scales (float32, one a group), and zeros (int16)."""
        values = rows.reshape(-1, self.group or rows.shape[1])
        top = np.abs(values).max(axis=1)
        low, high = bounds(np.where(top, top, np.float32(1)), source)
        codes = np.zeros(values.shape, np.int8)
        scales = np.zeros(len(values), np.float32)
        done = top == 0
        gap, slack = _gap(np.concatenate([values, np.zeros((len(values), 1), np.float32)], axis=1), source)
        fewest = (top - slack) / (gap + slack)
        for largest in self.largest:
            pending = np.flatnonzero(~done & (fewest <= largest))
            first, last = halves(low[pending] / largest, high[pending] / largest)
            for number in range(int((last - first).max(initial=-1)) + 1):
                tried = np.flatnonzero((first + number <= last) & ~done[pending])
                here = pending[tried]
                good, steps, scale = self._tried(values[here], of_bits(first[tried] + number), source)
                codes[here[good]], scales[here[good]], done[here[good]] = steps[good], scale[good], True
        if not done.all():
            return None
        by_group = scales.reshape(len(rows), -1)
        if not self.zeros:
            return codes.reshape(rows.shape), by_group
        zeros = np.maximum(-codes.min(axis=1), 0).astype(np.int16)
        fields = (codes + zeros[:, None]).astype(np.uint8)
        return fields.reshape(rows.shape), by_group, zeros.reshape(by_group.shape)

    def _tried(self, found: Array, scale: Array, source: TensorType) -> tuple[Array, Array, Array]:
        """Which groups lie on the grid of these scales, their codes, and the scales with their signs."""
        steps = np.rint(found / scale[:, None])
        if self.zeros:
            span = np.maximum(steps.max(axis=1, initial=0), 0) - np.minimum(steps.min(axis=1, initial=0), 0)
            good = span <= self.high
        else:
            # Where the range is not the same on both sides, a negative scale turns it round.
            turned = steps.max(axis=1, initial=0) > self.high
            steps[turned] *= -1
            scale[turned] *= -1
            good = (steps >= self.low).all(axis=1) & (steps <= self.high).all(axis=1)
        good &= (rounded(scale[:, None] * steps, source) == found).all(axis=1)
        return good, steps, scale

    def settled(self, runs: Runs, source: TensorType, height: int) -> Kind | None:
        """Itself, if all rows lie on it."""
        return self if all_lie(self, runs, source) else None

    def stored(self, view: View, parts: Parts) -> Stored:
        """Codes, scales and, where there are any, zeros."""
        group = self.group or view.width
        by_group = (*view.shape[:-1], view.width // group)
        views = [View(view.name, view.shape, I8, parts(0)), View(view.name, by_group, F32, parts(1))]
        if self.zeros:
            views.append(View(view.name, by_group, F32, parts(2)))
        return Stored(_found(view, self), tuple(views), "zeros" if self.zeros else "", group, self.low, self.high)


@dataclass(frozen=True)
class Thirds:
    """-1, 0 and 1 beside a scale of each matrix (`height` rows): any float32, which F16 need not hold."""

    scales: tuple[float, ...] = ()
    height: int = 1
    text: str = "three values in a matrix"
    type: str = "TQ2_0"
    whole: bool = True

    def fits(self, width: int) -> bool:
        """Whether blocks of some type are whole."""
        return width % 32 == 0

    def may(self, rows: Array, source: TensorType) -> bool:
        """Whether the first row has one magnitude beside zero."""
        sizes = np.abs(rows[0])
        return bool(((sizes == 0) | (sizes == sizes.max())).all())

    def read(self, rows: Array, source: TensorType, start: int = 0) -> tuple[Array, ...] | None:
        """Codes (int8, as the rows) and scales (float32, one a row)."""
        number = np.arange(start, start + len(rows)) // self.height
        scales = np.array(self.scales, np.float32)[number, None]
        sizes = np.abs(rows)
        return (np.sign(rows).astype(np.int8), scales) if ((sizes == 0) | (sizes == scales)).all() else None

    def settled(self, runs: Runs, source: TensorType, height: int) -> Kind | None:
        """With the largest magnitude of each matrix, if all others are zero."""
        found: dict[int, float] = {}
        for start, rows in runs():
            for at, size in enumerate(np.abs(rows).max(axis=1), start):
                found[at // height] = max(found.get(at // height, 0.0), float(size))
        made = replace(self, scales=tuple(found.values()), height=height)
        return made if all_lie(made, runs, source) else None

    def stored(self, view: View, parts: Parts) -> Stored:
        """Codes and scales."""
        views = View(view.name, view.shape, I8, parts(0)), View(view.name, (*view.shape[:-1], 1), F32, parts(1))
        return Stored(_found(view, self), views, "", view.width, -1, 1)


@dataclass(frozen=True)
class Minima:
    """scale * code + minimum, codes from 0 to `high`, in groups of so many columns."""

    text: str
    type: str
    group: int
    high: int
    whole: bool = False

    def fits(self, width: int) -> bool:
        """Whether groups are whole."""
        return width % self.group == 0

    def may(self, rows: Array, source: TensorType) -> bool:
        """Whether values of the first groups lie no closer than codes would let them, and all of them on it."""
        few = rows.reshape(-1, self.group)[:_FEW]
        return bool((_fewest(few, source) <= self.high).all()) and bool(self._solved(few, source)[3].all())

    def read(self, rows: Array, source: TensorType, start: int = 0) -> tuple[Array, ...] | None:
        """Codes (uint8, as the rows), scales and minima (float32, one a group)."""
        codes, scales, minima, done = self._solved(rows.reshape(-1, self.group), source)
        if not done.all():
            return None
        return codes.reshape(rows.shape), scales.reshape(len(rows), -1), minima.reshape(len(rows), -1)

    def _solved(self, values: Array, source: TensorType) -> tuple[Array, Array, Array, Array]:
        """Codes, scales, minima, and which groups have them."""
        least, most = values.min(axis=1), values.max(axis=1)
        found = np.zeros(values.shape, np.uint8), np.zeros(len(values), np.float32), least.copy(), least == most
        with np.errstate(over="ignore"):
            found[3][:] &= least.astype(np.float16) == least
        # The minimum is the least value or the largest, before it was rounded; the other end has some code.
        ends = [(side, list(_minima(edge, source))) for side, edge in ((1, least), (-1, most))]
        fewest = _fewest(values, source)
        for code in range(self.high, 0, -1):
            for away in range(len(ends[0][1])):
                for side, minima in ends:
                    if found[3].all():
                        return found
                    tried = np.flatnonzero(~found[3] & (fewest <= code) & np.isfinite(minima[away]))
                    self._beside(values, tried, minima[away], most if side > 0 else least, side, code, source, found)
        return found

    def _beside(
        self,
        values: Array,
        pending: Array,
        minimum: Array,
        other: Array,
        side: int,
        code: int,
        source: TensorType,
        found: tuple[Array, ...],
    ) -> None:
        """Looks for scales of the pending groups beside these minima, if the other end has this code."""
        codes, scales, minima, done = found
        low, high = _span(minimum[pending], other[pending], side, source)
        first, last = halves(low / code, high / code)
        for number in range(int((last - first).max(initial=-1)) + 1):
            tried = np.flatnonzero((first + number <= last) & ~done[pending])
            here = pending[tried]
            scale = of_bits(first[tried] + number) * np.float32(side)
            steps = np.rint((values[here] - minimum[here, None]) / scale[:, None])
            good = (steps >= 0).all(axis=1) & (steps <= self.high).all(axis=1)
            # As a decoder does: the product is exact, and the sum is rounded to float32.
            made = (scale[:, None].astype(np.float64) * steps + minimum[here, None]).astype(np.float32)
            good &= (rounded(made, source) == values[here]).all(axis=1)
            where = here[good]
            codes[where], scales[where], minima[where] = steps[good], scale[good], minimum[where]
            done[where] = True

    def settled(self, runs: Runs, source: TensorType, height: int) -> Kind | None:
        """Itself, if all rows lie on it."""
        return self if all_lie(self, runs, source) else None

    def stored(self, view: View, parts: Parts) -> Stored:
        """Codes, scales and minima."""
        by_group = (*view.shape[:-1], view.width // self.group)
        shapes = ((view.shape, I8), (by_group, F32), (by_group, F32))
        views = tuple(View(view.name, shape, kind, parts(i)) for i, (shape, kind) in enumerate(shapes))
        return Stored(_found(view, self), views, "minima", self.group, 0, self.high)


def _minima(edge: Array, source: TensorType) -> Iterator[Array]:
    """The numbers of F16 that round to these values, the nearest first; NaN where there is no such."""
    with np.errstate(over="ignore"):
        nearest = edge.astype(np.float16)
    reach = 1 << (BITS[F16] - BITS[source] - 1) if BITS[source] < BITS[F16] else 0
    for away in sorted(range(-reach, reach + 1), key=abs):
        near = (nearest.view(np.uint16) + np.uint16(away & 0xFFFF)).view(np.float16).astype(np.float32)
        yield np.where(rounded(near, source) == edge, near, np.float32(np.nan))


def _fewest(values: Array, source: TensorType) -> Array:
    """The least that the largest code can be beside a minimum: between the closest values lies one step or more."""
    most, least = values.max(axis=1).astype(np.float64), values.min(axis=1)
    gap, slack = _gap(values, source)
    found: Array = np.maximum(most - least - slack, 0) / (gap + slack)
    return found


def _gap(values: Array, source: TensorType) -> tuple[Array, Array]:
    """The distance of the closest values of each group that differ, and by how much rounding may have changed one."""
    gaps = np.diff(np.sort(values, axis=1).astype(np.float64), axis=1)
    largest = np.abs(values).max(axis=1)
    slack = np.subtract(*bounds(np.where(largest, largest, np.float32(1)), source)[::-1])
    return np.where(gaps > 0, gaps, np.inf).min(axis=1), slack


def _span(minimum: Array, other: Array, side: int, source: TensorType) -> tuple[Array, Array]:
    """The least and the largest distance from a minimum to what was rounded to the value at the other end."""
    magnitude = np.abs(other)
    low, high = bounds(np.where(magnitude, magnitude, np.float32(1)), source)
    slack = np.where(magnitude, np.maximum(high - magnitude, magnitude - low), 0)
    distance = np.nan_to_num(side * (other.astype(np.float64) - minimum))
    return np.maximum(distance - slack, 0), np.maximum(distance + slack, 0)


def _found(view: View, kind: Kind) -> str:
    return f"a grid found in {view.type}, {kind.text}"
