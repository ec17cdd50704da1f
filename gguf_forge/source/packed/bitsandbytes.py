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
from typing import Any

import numpy as np

from gguf_forge.source.dtypes import DTYPES
from gguf_forge.source.packed.form import Array, Grid, PackedTensor, Part, as_column, require
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
    said = json.loads(state.read().astype(np.uint8).tobytes().decode("utf-8"))
    shape, block = tuple(int(n) for n in said["shape"]), int(said["blocksize"])
    require(weight.nbytes * 2 >= int(np.prod(shape)), weight, f"{list(shape)} needs more codes")
    table = np.asarray(parts["weight.quant_map"].read(), np.float32)
    scales = _scales(parts, said)
    require(scales.size * block >= int(np.prod(shape)), parts["weight.absmax"], f"has too few scales for {list(shape)}")
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


def _scales(parts: Mapping[str, SourceTensor], said: Mapping[str, Any]) -> Array:
    absmax = parts["weight.absmax"]
    if "weight.nested_absmax" not in parts:
        return np.asarray(absmax.read(), np.float32)
    nested = np.asarray(parts["weight.nested_absmax"].read(), np.float32)
    table = np.asarray(parts["weight.nested_quant_map"].read(), np.float32)
    codes = absmax.read().astype(np.uint8)
    index = np.arange(codes.size) // int(said["nested_blocksize"])
    require(bool(index.size == 0 or index[-1] < nested.size), absmax, "has more blocks than nested scales")
    return table[codes] * nested[index] + np.float32(said["nested_offset"])


def _int8(module: str, weight: SourceTensor, scb: SourceTensor, layout: SourceTensor | None) -> PackedTensor:
    require(weight.dtype == "I8" and len(weight.shape) == 2, weight, "must be a matrix of I8 beside its SCB")
    out, width = weight.shape
    require(scb.shape == (out,), scb, f"must be a scale for each of {out} rows")
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
