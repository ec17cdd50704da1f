"""AMD Quark: int4, uint4, int8 and uint8 by groups or rows, int2 by groups, int3 by rows, FP8, MXFP4, MXFP6.

By groups: `weight` I32 (in, out / 8), `weight_zero_point` (groups, out / 8), packed along the outputs, in AWQ's order
where pack_method is "reorder"; `weight_scale` (groups, out). By rows: `weight` I32 (out, in / 8), `weight_zero_point`
(out / 8), `weight_scale` (out). Codes of int4 are in two's complement; a weight is scale * (code - zero). A code of 8
bits takes a byte, one of int2 a word, by groups (in, out) beside scales (groups, out). Read off amd-quark
(torch/utils/pack.py, export).
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

import numpy as np

from gguf_forge.source.packed import fp4, fp8
from gguf_forge.source.packed.bits import across, dense, two_complement
from gguf_forge.source.packed.compressed import integers8, of_all
from gguf_forge.source.packed.form import (
    Array,
    Grid,
    PackedTensor,
    Part,
    Rows,
    as_column,
    column_floats,
    float_values,
    floats,
    require,
    require_group,
    require_words,
)
from gguf_forge.source.packed.slabs import columns
from gguf_forge.source.tensor import SourceTensor

ENDINGS = ("weight", "weight_scale", "weight_zero_point", "input_scale", "output_scale", "input_zero_point")


def packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor | None:
    """One layer's weight; None where it is plain. CheckpointError where its tensors disagree."""
    weight, scale, zeros = parts["weight"], parts["weight_scale"], parts.get("weight_zero_point")
    said = str(_scheme(module, config).get("dtype") or "")
    eight = weight.dtype.startswith("F8_")
    whole = _scheme(module, config).get("qscheme") == "per_tensor"
    require(not said.startswith("fp8") or eight or weight.dtype not in ("I8", "U8"), weight, f"must be {said}")
    if eight:
        return fp8.scaled(module, weight, scale, method="Quark FP8")
    if said in ("int8", "uint8", "int2") and weight.dtype in ("I8", "U8", "I32") and len(scale.shape) == 2:
        return _turned(module, weight, scale, zeros, said)
    if weight.dtype == "I8":
        return integers8(module, weight, scale, zeros, method="Quark")
    if weight.dtype == "U8" and said in ("uint8", "int3"):
        return _octets(module, weight, scale, zeros, said, whole)
    require(said != "fp6_e3m2", weight, "codes of fp6_e3m2 are not read")
    if weight.dtype == "U8" and said == "fp6_e2m3":
        return fp4.mx6(module, weight, scale, method="Quark MXFP6")
    if weight.dtype == "U8":
        return fp4.mx(module, weight, scale, method="Quark MXFP4")
    if weight.dtype != "I32":
        return None
    scheme = _scheme(module, config)
    signed = str(scheme.get("dtype") or "int4") == "int4"
    for words in (weight, *(() if zeros is None else (zeros,))):
        require_words(words)
    require(zeros is not None or scheme.get("symmetric") is not False, weight, "needs zeros, as it is not symmetric")
    order = None if (config.get("export") or {}).get("pack_method") == "order" else "awq"
    if len(scale.shape) < 2:
        return _by_rows(module, weight, scale, zeros, signed, order, whole)
    groups, out = scale.shape
    inputs = weight.shape[0]
    require(weight.shape[1] * 8 == out, weight, f"scales say {out} outputs")
    require(inputs % groups == 0, scale, f"{inputs} inputs are not so many whole groups")
    require_group(scale, inputs // groups, inputs, scheme.get("group_size"))
    require(zeros is None or zeros.shape == (groups, weight.shape[1]), zeros or weight, "zeros must be as the scales")
    grid = Grid(
        Part(inputs, _two(_along_outputs(weight, order), signed)),
        Part(groups, column_floats(scale)),
        inputs // groups,
        -8 if signed else 0,
        7 if signed else 15,
        zeros=None if zeros is None else Part(groups, _wide(_two(_along_outputs(zeros, order), signed))),
    )
    method = f"Quark, 4 bits in groups of {inputs // groups}"
    return PackedTensor(f"{module}.weight", (out, inputs), method, weight, grid.values, scale.dtype, grid=grid)


def _by_rows(
    module: str,
    weight: SourceTensor,
    scale: SourceTensor,
    zeros: SourceTensor | None,
    signed: bool,
    order: str | None,
    whole: bool,
) -> PackedTensor:
    """Words of eight codes, row after row; `whole`: one scale for all."""
    out, width = weight.shape[0], weight.shape[1] * 8
    require(scale.shape == (out,) or (whole and scale.size == 1), scale, f"must be a scale for each of {out} rows")
    fields = np.asarray(_FIELDS[order])

    def codes(start: int, stop: int) -> Array:
        found = dense(weight.stored_rows(start, stop), 4)
        return found.reshape(len(found), -1, 8)[..., fields].reshape(len(found), -1)

    offsets = None
    if zeros is not None and not zeros.shape:
        offsets = Part(1, of_all(np.asarray(zeros.read(), np.int16)))
    elif zeros is not None:
        require(zeros.size * 8 == out, zeros, f"must be {out // 8} words")
        stored = zeros.stored_rows(0, zeros.shape[0]).reshape(1, -1)
        every = dense(stored, 4).reshape(-1, 8)[:, fields].reshape(out, 1)
        offsets = Part(1, _wide(_two(lambda start, stop: every[start:stop].copy(), signed)))
    grid = Grid(
        Part(width, _two(codes, signed)),
        Part(1, of_all(float_values(scale)) if scale.size == 1 else floats(as_column(scale))),
        width,
        -8 if signed else 0,
        7 if signed else 15,
        zeros=offsets,
    )
    return PackedTensor(
        f"{module}.weight", (out, width), "Quark, 4 bits in rows", weight, grid.values, scale.dtype, grid=grid
    )


#: The lowest and the highest code.
_RANGES = {"int2": (-2, 1), "int3": (-4, 3), "int8": (-128, 127), "uint8": (0, 255)}


def _octets(
    module: str, weight: SourceTensor, scale: SourceTensor, zeros: SourceTensor | None, kind: str, whole: bool
) -> PackedTensor:
    """Rows of bytes, or of fields of 3 bits in two's complement from the lowest on; scales of rows, or one."""
    require(len(weight.shape) == 2, weight, "must be a matrix")
    out, width = weight.shape[0], weight.shape[1] if kind == "uint8" else weight.shape[1] * 8 // 3
    require(scale.shape == (out,) or (whole and scale.size == 1), scale, f"must be a scale for each of {out} rows")

    def fields(stored: Array) -> Array:
        return stored if kind == "uint8" else ((dense(stored, 3) ^ np.uint8(4)) - np.uint8(4)).view(np.int8)

    offsets = None
    if zeros is not None:
        require(zeros.dtype == "U8", zeros, "must be bytes")
        each = fields(zeros.read().astype(np.uint8).reshape(1, -1)).astype(np.int16).reshape(-1, 1)
        require(each.size == scale.size, zeros, f"must be as many as scales, {scale.size}")
        offsets = Part(1, of_all(each) if scale.size == 1 else lambda start, stop: each[start:stop].copy())
    low, high = _RANGES[kind]
    grid = Grid(
        Part(width, lambda start, stop: fields(weight.stored_rows(start, stop))),
        Part(1, of_all(float_values(scale)) if scale.size == 1 else floats(as_column(scale))),
        width,
        low,
        high,
        zeros=offsets,
    )
    method = f"Quark, {3 if kind == 'int3' else 8} bits in rows"
    return PackedTensor(f"{module}.weight", (out, width), method, weight, grid.values, scale.dtype, grid=grid)


def _turned(
    module: str, weight: SourceTensor, scale: SourceTensor, zeros: SourceTensor | None, kind: str
) -> PackedTensor:
    """A number for each code (in, out), scales and zeros (groups, out)."""
    require(len(weight.shape) == 2, weight, "must be a matrix")
    inputs, (groups, out) = weight.shape[0], scale.shape
    require(weight.shape[1] == out, weight, f"scales say {out} outputs")
    require(groups > 0 and inputs % groups == 0, scale, f"{inputs} inputs are not so many whole groups")
    require(zeros is None or zeros.shape == scale.shape, zeros or weight, "zeros must be as the scales")
    low, high = _RANGES[kind]
    code, read = np.uint8 if kind == "uint8" else np.int8, columns(weight)

    def codes(start: int, stop: int) -> Array:
        found = read(start, stop)
        inside = not found.size or (low <= int(found.min()) and int(found.max()) <= high)
        require(inside, weight, f"has codes that {kind} has not")
        return np.ascontiguousarray(found.T.astype(code))

    offsets = None
    if zeros is not None:
        read_zeros = columns(zeros)
        offsets = Part(groups, lambda start, stop: np.ascontiguousarray(read_zeros(start, stop).T.astype(np.int16)))
    grid = Grid(
        Part(inputs, codes), Part(groups, column_floats(scale)), inputs // groups, low, high, zeros=offsets
    )
    method = f"Quark, {kind[-1]} bits in groups of {inputs // groups}"
    return PackedTensor(f"{module}.weight", (out, inputs), method, weight, grid.values, scale.dtype, grid=grid)


_FIELDS = {"awq": [0, 4, 1, 5, 2, 6, 3, 7], None: list(range(8))}


def _along_outputs(tensor: SourceTensor, order: str | None) -> Rows:
    read = columns(tensor)

    def rows(start: int, stop: int) -> Array:
        low, high = start // 8, -(-stop // 8)
        packed = across(read(low, high), _FIELDS[order])[start - low * 8 : stop - low * 8]
        return np.ascontiguousarray(dense(packed, 4)[:, : tensor.shape[0]])

    return rows


def _two(read: Rows, signed: bool) -> Rows:
    """Fields of 4 bits in two's complement as whole numbers, or as they are."""
    if not signed:
        return read
    return lambda start, stop: two_complement(read(start, stop))


def _wide(read: Rows) -> Rows:
    return lambda start, stop: read(start, stop).astype(np.int16)


def _scheme(module: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the configuration says of a layer's weights: by name, or of all."""
    for pattern, scheme in (config.get("layer_quant_config") or {}).items():
        if fnmatch(module, pattern) and isinstance(scheme, dict) and scheme.get("weight"):
            return dict(scheme["weight"])
    return dict((config.get("global_quant_config") or {}).get("weight") or {})
