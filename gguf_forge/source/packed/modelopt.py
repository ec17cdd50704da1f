"""NVIDIA ModelOpt: FP8, MXFP8, NVFP4, MXFP4, int8, and int4 of AWQ.

FP8: `weight` F8_E4M3 times `weight_scale`, one, one a row, or one a tile (rows, 1, columns, 1); of MXFP8 exponents.
NVFP4: `weight` U8 (out, in / 2) with `weight_scale` F8_E4M3, one for each 16 or 32 inputs, times `weight_scale_2`.
MXFP4: the same with exponents, one for each 32. int8: `weight` I8 times a scale a row. int4: `weight` U8 (out / 2, in),
output 2 r in the low half of row r and 2 r + 1 in the high one, in two's complement; `weight_scale` (out, groups), and
what 8-bit floats, made of these products while a model runs, are divided by (`weight_scale_2` of W4A8_AWQ), which does
not matter here. `pre_quant_scale` (in) multiplies inputs. Read off ModelOpt (torch/export/quant_utils.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gguf_forge.source.packed import fp4, fp8
from gguf_forge.source.packed.bits import two_complement
from gguf_forge.source.packed.compressed import integers8
from gguf_forge.source.packed.form import Array, Grid, PackedTensor, Part, Rows, float_values, floats, require
from gguf_forge.source.tensor import SourceTensor

#: The algorithm that has a scale for each 32 inputs.
_OF_32 = "W4A8_NVFP4_FP8"
ENDINGS = ("weight", "weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale", "k_scale", "v_scale")


def packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor | None:
    """One layer's weight; None where it is plain. CheckpointError where its tensors disagree."""
    weight, scale, before = parts["weight"], parts["weight_scale"], parts.get("pre_quant_scale")
    if weight.dtype.startswith("F8_"):
        made = fp8.scaled(module, weight, _of_tiles(scale), method="ModelOpt FP8")
    elif weight.dtype == "I8":
        algorithm = str(_algorithm(module, config)).upper()
        require("FP" not in algorithm, weight, f"the configuration says {algorithm}, which are no whole numbers")
        made = integers8(module, weight, scale, None, method="ModelOpt")
    elif weight.dtype != "U8":
        return None
    elif scale.dtype == "F8_E4M3":
        whole = parts.get("weight_scale_2")
        require(whole is not None, weight, "needs a weight_scale_2 beside its scales")
        twice = _algorithm(module, config) == _OF_32 and scale.shape == (weight.shape[0], weight.shape[-1] // 16)
        made = fp4.nv(module, weight, scale, whole, method="ModelOpt NVFP4", rows=_twice(scale) if twice else None)
    elif scale.dtype in ("U8", "F8_E8M0"):
        made = fp4.mx(module, weight, scale, method="ModelOpt MXFP4")
    else:
        made = _int4(module, weight, scale)
    return made if before is None else _scaled_inputs(made, before)


def _algorithm(module: str, config: Mapping[str, Any]) -> object:
    """What the configuration calls a module's way of quantizing."""
    said = {**(config.get("quantization") or {}), **config}
    own = (said.get("quantized_layers") or {}).get(module) or {}
    return own.get("quant_algo") or said.get("quant_algo")


def _of_tiles(scale: SourceTensor) -> SourceTensor:
    """Scales of tiles without the axes that lie within one."""
    if len(scale.shape) != 4 or scale.shape[1::2] != (1, 1):
        return scale
    return SourceTensor(scale.name, scale.element, scale.shape[0::2], scale.file, scale.offset, None)


def _twice(scale: SourceTensor) -> Rows:
    """Rows of bytes of scales, each for 32 inputs, once for each 16."""
    return lambda start, stop: np.repeat(scale.stored_rows(start, stop), 2, axis=1)


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
