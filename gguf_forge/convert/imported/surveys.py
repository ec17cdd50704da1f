"""A look at all scales and offsets of weights on a grid: what a type must hold, and how well F16 does.

Knows numbers; never looks at codes. Must not know types of GGUF.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gguf_forge.convert.view import Array, Stored, View
from gguf_forge.errors import ConversionError, escaped

#: Numbers looked at together.
_RUN = 1 << 20


@dataclass(frozen=True)
class Survey:
    """What a look at the scales and offsets of a grid says.

    `low`, `high`: the range of code - zero; `zeros` the range of zeros, None where they are not all whole; `rounding`
    the most by which a scale or minimum changes in F16, relative to it: infinite where one does not fit; `largest` a
    number that no weight exceeds in magnitude. `wholes`: the scales of the matrices, where each has but one.
    """

    low: int
    high: int
    zeros: tuple[int, int] | None
    rounding: float
    largest: float
    wholes: tuple[float, ...] = ()


def survey(view: View) -> Survey:
    """Looks at all scales and offsets of a view's grid. ConversionError for one that is no number."""
    stored = view.stored
    assert stored is not None
    low, high = stored.low, stored.high
    least, most, whole, worst, largest = 0, 0, True, 0.0, 0.0
    first = True
    wholes = _Wholes(view)
    for start, stop in _runs(view.count, stored.parts[1].width):
        scales = stored.parts[1].rows(start, stop)
        if not _finite(scales):
            bad = int(np.flatnonzero(~np.isfinite(scales).all(axis=1))[0]) + start
            raise ConversionError(f"{escaped(view.name)}: a scale in row {bad} is not finite ({stored.method})")
        worst = max(worst, _rounding(scales))
        wholes.see(start, scales)
        if not stored.offset:
            largest = max(largest, _largest(stored, scales))
            continue
        offsets = stored.parts[2].rows(start, stop)
        if not _finite(offsets):
            raise ConversionError(f"{escaped(view.name)}: a zero or minimum is not finite ({stored.method})")
        largest = max(largest, _largest(stored, scales, offsets))
        if stored.offset == "minima":
            worst = max(worst, _rounding(offsets))
        elif whole and offsets.size:
            whole = offsets.dtype.kind in "iu" or bool((offsets == np.rint(offsets)).all())
            here = int(np.floor(offsets.min())), int(np.ceil(offsets.max()))
            least, most = here if first else (min(least, here[0]), max(most, here[1]))
            first = False
    zeros = (least, most) if stored.offset == "zeros" and whole else (0, 0) if not stored.offset else None
    if zeros is not None:
        low, high = low - zeros[1], high - zeros[0]
    return Survey(low, high, zeros, worst, largest, wholes.found() if not stored.offset else ())


class _Wholes:
    """Whether all scales of each matrix of a stack are the same, run of rows after run, until two differ."""

    def __init__(self, view: View) -> None:
        self._matrices = view.shape[0] if len(view.shape) > 2 else 1
        self._height = max(1, view.count // max(1, self._matrices))
        self._found: dict[int, Array] = {}
        self._differ = False

    def see(self, start: int, scales: Array) -> None:
        """Looks at the scales of rows from row `start` on."""
        at, stop = start, start + len(scales)
        while at < stop and not self._differ:
            matrix = at // self._height
            end = min(stop, (matrix + 1) * self._height)
            one = self._found.setdefault(matrix, scales[at - start, :1].copy())
            # Mostly the first row tells, and spares comparing all.
            self._differ = not ((scales[at - start] == one).all() and (scales[at - start : end - start] == one).all())
            at = end

    def found(self) -> tuple[float, ...]:
        """The scales of the matrices; none where one has several."""
        whole = not self._differ and len(self._found) == self._matrices and all(s.size for s in self._found.values())
        return tuple(float(self._found[m][0]) for m in range(self._matrices)) if whole else ()


def _runs(count: int, width: int) -> Iterator[tuple[int, int]]:
    step = max(1, _RUN // max(1, width))
    for start in range(0, count, step):
        yield start, min(count, start + step)


#: The bits of a half without its sign, and those of an infinity, above which NaNs are.
_HALF_BITS, _HALF_INFINITY = 0x7FFF, 0x7C00


def _magnitude(values: Array) -> float:
    """The largest magnitude. Of halves by their bits, which are in the order of what they say, and quickly compared."""
    if values.dtype == np.float16:
        bits = (values.view(np.uint16) & np.uint16(_HALF_BITS)).max(initial=0)
        return float(np.uint16(bits).view(np.float16))
    return max(float(values.max(initial=0)), -float(values.min(initial=0)))


def _finite(values: Array) -> bool:
    """Whether all are numbers."""
    if values.dtype.kind in "iu":
        return True
    if values.dtype == np.float16:
        return bool((values.view(np.uint16) & np.uint16(_HALF_BITS)).max(initial=0) < _HALF_INFINITY)
    return bool(np.isfinite(values).all())


def _largest(stored: Stored, scales: Array, offsets: Array | None = None) -> float:
    """A number that no weight with these scales exceeds in magnitude."""
    most, codes = _magnitude(scales), max(abs(stored.low), abs(stored.high))
    if offsets is None:
        return codes * most
    beside = _magnitude(offsets)
    return codes * most + (beside if stored.offset == "minima" else beside * most)


def _rounding(values: Array) -> float:
    """The largest relative change of a number in F16."""
    if not values.size or values.dtype == np.float16:
        return 0.0
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        halves = values.astype(np.float16).astype(values.dtype)
        change = np.abs(halves - values) / np.abs(values)
    change[values == 0] = 0
    return float(change.max())


class Surveys:
    """Surveys of a model's weights, by name, each made when it is first asked for: every type wanted needs the same."""

    def __init__(self) -> None:
        self._made: dict[str, Survey] = {}

    def of(self, view: View) -> Survey:
        """The survey of a view that has a grid."""
        if view.name not in self._made:
            self._made[view.name] = survey(view)
        return self._made[view.name]
