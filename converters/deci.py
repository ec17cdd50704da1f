"""DeciLM-7B, and Nemotron models cut out of Llama 3 block by block (Llama-3.x-Nemotron-51B, Super, Ultra).

Layers differ in width and heads; some lack attention, or feed forward nothing, or attend by one matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Either, Table, f32, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.rows import interleave_halves

from .common import BASE, BUFFERS, DECODER, FILE_TYPE, GATED, QKV, SILU, WRAPPERS, layer
from .rotary import LLAMA3, head_dim, rope_value, width_by_heads

Block = Mapping[str, Any]


def _blocks(facts: Facts) -> list[Block]:
    found: list[Block] = facts.config["block_configs"]
    return found


def _of_block(facts: Facts, block: Block) -> tuple[int, int]:
    """Heads of queries and of keys in a block; no keys where one matrix stands for attention."""
    heads, attention = facts.number("num_attention_heads"), block["attention"]
    if attention["n_heads_in_group"] is not None:
        return heads, heads // attention["n_heads_in_group"]
    return (heads, 0) if attention["replace_with_linear"] is True else (0, 0)


def _width(facts: Facts, block: Block) -> int:
    """What a block feeds forward through: two thirds of a multiple of the model's width, in whole 256s."""
    part = int(2 * (block["ffn"]["ffn_mult"] or 0.0) * facts.number("hidden_size") / 3)
    return -(-part // 256) * 256


def _heads(facts: Facts) -> int:
    if "block_configs" in facts.config and facts.layer is not None:
        return _of_block(facts, _blocks(facts)[facts.layer])[0]
    return facts.number("num_attention_heads")


def _heads_kv(facts: Facts) -> int:
    by_layer = facts.config.get("num_key_value_heads_per_layer")
    if by_layer is not None and facts.layer is not None:
        return int(by_layer[facts.layer])
    if "block_configs" in facts.config and facts.layer is not None:
        return _of_block(facts, _blocks(facts)[facts.layer])[1]
    return facts.number("num_key_value_heads", "num_attention_heads")


SIZES = Table((u32("vocab_size", "vocab_size", required=True), u32("rope.dimension_count", value=head_dim)))

DECI = Arch(
    "deci",
    hf=("DeciLMForCausalLM",),
    hparams=BASE
    | u32("attention.head_count_kv", "num_key_value_heads_per_layer", again=True)
    | SIZES,
    tensors=LLAMA3
    | DECODER
    | rule("blk.{l}.attn_q", "model.layers.{l}.self_attn.q_proj", verb=interleave_halves(_heads))
    | rule("blk.{l}.attn_k", "model.layers.{l}.self_attn.k_proj", verb=interleave_halves(_heads_kv)),
    needs=("token_embd", "output_norm", *layer("attn_norm", "attn_output", "ffn_norm"), *QKV, *GATED),
    vocab=(vocab.when(lambda job: job.config.get("vocab_size", 128256) == 128256, vocab.bpe), vocab.llama_hf),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=SILU,
)
NEMOTRON = replace(
    DECI,
    hparams=Table(
        (
            f32("rope.freq_base", value=rope_value("rope_theta")),
            u32("attention.head_count_kv", value=lambda f: [_of_block(f, block)[1] for block in _blocks(f)]),
            u32("attention.head_count", value=lambda f: [_of_block(f, block)[0] for block in _blocks(f)]),
            u32("feed_forward_length", value=lambda f: [_width(f, block) for block in _blocks(f)]),
            u32("block_count", "num_hidden_layers", required=True),
            u32("context_length", "max_position_embeddings", required=True),
            u32("embedding_length", "hidden_size", required=True),
            f32("attention.layer_norm_rms_epsilon", "rms_norm_eps", required=True),
            u32("attention.key_length", value=width_by_heads),
            u32("attention.value_length", value=width_by_heads),
            FILE_TYPE,
        )
    )
    | SIZES,
    tensors=DECI.tensors
    | rule("blk.{l}.attn_output", ("model.layers.{l}.self_attn.o_proj", "model.layers.{l}.self_attn.linear_attn")),
    needs=(
        "token_embd",
        "output_norm",
        Either(((*layer("attn_norm", "attn_output"), *QKV), layer("attn_norm", "attn_output"), ())),
        Either(((*layer("ffn_norm"), *GATED), ())),
    ),
    when=lambda config: "block_configs" in config,
)

ARCHS = (DECI, NEMOTRON)
