"""What models with Kimi's delta attention (KDA) have in common: layers that keep a state in place of keys and values,
between layers of latent attention. Tables only; must not know single families.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from gguf_forge.convert.arch import Either, Hparam, Rule, Table, exact, f32, rule, u32
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import NEG_EXP, Reshape, Verb
from gguf_forge.convert.rows import first_rows, number_of

from .common import HEADS, layer
from .mla import LATENT, LAYER

#: The kernel of a convolution over channels: (channels, 1, width) or (channels, width) as llama.cpp reads it.
CONV = Reshape(lambda shape, _: (1, shape[0], 1, shape[-1]))
#: The logarithm of each head's decay, which some checkpoints pad, as what the state decays by.
DECAY = Reshape(lambda shape, _: (prod(shape),)) | first_rows(number_of(*HEADS)) | NEG_EXP


def delta(attention: str = f"{LAYER}.self_attn", decay: Verb = DECAY) -> Table[Rule]:
    """The tensors of delta attention besides queries, output, and the two gates, of which there are several kinds."""
    return Table(
        (
            rule("blk.{l}.attn_k", f"{attention}.k_proj"),
            rule("blk.{l}.attn_v", f"{attention}.v_proj"),
            *(rule(f"blk.{{l}}.ssm_conv1d_{p}", f"{attention}.{p}_conv1d", verb=CONV) for p in "qkv"),
            rule("blk.{l}.ssm_beta", f"{attention}.b_proj"),
            exact("blk.{l}.ssm_a", f"{attention}.A_log", verb=decay),
            exact("blk.{l}.ssm_dt.bias", f"{attention}.dt_bias"),
            rule("blk.{l}.ssm_norm", f"{attention}.o_norm"),
        )
    )


#: How fast a channel forgets, and how much of it comes out: each through a narrow layer.
FORGET: Table[Rule] = Table(tuple(rule(f"blk.{{l}}.ssm_f_{p}", f"{LAYER}.self_attn.f_{p}_proj") for p in "ab"))
GATE: Table[Rule] = Table(tuple(rule(f"blk.{{l}}.ssm_g_{p}", f"{LAYER}.self_attn.g_{p}_proj") for p in "ab"))

KERNELS = ("ssm_conv1d_q", "ssm_conv1d_k", "ssm_conv1d_v")
DELTA = layer("attn_q", "attn_k", "attn_v", *KERNELS, "ssm_beta", "ssm_dt.bias", "ssm_norm")
FORGETS = layer("ssm_f_a", "ssm_f_b")
GATES = layer("ssm_g_a", "ssm_g_b")
#: A layer has the one or the other.
DELTA_OR_LATENT = Either((DELTA, LATENT))


def _delta_config(facts: Facts) -> Mapping[str, Any]:
    """The part of the configuration on delta attention, or the same from the keys that transformers 5 saves instead."""
    given: Mapping[str, Any] | None = facts.config.get("linear_attn_config")
    if given is not None:
        return given
    kinds = need(facts.config, "layer_types")
    return {
        "short_conv_kernel_size": facts.number("linear_conv_kernel_dim"),
        "head_dim": facts.number("linear_head_dim"),
        "full_attn_layers": [number for number, kind in enumerate(kinds, 1) if kind == "full_attention"],
    }


def linear(key: str) -> dict[str, object]:
    """A row's value from the part of the configuration on delta attention."""
    return {"value": lambda facts: _delta_config(facts).get(key)}


KDA_KEYS: Table[Hparam] = Table(
    (
        u32("ssm.conv_kernel", **linear("short_conv_kernel_size")),
        u32("kda.head_dim", **linear("head_dim")),
        f32("kda.gate_lower_bound", **linear("gate_lower_bound")),
    )
)


def full_attention(facts: Facts) -> list[int]:
    """For each layer one key-value head, or none where it keeps a state. The configuration counts layers from one."""
    full = _delta_config(facts)["full_attn_layers"]
    return [int(number + 1 in full) for number in range(facts.number("num_hidden_layers"))]
