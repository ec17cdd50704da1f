"""NVIDIA ModelOpt: FP8, NVFP4, and int4 of AWQ.

FP8: `weight` F8_E4M3 times `weight_scale`, one or one a row. NVFP4: `weight` U8 (out, in / 2) with `weight_scale`
F8_E4M3 (out, in / 16), times `weight_scale_2`. int4: `weight` U8 (out / 2, in), output 2 r in the low half of row r and
2 r + 1 in the high one, in two's complement; `weight_scale` (out, groups). `pre_quant_scale` (in) multiplies inputs.
Read off ModelOpt (torch/export/quant_utils.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gguf_forge.source.packed import fp4, fp8
from gguf_forge.source.packed.bits import two_complement
from gguf_forge.source.packed.form import Array, Grid, PackedTensor, Part, float_values, floats, require
from gguf_forge.source.tensor import SourceTensor

ENDINGS = ("weight", "weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale", "k_scale", "v_scale")


def packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor | None:
    """One layer's weight; None where it is plain. CheckpointError where its tensors disagree."""
    weight, scale, before = parts["weight"], parts["weight_scale"], parts.get("pre_quant_scale")
    if weight.dtype.startswith("F8_"):
        made = fp8.scaled(module, weight, scale, method="ModelOpt FP8")
    elif weight.dtype != "U8":
        return None
    elif scale.dtype == "F8_E4M3":
        require("weight_scale_2" in parts, weight, "needs a weight_scale_2 beside its scales")
        made = fp4.nv(module, weight, scale, parts.get("weight_scale_2"), method="ModelOpt NVFP4")
    else:
        made = _int4(module, weight, scale)
    return made if before is None else _scaled_inputs(made, before)


def _int4(module: str, weight: SourceTensor, scale: SourceTensor) -> PackedTensor:
    out, width = weight.shape[0] * 2, weight.shape[1]
    require(len(scale.shape) == 2 and scale.shape[0] == out, scale, f"must have {out} rows")
    groups = scale.shape[1]
    require(width % groups == 0, scale, f"{width} inputs are not so many whole groups")

    def codes(start: int, stop: int) -> Array:
        low, high = start // 2, -(-stop // 2)
        octets = weight.stored_rows(low, high)
        pairs = np.stack((octets & 15, octets >> 4), axis=1).reshape(-1, width)
        return two_complement(pairs[start - low * 2 : stop - low * 2])

    grid = Grid(Part(width, codes), Part(groups, floats(scale)), width // groups, -8, 7)
    method = f"ModelOpt int4, groups of {width // groups}"
    return PackedTensor(f"{module}.weight", (out, width), method, weight, grid.values, scale.dtype, grid=grid)


def _scaled_inputs(made: PackedTensor, before: SourceTensor) -> PackedTensor:
    """The weight with the scale of its inputs in it, which no block can say."""
    require(before.size == made.shape[-1], before, f"must be a scale for each of {made.shape[-1]} inputs")
    factors = float_values(before).reshape(-1)

    def values(start: int, stop: int) -> Array:
        return made.values(start, stop) * factors

    why = "its inputs are scaled one by one (pre_quant_scale)"
    return PackedTensor(made.name, made.shape, made.method, made.stored, values, made.dtype, why=why)
