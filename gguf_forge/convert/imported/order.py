"""Weights whose groups are made of inputs that do not lie together: the inputs change places, where that is free.

GPTQ quantizes inputs in the order of their activations (act-order), so that a group's are spread over a row, where a
block of GGUF holds neighbours. The inputs of a feed-forward layer's last matrix are the outputs of its first ones,
element by element: `down(act(gate(x)) * up(x))`. Rows of those change places as columns of that one do, and nothing
else is different. The inputs of any other matrix are read, or made, by more than the layer's own matrices.

Knows names of GGUF and rows; must not know formats of other tools, nor how blocks are made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod

import numpy as np

from gguf_forge.convert.view import Array, Kept, Numbers, RowNumbers, View, changed, gathered
from gguf_forge.errors import escaped

Rows = Callable[[int, int], Array]

#: The last matrix of a feed-forward layer: of a plain one, of experts, of shared ones, of chunks.
_DOWN = re.compile(r"((?:\w+\.)?blk\.\d+\.)ffn_down(|_exps|_shexp|_chexps)\.weight")
_VALUES = re.compile(r"(?:\w+\.)?blk\.\d+\.attn_(?:output|out)\.weight")
#: What makes its inputs.
_MAKERS = ("ffn_up", "ffn_gate", "ffn_gate_up")
#: What else of a feed-forward layer may have an axis as long by chance: it reads or makes what the layer does.
_BESIDE = re.compile(
    r"ffn_(?:(?:up|gate|gate_up|down)(?:_exps|_shexp|_chexps)?\.(?:weight|bias)|(?:post_)?norm\b|gate_inp)"
)
#: Bytes of a matrix that is held whole while its rows are taken in another order.
_HELD_BYTES = 96 << 20
_WHY = "groups are made of inputs that do not lie together (act-order), and "


def put_together(view: View, views: Mapping[str, View]) -> dict[str, View] | str:
    """The view with its groups together, and what must change places with its columns, by name; or why that cannot be.

    `views` are all of the model, some of which may have been changed so already.
    """
    stored = view.stored
    assert stored is not None
    name = escaped(view.name)
    match = _DOWN.fullmatch(view.name)
    if match is None:
        made = "are the state that all of the layer reads, in one order"
        if _VALUES.fullmatch(view.name):
            # Queries weigh whole heads, so that only rows within a head of attn_v could move. Groups of one head alone
            # would do, but act-order sorts all inputs at once; groups made in the order of inputs lie together anyway.
            made = "are the values of attention heads, which could change places only within a head, and alike in all "
            made += "heads that share them, while groups are made across heads"
        return f"{_WHY}the inputs of {name} {made}"
    layer, suffix = match.groups()
    makers = [views[n] for part in _MAKERS if (n := f"{layer}{part}{suffix}.weight") in views]
    if not makers:
        return f"{_WHY}no tensor is known to make the inputs of {name}"
    lead, width = view.shape[:-2], view.width
    for maker in makers:
        halves = 2 if len(makers) == 1 else 1
        if maker.shape[:-2] != lead or maker.shape[-2] not in (width, halves * width):
            return f"{_WHY}{escaped(maker.name)} {list(maker.shape)} does not make the {width} inputs of {name}"
    other = next((v for v in views.values() if v.name.startswith(f"{layer}ffn") and _hinders(v, layer, width)), None)
    if other is not None:
        return f"{_WHY}{escaped(other.name)} stands between the inputs of {name} and what makes them"
    orders = stored.orders if len(stored.orders) == prod(lead) else stored.orders * prod(lead)
    changes = {view.name: _with_columns(view, orders)}
    for maker in makers:
        for made_of in (maker, views.get(f"{maker.name.removesuffix('weight')}bias")):
            if made_of is not None:
                changes[made_of.name] = _with_rows(made_of, orders, maker.shape[-2] // width, width)
    return changes


def _hinders(view: View, layer: str, width: int) -> bool:
    return width in view.shape and _BESIDE.match(view.name.removeprefix(layer)) is None


def _with_columns(view: View, orders: tuple[Numbers | None, ...]) -> View:
    """The view with its columns in the order of its stored parts."""
    stored, height = view.stored, view.shape[-2]
    assert stored is not None

    def rows(start: int, stop: int) -> Array:
        values = view.rows(start, stop)
        for number in range(start // height, -(-stop // height)):
            order, low, high = orders[number], max(start, number * height), min(stop, (number + 1) * height)
            if order is not None:
                values[low - start : high - start] = values[low - start : high - start, order]
        return values

    return changed(view, rows=rows, stored=replace(stored, orders=()))


def _with_rows(view: View, orders: tuple[Numbers | None, ...], parts: int, width: int) -> View:
    """The view with the rows of each of its matrices, of each of their `parts` of `width` rows, in these orders.

    Of a vector, and of a bias of any shape, the elements are the rows.
    """
    height = parts * width

    def of_matrix(matrix: int) -> Numbers:
        order = orders[matrix]
        first = np.arange(width) if order is None else order
        return np.concatenate([first + part * width for part in range(parts)])

    def every() -> Numbers:
        return np.concatenate([of_matrix(i) + i * height for i in range(len(orders))])

    if view.vector:
        whole = view.rows, view.count

        def elements(start: int, stop: int) -> Array:
            values = whole[0](0, whole[1]).reshape(-1)[every()]
            return np.ascontiguousarray(values.reshape(whole[1], -1)[start:stop])

        return changed(view, rows=elements)

    def moved(of: View, shape: tuple[int, ...]) -> View:
        if of.type.row_bytes(of.width) * height > _HELD_BYTES:
            return replace(gathered(of, shape, RowNumbers(every)), stored=None)
        return changed(of, shape=shape, rows=_by_matrices(of, of_matrix, height))

    return replace(moved(view, view.shape), stored=view.stored and view.stored.moved(view.shape, moved))


def _by_matrices(view: View, of_matrix: Callable[[int], Numbers], height: int) -> Rows:
    """Rows of matrices in the order that `of_matrix` gives, each matrix read once for all runs of its rows."""
    kept = Kept(lambda number: view.rows(number * height, (number + 1) * height)[of_matrix(number)])

    def rows(start: int, stop: int) -> Array:
        pieces = []
        for number in range(start // height, -(-stop // height)):
            first = number * height
            pieces.append(kept.get(number)[max(0, start - first) : stop - first])
        if stop == view.count:
            kept.release()
        return pieces[0].copy() if len(pieces) == 1 else np.concatenate(pieces)

    return rows
