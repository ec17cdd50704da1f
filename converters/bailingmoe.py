"""Ling and Ring (BailingMoE) of the first two generations, and Sarvam, which is of the second."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import EXPERTS, WEIGHT, Arch, Either, Rule, Table, boolean, exact, f32, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import COPY, Each, Whole
from gguf_forge.convert.rows import interleave_halves, number_of, parts_of
from gguf_forge.convert.view import Array

from .common import (
    BASE,
    BUFFERS,
    DECODER,
    GATED,
    MIXTURE,
    QK_NORMS,
    QKV,
    SILU,
    TRUNK,
    WRAPPERS,
    layer,
    nextn_layers,
    with_nextn,
)
from .mla import BLOCKS, DENSE, KEPT_FURTHER, LAYER, NEXTN, ROUTER, SHARED, experts, shared_experts
from .rotary import head_dim, turned

ATTENTION = f"{LAYER}.attention"
#: What layers that predict further tokens have beside an ordinary layer's tensors.
FURTHER_LAYERS: Table[Rule] = Table(
    tuple(rule(f"blk.{{l}}.nextn.{name}", f"{LAYER}.{name}") for name in ("eh_proj", "enorm", "hnorm"))
) | rule("blk.{l}.layer_output_norm", f"{LAYER}.final_layernorm")
FURTHER = layer("nextn.eh_proj", "nextn.enorm", "nextn.hnorm", "layer_output_norm")
HEADS, HEADS_KV = number_of("num_attention_heads"), number_of("num_key_value_heads", "num_attention_heads")


def _sizes(facts: Facts) -> list[int]:
    """Rows of queries, keys and values."""
    return [heads(facts) * head_dim(facts) for heads in (HEADS, HEADS_KV, HEADS_KV)]


def _unit_columns(arrays: list[Array], _: Facts) -> Array:
    """Each column divided by its length, as the first models do whenever they use their head."""
    head = arrays[0].astype(np.float32)
    # Squares added one row after the other in float32, as the reference does: NumPy adds in pairs within rows alone.
    lengths = np.sqrt(np.add.reduce(head * head, axis=0))
    return np.asarray(head / (lengths + np.float32(1e-7)), np.float32)


def _normed_head(facts: Facts) -> bool:
    return bool(facts.config.get("norm_head"))


_KEYS = (
    BASE
    | u32("rope.dimension_count", value=head_dim)
    | u32("leading_dense_block_count", "first_k_dense_replace", required=True)
    | u32("vocab_size", "vocab_size", required=True)
    | u32("expert_feed_forward_length", "moe_intermediate_size", required=True)
)
_SHARED_COUNT = u32("expert_shared_count", "num_shared_experts", required=True)
_NORMED = boolean("expert_weights_norm", "norm_topk_prob", required=True)
_TENSORS = (
    DECODER.without(*QKV, *GATED)
    | rule("token_embd", "model.word_embeddings")
    | rule("blk.{l}.attn_output", f"{ATTENTION}.dense", ends=WEIGHT)
    | ROUTER
    | experts()
    | shared_experts()
)

BAILINGMOE = Arch(
    "bailingmoe",
    hf=("BailingMoeForCausalLM",),
    hparams=_KEYS | f32("expert_weights_scale", value=lambda facts: 1.0) | _SHARED_COUNT | _NORMED,
    tensors=_TENSORS
    | rule(
        QKV,
        f"{ATTENTION}.query_key_value",
        ends=WEIGHT,
        verb=parts_of(_sizes) | Each(interleave_halves(HEADS), interleave_halves(HEADS_KV), COPY),
    )
    | exact("output.weight", "lm_head.weight", variant="normed", verb=Whole(_unit_columns), when=_normed_head)
    | rule("output", "lm_head", when=lambda facts: not _normed_head(facts)),
    needs=(*TRUNK, "output", *QKV, *MIXTURE, *SHARED),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=(*SILU, ("multi_gate", (False,)), ("first_k_dense_replace", (0,))),
)
BAILINGMOE2 = Arch(
    "bailingmoe2",
    hf=("BailingMoeV2ForCausalLM",),
    hparams=_KEYS
    | BLOCKS
    | u32("rope.dimension_count", value=turned(0.5))
    # Times the number of such experts: what llama.cpp makes of it.
    | u32("expert_shared_feed_forward_length", "moe_shared_expert_intermediate_size", "moe_intermediate_size")
    | f32("expert_weights_scale", "routed_scaling_factor", required=True)
    | _SHARED_COUNT
    | _NORMED
    | KEPT_FURTHER,
    tensors=_TENSORS
    | rule("blk.{l}.attn_qkv", f"{ATTENTION}.query_key_value", ends=WEIGHT)
    | rule("blk.{l}.attn_q_norm", f"{ATTENTION}.query_layernorm")
    | rule("blk.{l}.attn_k_norm", f"{ATTENTION}.key_layernorm")
    | exact("blk.{l}.exp_probs_b.bias", f"{LAYER}.mlp.gate.expert_bias")
    | DENSE
    | FURTHER_LAYERS,
    needs=(
        *TRUNK,
        "output",
        *layer("attn_qkv"),
        *QK_NORMS,
        Either((GATED, (*MIXTURE, *SHARED))),
        Either((FURTHER, ())),
    ),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=BUFFERS,
    axes={"l": with_nextn(nextn_layers(NEXTN)), "e": EXPERTS},
    implied=SILU,
)
#: Before they choose experts, the biases lose their mean.
CENTRED = Whole(lambda arrays, _: arrays[0] - np.float32(arrays[0].mean(dtype=np.float64)))
SARVAM = replace(
    BAILINGMOE2,
    hf=("SarvamMoEForCausalLM", "modeling_sarvam_moe.SarvamMoEForCausalLM"),
    hparams=BAILINGMOE2.hparams | u32("rope.dimension_count", value=head_dim),
    tensors=BAILINGMOE2.tensors.without(*FURTHER)
    | exact("blk.{l}.exp_probs_b.bias", f"{LAYER}.mlp.gate.expert_bias", verb=CENTRED),
    needs=BAILINGMOE2.needs[:-1],
)

ARCHS = (BAILINGMOE, BAILINGMOE2, SARVAM)
