"""OpenELM, whose layers have each their own numbers of heads and their own width."""

from __future__ import annotations

from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Axis, Table, f32, rule, u32
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.rows import equal_parts

from .common import FILE_TYPE, GATED, QK_NORMS, TRUNK, layer

BLOCK = "transformer.layers.{l}"


def _widths(facts: Facts) -> list[int]:
    """Each layer's share of the model's width, to a multiple of the divisor, and no more than a tenth below it."""
    divisor, width = facts.number("ffn_dim_divisor"), facts.number("model_dim")
    found = []
    for share in need(facts.config, "ffn_multipliers"):
        near = max(divisor, int(share * width + divisor / 2) // divisor * divisor)
        found.append(near + divisor if near < 0.9 * share * width else near)
    return found


def _each(key: str) -> dict[str, Any]:
    return {"value": lambda facts: [int(number) for number in need(facts.config, key)]}


OPENELM = Arch(
    "openelm",
    hf=("OpenELMForCausalLM",),
    hparams=Table(
        (
            u32("block_count", "num_transformer_layers", required=True),
            u32("context_length", "max_context_length", required=True),
            u32("embedding_length", "model_dim", required=True),
            u32("feed_forward_length", value=_widths),
            u32("attention.head_count", **_each("num_query_heads")),
            u32("attention.head_count_kv", **_each("num_kv_heads")),
            f32("rope.freq_base", "rope_freq_constant", required=True),
            f32("attention.layer_norm_rms_epsilon", value=lambda facts: 1e-6),
            u32("rope.dimension_count", "head_dim", required=True),
            u32("attention.key_length", "head_dim", required=True),
            u32("attention.value_length", "head_dim", required=True),
            FILE_TYPE,
        )
    ),
    tensors=Table(
        (
            rule("token_embd", "transformer.token_embeddings"),
            rule("output_norm", "transformer.norm"),
            rule("blk.{l}.attn_norm", f"{BLOCK}.attn_norm"),
            rule("blk.{l}.attn_qkv", f"{BLOCK}.attn.qkv_proj"),
            rule("blk.{l}.attn_q_norm", f"{BLOCK}.attn.q_norm"),
            rule("blk.{l}.attn_k_norm", f"{BLOCK}.attn.k_norm"),
            rule("blk.{l}.attn_output", f"{BLOCK}.attn.out_proj"),
            rule("blk.{l}.ffn_norm", f"{BLOCK}.ffn_norm"),
            rule(("blk.{l}.ffn_gate", "blk.{l}.ffn_up"), f"{BLOCK}.ffn.proj_1", verb=equal_parts(2)),
            rule("blk.{l}.ffn_down", f"{BLOCK}.ffn.proj_2"),
        )
    ),
    needs=(*TRUNK, *layer("attn_qkv"), *QK_NORMS, *GATED),
    # Llama 2's, which is not published with the model.
    vocab=(vocab.spm, vocab.llama_default),
    axes={"l": Axis(lambda facts: facts.number("num_transformer_layers"))},
    implied=(("ffn_with_glu", (True,)), ("activation_fn_name", ("swish", "silu"))),
)

ARCHS = (OPENELM,)
