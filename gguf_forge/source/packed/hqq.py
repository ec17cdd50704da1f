"""HQQ, as transformers writes it: grids of 1 to 8 bits whose zeros are floats, along either axis.

The matrix is put as groups: rows of `group_size` along the inputs (axis 1), or columns of as many (axis 0). `W_q` packs
the rows of that matrix of groups: equal slices of them, the first in the highest bits of each byte (of each I32, 3 bits
a slice, with 3 bits); it may be stored as other elements, the bytes the same. `scale` and `zero` are one for each
group; a weight is (code - zero) * scale. The small tensors beside it say the rest. Read off hqq (core/quantize.py,
bitpack.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gguf_forge.source.dtypes import DTYPES
from gguf_forge.source.packed.form import Array, Grid, PackedTensor, Part, Rows, float_values, require
from gguf_forge.source.tensor import SourceTensor

_SAID = ("nbits", "group_size", "axis", "shape")
ENDINGS = (
    *("W_q", "scale", "zero", *_SAID, "channel_wise", "compute_dtype", "encoded_state_dict", "offload_meta"),
    *("optimize", "packing", "quant_scale", "quant_zero", "round_zero", "stores_quant_config"),
    *("unpack_view_dtype", "view_as_float"),
)


def packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor:
    """One layer's weight. CheckpointError where its tensors disagree."""
    weight, scale, zero = parts["W_q"], parts["scale"], parts["zero"]
    said = _said(parts, config)
    bits, group, axis = said["nbits"], said["group_size"], said["axis"]
    require("shape" in parts, weight, "needs its shape beside it")
    out, width = (int(n) for n in parts["shape"].read())
    require(axis in (0, 1) and 1 <= bits <= 8 and group > 0, weight, f"{bits} bits, axis {axis} are not read")
    require(out * width % group == 0, weight, f"{[out, width]} is not in whole groups of {group}")
    count = out * width // group
    lines, across = (count, group) if axis == 1 else (group, count)
    read = _lines(weight, bits, lines, across)
    scales, zeros = (float_values(t).reshape(-1) for t in (scale, zero))
    require(scales.size == count == zeros.size, scale, f"must be as many as groups, {count}, as zeros")
    name, method = f"{module}.weight", f"HQQ, {bits} bits in groups of {group}"
    if axis == 1 and width % group == 0:
        per = width // group
        grid = Grid(
            Part(width, lambda start, stop: read(start * per, stop * per).reshape(stop - start, width)),
            Part(per, lambda start, stop: scales[start * per : stop * per].reshape(-1, per)),
            group,
            0,
            (1 << bits) - 1,
            zeros=Part(per, lambda start, stop: zeros[start * per : stop * per].reshape(-1, per)),
        )
        return PackedTensor(name, (out, width), method, weight, grid.values, scale.dtype, grid=grid)

    def values(start: int, stop: int) -> Array:
        first, last = start * width, stop * width
        low, high = first // across, -(-last // across)
        codes = read(low, high).reshape(-1)[first - low * across : last - low * across].astype(np.float64)
        flat = np.arange(first, last)
        index = flat // group if axis == 1 else flat % across
        return ((codes - zeros[index]) * scales[index]).astype(np.float32).reshape(stop - start, width)

    why = "groups run across rows of the matrix (axis 0)" if axis == 0 else "groups do not end with the rows"
    return PackedTensor(name, (out, width), method, weight, values, scale.dtype, why=why)


def _said(parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> dict[str, int]:
    """nbits, group_size, axis: of the layer's own tensors, or of the configuration."""
    usual = (config.get("quant_config") or {}).get("weight_quant_params") or {}
    found = {"group_size": 64, "axis": 1, "nbits": 4, **{k: v for k, v in usual.items() if v is not None}}
    for key in _SAID[:3]:
        if key in parts:
            found[key] = int(np.asarray(parts[key].read()).reshape(()))
    return {key: int(found[key]) for key in _SAID[:3]}


def _lines(weight: SourceTensor, bits: int, lines: int, across: int) -> Rows:
    """Codes of lines start..stop-1 of the matrix of groups."""
    wide = weight.dtype in ("I32", "U32") and bits == 3
    size = 4 if wide else 1
    per = 10 if wide else 8 // bits if bits in (1, 2, 4) else 1
    height = -(-lines // per)
    require(weight.nbytes == height * across * size, weight, f"{lines} groups of {across} are {height * across} codes")
    octets = SourceTensor(weight.name, DTYPES["U8"], (height, across * size), weight.file, weight.offset, None)
    width = 3 if wide else 8 // per

    def rows(start: int, stop: int) -> Array:
        found = np.empty((stop - start, across), np.uint8)
        at = start
        while at < stop:
            piece, inner = divmod(at, height)
            take = min(stop - at, height - inner)
            stored = octets.stored_rows(inner, inner + take)
            codes = stored.view(np.uint32) if wide else stored
            shift = width * ((per - 1 if per > 1 else 0) - piece)
            found[at - start : at - start + take] = codes >> shift & ((1 << width) - 1)
            at += take
        return found

    return rows
