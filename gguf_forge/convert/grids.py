"""Grids found in plain floats: weights that were quantized once and published as 16-bit floats.

Quantization-aware training is published so, as are dequantized 4-bit and 8-bit models and ternary ones. A number counts
as on a grid when scale * code, rounded to the source's type, is that number, for a scale that F16 holds. Knows numbers;
must not know names, tools, or types of GGUF.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gguf_forge.convert.model import Model
from gguf_forge.convert.plan import Packing
from gguf_forge.convert.view import BF16, F16, F32, Array, Stored, View, changed, widen
from gguf_forge.quant.codec import encode_rows
from gguf_forge.types import TensorType, tensor_type

I8 = tensor_type("I8")
#: Rows looked at together, in elements; and of a first look.
_RUN, _GLANCE = 1 << 20, 1 << 14
#: Bits of a significand, the hidden one too.
_BITS = {BF16: 8, F16: 11}
_LARGEST_HALF = 0x7BFF
#: Matrices of fewer rows are none that anybody quantizes; how many of the others a hint looks at.
_LEAST_ROWS, _LOOKED_AT = 32, 2
#: The least exponent of numbers with all those bits.
_LEAST = {BF16: -126, F16: -14}


@dataclass(frozen=True)
class Kind:
    """A grid to look for: columns that share a scale (0 for a row), the range of codes, codes the largest may have, and
    the type that holds it where rows are long enough.
    """

    text: str
    type: str
    group: int
    low: int
    high: int
    largest: tuple[int, ...]


#: Tried in this order.
KINDS = (
    Kind("three values in a row", "TQ2_0", 0, -1, 1, (1,)),
    Kind("4 bits in groups of 32", "Q4_0", 32, -8, 7, tuple(range(1, 9))),
    Kind("8 bits in a row", "Q8_0", 0, -127, 127, (127,)),
)


def find(view: View) -> Kind | None:
    """The grid on which all of a matrix's numbers lie, if there is one: reads it all, unless a first look says no."""
    if not _may_lie(view):
        return None
    return next((kind for kind in KINDS if _lies_on(view, kind)), None)


def glance(view: View) -> Kind | None:
    """The grid on which the first rows of a matrix lie."""
    if not _may_lie(view):
        return None
    rows = widen(view.rows(0, _rows(view, _GLANCE)), view.type).astype(np.float32, copy=False)
    kinds: tuple[Kind, ...] = KINDS if rows.any() else ()
    for few in (rows[:1], rows):  # of ordinary weights the first row tells
        kinds = tuple(kind for kind in kinds if _on(few, kind, view.type) is not None)
    return kinds[0] if kinds else None


def _may_lie(view: View) -> bool:
    """Whether a tensor is a matrix of 16-bit floats in whole blocks, not a vector or small table."""
    matrix = not view.vector and len(view.shape) > 1 and view.count >= _LEAST_ROWS
    return matrix and view.type in _BITS and view.width % 32 == 0 and view.width > 0


def _rows(view: View, elements: int) -> int:
    return min(view.count, max(1, elements // view.width))


def _lies_on(view: View, kind: Kind) -> bool:
    """Whether all rows lie on a grid. Zeros alone lie on all, and count for nothing."""
    found = False
    for start, stop in _runs(view):
        rows = widen(view.rows(start, stop), view.type).astype(np.float32, copy=False)
        if _on(rows, kind, view.type) is None:
            return False
        found = found or bool(rows.any())
    return found


def _runs(view: View) -> Iterator[tuple[int, int]]:
    at, step = 0, _rows(view, _GLANCE)
    while at < view.count:
        yield at, min(view.count, at + step)
        at, step = at + step, _rows(view, _RUN)


def on_grid(view: View, kind: Kind) -> View:
    """The view with codes and scales as its stored form; its rows stay what they are."""
    group = kind.group or view.width

    def codes(start: int, stop: int) -> Array:
        return _parts(view, kind, start, stop)[0]

    def scales(start: int, stop: int) -> Array:
        return _parts(view, kind, start, stop)[1]

    parts = (
        View(view.name, view.shape, I8, codes),
        View(view.name, (*view.shape[:-1], view.width // group), F32, scales),
    )
    stored = Stored(f"a grid found in {view.type}, {kind.text}", parts, "", group, kind.low, kind.high)
    return changed(view, stored=stored)


def _parts(view: View, kind: Kind, start: int, stop: int) -> tuple[Array, Array]:
    rows = widen(view.rows(start, stop), view.type).astype(np.float32, copy=False)
    found = _on(rows, kind, view.type)
    if found is None:
        raise ValueError(f"{view.name}: rows {start} to {stop} changed since they were looked at")
    return found


def _on(rows: Array, kind: Kind, source: TensorType) -> tuple[Array, Array] | None:
    """Codes (int8, as the rows) and scales (float32, one a group) of rows that lie on a grid; None if they do not."""
    group = kind.group or rows.shape[1]
    values = rows.reshape(-1, group)
    top = np.abs(values).max(axis=1)
    codes = np.zeros(values.shape, np.int8)
    scales = np.zeros(len(values), np.float32)
    done = top == 0
    for largest in kind.largest:
        pending = np.flatnonzero(~done)
        first, last = _halves(top[pending], largest, source)
        for number in range(int((last - first).max(initial=-1)) + 1):
            tried = np.flatnonzero((first + number <= last) & ~done[pending])
            scale = (first[tried] + number).astype(np.uint16).view(np.float16).astype(np.float32)
            here = pending[tried]
            found = values[here]
            steps = np.rint(found / scale[:, None])
            # Where the range is not the same on both sides, a negative scale turns it round.
            turned = steps.max(axis=1, initial=0) > kind.high
            steps[turned] *= -1
            scale[turned] *= -1
            good = (steps >= kind.low).all(axis=1) & (steps <= kind.high).all(axis=1)
            good &= (_rounded(scale[:, None] * steps, source) == found).all(axis=1)
            codes[here[good]], scales[here[good]], done[here[good]] = steps[good], scale[good], True
    return (codes.reshape(rows.shape), scales.reshape(len(rows), -1)) if done.all() else None


def _halves(top: npt.NDArray[np.float32], largest: int, source: TensorType) -> tuple[Array, Array]:
    """The first and the last of the numbers of F16, as their bits, whose multiple rounds to the largest number."""
    unit = np.ldexp(1.0, np.maximum(np.frexp(top)[1].astype(np.int64) - 1, _LEAST[source]) - (_BITS[source] - 1))
    with np.errstate(over="ignore"):
        low, high = (((top + side * unit / 2) / largest).astype(np.float16) for side in (-1, 1))
    bits = [np.minimum(half.view(np.uint16).astype(np.int32), _LARGEST_HALF) for half in (low, high)]
    return np.maximum(bits[0], 1), bits[1]


def _rounded(values: npt.NDArray[np.float32], source: TensorType) -> npt.NDArray[np.float32]:
    """To the nearest number of the source's type, as float32."""
    if source is F16:
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    if not values.size:
        return values
    return widen(encode_rows(np.ascontiguousarray(values), F32, BF16).view(np.uint16), BF16)


def with_grids(model: Model) -> Model:
    """The model with a stored form for each matrix of floats that lies on a grid: reads every weight."""
    views, packed = [], dict(model.packed)
    for view in model.views:
        kind = find(view) if view.stored is None and view.name not in packed else None
        views.append(view if kind is None else on_grid(view, kind))
        if kind is not None:
            packed[view.name] = Packing(f"a grid found in {view.type}, {kind.text}")
    return replace(model, views=views, packed=packed)


def hint(model: Model) -> list[str]:
    """A line for who converts such weights without keeping their grid: a look at the beginning of a few matrices."""
    plain = [v for v in model.views if v.stored is None and v.name not in model.packed and _may_lie(v)]
    by_size = sorted(plain, key=lambda view: view.elements)
    middle = by_size[len(plain) // 2 :][:_LOOKED_AT]  # the largest are embeddings, which few quantize
    found = Counter(kind for kind in map(glance, middle) if kind is not None)
    if not found:
        return []
    kind = found.most_common(1)[0][0]
    bits = f"{kind.type}, {tensor_type(kind.type).bpw:.4g} bits a weight instead of 16"
    found_text = f"weights look as if they had been quantized before ({kind.text})"
    return [f"{found_text}: --detect-grid keeps that grid exactly, in {bits}"]
