"""A checkpoint's tensors as views: rows of F32, F16, BF16, or of whole numbers.

Knows source tensors and element types; must not know rules or architectures.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Literal

import numpy as np

from gguf_forge.convert.view import BF16, F16, F32, Array, Stored, View, widen
from gguf_forge.source.packed import AnyTensor, PackedTensor
from gguf_forge.source.tensor import SourceTensor
from gguf_forge.types import tensor_type

I16 = tensor_type("I16")


def source_view(tensor: AnyTensor, *, vector: bool = False) -> View:
    """The tensor as rows of F32, F16 or BF16; other floats become F32, whole numbers stay what they are.

    `vector`: its elements count as rows, whatever its shape, as those of a tensor with one axis do.
    """
    if isinstance(tensor, PackedTensor):
        return View(tensor.name, tensor.shape, F32, tensor.rows, vector=vector, stored=_stored(tensor))
    shape = tuple(tensor.shape)
    kind = tensor.type
    floating = kind in (F32, F16, BF16) or not kind.name.startswith("I")
    result = kind if kind in (F32, F16, BF16) or not floating else F32
    flat = tensor
    if len(shape) > 2 and tensor.strides is None:
        flat = replace(tensor, shape=(prod(shape[:-1]), shape[-1]))

    def rows(start: int, stop: int) -> Array:
        data = _flat_rows(flat, start, stop)
        return data if kind is result else data.astype(np.float32)

    def raw(start: int, stop: int) -> Array:
        return _flat_rows(flat, start, stop, stored=True)

    return View(tensor.name, shape, result, rows, vector=vector or len(shape) < 2, raw=raw)


def _stored(tensor: PackedTensor) -> Stored | None:
    """How a weight that another tool quantized is stored, as views of its parts."""
    lead = tensor.shape[:-1]
    if tensor.blocks is not None:
        blocks = tensor.blocks
        part = View(tensor.name, tensor.shape, blocks.type, blocks.rows)
        return Stored(tensor.method, (part,), factors=() if blocks.scale is None else (blocks.scale,))
    floats = tensor.floats
    if floats is not None:
        both = ((floats.codes, I16), (floats.scales, F32))
        parts = tuple(View(tensor.name, (*lead, part.width), kind, part.rows) for part, kind in both)
        return Stored(tensor.method, parts, group=floats.group, floats=floats.form)
    grid = tensor.grid
    if grid is None:
        return None
    offset = grid.zeros or grid.minima
    kinds = ((grid.codes, I16), (grid.scales, F32), *(((offset, F32),) if offset else ()))
    parts = tuple(View(tensor.name, (*lead, part.width), kind, part.rows) for part, kind in kinds)
    which: Literal["", "zeros", "minima"] = "zeros" if grid.zeros else "minima" if grid.minima else ""
    orders = () if tensor.order is None else (tensor.order,)
    return Stored(tensor.method, parts, which, grid.group, grid.low, grid.high, packed=grid.packed, orders=orders)


def float_rows(tensor: AnyTensor) -> Array:
    """All values of a small tensor as float32, in its shape."""
    view = source_view(tensor)
    return np.asarray(widen(view.read(), view.type), np.float32)


def _flat_rows(tensor: SourceTensor, start: int, stop: int, *, stored: bool = False) -> Array:
    shape = tuple(tensor.shape)
    if not shape:
        tensor, shape = replace(tensor, shape=(1,)), (1,)
    read = tensor.stored_rows if stored else tensor.rows
    if len(shape) < 2:
        return read(0, shape[0]).reshape(1, -1)[start:stop]
    inner = prod(shape[1:-1])
    if inner == 1:
        return read(start, stop).reshape(stop - start, shape[-1])
    low, high = start // inner, -(-stop // inner)
    block = read(low, high).reshape(-1, shape[-1])
    return np.ascontiguousarray(block[start - low * inner : stop - low * inner])
