"""Muse Glimmer's text model."""

from __future__ import annotations

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Rule, Table, array, exact, f32, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Computed, add
from gguf_forge.convert.rows import interleave_halves, number_of
from gguf_forge.format.layout import ValueType

from .common import (
    BASE,
    BUFFERS,
    DECODER,
    GATED,
    HEADS,
    HEADS_KV,
    MULTIMODAL,
    QK_NORMS,
    QKV,
    SILU,
    TRUNK,
    WRAPPERS,
    layer,
    sliding_layers,
)

QUERY = "model.layers.{l}.self_attn.q_proj"
SHIFTED = add(1.0)


def _queries_scale(facts: Facts) -> np.ndarray:
    return np.full(facts.number("head_dim"), facts.config["qk_scale_factor"], np.float32)


#: Queries and keys are normalised without weights, then multiplied by one factor: as weights of the queries' norm.
NORMS: Table[Rule] = Table(
    (
        exact("blk.{l}.attn_q_norm.weight", f"{QUERY}.weight", verb=Computed(_queries_scale)),
        exact(
            "blk.{l}.attn_k_norm.weight",
            f"{QUERY}.weight",
            verb=Computed(lambda facts: np.ones(facts.number("head_dim"), np.float32)),
        ),
        *(
            rule(f"blk.{{l}}.{out}", f"model.layers.{{l}}.{name}_layernorm", verb=SHIFTED)
            for out, name in (
                ("attn_norm", "input"),
                ("post_attention_norm", "post_attention"),
                ("ffn_norm", "pre_feedforward"),
                ("post_ffw_norm", "post_feedforward"),
            )
        ),
    )
)

MUSE_GLIMMER = Arch(
    "muse-glimmer",
    hf=("MuseGlimmerForConditionalGeneration",),
    hparams=BASE
    | f32("final_logit_softcapping", "final_logit_softcapping", required=True)
    | f32("logit_scale", "output_multiplier", required=True)
    | u32("attention.sliding_window", "sliding_window", required=True)
    | array("attention.sliding_window_pattern", ValueType.BOOL, value=sliding_layers),
    tensors=NORMS
    | DECODER.without("blk.{l}.attn_norm", "blk.{l}.ffn_norm")
    | rule("blk.{l}.attn_q", QUERY, verb=interleave_halves(number_of(*HEADS)))
    | rule("blk.{l}.attn_k", "model.layers.{l}.self_attn.k_proj", verb=interleave_halves(number_of(*HEADS_KV)))
    | rule("blk.{l}.attn_gate", "model.layers.{l}.self_attn.gate_proj"),
    needs=(*TRUNK, "output", *QKV, *QK_NORMS, *GATED, *layer("attn_gate", "post_attention_norm", "post_ffw_norm")),
    vocab=(vocab.bpe, vocab.ids(eot="<|eot|>")),
    renames=WRAPPERS,
    drop=(*BUFFERS, *MULTIMODAL),
    implied=SILU,
)

ARCHS = (MUSE_GLIMMER,)
