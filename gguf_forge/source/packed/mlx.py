"""MLX: affine grids of 1 to 8 bits, MXFP4, MXFP8, NVFP4; any module, embeddings and stacks of experts too.

`weight` U32 (..., out, in * bits / 32) from the least significant bit on; `scales` and `biases` (..., out, groups): a
weight is scale * code + bias. The configuration's `quantization` has group_size, bits and mode, and by module what
differs. Read off mlx (ops.cpp: affine_dequantize, fp_dequantize).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gguf_forge.source.dtypes import DTYPES
from gguf_forge.source.packed import fp4, fp8
from gguf_forge.source.packed.bits import dense
from gguf_forge.source.packed.form import Grid, PackedTensor, Part, floats, require, scale_rows
from gguf_forge.source.tensor import SourceTensor

ENDINGS = ("weight", "scales", "biases", "global_scale")


#: What MLX calls a module whose matrices are a layer's experts, one behind the other.
_STACK = re.compile(r"(.+)\.(?:switch_mlp|experts)\.(\w+)")


def packed(
    module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]
) -> PackedTensor | Sequence[PackedTensor] | None:
    """One module's weight, or those of experts that are stored in one; None where it is plain.

    CheckpointError where tensors and configuration disagree.
    """
    found = _STACK.fullmatch(module)
    whole = parts.get("global_scale")
    if found is not None and whole is not None and whole.shape == parts["weight"].shape[:1]:
        before, after = found.groups()
        names = [f"{before}.experts.{number}.{after}" for number in range(whole.size)]
        each = [_packed(module, _part(parts, number), config) for number in range(whole.size)]
        return [replace(one, name=f"{name}.weight") for name, one in zip(names, each, strict=True) if one is not None]
    made = _packed(module, parts, config)
    if made is None or found is None or len(made.shape) < 3:
        return made
    before, after = found.groups()
    return [made.part(number, f"{before}.experts.{number}.{after}.weight") for number in range(made.shape[0])]


def _part(parts: Mapping[str, SourceTensor], number: int) -> dict[str, SourceTensor]:
    """The tensors of one of the matrices of a stack."""

    def of(tensor: SourceTensor) -> SourceTensor:
        at = tensor.offset + number * (tensor.nbytes // tensor.shape[0])
        return SourceTensor(tensor.name, tensor.element, tensor.shape[1:], tensor.file, at, None)

    return {end: of(tensor) for end, tensor in parts.items()}


def _packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor | None:
    weight, scales = parts["weight"], parts["scales"]
    if weight.dtype != "U32":
        return None
    own = config.get(module)
    said = {**config, **own} if isinstance(own, dict) else config
    require(len(weight.shape) in (2, 3) and weight.size > 0, weight, "must be a matrix, or a stack of them")
    mode, group = said.get("mode") or "affine", int(said.get("group_size") or 64)
    if mode == "mxfp4":
        return fp4.mx(module, weight, scales, method="MLX MXFP4")
    if mode == "nvfp4":
        whole = parts.get("global_scale")
        return fp4.nv(module, weight, scales, whole, method="MLX NVFP4", factor=_of_global)
    groups = scales.shape[-1]
    width = groups * group
    bits = weight.shape[-1] * 32 // width
    fits = bits * width == weight.shape[-1] * 32
    require(fits, weight, f"{groups} scales of groups of {group} fit no width of codes")
    if mode == "mxfp8":
        require(bits == 8, weight, f"holds {bits} bits, not 8")
        require(scales.dtype in ("U8", "F8_E8M0"), scales, "must be exponents, a byte each")
        octets = SourceTensor(
            weight.name, DTYPES["F8_E4M3"], (*weight.shape[:-1], width), weight.file, weight.offset, None
        )
        if len(octets.shape) == 3:
            return fp8.stacked(f"{module}.weight", octets, scales, method="MLX MXFP8", tile=(1, 32))
        return fp8.scaled(module, octets, scales, method="MLX MXFP8", tile=(1, 32))
    require(mode == "affine", weight, f"the mode {mode!r} of MLX is not read")
    wanted = int(said.get("bits") or 4)
    require(bits == wanted, weight, f"holds {bits} bits in groups of {group}, and the configuration says {wanted}")
    require("biases" in parts, weight, "needs biases beside its scales")
    biases = parts["biases"]
    require(
        biases.shape == scales.shape == (*weight.shape[:-1], groups),
        biases,
        "must be as its scales, a row of codes each",
    )
    codes, scale, bias = (fp4.flat(t) for t in (weight, scales, biases))
    packed = bits == 4
    grid = Grid(
        Part(width // 2, lambda start, stop: codes.stored_rows(start, stop).view(np.uint8))
        if packed
        else Part(width, lambda start, stop: dense(codes.stored_rows(start, stop), bits)),
        Part(groups, scale_rows(scale)),
        group,
        0,
        (1 << bits) - 1,
        minima=Part(groups, floats(bias)),
        packed=packed,
    )
    shape = (*weight.shape[:-1], width)
    method = f"MLX, {bits} bits in groups of {group}"
    return PackedTensor(f"{module}.weight", shape, method, weight, grid.values, scales.dtype, grid=grid)


def _of_global(scale: float) -> Any:
    """Scales are given as if the largest weight were 448 * 6."""
    return scale / (448 * 6), lambda x: x * scale / (448 * 6)
