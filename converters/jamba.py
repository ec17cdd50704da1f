"""Jamba: layers of Mamba, of attention here and there, and of experts in turns."""

from __future__ import annotations

import re

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Either, Hparam, Table, f32, rule, u32
from gguf_forge.convert.config import block_count, first_of
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import STACK

from . import mamba
from .common import BUFFERS, DECODER, FILE_TYPE, GATED, MIXTURE, QKV, SILU, WRAPPERS, layer

LAYER = "model.layers.{l}"
MIXER, FORWARD = f"{LAYER}.mamba", f"{LAYER}.feed_forward"
WIDTH = ("hidden_size", "mamba_d_model")


def _heads_kv(facts: Facts) -> list[int]:
    """Each layer's heads of keys and values: none where it keeps a state."""
    heads, step = facts.number("num_key_value_heads"), facts.number("attn_layer_period")
    first = facts.number("attn_layer_offset")
    return [heads if i >= first and (i - first) % step == 0 else 0 for i in range(block_count(facts.config))]


def _time_steps(facts: Facts) -> int:
    """The rank of the time steps: declared, or a sixteenth of the width, rounded up."""
    if facts.config.get("mamba_dt_rank") in (None, "auto", 0):
        return -(facts.number(*WIDTH) // -16)
    return facts.number("mamba_dt_rank")


def _single_expert(match: re.Match[str], facts: Facts) -> str:
    """In layers without experts the only one is the layer's feed-forward itself."""
    number, first = int(match[1]), facts.number("expert_layer_offset")
    has_experts = number >= first and (number - first) % facts.number("expert_layer_period") == 0
    return match[0] if has_experts else match[0].replace(".experts.0.", ".")


KEYS: Table[Hparam] = Table(
    (
        u32("block_count", value=lambda facts: block_count(facts.config)),
        u32("context_length", "max_position_embeddings", "n_ctx", required=True),
        u32("embedding_length", value=lambda facts: facts.number(*WIDTH)),
        u32("feed_forward_length", "intermediate_size", required=True),
        u32("attention.head_count", "num_attention_heads", required=True),
        u32("attention.head_count_kv", value=_heads_kv),
        u32("ssm.conv_kernel", value=mamba.given("mamba_d_conv", otherwise=mamba.constant(4))),
        u32("ssm.inner_size", value=lambda facts: facts.number("mamba_expand") * facts.number(*WIDTH)),
        u32("ssm.state_size", value=mamba.given("mamba_d_state", otherwise=mamba.constant(16))),
        u32("ssm.time_step_rank", value=_time_steps),
        f32(
            "attention.layer_norm_rms_epsilon",
            value=lambda facts: first_of(facts.config, "layer_norm_epsilon", "rms_norm_eps") or 1e-6,
        ),
        u32("expert_count", "num_local_experts", "num_experts", required=True),
        u32("expert_used_count", "num_experts_per_tok", "num_experts_per_token", required=True),
        FILE_TYPE,
    )
)

JAMBA = Arch(
    "jamba",
    hf=("JambaForCausalLM",),
    hparams=KEYS,
    tensors=DECODER.without(*GATED)
    | mamba.selective(MIXER)
    | Table(
        (
            rule("output_norm", "model.final_layernorm"),
            # The second names are Mini-Jamba's.
            rule("blk.{l}.ffn_norm", (f"{LAYER}.pre_ff_layernorm", f"{LAYER}.pre_moe_layernorm")),
            rule("blk.{l}.ssm_b_norm", (f"{MIXER}.b_layernorm", f"{MIXER}.B_layernorm"), ends=WEIGHT),
            rule("blk.{l}.ssm_c_norm", (f"{MIXER}.c_layernorm", f"{MIXER}.C_layernorm"), ends=WEIGHT),
            rule("blk.{l}.ssm_dt_norm", f"{MIXER}.dt_layernorm", ends=WEIGHT),
            *(
                rule(f"blk.{{l}}.ffn_{part}", f"{FORWARD}.{part}_proj", ends=WEIGHT)
                for part in ("down", "gate", "up")
            ),
            *(
                rule(
                    f"blk.{{l}}.ffn_{part}_exps",
                    f"{FORWARD}.experts.{{e}}.{part}_proj",
                    ends=WEIGHT,
                    verb=STACK,
                    group="experts",
                )
                for part in ("down", "gate", "up")
            ),
            rule("blk.{l}.ffn_gate_inp", f"{FORWARD}.router", ends=WEIGHT),
        )
    ),
    needs=(
        "token_embd",
        "output_norm",
        *layer("attn_norm", "ffn_norm"),
        Either(
            (
                (*QKV, *layer("attn_output")),
                (*mamba.SELECTIVE, *layer("ssm_b_norm", "ssm_c_norm", "ssm_dt_norm")),
            )
        ),
        Either((GATED, MIXTURE)),
    ),
    vocab=(vocab.spm, vocab.together(vocab.llama_hf, vocab.space_prefix(False))),
    renames=(
        *WRAPPERS,
        (r"\.moe\.", ".feed_forward."),
        (r"^model\.layers\.(\d+)\.feed_forward\.experts\.0\..*", _single_expert),
    ),
    drop=BUFFERS,
    implied=SILU,
)

ARCHS = (JAMBA,)
