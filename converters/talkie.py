"""Talkie, a model of the language of 1930."""

from __future__ import annotations

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Rule, Source, Table, exact, f32, rule
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import COPY, Each, Reshape, Rows, Verb, scale
from gguf_forge.convert.rows import grouped
from gguf_forge.convert.view import Numbers

from .common import BASE, BUFFERS, GATED, QKV, layer

BLOCK = "model.blocks.{l}."
GAIN = "lm_head_gain.w_g"


def _halves(rows: Numbers, facts: Facts) -> tuple[Numbers, Numbers]:
    """The first halves of all heads, and the second ones."""
    by_head = grouped(rows, rows.shape[0] // facts.number("head_dim"), 2)
    first, second = np.split(by_head, 2, axis=1)
    return first.reshape(-1), second.reshape(-1)


def _heads(halves: list[Numbers], facts: Facts) -> Numbers:
    """The halves of each head together again."""
    half = facts.number("head_dim") // 2
    return np.stack([part.reshape(-1, half) for part in halves], axis=1).reshape(-1)


#: Its rotary embedding turns the other way: the same as if the second half of each head had the other sign.
TURNED_BACK = Rows(_halves) | Each(scale(lambda _: 1.0), scale(lambda _: -1.0)) | Rows(_heads)
#: A gain of each head, to be spread over its elements.
COLUMN = Reshape(lambda shape, _: (*shape, 1))


def _named(out: str, name: str, verb: Verb = COPY) -> Rule:
    """A weight, which the checkpoint stores with that ending or without."""
    sources: Source = (f"{name}.weight", name)
    return exact(out, sources, verb=verb)


ROWS: Table[Rule] = Table(
    (
        _named("token_embd.weight", "model.embed"),
        _named("output.weight", "lm_head"),
        rule("blk.{l}.attn_q", f"{BLOCK}attn.attn_query", ends=WEIGHT, verb=TURNED_BACK),
        rule("blk.{l}.attn_k", f"{BLOCK}attn.attn_key", ends=WEIGHT, verb=TURNED_BACK),
        rule("blk.{l}.attn_v", f"{BLOCK}attn.attn_value", ends=WEIGHT),
        rule("blk.{l}.attn_output", f"{BLOCK}attn.attn_resid", ends=WEIGHT),
        exact("blk.{l}.attn_q_norm.weight", f"{BLOCK}attn.head_gain.head_g", verb=COLUMN),
        exact("blk.{l}.attn_output.scale", f"{BLOCK}attn_gain.a_g"),
        rule("blk.{l}.ffn_gate", f"{BLOCK}mlp.mlp_gate", ends=WEIGHT),
        rule("blk.{l}.ffn_up", f"{BLOCK}mlp.mlp_linear", ends=WEIGHT),
        rule("blk.{l}.ffn_down", f"{BLOCK}mlp.mlp_resid", ends=WEIGHT),
        exact("blk.{l}.ffn_down.scale", f"{BLOCK}mlp_gain.a_g"),
        exact("blk.{l}.layer_output_scale.weight", f"{BLOCK}embed_skip.a_g"),
    )
)

TALKIE = Arch(
    "talkie",
    hf=("TalkieForCausalLM",),
    hparams=Table((f32("logit_scale", value=lambda facts: facts.look(GAIN).item(), early=True),))
    | BASE
    # It normalises without weights, and with the least number that makes a difference to 1 in float32.
    | f32("attention.layer_norm_rms_epsilon", value=lambda _: float(np.finfo(np.float32).eps), again=True),
    tensors=ROWS,
    needs=("token_embd", "output", *QKV, *layer("attn_output", "attn_q_norm", "layer_output_scale"), *GATED),
    vocab=(vocab.bpe,),
    drop=BUFFERS,
    looks=(GAIN,),
)

ARCHS = (TALKIE,)
