"""compressed-tensors (llm-compressor): whole numbers, 8-bit floats, MXFP4, MXFP6, MXFP8, NVFP4, several of them in one.

`weight_packed` I32 (out, words): each row's codes plus 2^(bits - 1), from the least significant bit on; since 2026
codes of 3, 5, 6 and 7 bits run over from word to word, before they did not. `weight_shape` the plain shape;
`weight_scale` (out, groups); `weight_zero_point` packed along the outputs; `weight_g_idx` each input's group. Unpacked,
`weight` I8 or F8_E4M3 (out, in). Read off compressed-tensors (compressors/).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import gcd
from typing import Any

import numpy as np

from gguf_forge.errors import CheckpointError
from gguf_forge.source.packed import fp4, fp8
from gguf_forge.source.packed.bits import dense, spaced
from gguf_forge.source.packed.form import (
    Array,
    Grid,
    PackedTensor,
    Part,
    Rows,
    as_column,
    float_values,
    floats,
    group_order,
    on_grid,
    require,
    require_group,
    require_octets,
    require_words,
    scale_rows,
)
from gguf_forge.source.tensor import SourceTensor

ENDINGS = (
    *("weight_packed", "weight", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"),
    *("weight_global_scale", "input_global_scale", "input_scale", "input_zero_point"),
)
#: Layouts for kernels, or of sparse weights.
REFUSED = ("marlin-24", "sparse-24-bitmask", "sparse-bitmask")


def packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor | None:
    """One layer's weight; None where it is plain. CheckpointError where tensors and configuration disagree."""
    layout = config.get("format")
    said = f"{layout} {config.get('packing_format')}"
    if "e5m3" in said:
        raise CheckpointError("quantization_config: scales of 8 bits with five of an exponent (e5m3) are not read")
    if layout in REFUSED or (config.get("sparsity_config") or {}).get("format") in REFUSED:
        raise CheckpointError(f"quantization_config: the layout {layout} of compressed-tensors is not read")
    if (config.get("transform_config") or {}).get("config_groups"):
        raise CheckpointError(
            "quantization_config: transform_config asks for rotations while the model runs, which llama.cpp has not"
        )
    scale, scheme = parts["weight_scale"], weights_scheme(module, config)
    indexed = "weight_g_idx" in parts or str(scheme.get("actorder")).lower() != "group"
    require(indexed, scale, "needs a weight_g_idx beside it, as its groups are ordered by activation")
    codes = parts.get("weight_packed")
    if codes is None:
        return _unpacked(module, parts["weight"], scale, parts.get("weight_zero_point"), scheme)
    if codes.dtype != "U8":
        return _integers(module, codes, scale, parts, scheme)
    if scheme.get("num_bits") == 6:
        return fp4.mx6(module, codes, scale, method="compressed-tensors MXFP6")
    whole = parts.get("weight_global_scale")
    require(whole is not None or scale.dtype == "U8", scale, "needs a weight_global_scale beside it")
    if scale.dtype == "U8" and whole is None:
        return fp4.mx(module, codes, scale, method="compressed-tensors MXFP4")
    return fp4.nv(
        module, codes, scale, whole, method="compressed-tensors NVFP4", factor=lambda s: (1 / s, lambda x: x / s)
    )


def weights_scheme(module: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the configuration says of a layer's weights: of the group that names it, or of the one that names all."""
    groups = [group for group in (config.get("config_groups") or {}).values() if isinstance(group, dict)]
    named = [group for group in groups if any(_names(target, module) for target in group.get("targets") or ())]
    chosen = named or [group for group in groups if "Linear" in (group.get("targets") or ())] or groups
    return (chosen[0].get("weights") or {}) if chosen else config


def _names(target: str, module: str) -> bool:
    if target.startswith("re:"):
        return re.match(target[3:], module) is not None
    return target == module or module.endswith(f".{target}")


def _integers(
    module: str,
    codes: SourceTensor,
    scale: SourceTensor,
    parts: Mapping[str, SourceTensor],
    scheme: Mapping[str, Any],
) -> PackedTensor:
    require("weight_shape" in parts, codes, "needs a weight_shape beside it")
    out, inputs = (int(n) for n in parts["weight_shape"].read())
    require_words(codes)
    bits = int(scheme.get("num_bits") or scheme.get("bits") or 4)
    tight, loose = -(-inputs * bits // 32), -(-inputs // (32 // bits))
    require(
        codes.shape in ((out, tight), (out, loose)), codes, f"{bits} bits of {[out, inputs]} are {[out, tight]} words"
    )
    unpack, half = (dense if codes.shape[1] == tight else spaced), 1 << (bits - 1)
    whole = scheme.get("strategy") == "tensor"
    if whole:
        require(scale.size == 1, scale, "must be one number, the scale of all")
    else:
        rows_of_groups = len(scale.shape) == 2 and scale.shape[0] == out and scale.shape[1] > 0
        require(rows_of_groups, scale, f"must have {out} rows")
    groups = 1 if whole else scale.shape[1]
    require(inputs % groups == 0, scale, f"{inputs} inputs are not so many whole groups")
    group = inputs // groups
    require_group(scale, group, inputs, scheme.get("group_size"))
    zeros = parts.get("weight_zero_point")
    require(zeros is not None or scheme.get("symmetric") is not False, codes, "needs zeros, as it is not symmetric")
    offsets = None
    if zeros is not None and whole and zeros.size == 1:
        offsets = Part(1, of_all(whole_zeros(as_column(zeros), bits)(0, 1)))
    elif zeros is not None:
        offsets = Part(groups, _zeros(zeros, bits, out, groups, unpack is dense))

    def signed(start: int, stop: int) -> Array:
        found = unpack(codes.stored_rows(start, stop), bits)[:, :inputs]
        return (found - np.uint8(half)).view(np.int8)

    packed = bits == 4 and inputs % 8 == 0
    two = Part(inputs // 2, lambda start, stop: codes.stored_rows(start, stop).view(np.uint8))
    grid = Grid(
        two if packed else Part(inputs, signed),
        Part(groups, of_all(float_values(scale)) if whole else scale_rows(scale)),
        group,
        -half,
        half - 1,
        zeros=offsets,
        packed=packed,
    )
    method = f"compressed-tensors, {bits} bits in groups of {group}"
    index = parts.get("weight_g_idx")
    order = None if index is None else group_order(index, inputs, groups, group)
    return on_grid(module, (out, inputs), method, codes, grid, scale.dtype, order)


def _zeros(zeros: SourceTensor, bits: int, out: int, groups: int, is_dense: bool) -> Rows:
    """Zeros packed along the outputs (or not packed, as I8), as rows of int16."""
    half = 1 << (bits - 1)
    if zeros.dtype == "I8":
        require(zeros.shape == (out, groups), zeros, f"must be {[out, groups]}")
        return whole_zeros(zeros, bits)
    require_words(zeros)
    per = 32 // bits
    words = -(-out * bits // 32) if is_dense else -(-out // per)
    require(zeros.shape == (words, groups), zeros, f"{bits} bits of {out} outputs are {[words, groups]} words")
    run, step = (32, bits) if is_dense else (per, 1)

    def rows(start: int, stop: int) -> Array:
        low, high = start // run, -(-stop // run)
        turned = np.ascontiguousarray(zeros.stored_rows(low * step, min(high * step, words)).T)
        found = (dense if is_dense else spaced)(turned, bits)[:, start - low * run : stop - low * run]
        return np.ascontiguousarray(found.T.astype(np.int16) - np.int16(half))

    return rows


def _unpacked(
    module: str,
    weight: SourceTensor,
    scale: SourceTensor,
    zeros: SourceTensor | None,
    scheme: Mapping[str, Any],
) -> PackedTensor | None:
    eight = weight.dtype == "I8" or weight.dtype.startswith("F8_")
    if eight and len(weight.shape) == 2:
        kind = "float" if weight.dtype != "I8" else "int"
        require(scheme.get("type") in (None, kind), weight, f"the configuration says {scheme.get('type')!r}")
        many = {"tensor": 1, "channel": weight.shape[0]}.get(str(scheme.get("strategy")))
        if scheme.get("strategy") == "group":
            many = weight.size // int(scheme["group_size"])
        require(many in (None, scale.size), scale, f"the strategy {scheme.get('strategy')!r} asks for {many} scales")
    tile = fp8.tile_of(scheme.get("block_structure"))
    if weight.dtype.startswith("F8_"):
        if scheme.get("strategy") == "group":
            tile = 1, int(scheme["group_size"])
        return fp8.scaled(module, weight, scale, method="compressed-tensors FP8", tile=tile)
    if weight.dtype != "I8":
        return None
    bits = int(scheme.get("num_bits") or 8)
    return integers8(module, weight, scale, zeros, method="compressed-tensors", bits=bits, tile=tile)


def whole_zeros(zeros: SourceTensor, bits: int) -> Rows:
    """Rows of zeros that take a byte each, as int16; CheckpointError for one that codes of so many bits have not."""
    require(zeros.dtype in ("I8", "U8"), zeros, "must be whole numbers of 8 bits")
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if zeros.dtype == "I8" else (0, (1 << bits) - 1)

    def rows(start: int, stop: int) -> Array:
        found = zeros.stored_rows(start, stop).astype(np.int16)
        inside = not found.size or (low <= int(found.min()) and int(found.max()) <= high)
        require(inside, zeros, f"has zeros beyond {low} to {high}, which {bits} bits have")
        return found

    return rows


def of_all(number: Array) -> Rows:
    """Rows of the one number that is every row's."""
    one = number.reshape(1, 1)
    return lambda start, stop: np.repeat(one, stop - start, axis=0)


def _of_tiles(scale: SourceTensor, matrix: tuple[int, int], tile: tuple[int, int]) -> tuple[Rows, int]:
    """Rows of the scales of a matrix's tiles, the last of which may be smaller, and how many runs a row has."""
    (out, width), (high, broad) = matrix, tile
    wanted = (-(-out // high), -(-width // broad))
    require(scale.shape == wanted, scale, f"must be {list(wanted)}, one for each tile of {list(tile)}")
    run = gcd(width, broad)
    columns, scales = np.arange(0, width, run) // broad, float_values(scale)
    return lambda start, stop: scales[np.arange(start, stop)[:, None] // high, columns], width // run


def integers8(
    module: str,
    weight: SourceTensor,
    scale: SourceTensor,
    zeros: SourceTensor | None,
    *,
    method: str,
    bits: int = 8,
    tile: tuple[int, int] | None = None,
) -> PackedTensor:
    """Whole numbers of 8 bits (out, in), of which `bits` are used: a scale for all, for rows, or for groups of columns.

    `tile`: rows and columns that share a scale, where they are several of each. Rows raise CheckpointError where a code
    is out of range.
    """
    require(len(weight.shape) == 2 and weight.size > 0, weight, "must be a matrix")
    require_octets(weight)
    out, width = weight.shape
    if tile is not None:
        scales, groups = _of_tiles(scale, (out, width), tile)
    elif scale.size == 1:
        scales, groups = of_all(float_values(scale)), 1
    else:
        flat = scale if len(scale.shape) == 2 else as_column(scale)
        require(flat.shape[0] == out and width % flat.shape[1] == 0, scale, f"must be a scale for each of {out} rows")
        scales, groups = floats(flat), flat.shape[1]
    offsets = None
    if zeros is not None and zeros.size == scale.size == 1:
        offsets = Part(1, of_all(whole_zeros(as_column(zeros), bits)(0, 1)))
    elif zeros is not None:
        column = zeros if len(zeros.shape) == 2 else as_column(zeros)
        require(tile is None and column.shape == (out, groups), zeros, f"must be {[out, groups]}")
        offsets = Part(groups, whole_zeros(column, bits))
    half = 1 << (bits - 1)

    def codes(start: int, stop: int) -> Array:
        found = weight.stored_rows(start, stop)
        if bits < 8 and found.size:
            inside = -half <= int(found.min()) and int(found.max()) < half
            require(inside, weight, f"has codes that {bits} bits have not")
        return found

    grid = Grid(Part(width, codes), Part(groups, scales), width // groups, -half, half - 1, zeros=offsets)
    what = f"{method}, {bits} bits in {'rows' if groups == 1 else f'groups of {width // groups}'}"
    return PackedTensor(f"{module}.weight", (out, width), what, weight, grid.values, scale.dtype, grid=grid)
