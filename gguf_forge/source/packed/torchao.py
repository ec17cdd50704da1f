"""torchao's tensors in safetensors: Int4Tensor, IntxUnpackedToInt8Tensor, Int8Tensor, Float8Tensor.

`_weight_qdata` beside `_weight_scale` and `_weight_zero_point`. Int4Tensor: I8 (out, in / 2), two codes of -8..7 in a
byte, the first low; scale and zero (groups, out), floats; a weight is scale * code + zero. The others hold a code in
each byte, (out, in), scale and zero (out, groups), whole zeros; a weight is scale * (code - zero). Read off torchao
(prototype/safetensors, quantization/quantize_/workflows).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from gguf_forge.source.packed import fp8
from gguf_forge.source.packed.bits import dense, two_complement
from gguf_forge.source.packed.compressed import integers8
from gguf_forge.source.packed.form import Array, Grid, PackedTensor, Part, column_floats, require
from gguf_forge.source.tensor import SourceTensor

ENDINGS = ("_weight_qdata", "_weight_scale", "_weight_zero_point", "_weight_act_pre_scale")
_FLOATS = ("BF16", "F16", "F32")


def _own(module: str, config: Mapping[str, Any]) -> Any:
    """What the configuration says of a module."""
    types = config.get("quant_type")
    kinds = types if isinstance(types, dict) else {}
    return kinds.get(module, kinds.get(f"{module}.weight", kinds.get("default")))


def _bits_of(own: str) -> int:
    """The width of codes that take a byte each, from a weight_dtype such as int4 wherever the configuration has one."""
    found = re.search(r"weight_dtype.{0,60}?\bu?int([1-8])\b", own)
    return int(found[1]) if found else 8


def packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor:
    """One layer's weight. CheckpointError where its tensors disagree, or its inputs want a scale of their own."""
    own = json.dumps(_own(module, config))
    data, scale, zero = parts["_weight_qdata"], parts["_weight_scale"], parts.get("_weight_zero_point")
    plain = "_weight_act_pre_scale" not in parts
    require(plain, data, "has inputs to be scaled while the model runs, which is not read")
    require(zero is not None or '"ASYMMETRIC"' not in own, data, "needs zeros, as it is not symmetric")
    require("Float8" not in own or data.dtype.startswith("F8_"), data, "must be 8-bit floats")
    if data.dtype.startswith("F8_"):
        return fp8.scaled(module, data, scale, method="torchao FP8")
    require(data.dtype in ("I8", "U8") and len(data.shape) == 2, data, "is a layout of torchao's that is not read")
    if zero is None or zero.dtype not in _FLOATS:
        return integers8(module, data, scale, zero, method="torchao", bits=_bits_of(own))
    out, width = data.shape[0], data.shape[1] * 2
    require(scale.shape == zero.shape and scale.shape[1:] == (out,), scale, f"must be as {zero.name}, {out} wide")
    groups = scale.shape[0]
    require(groups > 0 and width > 0, scale, "must be of some groups")
    require(width % groups == 0, scale, f"{width} inputs are not so many whole groups")

    def codes(start: int, stop: int) -> Array:
        return two_complement(dense(data.stored_rows(start, stop).view(np.uint8), 4))

    grid = Grid(
        Part(width, codes),
        Part(groups, column_floats(scale)),
        width // groups,
        -8,
        7,
        minima=Part(groups, column_floats(zero)),
    )
    method = f"torchao, 4 bits in groups of {width // groups}"
    return PackedTensor(f"{module}.weight", (out, width), method, data, grid.values, scale.dtype, grid=grid)
