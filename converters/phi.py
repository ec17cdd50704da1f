"""Phi-3, short and long context, and Phi-4, which shares its class."""

from __future__ import annotations

from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Either, Table, f32, rule, u32
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.rope import rope_of

from .common import BUFFERS, DECODER, FILE_TYPE, QKV, SILU, TRUNK, WRAPPERS, layer
from .rotary import attention_factor, longrope, turned_of_width

HEADS = ("num_attention_heads", "n_head")
WIDTH = ("hidden_size", "n_embd")
CONTEXT = ("n_positions", "max_position_embeddings")


def _pretraining(facts: Facts) -> Any:
    return need(facts.config["rope_parameters"], "original_max_position_embeddings")


_turned = turned_of_width(WIDTH, HEADS, 1.0)

#: Phi-4 has Phi-3's architecture and a byte-level vocabulary.
phi4_bpe = vocab.when(lambda job: job.settings.get("tokenizer_class") == "GPT2Tokenizer", vocab.bpe)

PHI3 = Arch(
    "phi3",
    hf=("Phi3ForCausalLM",),
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
    vocab=(phi4_bpe, vocab.phi3_spm),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=SILU,
)

ARCHS = (PHI3,)
