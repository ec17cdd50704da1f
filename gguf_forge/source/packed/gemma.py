"""Gemma's own format in transformers (quant_method gemma): rows of 2, 4 or 8 bits, embeddings too.

`weight` U8 (out, in * bits / 8), from the least significant bit on, each code plus 2^(bits - 1), or I8 (out, in);
`weight_scale` (out, 1). Of embeddings `embedding_quantized` and `embedding_scale` (rows, groups). How wide codes are
the configuration says, of modules in which a pattern is found. Read off transformers (integrations/gemma_quant.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from gguf_forge.source.packed.bits import dense
from gguf_forge.source.packed.compressed import integers8
from gguf_forge.source.packed.form import Array, Grid, PackedTensor, Part, floats, require
from gguf_forge.source.tensor import SourceTensor

ENDINGS = (
    *("weight", "weight_scale", "embedding_quantized", "embedding_scale"),
    *("input_activation_scale", "output_activation_scale"),
)


def packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor | None:
    """One module's weight; None where it is plain. CheckpointError where tensors and configuration disagree."""
    codes = parts.get("embedding_quantized") or parts["weight"]
    scale = parts.get("embedding_scale") or parts["weight_scale"]
    if codes.dtype == "I8":
        return integers8(module, codes, scale, None, method="Gemma")
    if codes.dtype != "U8":
        return None
    bits = _bits_of(module, config)
    require(bits in (2, 4), codes, f"the configuration says {bits} bits, which take no bytes of several")
    require(len(codes.shape) == 2 and codes.size > 0, codes, "must be a matrix")
    out, width, half = codes.shape[0], codes.shape[1] * 8 // bits, 1 << (bits - 1)
    require(len(scale.shape) == 2 and scale.shape[0] == out, scale, f"must have {out} rows")
    groups = scale.shape[1]
    require(groups > 0 and width % groups == 0, scale, f"{width} columns are not so many whole groups")

    def signed(start: int, stop: int) -> Array:
        return (dense(codes.stored_rows(start, stop), bits) - np.uint8(half)).view(np.int8)

    grid = Grid(Part(width, signed), Part(groups, floats(scale)), width // groups, -half, half - 1)
    method = f"Gemma, {bits} bits in {'rows' if groups == 1 else f'groups of {width // groups}'}"
    return PackedTensor(f"{module}.weight", (out, width), method, codes, grid.values, scale.dtype, grid=grid)


def _bits_of(module: str, config: Mapping[str, Any]) -> int:
    """The width of a module's codes: of the pattern found first in its name, or of all."""
    usual, best = int(config.get("num_bits") or 4), len(module) + 1
    bits = usual
    for pattern, own in (config.get("module_quant_configs") or {}).items():
        found = re.search(pattern, module)
        if found is not None and found.start() < best:
            best, bits = found.start(), int((own or {}).get("num_bits") or usual)
    return bits
