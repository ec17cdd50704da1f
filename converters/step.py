"""Step 3.5 and 3.7 Flash: more heads in layers with windows, a gate for each head, layers that predict further tokens;
and Step3-VL, whose text model is a Qwen3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import EXPERTS, Arch, Either, Table, array, boolean, exact, f32, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Computed, add
from gguf_forge.convert.rope import rope_of
from gguf_forge.convert.view import Array
from gguf_forge.errors import ConversionError
from gguf_forge.format.layout import ValueType

from .common import (
    BASE,
    BUFFERS,
    DECODER,
    GATED,
    MIXTURE,
    MULTIMODAL,
    QK_NORM,
    QK_NORMS,
    QKV,
    SILU,
    TRUNK,
    WRAPPERS,
    layer,
    main_dropped,
    nextn_dropped,
    nextn_layers,
    with_nextn,
)
from .mla import BLOCKS, LAYER, NEXTN, SHARED, all_layers
from .qwen import QWEN3
from .rotary import head_dim

#: The part of a head that turns in layers with full attention; in those with windows all of it does.
TURNED = 0.5


def _filled(values: Any, fill: Any, facts: Facts) -> list[Any]:
    """A value for each layer of the file, `fill` for those that config.json leaves out."""
    count = all_layers(facts)
    return [*(values or ()), *[fill] * count][:count]


def _windows(facts: Facts) -> list[bool]:
    """Which layers have windows; an error unless they, and no others, turn their whole heads."""
    windows = [kind == "sliding_attention" for kind in _filled(facts.config.get("layer_types"), "", facts)]
    turned = _filled(facts.config.get("partial_rotary_factors"), TURNED, facts)
    if turned != [1.0 if window else TURNED for window in windows]:
        raise ConversionError(f"config.json: partial_rotary_factors must be {TURNED}, 1 in windows; they are {turned}")
    return windows


def _heads(key: str) -> Callable[[Facts], list[int]]:
    def value(facts: Facts) -> list[int]:
        usual = facts.number(key)
        sliding = (facts.config.get("attention_other_setting") or {}).get(key, usual)
        return [sliding if window else usual for window in _windows(facts)]

    return value


def _base(which: int) -> Callable[[Facts], Any]:
    """The rotary base of full attention or of windows, where config.json has a base for each layer."""

    def value(facts: Facts) -> Any:
        theta = rope_of(facts.config).get("rope_theta")
        return theta[which] if isinstance(theta, list) else None if which else theta

    return value


def _limits(key: str) -> Callable[[Facts], list[float] | None]:
    def value(facts: Facts) -> list[float] | None:
        given = facts.config.get(key)
        return None if given is None else [float(limit or 0.0) for limit in _filled(given, 0.0, facts)]

    return value


def _leading_dense(facts: Facts) -> int:
    listed = facts.config.get("moe_layers_enum")
    return min((int(number) for number in listed.split(",")), default=0) if isinstance(listed, str) and listed else 0


def _factors(facts: Facts) -> Array | None:
    """What llama3's scaling divides the frequencies by, of the part that turns in full attention; 1 for the rest.

    Thresholds in float64, of frequencies in float32, as the reference calculates them.
    """
    rope, dim = rope_of(facts.config), head_dim(facts)
    if str(rope.get("rope_type") or "").lower() != "llama3":
        return None
    turned = int(dim * TURNED)
    exponents = np.arange(0, turned, 2, dtype=np.float32) / np.float32(turned)
    frequencies = np.float32(1) / np.power(np.float64(_base(0)(facts)), exponents.astype(np.float64)).astype(np.float32)
    factor = float(rope.get("factor", 8.0))
    low, high = float(rope.get("low_freq_factor", 1.0)), float(rope.get("high_freq_factor", 4.0))
    context = int(rope.get("original_max_position_embeddings", 8192))
    made = []
    for frequency in frequencies.tolist():
        wave = 2 * math.pi / frequency
        smooth = (context / wave - low) / (high - low)
        between = 1.0 / ((1.0 - smooth) / factor + smooth)
        made.append(1.0 if wave < context / high else factor if wave > context / low else between)
    return np.array(made + [1.0] * (dim // 2 - len(made)), np.float32)


#: All its norms multiply by one more than their weight.
_NORMS = {
    "output_norm": "model.norm",
    "blk.{l}.attn_norm": f"{LAYER}.input_layernorm",
    "blk.{l}.ffn_norm": f"{LAYER}.post_attention_layernorm",
    "blk.{l}.attn_q_norm": f"{LAYER}.self_attn.q_norm",
    "blk.{l}.attn_k_norm": f"{LAYER}.self_attn.k_norm",
    "blk.{l}.nextn.enorm": f"{LAYER}.enorm",
    "blk.{l}.nextn.hnorm": f"{LAYER}.hnorm",
    "blk.{l}.nextn.shared_head_norm": f"{LAYER}.shared_head.norm",
}
_COPIED = {
    "blk.{l}.attn_gate": f"{LAYER}.self_attn.g_proj",
    "blk.{l}.ffn_gate_inp": f"{LAYER}.moe.gate",
    **{f"blk.{{l}}.ffn_{part}_exps": f"{LAYER}.moe.{part}_proj" for part in ("gate", "up", "down")},
    **{f"blk.{{l}}.ffn_{part}_shexp": f"{LAYER}.share_expert.{part}_proj" for part in ("gate", "up", "down")},
    "blk.{l}.nextn.eh_proj": f"{LAYER}.eh_proj",
    "blk.{l}.nextn.shared_head_head": f"{LAYER}.shared_head.output",
}

STEP35 = Arch(
    "step35",
    hf=("Step3p5ForCausalLM", "Step3p7ForConditionalGeneration"),
    whole=("Step3p7ForConditionalGeneration",),
    hparams=BASE
    | BLOCKS
    | u32("attention.head_count", value=_heads("num_attention_heads"))
    | f32("rope.freq_base", value=_base(0))
    | f32("rope.freq_base_swa", value=_base(1))
    | u32("attention.head_count_kv", value=_heads("num_attention_groups"), again=True)
    | u32("attention.sliding_window", "sliding_window", required=True)
    | array("attention.sliding_window_pattern", ValueType.BOOL, value=_windows)
    | u32("expert_count", "moe_num_experts", "num_experts", required=True, again=True)
    | u32("expert_used_count", "moe_top_k", "num_experts_per_tok", required=True, again=True)
    | u32("expert_feed_forward_length", "moe_intermediate_size", required=True)
    | u32("expert_shared_feed_forward_length", "share_expert_dim", required=True)
    | f32("expert_weights_scale", "moe_router_scaling_factor")
    | boolean("expert_weights_norm", "norm_expert_weight")
    | u32("leading_dense_block_count", value=_leading_dense)
    | u32("moe_every_n_layers", "moe_every_n_layer", default=1)
    | f32("swiglu_clamp_exp", value=_limits("swiglu_limits"))
    | f32("swiglu_clamp_shexp", value=_limits("swiglu_limits_shared"))
    | u32("nextn_predict_layers", value=lambda f: None if f.options.mtp == "drop" else nextn_layers(NEXTN)(f) or None),
    tensors=Table((exact("rope_freqs.weight", verb=Computed(_factors)),))
    | DECODER
    | QK_NORM
    | Table(tuple(rule(out, name, verb=add(1.0)) for out, name in _NORMS.items()))
    | Table(tuple(rule(out, name) for out, name in _COPIED.items()))
    | exact("blk.{l}.exp_probs_b.bias", f"{LAYER}.moe.router_bias"),
    needs=(
        *TRUNK,
        "output",
        *QKV,
        *QK_NORMS,
        *layer("attn_gate"),
        Either((GATED, (*MIXTURE, *SHARED))),
        Either((layer("nextn.eh_proj", "nextn.enorm", "nextn.hnorm"), ())),
    ),
    vocab=(vocab.bpe,),
    renames=(*WRAPPERS, (r"\.transformer\.shared_head\.", ".shared_head.")),
    drop=(*BUFFERS, *MULTIMODAL, nextn_dropped(), main_dropped()),
    axes={"l": with_nextn(nextn_layers(NEXTN)), "e": EXPERTS},
    implied=(*SILU, ("use_head_wise_attn_gate", (True,)), ("zero_centered", (True,))),
    mtp=True,
)
STEP_VL = ("StepVLForConditionalGeneration",)
STEP3_VL = replace(QWEN3, hf=STEP_VL, whole=STEP_VL, hparams=BASE, tensors=DECODER | QK_NORM)

ARCHS = (STEP35, STEP3_VL)
