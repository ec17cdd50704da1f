"""AWQ: AutoAWQ's layouts gemm, gemv and gemv_fast, llm-awq's, and AutoRound's of the first.

gemm: `qweight` I32 (in, out * bits / 32), `qzeros` (groups, out * bits / 32), packed along the outputs, eight of them
in the order 0 2 4 6 1 3 5 7; `scales` (groups, out). gemv: `qweight` I32 (out, in / 8), `qzeros` (out, words), `scales`
(out, 8 * words), all in natural order. A weight is scale * (code - zero). gemv_fast and llm-awq: `qweight` I16
(out / 4, in), four outputs interleaved; `scales` (groups, out); `qzeros` or `scaled_zeros` the minimum of each group.
Read off AutoAWQ (modules/linear) and llm-awq (qmodule.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gguf_forge.errors import CheckpointError
from gguf_forge.source.packed.bits import across, dense
from gguf_forge.source.packed.form import (
    Array,
    Grid,
    PackedTensor,
    Part,
    Rows,
    column_floats,
    require,
    require_group,
    require_words,
    scale_columns,
    scale_rows,
)
from gguf_forge.source.packed.gptq import own_rule
from gguf_forge.source.packed.slabs import columns
from gguf_forge.source.tensor import SourceTensor

ENDINGS = ("qweight", "qzeros", "scaled_zeros", "scales")
#: Which field of eight holds output 0, 1, ... 7.
_FIELD = (0, 4, 1, 5, 2, 6, 3, 7)
#: Words side by side that the core turns together.
_STRIP = 16


def packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor:
    """One layer's weight. CheckpointError where its tensors disagree, or the layout is one made for kernels."""
    qweight, scales = parts["qweight"], parts["scales"]
    for tensor in parts.values():
        require(len(tensor.shape) == 2, tensor, "must have two axes")
    if qweight.dtype == "I16":
        made = _fast(module, qweight, scales, parts.get("scaled_zeros") or parts["qzeros"])
        require_group(scales, made.grid.group if made.grid else 0, made.shape[1], _group_of(module, config))
        return made
    version = str(config.get("version") or "gemm").lower()
    if version in ("marlin", "exllama", "exllamav2", "ipex"):
        version = "gemm"
    qzeros = parts["qzeros"]
    if version == "gemv":
        return _gemv(module, qweight, scales, qzeros, int(config["group_size"]))
    if version != "gemm":
        raise CheckpointError(f"quantization_config: the layout {version!r} of AWQ is not read")
    return _gemm(module, qweight, scales, qzeros, config)


def _gemm(
    module: str, qweight: SourceTensor, scales: SourceTensor, qzeros: SourceTensor, config: Mapping[str, Any]
) -> PackedTensor:
    require_words(qweight)
    require_words(qzeros)
    inputs, (groups, out) = qweight.shape[0], scales.shape
    bits = qweight.shape[1] * 32 // out if out else 0
    fits = out % 32 == 0 and 1 <= bits <= 8 and bits * out == qweight.shape[1] * 32
    require(fits, qweight, f"scales say {out} outputs")
    wanted = _bits_of(module, config)
    require(wanted == bits, qweight, f"holds {bits} bits, and the configuration says {wanted}")
    require(qzeros.shape == (groups, qweight.shape[1]), qzeros, f"must be {[groups, qweight.shape[1]]}")
    require(inputs % groups == 0, scales, f"{inputs} inputs are not so many whole groups")
    group = inputs // groups
    require_group(scales, group, inputs, _group_of(module, config))
    packed = bits == 4 and inputs % 8 == 0
    grid = Grid(
        Part(inputs // 2 if packed else inputs, nibbles(qweight) if packed else interleaved(qweight, bits)),
        Part(groups, scale_columns(scales)),
        group,
        0,
        (1 << bits) - 1,
        zeros=Part(groups, interleaved(qzeros, bits, np.int16)),
        packed=packed,
    )
    method = f"AWQ, {bits} bits in groups of {group}"
    return PackedTensor(f"{module}.weight", (out, inputs), method, qweight, grid.values, scales.dtype, grid=grid)


def _bits_of(module: str, config: Mapping[str, Any]) -> int:
    own = own_rule(config.get("extra_config") or {}, module)
    return int(own.get("bits") or config.get("bits") or config.get("w_bit") or 4)


def _group_of(module: str, config: Mapping[str, Any]) -> object:
    own = own_rule(config.get("extra_config") or {}, module)
    return own.get("group_size") or config.get("group_size") or config.get("q_group_size")


def nibbles(tensor: SourceTensor) -> Rows:
    """Fields of 4 bits along the outputs, eight of them in AWQ's order, as rows of outputs, two fields to a byte."""
    read, total = columns(tensor), tensor.shape[1]

    def rows(start: int, stop: int) -> Array:
        # A few words more than are asked for, where that makes whole strips: the rest of one takes far longer.
        low, wanted = start // 8, -(-stop // 8) - start // 8
        high = min(total, low + -(-wanted // _STRIP) * _STRIP)
        low = max(0, min(low, high - _STRIP))
        return across(read(low, high), _FIELD)[start - low * 8 : stop - low * 8]

    return rows


def interleaved(tensor: SourceTensor, bits: int, dtype: type[np.generic] = np.uint8) -> Rows:
    """Fields along the outputs, eight of them in AWQ's order, as rows of outputs."""
    read, packed = columns(tensor), nibbles(tensor)

    def four(start: int, stop: int) -> Array:
        return dense(packed(start, stop), 4)[:, : tensor.shape[0]].astype(dtype)

    def rows(start: int, stop: int) -> Array:
        low, high = start // 32, -(-stop // 32)
        fields = dense(read(low * bits, high * bits), bits)
        natural = fields.reshape(len(fields), -1, 8)[..., list(_FIELD)].reshape(len(fields), -1)
        return np.ascontiguousarray(natural[:, start - low * 32 : stop - low * 32].T.astype(dtype, copy=False))

    return four if bits == 4 else rows


def _gemv(module: str, qweight: SourceTensor, scales: SourceTensor, qzeros: SourceTensor, group: int) -> PackedTensor:
    require_words(qweight)
    require_words(qzeros)
    out, inputs = qweight.shape[0], qweight.shape[1] * 8
    group = inputs if group == -1 else group
    groups = -(-inputs // group)
    require(inputs % group == 0, qweight, f"{inputs} inputs are no whole groups of {group}")
    pad = {64: 2, 32: 4}.get(group, 1)
    words = -(-groups // (8 * pad)) * pad
    require(scales.shape == (out, 8 * words), scales, f"must be {[out, 8 * words]}")
    require(qzeros.shape == (out, words), qzeros, f"must be {[out, words]}")
    read = scale_rows(scales)
    grid = Grid(
        Part(inputs // 2, lambda start, stop: qweight.stored_rows(start, stop).view(np.uint8)),
        Part(groups, lambda start, stop: np.ascontiguousarray(read(start, stop)[:, :groups])),
        group,
        0,
        15,
        packed=True,
        zeros=Part(groups, lambda a, b: dense(qzeros.stored_rows(a, b), 4)[:, :groups].astype(np.int16)),
    )
    method = f"AWQ (gemv), 4 bits in groups of {group}"
    return PackedTensor(f"{module}.weight", (out, inputs), method, qweight, grid.values, scales.dtype, grid=grid)


def _fast(module: str, qweight: SourceTensor, scales: SourceTensor, minima: SourceTensor) -> PackedTensor:
    out, inputs = qweight.shape[0] * 4, qweight.shape[1]
    require(inputs > 0 and out > 0, qweight, "must have inputs and outputs")
    require(scales.shape == minima.shape and scales.shape[1] == out, scales, f"must be as {minima.name}, {out} wide")
    group = _fast_group(inputs, scales)
    groups = inputs // group
    require(inputs % 64 == 0, qweight, "its inputs must come in runs of 64")
    scale, minimum = scale_columns(scales), column_floats(minima)
    grid = Grid(
        Part(inputs, _interleaved_by_four(qweight, inputs)),
        Part(groups, lambda start, stop: np.ascontiguousarray(scale(start, stop)[:, :groups])),
        group,
        0,
        15,
        minima=Part(groups, lambda start, stop: np.ascontiguousarray(minimum(start, stop)[:, :groups])),
    )
    method = f"AWQ (gemv_fast), 4 bits in groups of {group}"
    return PackedTensor(f"{module}.weight", (out, inputs), method, qweight, grid.values, scales.dtype, grid=grid)


def _fast_group(inputs: int, scales: SourceTensor) -> int:
    """The size of a group: rows of scales are padded to a multiple of 8, 16 or 32, by that size."""
    for group, pad in ((128, 8), (64, 16), (32, 32)):
        groups = -(-inputs // group)
        if inputs % group == 0 and scales.shape[0] == -(-groups // pad) * pad:
            return group
    require(False, scales, f"no size of groups of {inputs} inputs fits so many rows")
    raise AssertionError


def _interleaved_by_four(qweight: SourceTensor, inputs: int) -> Rows:
    """Codes of four outputs stored together, in runs of 64 inputs.

    A row of I16 holds four outputs: each run of 64 inputs is 64 words, 16 for each output in turn; a word holds the
    codes of four inputs. The inputs of each 32 were put in the order 0 1 8 9 16 17 24 25 2 3 10 11 ..., and then the
    eight of each word pair in the order 0 2 4 6 1 3 5 7.
    """
    first = np.arange(32).reshape(4, 4, 2).transpose(1, 0, 2).reshape(4, 8)
    order = first[:, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(-1)
    back = np.argsort(order)

    def rows(start: int, stop: int) -> Array:
        low, high = start // 4, -(-stop // 4)
        words = qweight.stored_rows(low, high).reshape(high - low, inputs // 64, 4, 16)
        by_output = np.ascontiguousarray(words.transpose(0, 2, 1, 3)).reshape((high - low) * 4, inputs // 4)
        fields = dense(by_output, 4).reshape(len(by_output), -1, 32)[..., back].reshape(len(by_output), inputs)
        return np.ascontiguousarray(fields[start - low * 4 : stop - low * 4])

    return rows
