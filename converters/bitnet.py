"""BitNet b1.58: every projection is -1, 0 or 1 times its mean absolute weight."""

from __future__ import annotations

from typing import Any

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Table, f32, rule, string
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Whole
from gguf_forge.convert.view import Array

from .common import BASE, BUFFERS, DECODER, GATED, QKV, SILU, TRUNK, WRAPPERS, layer
from .mla import TIED


def _ternary(arrays: list[Array], facts: Facts) -> Array:
    """The weight as the model calculates with it. The mean is taken in float64, so that no order of adding matters."""
    weight: Any = arrays[0].astype(np.float32)
    mean = np.float32(np.abs(weight).mean(dtype=np.float64))
    inverse = np.float32(1) / np.maximum(mean, np.float32(1e-5))
    found: Array = np.clip(np.rint(weight * inverse), -1, 1) / inverse
    return found


_SUB_NORMS = {"attn_sub_norm": "self_attn.inner_attn_ln", "ffn_sub_norm": "mlp.ffn_layernorm"}
_PROJECTIONS = (*QKV, *GATED, *layer("attn_output"))

BITNET = Arch(
    "bitnet",
    hf=("BitnetForCausalLM", "BitNetForCausalLM"),
    hparams=BASE
    | string("rope.scaling.type", value=lambda facts: "linear", again=True)
    | f32("rope.scaling.factor", value=lambda facts: 1.0, again=True),
    tensors=DECODER.without("output")
    | Table(
        tuple(
            rule(row.row, *row.sources, ends=WEIGHT, verb=Whole(_ternary))
            for row in DECODER
            if row.row in _PROJECTIONS
        )
    )
    | Table(tuple(rule(f"blk.{{l}}.{out}", f"model.layers.{{l}}.{source}") for out, source in _SUB_NORMS.items())),
    needs=(*TRUNK, *QKV, *GATED, *layer(*_SUB_NORMS)),
    vocab=(vocab.spm,),
    renames=WRAPPERS,
    drop=(*BUFFERS, TIED),
    implied=SILU,
)

ARCHS = (BITNET,)
