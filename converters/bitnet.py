"""BitNet b1.58: every projection is -1, 0 or 1 times its mean absolute weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Table, f32, rule, string
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Verb, Views, Whole
from gguf_forge.convert.view import Array, View
from gguf_forge.errors import ConversionError

from .common import BASE, BUFFERS, DECODER, GATED, QKV, SILU, TRUNK, WRAPPERS, layer
from .mla import TIED


def _ternary(arrays: list[Array], facts: Facts) -> Array:
    """The weight as the model calculates with it. The mean is taken in float64, so that no order of adding matters."""
    weight: Any = arrays[0].astype(np.float32)
    mean = np.float32(np.abs(weight).mean(dtype=np.float64))
    inverse = np.float32(1) / np.maximum(mean, np.float32(1e-5))
    found: Array = np.clip(np.rint(weight * inverse), -1, 1) / inverse
    return found


@dataclass(frozen=True)
class Ternary(Verb):
    """Floats rounded to three values, which BitNet's own code does while it runs.

    Where transformers does it, or has packed them, they have come so (source.packed.bitnet), and are not rounded again:
    the mean magnitude of what is rounded already is smaller, by the share of zeros.
    """

    def views(self, sources: Views, facts: Facts) -> list[View]:
        """The weight as it came, or rounded."""
        settings = facts.config.get("quantization_config")
        if isinstance(settings, dict) and settings.get("quant_method") == "bitnet":
            return list(sources)
        return Whole(_ternary).views(sources, facts)


def _linear(facts: Facts) -> str:
    """The rotary scaling. ConversionError for an activation that llama.cpp's graph has not."""
    if facts.config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise ConversionError(
            f"config.json: hidden_act is {facts.config['hidden_act']!r}; llama.cpp runs BitNet with SiLU"
        )
    return "linear"


_SUB_NORMS = {
    "attn_sub_norm": ("self_attn.inner_attn_ln", "self_attn.attn_sub_norm"),
    "ffn_sub_norm": ("mlp.ffn_layernorm", "mlp.ffn_sub_norm"),
}
_PROJECTIONS = (*QKV, *GATED, *layer("attn_output"))

BITNET = Arch(
    "bitnet",
    hf=("BitnetForCausalLM", "BitNetForCausalLM"),
    hparams=BASE
    | string("rope.scaling.type", value=_linear, again=True)
    | f32("rope.scaling.factor", value=lambda facts: 1.0, again=True),
    tensors=DECODER.without("output")
    | Table(
        tuple(rule(row.row, *row.sources, ends=WEIGHT, verb=Ternary()) for row in DECODER if row.row in _PROJECTIONS)
    )
    | Table(
        tuple(
            rule(f"blk.{{l}}.{out}", tuple(f"model.layers.{{l}}.{source}" for source in sources))
            for out, sources in _SUB_NORMS.items()
        )
    ),
    needs=(*TRUNK, *QKV, *GATED, *layer(*_SUB_NORMS)),
    vocab=(vocab.spm,),
    renames=WRAPPERS,
    drop=(*BUFFERS, TIED),
    implied=SILU,
)

ARCHS = (BITNET,)
