"""torchao's tensors in safetensors: Int4Tensor, IntxUnpackedToInt8Tensor, Int8Tensor, Float8Tensor, MX, NVFP4.

`_weight_qdata` beside `_weight_scale` and `_weight_zero_point`. Int4Tensor: I8 (out, in / 2), two codes of -8..7 in a
byte, the first low; scale and zero (groups, out), floats; a weight is scale * code + zero. The other whole numbers take
a byte each, (out, in), scale and zero (out, groups), whole zeros; a weight is scale * (code - zero). 4-bit floats are
U8 (out, in / 2), beside scales of 8 bits (out, groups), which may lie in the order of NVIDIA's kernels: of each
128 rows and 4 groups, row i + 32 k and group g are number 16 i + 4 k + g; `_weight_per_tensor_scale` multiplies all.
The header says of each weight its class, `block_size`, and the element type that codes are of. Read off torchao
(prototype/safetensors, prototype/mx_formats, quantization/quantize_/workflows).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from gguf_forge.source.dtypes import DTYPES
from gguf_forge.source.packed import fp4, fp8
from gguf_forge.source.packed.bits import dense, two_complement
from gguf_forge.source.packed.compressed import integers8
from gguf_forge.source.packed.form import Array, Grid, PackedTensor, Part, Rows, column_floats, require
from gguf_forge.source.tensor import SourceTensor

ENDINGS = (
    *("_weight_qdata", "_weight_scale", "_weight_zero_point", "_weight_act_pre_scale"),
    *("_weight_per_tensor_scale", "_weight_act_per_tensor_scale", "_weight_act_quant_scale"),
    *("_weight_act_quant_zero_point", "_weight_act_scale"),
)
_FLOATS = ("BF16", "F16", "F32")
#: The classes whose codes and scales are read; others are laid out for one kernel.
_CLASSES = ("Int4Tensor", "IntxUnpackedToInt8Tensor", "Int8Tensor", "Float8Tensor", "MXTensor", "NVFP4Tensor")
_BYTE = DTYPES["U8"]


def _own(module: str, config: Mapping[str, Any]) -> Any:
    """What the configuration says of a module."""
    types = config.get("quant_type")
    kinds = types if isinstance(types, dict) else {}
    return kinds.get(module, kinds.get(f"{module}.weight", kinds.get("default")))


def _in_header(module: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What the file's header says of a module's weight; nothing without one."""
    text = (config.get("header") or {}).get(f"{module}.weight")
    said = json.loads(text) if text else {}
    return said if isinstance(said, dict) else {}


def _bits_of(said: str) -> int:
    """The width of codes that take a byte each, from a target_dtype or weight_dtype such as int4, wherever it is."""
    found = re.search(r"(?:target|weight)_dtype.{0,60}?\bu?int([1-8])\b", said)
    return int(found[1]) if found else 8


def packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor:
    """One layer's weight. CheckpointError where its tensors disagree, or its inputs want a scale of their own."""
    header = _in_header(module, config)
    own = json.dumps(header.get("_data") or _own(module, config))
    kind = header.get("_type")
    data, scale, zero = parts["_weight_qdata"], parts["_weight_scale"], parts.get("_weight_zero_point")
    plain = "_weight_act_pre_scale" not in parts
    require(plain, data, "has inputs to be scaled while the model runs, which is not read")
    require(kind is None or kind in _CLASSES, data, f"is {kind}, a layout of torchao's that is not read")
    require(zero is not None or '"ASYMMETRIC"' not in own, data, "needs zeros, as it is not symmetric")
    require("Float8" not in (kind or own) or data.dtype.startswith("F8_"), data, "must be 8-bit floats")
    if data.dtype.startswith("F8_"):
        return _floats8(module, data, scale, (header.get("_data") or {}).get("block_size"))
    if data.dtype == "U8" and scale.dtype in ("F8_E4M3", "F8_E8M0"):
        return _floats4(module, data, scale, parts.get("_weight_per_tensor_scale"))
    require(data.dtype in ("I8", "U8") and len(data.shape) == 2, data, "is a layout of torchao's that is not read")
    require(kind not in ("MXTensor", "NVFP4Tensor"), scale, "must be 8-bit floats, or powers of two")
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


def _floats8(module: str, data: SourceTensor, scale: SourceTensor, block: object) -> PackedTensor:
    """8-bit floats beside a scale of all, of rows, or of tiles (`block`: rows and columns of one); MXFP8."""
    require(len(data.shape) == 2, data, "must be a matrix of 8-bit floats")
    out, width = data.shape
    if scale.dtype != "F8_E8M0":
        return fp8.scaled(module, data, scale, method="torchao FP8", tile=fp8.tile_of(block))
    read = _of_kernels(scale, out, width // 32)
    arranged = None if read is None else (lambda scales: _in_rows(scales, out, width // 32))
    return fp8.scaled(module, data, scale, method="torchao MXFP8", tile=(1, 32), arranged=arranged)


def _floats4(module: str, data: SourceTensor, scale: SourceTensor, whole: SourceTensor | None) -> PackedTensor:
    """MXFP4, or NVFP4, maybe with a scale of the whole tensor."""
    require(len(data.shape) == 2, data, "must be a matrix of bytes of two codes")
    out, width = data.shape[0], data.shape[1] * 2
    if scale.dtype == "F8_E8M0":
        return fp4.mx(module, data, scale, method="torchao MXFP4", read=_of_kernels(scale, out, width // 32))
    read = _of_kernels(scale, out, width // 16)
    return fp4.nv(module, data, scale, whole, method="torchao NVFP4", rows=read)


def _of_kernels(scale: SourceTensor, out: int, groups: int) -> Rows | None:
    """Rows of scales that lie in the order of kernels, as bytes; None where they lie row after row."""
    high, broad = -(-out // 128), -(-groups // 4)
    if scale.shape == (out, groups) or scale.size != high * broad * 512:
        return None
    flat = SourceTensor(scale.name, _BYTE, (high, broad * 512), scale.file, scale.offset, None)

    def rows(start: int, stop: int) -> Array:
        low, end = start // 128, -(-stop // 128)
        return _in_rows(flat.stored_rows(low, end), (end - low) * 128, groups)[start - low * 128 : stop - low * 128]

    return rows


def _in_rows(scales: Array, out: int, groups: int) -> Array:
    """Scales in the order of kernels, as a matrix (out, groups)."""
    tiles = scales.reshape(-(-out // 128), -(-groups // 4), 32, 4, 4)
    matrix = tiles.transpose(0, 3, 2, 1, 4).reshape(-(-out // 128) * 128, -1)
    return np.ascontiguousarray(matrix[:out, :groups])
