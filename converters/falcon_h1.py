"""Falcon-H1: each layer attends and keeps a state side by side. Its many factors on activations go into the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Hparam, Rule, Table, exact, f32, optional, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import CONCAT, Each, Elementwise
from gguf_forge.convert.rows import parts_of

from . import mamba
from .common import BUFFERS, DECODER, FILE_TYPE, GATED, QKV, SILU, WRAPPERS, layer, tied_head
from .rotary import rope_value

Factor = Callable[[Facts], float]
LAYER = "model.layers.{l}"
MIXER = f"{LAYER}.mamba"
GROUPS = mamba.given("n_groups", "mamba_n_groups", otherwise=mamba.constant(1))
STATE = mamba.given("state_size", "d_state", "mamba_d_state", otherwise=mamba.constant(128))
INNER = mamba.inner("mamba_d_ssm")


def factor(name: str, part: int | None = None) -> Factor:
    """A factor of the configuration, or one of a list of them; 1 where it says none."""

    def value(facts: Facts) -> float:
        found: Any = facts.config.get(name)
        return float(1 if found is None else found if part is None else found[part])

    return value


def times(*factors: Factor) -> Elementwise:
    """Every element times one number after the other. A product of float16 is rounded to float16, its factors not."""

    def multiply(x: Any, facts: Facts) -> Any:
        for each in factors:
            x = (x.astype(np.float32) * np.float32(each(facts))).astype(x.dtype)
        return x

    def divide(x: Any, facts: Facts) -> Any:
        for each in reversed(factors):
            x = (x.astype(np.float32) / np.float32(each(facts))).astype(x.dtype)
        return x

    return Elementwise(multiply, divide)


def _mixed(facts: Facts) -> tuple[int, ...]:
    """What the mixer's input projection makes: gate, input, what goes into the state and comes out, time steps."""
    width, states = INNER(facts), GROUPS(facts) * STATE(facts)
    return width, width, states, states, HEADS(facts)


HEADS = mamba.heads(INNER, "mamba_d_head")
ATTENTION_IN = factor("attention_in_multiplier")
INTO_MIXER = (
    times(factor("ssm_in_multiplier"))
    | parts_of(_mixed)
    | Each(*(times(factor("ssm_multipliers", part)) for part in range(5)))
    | CONCAT
)
FACTORS: tuple[tuple[str, str, Elementwise], ...] = (
    ("token_embd", "model.embed_tokens", times(factor("embedding_multiplier"))),
    ("output", "lm_head", times(factor("lm_head_multiplier"))),
    ("blk.{l}.attn_q", f"{LAYER}.self_attn.q_proj", times(ATTENTION_IN)),
    ("blk.{l}.attn_k", f"{LAYER}.self_attn.k_proj", times(factor("key_multiplier"), ATTENTION_IN)),
    ("blk.{l}.attn_v", f"{LAYER}.self_attn.v_proj", times(ATTENTION_IN)),
    ("blk.{l}.attn_output", f"{LAYER}.self_attn.o_proj", times(factor("attention_out_multiplier"))),
    ("blk.{l}.ffn_gate", f"{LAYER}.feed_forward.gate_proj", times(factor("mlp_multipliers", 0))),
    ("blk.{l}.ffn_down", f"{LAYER}.feed_forward.down_proj", times(factor("mlp_multipliers", 1))),
    ("blk.{l}.ssm_out", f"{MIXER}.out_proj", times(factor("ssm_out_multiplier"))),
)


def _head_of_embedding(facts: Facts) -> bool:
    """Whether the embedding serves as the head, with another factor than its own."""
    same = factor("embedding_multiplier")(facts) == factor("lm_head_multiplier")(facts)
    return tied_head(facts) and not facts.has("lm_head.weight") and not same


KEYS: Table[Hparam] = (
    mamba.head(
        mamba.given("conv_kernel", "d_conv", "mamba_d_conv", otherwise=mamba.constant(4)), INNER, STATE
    )
    | u32("context_length", value=lambda facts: facts.config.get("max_position_embeddings", 0))
    | u32("feed_forward_length", "intermediate_size", required=True)
    | u32("attention.head_count", "num_attention_heads", required=True)
    | u32("ssm.time_step_rank", value=HEADS)
    | u32("ssm.group_count", value=GROUPS)
    | mamba.EPSILON
    | FILE_TYPE
    | u32("vocab_size", "vocab_size", required=True)
    | u32("attention.head_count_kv", "num_key_value_heads", required=True)
    | u32("attention.key_length", "head_dim", required=True)
    | u32("attention.value_length", "head_dim", required=True)
    | f32("rope.freq_base", value=rope_value("rope_theta"), required=True)
)
TENSORS: Table[Rule] = (
    DECODER.without("blk.{l}.ffn_norm")
    | mamba.state_space(MIXER, GROUPS)
    | Table(tuple(rule(out, source, ends=WEIGHT, verb=verb) for out, source, verb in FACTORS))
    | rule("blk.{l}.ssm_in", f"{MIXER}.in_proj", ends=WEIGHT, verb=INTO_MIXER)
    | rule("blk.{l}.ffn_up", f"{LAYER}.feed_forward.up_proj")
    | rule("output_norm", "model.final_layernorm")
    # llama.cpp asks for this norm without an ending.
    | exact("blk.{l}.ffn_norm", f"{LAYER}.pre_ff_layernorm.weight")
    | rule(
        "output",
        "model.embed_tokens",
        ends=WEIGHT,
        variant="tied",
        verb=times(factor("lm_head_multiplier")),
        when=_head_of_embedding,
    )
)

FALCON_H1 = Arch(
    "falcon-h1",
    hf=("FalconH1ForCausalLM",),
    hparams=KEYS,
    tensors=TENSORS,
    needs=(
        "token_embd",
        "output_norm",
        *layer("attn_norm", "attn_output", "ffn_norm"),
        *QKV,
        *GATED,
        *mamba.STATE,
        optional(*mamba.STATE_NORM),
    ),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=SILU,
)

ARCHS = (FALCON_H1,)
