"""4-bit floats (E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6, with a sign) beside scales: MXFP4 and NVFP4 that became plain floats.

Whatever made them plain multiplied code and scale, which a type of eight bits or more for the significand holds exactly
but where a scale of the whole tensor rounds them. Knows numbers and the layout of the two types' blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gguf_forge.convert.grids.kind import Kind, Parts, Runs, all_lie
from gguf_forge.convert.grids.rounding import bounds, rounded
from gguf_forge.convert.view import Array, Stored, View
from gguf_forge.source.dtypes import DTYPES
from gguf_forge.types import TensorType, tensor_type

MXFP4, NVFP4 = tensor_type("MXFP4"), tensor_type("NVFP4")
#: Twice the magnitudes of E2M1 by their codes, and codes by twice the magnitude (8: no such magnitude).
_DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12], np.float32)
_CODES = np.full(13, 8, np.uint8)
_CODES[_DOUBLED.astype(np.intp)] = np.arange(8)
#: Between these, the nearest magnitude is the same.
_BETWEEN = (_DOUBLED[1:] + _DOUBLED[:-1]) / 2
#: The bias of E8M0, and the exponent of E2M1's largest numbers.
_BIAS, _TOP = 127, 2
#: Positive numbers of E4M3 by their bits, zero first; 448 is the last.
_E4M3 = np.asarray(DTYPES["F8_E4M3"].table, np.float64)[:127]
_HALFWAY = (_E4M3[1:] + _E4M3[:-1]) / 2
#: What the largest of a sub-block may be, in steps of half: of the others the scale is one of these, times a power of
#: two, where that has bits for it.
_LARGEST, _SMALLER = (12, 8), (6, 4, 3, 2, 1)
_SUB, _FEW = 16, 8
#: How far bounds that are the same number may lie apart, for rounding.
_SLACK = 2.0**-40
#: Elements by which a scale of the whole tensor is looked for, before all are.
_GLANCE = 1 << 17
#: Tries of a scale of the whole tensor between its bounds.
_TRIES = 9


def _nibbles(codes: Array, run: int) -> npt.NDArray[np.uint8]:
    """Codes (n, run) as bytes: element i in the low half of byte i, and i + run / 2 in the high one."""
    half = run // 2
    found: npt.NDArray[np.uint8] = codes[..., :half] | codes[..., half:] << np.uint8(4)
    return found


def _signed(codes: Array, values: Array) -> Array:
    """Codes with the signs of values, those of zeros too."""
    found: Array = codes | np.signbit(values).astype(np.uint8) << np.uint8(3)
    return found


@dataclass(frozen=True)
class Exponents:
    """MXFP4: a power of two for each 32 columns."""

    text: str = "MXFP4, 4-bit floats beside powers of two"
    type: str = "MXFP4"
    whole: bool = False

    def fits(self, width: int) -> bool:
        """Whether blocks are whole."""
        return width % MXFP4.block_size == 0

    def may(self, rows: Array, source: TensorType) -> bool:
        """Whether the first blocks lie on it."""
        return self.read(rows.reshape(-1, MXFP4.block_size)[:_FEW], source) is not None

    def read(self, rows: Array, source: TensorType, start: int = 0) -> tuple[Array, ...] | None:
        """Blocks. The largest exponent is taken: what lies on a grid of a smaller one lies on that, too."""
        values = rows.reshape(-1, MXFP4.block_size)
        top = np.abs(values).max(axis=1)
        exponent = np.clip(np.frexp(top)[1] - 1 - _TOP, -_BIAS, _BIAS)
        exponent[top == 0] = -_BIAS
        steps = np.abs(np.ldexp(values, 1 - exponent[:, None]))
        whole = np.rint(steps)
        if not ((whole == steps) & (whole < len(_CODES))).all():
            return None
        codes = _CODES[whole.astype(np.intp)]
        if (codes == 8).any():
            return None
        blocks = np.empty((len(values), MXFP4.block_bytes), np.uint8)
        blocks[:, 0] = exponent + _BIAS
        blocks[:, 1:] = _nibbles(_signed(codes, values), MXFP4.block_size)
        return (blocks.reshape(len(rows), -1),)

    def settled(self, runs: Runs, source: TensorType, height: int) -> Kind | None:
        """Itself, if all rows lie on it."""
        return self if all_lie(self, runs, source) else None

    def stored(self, view: View, parts: Parts) -> Stored:
        """Blocks."""
        return Stored(f"a grid found in {view.type}, {self.text}", (View(view.name, view.shape, MXFP4, parts(0)),))


@dataclass(frozen=True)
class Fractions:
    """NVFP4: a scale of E4M3 for each 16 columns and one of each matrix, of which `height` rows are one."""

    scales: tuple[float, ...] = (1.0,)
    height: int = 0
    text: str = "NVFP4, 4-bit floats beside 8-bit ones"
    type: str = "NVFP4"

    @property
    def whole(self) -> bool:
        """Whether matrices have scales."""
        return self.height > 0

    def fits(self, width: int) -> bool:
        """Whether blocks are whole."""
        return width % NVFP4.block_size == 0

    def may(self, rows: Array, source: TensorType) -> bool:
        """Whether some scale serves each of the first sub-blocks."""
        values = np.abs(rows.reshape(-1, _SUB))
        return bool(_fitting(values[np.flatnonzero(values.max(axis=1))[:_FEW]], source)[0].any(axis=1).all())

    def read(self, rows: Array, source: TensorType, start: int = 0) -> tuple[Array, ...] | None:
        """Blocks."""
        matrix = np.arange(start, start + len(rows)) // self.height if self.height else np.zeros(len(rows), np.intp)
        whole = np.array(self.scales, np.float32)[matrix]
        values = rows.reshape(-1, _SUB)
        real, by_block = np.abs(values), np.repeat(whole, rows.shape[1] // _SUB)
        top = real.max(axis=1)
        scales = np.zeros(len(values), np.uint8)
        codes = np.zeros(values.shape, np.uint8)
        done = top == 0
        for largest in _LARGEST + _SMALLER:
            here = np.flatnonzero(~done)
            if not here.size:
                break
            low, high = bounds(top[here], source)
            scale = _nearest((low + high) / largest / by_block[here])
            small = np.searchsorted(_BETWEEN, real[here] * (largest / top[here, None]), side="right")
            # As a decoder does: code and scale exactly, then the scale of the whole.
            product = (_DOUBLED[small] * (_E4M3[scale] / 2)[:, None]).astype(np.float32) * by_block[here, None]
            good = (rounded(product, source) == real[here]).all(axis=1)
            where = here[good]
            scales[where], codes[where], done[where] = scale[good], small[good], True
        if not done.all():
            return None
        blocks = np.empty((len(values) // 4, NVFP4.block_bytes), np.uint8)
        blocks[:, :4] = scales.reshape(-1, 4)
        blocks[:, 4:] = _nibbles(_signed(codes, values), _SUB).reshape(len(blocks), -1)
        return (blocks.reshape(len(rows), -1),)

    def settled(self, runs: Runs, source: TensorType, height: int) -> Kind | None:
        """With the scales of the matrices: none where the scales of blocks suffice, else what the values allow."""
        if all_lie(self, runs, source):
            return self
        found: list[float] = []
        rows = sum(len(run) for _, run in runs())
        for first in range(0, rows, height):
            part = _part(runs, first, first + height)
            one = next((g for g in _wholes(part, source) if all_lie(replace(self, scales=(g,)), part, source)), None)
            if one is None:
                return None
            found.append(one)
        return replace(self, scales=tuple(found), height=height)

    def stored(self, view: View, parts: Parts) -> Stored:
        """Blocks, and the scales of matrices, if there are any."""
        factors = self.scales if self.height else ()
        blocks = View(view.name, view.shape, NVFP4, parts(0))
        return Stored(f"a grid found in {view.type}, {self.text}", (blocks,), factors=factors)


def _part(runs: Runs, first: int, last: int) -> Runs:
    """The rows of one matrix."""

    def part() -> Iterator[tuple[int, Array]]:
        for start, rows in runs():
            cut = rows[max(first - start, 0) : max(last - start, 0)]
            if len(cut):
                yield max(start, first) - first, cut

    return part


def _nearest(values: Array) -> Array:
    """The nearest positive numbers of E4M3, as their bits."""
    return np.maximum(np.searchsorted(_HALFWAY, values, side="right"), 1).astype(np.uint8)


def _fitting(values: Array, source: TensorType, options: Sequence[int] = _LARGEST) -> tuple[Array, Array, Array]:
    """For sub-blocks of magnitudes, with each code that the largest may have: whether it fits, and which scales do.

    Three arrays (sub-blocks, codes); the last two are the least and the largest scale.
    """
    low, high = bounds(np.where(values, values, np.float32(1)), source)
    top = values.max(axis=1)
    shape = len(values), len(options)
    fits, least, most = np.zeros(shape, np.bool_), np.zeros(shape), np.zeros(shape)
    for number, largest in enumerate(options):
        steps = _DOUBLED[np.searchsorted(_BETWEEN, values * (largest / np.where(top, top, 1))[:, None], side="right")]
        some = steps > 0
        size = np.where(some, steps / 2, 1)
        least[:, number] = np.where(some, low / size, 0).max(axis=1)
        most[:, number] = np.where(some, high / size, np.inf).min(axis=1)
        fits[:, number] = (least[:, number] <= most[:, number]) & (some == (values > 0)).all(axis=1)
    return fits, least, most


def _wholes(runs: Runs, source: TensorType) -> Iterator[float]:
    """Scales of a matrix that its values may have come of, the likeliest first."""
    top, block = 0.0, np.zeros((0, _SUB), np.float32)
    for _, rows in runs():
        at = int(np.abs(rows).argmax()) // _SUB
        values = np.abs(rows.reshape(-1, _SUB)[at : at + 1])
        if values.max() > top:
            top, block = float(values.max()), values
    if not top:
        return
    fits, least, most = (found[0] for found in _fitting(block, source))
    for option in np.flatnonzero(fits):
        for bits in range(126, 126 - 16, -1):  # all significands, with the two largest exponents
            begun = least[option] / _E4M3[bits], most[option] / _E4M3[bits]
            found = _narrowed(_beginning(runs), begun, source)
            if found is not None:
                yield from dict.fromkeys(float(np.float32(x)) for x in _between(*found))
                found = _narrowed(runs, begun, source)
            if found is not None:
                yield from dict.fromkeys(float(np.float32(x)) for x in _between(*found))


def _beginning(runs: Runs) -> Runs:
    """The first runs."""

    def few() -> Iterator[tuple[int, Array]]:
        seen = 0
        for start, rows in runs():
            yield start, rows[: max(1, (_GLANCE - seen) // rows.shape[1])]
            seen += rows.size
            if seen >= _GLANCE:
                return

    return few


def _between(low: float, high: float) -> Iterator[float]:
    """Numbers between two bounds: the one of the fewest bits, then others from the middle outwards."""
    for bits in range(1, 25):
        fraction, exponent = np.frexp(low)
        short = np.ldexp(np.ceil(np.ldexp(fraction, bits)), int(exponent) - bits)
        if short <= high:
            yield float(short)
            break
    tries = np.linspace(low, high, _TRIES)
    yield from tries[np.argsort(np.abs(np.arange(_TRIES) - _TRIES // 2), kind="stable")]


def _narrowed(runs: Runs, begun: tuple[float, float], source: TensorType) -> tuple[float, float] | None:
    """Bounds of a scale of all, from those that one sub-block gives, by all others; None where one contradicts.

    Of a sub-block that fits in more than one way, the widest bounds count.
    """
    low, high = begun
    for _, rows in runs():
        values = np.abs(rows.reshape(-1, _SUB))
        values = values[values.any(axis=1)]
        for options in (_LARGEST, _SMALLER):
            if not len(values):
                break
            fits, at_least, at_most = _beside(values, options, begun, source)
            some = fits.any(axis=1)
            low = max(low, float(np.where(fits, at_least, np.inf).min(axis=1)[some].max(initial=0)))
            high = min(high, float(np.where(fits, at_most, 0).max(axis=1)[some].min(initial=np.inf)))
            values = values[~some]
        if len(values) or low > high * (1 + _SLACK):
            return None
    return low, high


def _beside(
    values: Array, options: Sequence[int], begun: tuple[float, float], source: TensorType
) -> tuple[Array, Array, Array]:
    """As `_fitting`, for a scale of all between two bounds, which the last two arrays narrow."""
    fits, least, most = _fitting(values, source, options)
    with np.errstate(invalid="ignore"):
        scale = _E4M3[_nearest((least + most) / (begun[0] + begun[1]))]
    at_least, at_most = least / scale, most / scale
    return fits & (at_least <= begun[1]) & (at_most >= begun[0]), at_least, at_most
