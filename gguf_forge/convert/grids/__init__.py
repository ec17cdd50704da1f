"""Grids found in plain floats: weights that were quantized once and published as floats.

Quantization-aware training is published so, as are dequantized models of 4 and 8 bits and ternary ones. A number counts
as on a grid when what a type of GGUF makes of codes and scales, rounded to the source's type, is that number. Knows
numbers and the tensors of a model; must not know tools.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from gguf_forge.convert.grids.fours import Exponents, Fractions
from gguf_forge.convert.grids.kind import Kind, Rows
from gguf_forge.convert.grids.rounding import BITS
from gguf_forge.convert.grids.steps import Minima, Steps, Thirds
from gguf_forge.convert.imported import scaled_names
from gguf_forge.convert.model import Model
from gguf_forge.convert.plan import Packing
from gguf_forge.convert.view import Array, View, changed, widen
from gguf_forge.types import tensor_type

__all__ = ["KINDS", "Kind", "find", "glance", "hint", "on_grid", "with_grids"]

#: Rows looked at together, in elements; and of a first look.
_RUN, _GLANCE = 1 << 20, 1 << 14
#: Matrices of fewer rows are none that anybody quantizes; how many of the others a hint looks at.
_LEAST_ROWS, _LOOKED_AT = 32, 2


def _to(most: int) -> tuple[int, ...]:
    return tuple(range(1, most + 1))


#: Tried in this order: the smaller first, but minima, which take the longest, late. What groups of 64 or 128 share,
#: those of 32 have each.
KINDS: tuple[Kind, ...] = (
    Steps("three values in a row", "TQ2_0", 0, -1, 1, (1,)),
    Thirds(),
    Steps("2 bits in groups of 64", "Q2_0", 64, -2, 1, (1, 2)),
    Steps("2 bits and a zero in a row", "Q2_K", 0, 0, 3, _to(3), zeros=True),
    Steps("3 bits in a row", "Q3_K", 0, -4, 3, _to(4)),
    Exponents(),
    Steps("4 bits in groups of 32", "Q4_0", 32, -8, 7, _to(8)),
    Steps("4 bits and a zero in a row", "Q4_K", 0, 0, 15, _to(15), zeros=True),
    Fractions(),
    Steps("4 bits and a zero in groups of 32", "Q5_0", 32, 0, 15, _to(15), zeros=True),
    Steps("5 bits in groups of 32", "Q5_0", 32, -16, 15, _to(16)),
    *(Minima(f"4 bits and a minimum in groups of {group}", "Q4_1", group, 15) for group in (128, 64, 32)),
    *(Minima(f"5 bits and a minimum in groups of {group}", "Q5_1", group, 31) for group in (128, 64, 32)),
    Steps("6 bits in a row", "Q6_K", 0, -32, 31, _to(32)),
    *(
        Steps(f"8 bits in {where}", "Q8_0", group, -128, 127, (31, 32, 63, 64, 127, 128))
        for where, group in (("a row", 0), ("groups of 128", 128), ("groups of 64", 64), ("groups of 32", 32))
    ),
)


def find(view: View) -> Kind | None:
    """The grid on which all of a matrix's numbers lie, if there is one: reads it all, unless a first look says no.

    A matrix of one number lies on all of them, and counts for nothing.
    """
    height = view.count // view.shape[0] if len(view.shape) > 2 and view.shape[0] else view.count

    def runs() -> Iterator[tuple[int, Array]]:
        for start, stop in _runs(view):
            yield start, _values(view, start, stop)

    if not _may_lie(view):
        return None
    begun = _values(view, 0, _rows(view, _GLANCE))
    if not any((rows != begun[0, 0]).any() for _, rows in runs()):
        return None
    kinds = (kind.settled(runs, view.type, height) for kind in _kinds(begun, view))
    return next((kind for kind in kinds if kind is not None), None)


def glance(view: View) -> Kind | None:
    """The grid on which the first rows of a matrix lie."""
    if not _may_lie(view):
        return None
    rows = _values(view, 0, _rows(view, _GLANCE))
    if not (rows != rows[0, 0]).any():
        return None
    return next((kind for kind in _kinds(rows, view) if _lies(kind, rows, view)), None)


def _kinds(rows: Array, view: View) -> Iterator[Kind]:
    """The grids on which a matrix that begins with these rows may lie."""
    if np.isfinite(rows).all():
        yield from (kind for kind in KINDS if kind.fits(view.width) and kind.may(rows, view.type))


def _lies(kind: Kind, rows: Array, view: View) -> bool:
    """Whether rows lie on a grid of which each matrix may have its own scale."""
    return kind.settled(lambda: iter([(0, rows)]), view.type, len(rows)) is not None


def _may_lie(view: View) -> bool:
    """Whether a tensor is a matrix of floats in whole blocks, not a vector or small table."""
    matrix = not view.vector and len(view.shape) > 1 and view.count >= _LEAST_ROWS
    return matrix and view.type in BITS and view.width % 32 == 0 and view.width > 0


def _rows(view: View, elements: int) -> int:
    return min(view.count, max(1, elements // view.width))


def _values(view: View, start: int, stop: int) -> Array:
    return widen(view.rows(start, stop), view.type).astype(np.float32, copy=False)


def _runs(view: View) -> Iterator[tuple[int, int]]:
    at, step = 0, _rows(view, _GLANCE)
    while at < view.count:
        yield at, min(view.count, at + step)
        at, step = at + step, _rows(view, _RUN)


def on_grid(view: View, kind: Kind) -> View:
    """The view with the stored form that a grid gives it; its rows stay what they are."""
    last = threading.local()  # every part of the same rows is asked for in turn

    def parts(number: int) -> Rows:
        def rows(start: int, stop: int) -> Array:
            if getattr(last, "rows", None) != (start, stop):
                last.parts = kind.read(_values(view, start, stop), view.type, start)
                last.rows = (start, stop)
            if last.parts is None:
                raise ValueError(f"{view.name}: rows {start} to {stop} changed since they were looked at")
            found: Array = last.parts[number]
            return found

        return rows

    return changed(view, stored=kind.stored(view, parts))


def with_grids(model: Model) -> Model:
    """The model with a stored form for each matrix of floats that lies on a grid: reads every weight.

    A grid with a scale of the whole tensor counts only where llama.cpp applies one.
    """
    views, packed, scaled = [], dict(model.packed), scaled_names(model)
    for view in model.views:
        kind = find(view) if view.stored is None and view.name not in packed else None
        if kind is None or (kind.whole and view.name not in scaled):
            views.append(view)
            continue
        views.append(on_grid(view, kind))
        packed[view.name] = Packing(f"a grid found in {view.type}, {kind.text}")
    return replace(model, views=views, packed=packed)


def hint(model: Model) -> list[str]:
    """A line for who converts such weights without keeping their grid: a look at the beginning of a few matrices."""
    plain = [v for v in model.views if v.stored is None and v.name not in model.packed and _may_lie(v)]
    by_size = sorted(plain, key=lambda view: view.elements)
    middle = by_size[len(plain) // 2 :][:_LOOKED_AT]  # the largest are embeddings, which few quantize
    found = Counter((kind.text, kind.type) for kind in map(glance, middle) if kind is not None)
    if not found:
        return []
    text, name = found.most_common(1)[0][0]
    kind, source = tensor_type(name), middle[0].type
    alike = [view for view in plain if view.name.startswith("blk.")]
    saved = sum(view.elements * (view.type.bpw - kind.bpw) / 8 for view in alike)
    bits = f"{kind}, {kind.bpw:.4g} bits a weight instead of {source.bpw:.4g}"
    size = f": {saved / 1e6:,.1f} MB less than {source}, if all matrices of the layers are so" if alike else ""
    seen = f"weights look as if they had been quantized before ({text})"
    return [f"{seen}: --detect-grid keeps that grid exactly, in {bits}{size}"]
