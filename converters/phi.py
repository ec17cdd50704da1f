"""Phi-1, -1.5 and -2; Phi-3, short and long context, and Phi-4, which shares its class; Phi-3.5-MoE."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Either, Table, boolean, f32, rule, u32
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.rope import rope_of

from .common import (
    BUFFERS,
    DECODER,
    FILE_TYPE,
    GATED,
    GELU,
    MIXTURE,
    MULTIMODAL,
    QKV,
    SILU,
    TRUNK,
    WRAPPERS,
    affine,
    inner_width,
    layer,
)
from .llama import SPARSE
from .rotary import attention_factor, longrope, turned_of_width, unusual_base

HEADS = ("num_attention_heads", "n_head")
WIDTH = ("hidden_size", "n_embd")
CONTEXT = ("n_positions", "max_position_embeddings")


def _pretraining(facts: Facts) -> Any:
    return need(facts.config["rope_parameters"], "original_max_position_embeddings")


_turned = turned_of_width(WIDTH, HEADS, 1.0)

PHI3 = Arch(
    "phi3",
    hf=("Phi3ForCausalLM", "Phi4ForCausalLMV"),
    hparams=Table(
        (
            f32("rope.scaling.attn_factor", value=attention_factor(*CONTEXT), early=True),
            u32("context_length", *CONTEXT, required=True),
            u32("rope.scaling.original_context_length", value=_pretraining),
            u32("embedding_length", *WIDTH, required=True),
            u32("feed_forward_length", "intermediate_size", required=True),
            u32("block_count", "num_hidden_layers", required=True),
            u32("attention.head_count", *HEADS, required=True),
            u32("attention.head_count_kv", "num_key_value_heads", "n_head_kv", required=True),
            f32("attention.layer_norm_rms_epsilon", "rms_norm_eps", required=True),
            u32("rope.dimension_count", value=_turned),
            f32("rope.freq_base", value=lambda facts: rope_of(facts.config).get("rope_theta"), required=True),
            FILE_TYPE,
            # Zero tells Phi-4 from the Phi-3 models, which all have a window.
            u32("attention.sliding_window", "sliding_window", default=0),
        )
    ),
    tensors=longrope(_turned)
    | DECODER.without("blk.{l}.ffn_gate")
    | rule("blk.{l}.attn_qkv", "model.layers.{l}.self_attn.qkv_proj")
    | rule("blk.{l}.ffn_up", "model.layers.{l}.mlp.gate_up_proj"),
    needs=(*TRUNK, Either((layer("attn_qkv"), QKV)), *layer("ffn_up", "ffn_down")),
    # Phi-4 has a byte-level vocabulary.
    vocab=(vocab.phi3_spm, vocab.bpe),
    renames=WRAPPERS,
    drop=(*BUFFERS, *MULTIMODAL),
    implied=SILU,
)


WITH_BIASES = layer(*affine("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output"))

PHI2 = Arch(
    "phi2",
    hf=("PhiForCausalLM",),
    hparams=Table(
        (
            u32("context_length", *CONTEXT, required=True),
            u32("embedding_length", *WIDTH, required=True),
            u32("feed_forward_length", value=inner_width("model.layers.0.mlp.fc1.weight", 0, *WIDTH)),
            u32("block_count", "num_hidden_layers", "n_layer", required=True),
            u32("attention.head_count", *HEADS, required=True),
            u32("attention.head_count_kv", "num_key_value_heads", default=lambda facts: facts.number(*HEADS)),
            f32("attention.layer_norm_epsilon", "layer_norm_epsilon", "layer_norm_eps", required=True),
            u32("rope.dimension_count", value=turned_of_width(WIDTH, HEADS)),
            f32("rope.freq_base", value=unusual_base),
            FILE_TYPE,
            boolean("tokenizer.ggml.add_bos_token", value=lambda facts: False),
        )
    ),
    tensors=DECODER.without("blk.{l}.ffn_norm", "blk.{l}.ffn_gate")
    | rule("output_norm", "model.final_layernorm")
    | rule("blk.{l}.attn_output", "model.layers.{l}.self_attn.dense")
    | rule("blk.{l}.ffn_up", "model.layers.{l}.mlp.fc1")
    | rule("blk.{l}.ffn_down", "model.layers.{l}.mlp.fc2"),
    needs=(
        "token_embd",
        *affine("output_norm", "output"),
        *WITH_BIASES,
        *layer(*affine("ffn_up", "ffn_down")),
    ),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=(*GELU, ("qk_layernorm", (False,))),
)

PHI_MOE = replace(
    PHI3,
    name="phimoe",
    hf=("PhiMoEForCausalLM", "PhimoeForCausalLM"),
    hparams=PHI3.hparams
    | u32("expert_used_count", "num_experts_per_tok", "num_experts_per_token", required=True)
    | u32("expert_count", "num_local_experts", "num_experts", required=True),
    tensors=longrope(_turned) | DECODER.without(*GATED) | SPARSE,
    needs=(
        "token_embd",
        *affine("output_norm", "output"),
        *WITH_BIASES,
        *layer(*affine("ffn_norm")),
        *MIXTURE,
    ),
    drop=BUFFERS,
)

ARCHS = (PHI3, PHI2, PHI_MOE)
