"""optimum-quanto: qint2 and qint4 in groups, qint8 and qfloat8 by rows.

`weight._data._data` U8 packs groups of 128 elements of the flattened matrix in equal slices, the first in the lowest
bits; `weight._scale` and `weight._shift` are one for each group, and a weight is scale * code - shift.
`weight._data` I8 or F8_E4M3 (out, in) has a `weight._scale` for each row. Read off optimum-quanto (tensor/packed.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from gguf_forge.source.packed import fp8
from gguf_forge.source.packed.compressed import integers8
from gguf_forge.source.packed.form import Array, Grid, PackedTensor, Part, float_values, require, require_octets
from gguf_forge.source.tensor import SourceTensor

ENDINGS = ("weight._data._data", "weight._data", "weight._scale", "weight._shift", "input_scale", "output_scale")
#: Layers whose outputs, not inputs, are as many as the model is wide.
_TO_RESIDUAL = re.compile(r"\.(o_proj|down_proj|out_proj|dense|c_proj|wo|w2|fc2|dense_4h_to_h)$")


def packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor | None:
    """One layer's weight. `config` needs `hidden_size`: how wide a packed matrix is, its tensors do not say."""
    scale, said = parts["weight._scale"], str(((config.get("modules") or {}).get(module) or {}).get("weights") or "")
    data = parts.get("weight._data")
    if data is not None and data.dtype.startswith("F8_"):
        return fp8.scaled(module, data, scale, method="quanto qfloat8")
    if data is not None:
        require(scale.size == (data.shape[0] if data.shape else 1), scale, "must be one for each row")
        return integers8(module, data, scale, None, method="quanto")
    codes, shift = parts.get("weight._data._data"), parts.get("weight._shift")
    if codes is None or shift is None:
        return None
    require_octets(codes)
    require(len(codes.shape) == 2 and codes.size > 0, codes, "must be a matrix")
    require(scale.size == shift.size, shift, "must be as many as the scales")
    groups, group = scale.size, codes.shape[1]
    per = groups // codes.shape[0]
    require(per in (2, 4) and per * codes.shape[0] == groups, codes, f"{groups} scales fit no width of codes")
    bits, elements = 8 // per, groups * group
    require(said in ("", f"qint{bits}"), codes, f"holds {bits} bits, and quanto_qmap.json says {said}")
    hidden = int(config.get("hidden_size") or 0)
    require(hidden > 0 and elements % hidden == 0, codes, f"{elements} elements are no matrix of a model {hidden} wide")
    out = hidden if _TO_RESIDUAL.search(module) else elements // hidden
    width = elements // out
    require(width % group == 0, codes, f"rows of {width} are no whole groups of {group}")
    scales, shifts = float_values(scale).reshape(-1), float_values(shift).reshape(-1)
    in_row, height = width // group, codes.shape[0]

    def unpacked(start: int, stop: int) -> Array:
        found = np.empty((stop - start, group), np.uint8)
        at = start
        while at < stop:
            piece, inner = divmod(at, height)
            take = min(stop - at, height - inner)
            stored = codes.stored_rows(inner, inner + take)
            found[at - start : at - start + take] = stored >> (bits * piece) & ((1 << bits) - 1)
            at += take
        return found

    grid = Grid(
        Part(width, lambda start, stop: unpacked(start * in_row, stop * in_row).reshape(stop - start, width)),
        Part(in_row, lambda start, stop: scales[start * in_row : stop * in_row].reshape(-1, in_row)),
        group,
        0,
        (1 << bits) - 1,
        minima=Part(in_row, lambda start, stop: -shifts[start * in_row : stop * in_row].reshape(-1, in_row)),
    )
    method = f"quanto, {bits} bits in groups of {group}"
    return PackedTensor(f"{module}.weight", (out, width), method, codes, grid.values, scale.dtype, grid=grid)
