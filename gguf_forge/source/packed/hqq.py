"""HQQ, as transformers writes it, and hqq itself: grids of 1 to 8 bits whose zeros are floats, along either axis.

The matrix is put as groups: rows of `group_size` along the inputs (axis 1), or columns of as many (axis 0). `W_q` packs
the rows of that matrix of groups: equal slices of them, the first in the highest bits of each byte (of each I32, 3 bits
a slice, with 3 bits); it may be stored as other elements, the bytes the same. `scale` and `zero` are one for each
group; a weight is (code - zero) * scale. The small tensors beside it say the rest, or, in hqq's own file (qmodel.pt),
what that says of the module. Read off hqq (core/quantize.py, bitpack.py, models/base.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

import numpy as np

from gguf_forge.source.dtypes import DTYPES
from gguf_forge.source.packed.form import Array, Grid, PackedTensor, Part, Rows, float_values, require
from gguf_forge.source.tensor import SourceTensor

_SAID = ("nbits", "group_size", "axis", "shape")
#: Scales and zeros that are quantized themselves, which hqq gave up.
_AGAIN = ("scale_q", "zero_q")
ENDINGS = (
    *("W_q", "scale", "zero", *_AGAIN, *_SAID, "channel_wise", "compute_dtype", "encoded_state_dict", "offload_meta"),
    *("optimize", "packing", "quant_scale", "quant_zero", "round_zero", "stores_quant_config"),
    *("unpack_view_dtype", "view_as_float"),
)


def packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor:
    """One layer's weight. CheckpointError where its tensors disagree."""
    weight = parts["W_q"]
    require(not any(end in parts for end in _AGAIN), weight, "has scales or zeros quantized themselves: not read")
    scale, zero = parts["scale"], parts["zero"]
    own = (config.get("modules") or {}).get(module) or {}
    said = _said(parts, config, own)
    bits, axis = said["nbits"], said["axis"]
    out, width = _shape(weight, parts, own)
    group = said["group_size"] or (width if axis == 1 else out)
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


def _shape(weight: SourceTensor, parts: Mapping[str, SourceTensor], own: Mapping[str, Any]) -> tuple[int, int]:
    """The plain shape: of the tensor beside the codes, or of what the file says of the module."""
    require("shape" in parts or "shape" in own, weight, "needs its shape beside it")
    if "shape" in parts:
        require(parts["shape"].shape == (2,), parts["shape"], "must be two numbers")
    shape = [int(n) for n in (parts["shape"].read() if "shape" in parts else own["shape"])]
    require(len(shape) == 2 and min(shape) > 0, weight, f"stands for a matrix of shape {shape}, which is none")
    return shape[0], shape[1]


def _said(parts: Mapping[str, SourceTensor], config: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, int]:
    """nbits, group_size (0: one group a row), axis: of the layer's own tensors, of the file, or of the configuration.

    Codes of three values, 1.58 bits, are packed as those of 2 bits.
    """
    usual = (config.get("quant_config") or {}).get("weight_quant_params") or {}
    found = {"group_size": 64, "axis": 1, "nbits": 4}
    found |= {key: value or 0 for given in (usual, own) for key, value in given.items() if key in found}
    for key in found:
        if key in parts:
            found[key] = np.asarray(parts[key].read()).reshape(()).item()
    return {key: ceil(value) for key, value in found.items()}


def _lines(weight: SourceTensor, bits: int, lines: int, across: int) -> Rows:
    """Codes of lines start..stop-1 of the matrix of groups."""
    wide = bits == 3 and weight.nbytes == -(-lines // 10) * across * 4
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
