"""T5, Flan-T5, mT5 and UMT5: an encoder and a decoder, of depths of their own, or the encoder alone."""

from __future__ import annotations

import re
from dataclasses import replace

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Axis, Drop, Either, Hparam, Rule, Table, f32, rule, u32
from gguf_forge.convert.config import block_count
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Cast, scale

from .common import FILE_TYPE

KEYS: Table[Hparam] = Table(
    (
        u32("context_length", "n_positions", default=512),
        u32("embedding_length", "d_model", required=True),
        u32("feed_forward_length", "d_ff", required=True),
        u32("block_count", value=lambda facts: block_count(facts.config)),
        u32("decoder_block_count", "num_decoder_layers"),
        u32("attention.head_count", "num_heads", required=True),
        u32("attention.key_length", "d_kv", required=True),
        u32("attention.value_length", "d_kv", required=True),
        f32("attention.layer_norm_epsilon", "layer_norm_epsilon", required=True),
        u32("attention.relative_buckets_count", "relative_attention_num_buckets", required=True),
        f32("attention.layer_norm_rms_epsilon", "layer_norm_epsilon", required=True),
        u32("decoder_start_token_id", "decoder_start_token_id", required=True),
        FILE_TYPE,
    )
)

#: The one embedding; some checkpoints have it under several names.
EMBEDDINGS = ("decoder.embed_tokens", "encoder.embed_tokens", "shared")


def _is_copy(match: re.Match[str], facts: Facts) -> bool:
    """Whether the embedding is stored before under another name."""
    return match[0] != next(name for name in facts.headers if name.removesuffix(".weight") in EMBEDDINGS)


def _logit_scale(facts: Facts) -> float:
    """What logits are multiplied by: T5 1.0, and a UMT5 that ties its head, divide them by the root of the width.

    The other releases say that the head is not tied, or (saved by transformers 5) that nothing is scaled.
    """
    config = facts.config
    scales = config.get("scale_decoder_outputs")
    if scales is None:
        scales = config.get("tie_word_embeddings") is not False
    if not scales or config["architectures"][0].startswith("MT5"):
        return 1.0
    return float(facts.number("d_model") ** -0.5)


def _attention(out: str, source: str) -> tuple[Rule, ...]:
    names = {"q": "q", "k": "k", "v": "v", "o": "o", "rel_b": "relative_attention_bias"}
    return tuple(rule(f"{out}_{part}", f"{source}.{name}") for part, name in names.items())


def _forward(out: str, source: str) -> tuple[Rule, ...]:
    return (
        rule(f"{out}.ffn_norm", f"{source}.layer_norm"),
        rule(f"{out}.ffn_gate", f"{source}.DenseReluDense.wi_0"),
        rule(f"{out}.ffn_up", (f"{source}.DenseReluDense.wi", f"{source}.DenseReluDense.wi_1")),
        rule(f"{out}.ffn_down", f"{source}.DenseReluDense.wo"),
    )


E, D = "encoder.block.{l}.layer", "decoder.block.{d}.layer"
ENCODER: Table[Rule] = Table(
    (
        rule("token_embd", EMBEDDINGS),
        rule("enc.output_norm", "encoder.final_layer_norm"),
        rule("enc.blk.{l}.attn_norm", f"{E}.0.layer_norm"),
        *_attention("enc.blk.{l}.attn", f"{E}.0.SelfAttention"),
        *_forward("enc.blk.{l}", f"{E}.1"),
    )
)
DECODER: Table[Rule] = Table(
    (
        rule("output", "lm_head"),
        # llama.cpp does not scale logits; the last norm does.
        rule("dec.output_norm", "decoder.final_layer_norm", verb=Cast("F32") | scale(_logit_scale)),
        rule("dec.blk.{d}.attn_norm", f"{D}.0.layer_norm"),
        *_attention("dec.blk.{d}.attn", f"{D}.0.SelfAttention"),
        rule("dec.blk.{d}.cross_attn_norm", f"{D}.1.layer_norm"),
        *_attention("dec.blk.{d}.cross_attn", f"{D}.1.EncDecAttention"),
        *_forward("dec.blk.{d}", f"{D}.2"),
    )
)


def _needs(stack: str, *attentions: str) -> tuple[str | Either, ...]:
    """Of every layer; the first has the bias of relative positions, and in UMT5 all have one."""
    parts = [f"{a}_{p}" for a in attentions for p in ("norm", "q", "k", "v", "o")]
    forward = tuple(f"{stack}.ffn_{part}" for part in ("norm", "up", "down"))
    return (
        *(f"{stack}.{part}" for part in parts),
        *forward,
        *(Either(((f"{stack}.{a}_rel_b",), ())) for a in attentions),
    )


ENCODER_NEEDS = ("token_embd", "enc.output_norm", *_needs("enc.blk.{l}", "attn"))
LAYERS = Axis(lambda facts: block_count(facts.config))
T5 = Arch(
    "t5",
    hf=(
        *("T5ForConditionalGeneration", "T5WithLMHeadModel"),
        *("MT5ForConditionalGeneration", "UMT5ForConditionalGeneration", "UMT5Model"),
    ),
    hparams=KEYS,
    tensors=ENCODER | DECODER,
    needs=(*ENCODER_NEEDS, "dec.output_norm", *_needs("dec.blk.{d}", "attn", "cross_attn")),
    vocab=(vocab.t5,),
    drop=(Drop(r"^(decoder\.embed_tokens|encoder\.embed_tokens|shared)\.weight$", _is_copy),),
    axes={"l": LAYERS, "d": Axis(lambda facts: facts.number("num_decoder_layers", "num_layers"))},
    implied=(("feed_forward_proj", ("relu", "gated-gelu")),),
)
T5_ENCODER = replace(
    T5,
    name="t5encoder",
    hf=("T5EncoderModel",),
    hparams=KEYS.without("decoder_block_count", "decoder_start_token_id"),
    tensors=ENCODER,
    needs=ENCODER_NEEDS,
    axes={"l": LAYERS},
)

ARCHS = (T5, T5_ENCODER)
