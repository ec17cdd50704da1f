"""bitsandbytes: NF4 and FP4 with one or two layers of scales, and LLM.int8.

4 bits: `weight` (bytes, 1), of any element type, two codes in a byte, the first in the high half, over the flattened
matrix; `weight.quant_map` the value of each code; `weight.absmax` the scale of each block of so many, itself stored in
8 bits beside `weight.nested_absmax` and `weight.nested_quant_map` or as floats; `weight.quant_state.bitsandbytes__nf4`
(or fp4) JSON with shape and block sizes. 8 bits: `weight` I8 (out, in) times `SCB` (out) / 127.
Read off bitsandbytes (functional.py: QuantState; backends/default/ops.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from gguf_forge.source.dtypes import DTYPES
from gguf_forge.source.packed.form import (
    Array,
    Grid,
    PackedTensor,
    Part,
    as_column,
    float_values,
    require,
    require_floats,
)
from gguf_forge.source.tensor import SourceTensor

_BYTE = DTYPES["U8"]
_STATES = ("weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4")
ENDINGS = (
    *("weight", "weight.absmax", "weight.quant_map", "weight.nested_absmax", "weight.nested_quant_map"),
    *(*_STATES, "SCB", "weight_format"),
)


def packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor | None:
    """One layer's weight; None where it is plain. CheckpointError where its tensors disagree."""
    weight = parts["weight"]
    if "SCB" in parts:
        return _int8(module, weight, parts["SCB"], parts.get("weight_format"))
    state = next((parts[name] for name in _STATES if name in parts), None)
    if state is None:
        return None
    require(state.dtype == "U8", state, "must be bytes")
    said = json.loads(state.read().astype(np.uint8).tobytes().decode("utf-8"))
    shape, block = tuple(int(n) for n in said["shape"]), int(said["blocksize"])
    size = prod(shape)
    require(0 <= weight.nbytes * 2 - size < 16, weight, f"{list(shape)} needs {size} codes")
    table = _table(parts["weight.quant_map"], 16)
    require(block > 0 and len(shape) == 2 and min(shape) > 0, state, f"blocks of {block} of {list(shape)} are none")
    scales = _scales(parts, said)
    wanted = -(-size // block)
    require(scales.size == wanted, parts["weight.absmax"], f"{list(shape)} has {wanted} blocks of {block}")
    width = shape[-1]
    octets = SourceTensor(weight.name, _BYTE, (weight.nbytes,), weight.file, weight.offset, None)

    def values(start: int, stop: int) -> Array:
        first, last = start * width, stop * width
        low = first // 2
        found = octets.stored_rows(low, -(-last // 2))
        codes = np.stack((found >> 4, found & 15), axis=-1).reshape(-1)[first - 2 * low : last - 2 * low]
        index = np.arange(first, last) // block
        return (table[codes] * scales[index]).reshape(stop - start, width)

    kind = str(said.get("quant_type") or "nf4").upper()
    why = f"the 16 values of {kind} are on no GGUF type's grid"
    return PackedTensor(
        f"{module}.weight",
        shape,
        f"bitsandbytes {kind}, blocks of {block}",
        weight,
        values,
        "BF16",
        why=why,
        largest=lambda: float(np.abs(scales).max(initial=0) * np.abs(table).max(initial=0)),
    )


def _table(tensor: SourceTensor, count: int) -> Array:
    """The value of each code."""
    found = float_values(tensor)
    require(found.shape == (count,), tensor, f"must be {count} numbers")
    require(bool(np.isfinite(found).all()), tensor, "must be finite")
    return found


def _scales(parts: Mapping[str, SourceTensor], said: Mapping[str, Any]) -> Array:
    absmax = parts["weight.absmax"]
    if "weight.nested_absmax" not in parts:
        return float_values(absmax).reshape(-1)
    nested = float_values(parts["weight.nested_absmax"]).reshape(-1)
    table = _table(parts["weight.nested_quant_map"], 256)
    require(absmax.dtype == "U8", absmax, "must be bytes, as there are scales of scales")
    codes = absmax.read().astype(np.uint8).reshape(-1)
    run = int(said["nested_blocksize"])
    require(run > 0 and nested.size == -(-codes.size // run), absmax, f"has other blocks of {run} than nested scales")
    index = np.arange(codes.size) // run
    return table[codes] * nested[index] + np.float32(said["nested_offset"])


def _int8(module: str, weight: SourceTensor, scb: SourceTensor, layout: SourceTensor | None) -> PackedTensor:
    require(weight.dtype == "I8" and len(weight.shape) == 2, weight, "must be a matrix of I8 beside its SCB")
    out, width = weight.shape
    require(scb.shape == (out,), scb, f"must be a scale for each of {out} rows")
    require_floats(scb)
    if layout is not None:
        require(int(np.asarray(layout.read()).reshape(())) == 0, layout, "is one made for old kernels (not row-major)")
    column = as_column(scb)
    grid = Grid(
        Part(width, weight.stored_rows),
        Part(1, lambda start, stop: column.rows(start, stop).astype(np.float64) / 127),
        width,
        -127,
        127,
    )
    return PackedTensor(
        f"{module}.weight", (out, width), "bitsandbytes int8, 8 bits in rows", weight, grid.values, "F16", grid=grid
    )
