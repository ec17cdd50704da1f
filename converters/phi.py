"""Phi-3, short and long context, and Phi-4, which shares its class."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Either, Table, exact, f32, rule, u32
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Computed
from gguf_forge.convert.rope import rope_of
from gguf_forge.errors import ConversionError

from .common import BUFFERS, DECODER, FILE_TYPE, QKV, SILU, TRUNK, WRAPPERS, layer

HEADS = ("num_attention_heads", "n_head")
WIDTH = ("hidden_size", "n_embd")
CONTEXT = ("n_positions", "max_position_embeddings")


def _pretraining(facts: Facts) -> Any:
    value = facts.config["rope_parameters"].get("original_max_position_embeddings")
    if value is None:
        raise ConversionError("config.json has no original_max_position_embeddings")
    return value


def _rope_size(facts: Facts) -> int:
    part = facts.config["rope_parameters"].get("partial_rotary_factor", 1.0)
    return int(part * need(facts.config, *WIDTH)) // int(need(facts.config, *HEADS))


def _attention_factor(facts: Facts) -> float | None:
    """How much attention grows with the stretched context; None when nothing is stretched."""
    rope = facts.config["rope_parameters"]
    if not rope.get("long_factor"):
        return None
    before = _pretraining(facts)
    scale = need(facts.config, *CONTEXT) / before
    kind = str(rope.get("rope_type") or "").lower()
    if kind in ("su", "longrope"):
        return math.sqrt(1 + math.log(scale) / math.log(before)) if scale > 1.0 else 1.0
    if kind == "yarn":
        return 0.1 * math.log(scale) + 1.0 if scale > 1.0 else 1.0
    raise ConversionError(f"config.json: rope_scaling has factors, but its type is {kind!r}, not 'longrope'")


def _factors(key: str) -> Computed:
    def make(facts: Facts) -> npt.NDArray[np.float32] | None:
        rope = facts.config["rope_parameters"]
        if not rope.get("long_factor"):
            return None
        values = rope.get(key)
        wanted = _rope_size(facts) / 2
        if not isinstance(values, list) or len(values) != wanted:
            found = len(values) if isinstance(values, list) else values
            raise ConversionError(f"config.json: rope_scaling.{key} must have {wanted:g} numbers, found {found}")
        return np.array(values, np.float32)

    return Computed(make)


PHI3 = Arch(
    "phi3",
    hf=("Phi3ForCausalLM",),
    hparams=Table(
        (
            f32("rope.scaling.attn_factor", value=_attention_factor, early=True),
            u32("context_length", *CONTEXT, required=True),
            u32("rope.scaling.original_context_length", value=_pretraining),
            u32("embedding_length", *WIDTH, required=True),
            u32("feed_forward_length", "intermediate_size", required=True),
            u32("block_count", "num_hidden_layers", required=True),
            u32("attention.head_count", *HEADS, required=True),
            u32("attention.head_count_kv", "num_key_value_heads", "n_head_kv", required=True),
            f32("attention.layer_norm_rms_epsilon", "rms_norm_eps", required=True),
            u32("rope.dimension_count", value=_rope_size),
            f32("rope.freq_base", value=lambda facts: rope_of(facts.config).get("rope_theta"), required=True),
            FILE_TYPE,
            # Zero tells Phi-4 from the Phi-3 models, which all have a window.
            u32("attention.sliding_window", "sliding_window", default=0),
        )
    ),
    tensors=Table(
        (
            exact("rope_factors_long.weight", verb=_factors("long_factor")),
            exact("rope_factors_short.weight", verb=_factors("short_factor")),
        )
    )
    | DECODER.without("blk.{l}.ffn_gate")
    | rule("blk.{l}.attn_qkv", "model.layers.{l}.self_attn.qkv_proj")
    | rule("blk.{l}.ffn_up", "model.layers.{l}.mlp.gate_up_proj"),
    needs=(*TRUNK, Either((layer("attn_qkv"), QKV)), *layer("ffn_up", "ffn_down")),
    # Phi-4 has a byte-level vocabulary.
    vocab=(vocab.phi3_spm, vocab.bpe),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=SILU,
)

ARCHS = (PHI3,)
