"""BitNet: weights of -1, 0 and 1 beside one scale, as transformers packs them.

`weight` U8 (out / 4, in): bits 2 k and 2 k + 1 of row r are output r + k * out / 4, plus 1. `weight_scale` (1) divides
in layers of class bitlinear and multiplies in those of autobitlinear. Read off transformers (integrations/bitnet.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gguf_forge.source.packed.form import Array, Grid, PackedTensor, Part, float_values, require
from gguf_forge.source.tensor import SourceTensor

ENDINGS = ("weight", "weight_scale")


def packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor | None:
    """One layer's weight; None where it is plain. CheckpointError where its scale cannot be one."""
    weight, scale = parts["weight"], parts["weight_scale"]
    if weight.dtype != "U8":
        return None
    require(scale.size == 1, scale, "must be one number")
    number = float(float_values(scale).reshape(()))
    require(np.isfinite(number) and number > 0, scale, "must be positive and finite")
    divides = config.get("linear_class", "bitlinear") != "autobitlinear"
    factor = 1 / number if divides else number
    require(len(weight.shape) == 2 and weight.size > 0, weight, "must be a matrix")
    quarter, width = weight.shape

    def codes(start: int, stop: int) -> Array:
        found = np.empty((stop - start, width), np.int8)
        at = start
        while at < stop:
            field, inner = divmod(at, quarter)
            take = min(stop - at, quarter - inner)
            stored = weight.stored_rows(inner, inner + take)
            found[at - start : at - start + take] = (stored >> (2 * field) & 3).view(np.int8) - 1
            at += take
        return found

    grid = Grid(
        Part(width, codes),
        Part(1, lambda start, stop: np.full((stop - start, 1), factor)),
        width,
        -1,
        1,
    )
    return PackedTensor(
        f"{module}.weight", (quarter * 4, width), "BitNet, three values", weight, grid.values, scale.dtype, grid=grid
    )
