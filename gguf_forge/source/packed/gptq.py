"""GPTQ: AutoGPTQ's and GPTQModel's layouts (gptq, gptq_v2, gptq_p), and AutoRound's of the same tensors.

Of each linear layer of `in` inputs and `out` outputs: `qweight` I32 (in * bits / 32, out), packed along the inputs;
`qzeros` I32 (groups, out * bits / 32), along the outputs; `scales` (groups, out); `g_idx` I32 (in), each input's group.
A weight is scale * (code - zero). Read off AutoGPTQ (qlinear_cuda_old.py) and GPTQModel (utils/model.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gguf_forge.errors import CheckpointError
from gguf_forge.source.packed.bits import dense, planar, turned
from gguf_forge.source.packed.form import (
    Array,
    Grid,
    PackedTensor,
    Part,
    group_order,
    on_grid,
    require,
    require_group,
    require_words,
    scale_columns,
)
from gguf_forge.source.packed.slabs import columns
from gguf_forge.source.tensor import SourceTensor

ENDINGS = ("qweight", "qzeros", "scales", "g_idx")
#: Widths that `gptq_p` alone has.
_PLANAR_ONLY = (5, 6, 7)


@dataclass(frozen=True)
class Settings:
    """What a configuration says of all layers.

    `zeros`: how stored zeros are meant: "as stored"; "less one", one subtracted from each and taken modulo the width;
    "word less one", one subtracted from every field with the borrow running through the word. `planar`: codes lie in
    planes.
    """

    bits: int
    zeros: str
    planar: bool
    dynamic: Mapping[str, Any]
    group: object = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def of(self, module: str) -> tuple[int, object] | None:
        """Width and size of groups that the configuration gives a layer; None where it is said not to be quantized."""
        bits, group = self.bits, self.group
        own = own_rule(self.extra, module)
        if own:
            return own.get("bits", bits), own.get("group_size", group)
        for pattern, rule in self.dynamic.items():
            sign, text = (pattern[0], pattern[2:]) if pattern[:2] in ("+:", "-:") else ("+", pattern)
            if re.match(text, module):
                if sign == "-":
                    return None
                if isinstance(rule, dict):
                    bits, group = rule.get("bits", bits), rule.get("group_size", group)
                break
        return bits, group


def settings_of(config: Mapping[str, Any]) -> Settings:
    """The settings in a configuration of quant_method gptq or auto-round."""
    layout = config.get("checkpoint_format") or config.get("format") or "gptq"
    packing = str(config.get("packing_format") or "")
    if config.get("quant_method") == "auto-round":
        # AutoRound's own packings keep zeros as they are; the one for AutoGPTQ does as that does.
        layout = "gptq" if packing.endswith("auto_gptq") else "gptq_v2"
    if layout not in ("gptq", "gptq_v2", "gptq_p"):
        raise CheckpointError(f"quantization_config: the layout {layout!r} of GPTQ is not read: it is made for kernels")
    meta = config.get("meta") or {}
    quantizer = meta.get("quantizer") or ""
    first = quantizer[0] if isinstance(quantizer, list) and quantizer else quantizer
    by_word = str(first).startswith("gptqmodel")
    zeros = "as stored" if layout != "gptq" else "word less one" if by_word else "less one"
    dynamic = config.get("dynamic") or {}
    extra = config.get("extra_config") or {}
    return Settings(int(config["bits"]), zeros, layout == "gptq_p", dynamic, config.get("group_size"), extra)


def own_rule(extra: Mapping[str, Any], module: str) -> Mapping[str, Any]:
    """What AutoRound's extra_config says of a module: under its name, or under a pattern found in it; else nothing."""
    if module in extra:
        return extra[module] or {}
    for pattern, rule in extra.items():
        try:
            found = re.search(pattern, module)
        except re.error:
            continue
        if found and rule:
            return dict(rule)
    return {}


def packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor:
    """One layer's weight. CheckpointError where its tensors disagree with each other or with the configuration."""
    settings = settings_of(config)
    qweight, qzeros, scales = parts["qweight"], parts["qzeros"], parts["scales"]
    for tensor in (qweight, qzeros, scales):
        require(len(tensor.shape) == 2, tensor, "must have two axes")
    indexed = "g_idx" in parts or not config.get("desc_act")
    require(indexed, qweight, "needs a g_idx beside it, as its groups are ordered by activation (desc_act)")
    out, groups = scales.shape[1], scales.shape[0]
    require_words(qweight)
    require_words(qzeros)
    require(qweight.shape[1] == out, qweight, f"scales say {out} outputs")
    require(qzeros.shape[0] == groups, qzeros, f"scales say {groups} groups")
    bits = qzeros.shape[1] * 32 // out if out else 0
    fits = 1 <= bits <= 8 and bits * out <= qzeros.shape[1] * 32 < bits * out + 32
    require(fits, qzeros, f"no width of codes fits {out} outputs")
    said = settings.of(module)
    wanted = None if said is None else said[0]
    require(wanted == bits, qzeros, f"holds {bits} bits, and the configuration says {wanted}")
    inputs = qweight.shape[0] * 32 // bits
    whole = inputs * bits == qweight.shape[0] * 32 and inputs % groups == 0
    require(whole, qweight, f"{groups} groups do not divide its inputs")
    group = inputs // groups
    require_group(scales, group, inputs, None if said is None else said[1])
    index = parts.get("g_idx")
    order = None if index is None else group_order(index, inputs, groups, group)
    unpack = planar if settings.planar or bits in _PLANAR_ONLY else dense
    packed = bits == 4 and unpack is dense
    grid = Grid(
        Part(inputs // 2 if packed else inputs, _codes(qweight, bits, unpack)),
        Part(groups, scale_columns(scales)),
        group,
        0,
        (1 << bits) - 1,
        zeros=Part(groups, _zeros(qzeros, out, bits, unpack, settings.zeros)),
        packed=packed,
    )
    method = f"GPTQ, {bits} bits in groups of {group}"
    return on_grid(module, (out, inputs), method, qweight, grid, scales.dtype, order)


def _codes(qweight: SourceTensor, bits: int, unpack: Callable[[Array, int], Array]) -> Callable[[int, int], Array]:
    """Codes of outputs as rows; of 4 bits, as they lie in a column of words, two to a byte."""
    read = columns(qweight)
    if bits == 4 and unpack is dense:
        return lambda start, stop: turned(read(start, stop)).view(np.uint8)
    return lambda start, stop: unpack(turned(read(start, stop)), bits)


def _zeros(
    qzeros: SourceTensor, out: int, bits: int, unpack: Callable[[Array, int], Array], rule: str
) -> Callable[[int, int], Array]:
    """Zeros of outputs as rows of int16, one for each group."""
    per, mask = 32, np.uint8((1 << bits) - 1)
    read = columns(qzeros)
    every = sum(1 << shift for shift in range(0, 32, bits)) & 0xFFFFFFFF

    def rows(start: int, stop: int) -> Array:
        # Whole words: fields of some widths run over from one into the next, and again after 32 of them.
        low, high = start // per, -(-stop // per)
        words = read(low * bits, min(high * bits, qzeros.shape[1])).astype(np.uint32, copy=False)
        if rule == "word less one" and 8 % bits == 0:
            words = words + np.uint32(every)
        found = unpack(words, bits)[:, start - low * per : stop - low * per]
        if rule == "less one" or (rule == "word less one" and 8 % bits):
            found = (found + np.uint8(1)) & mask
        return np.ascontiguousarray(found.T.astype(np.int16))

    return rows
