"""Ling 3: delta attention, and in each group of layers one of latent attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Either, boolean, exact, f32, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Elementwise, Reshape
from gguf_forge.errors import ConversionError

from . import mla
from .common import (
    BASE,
    BUFFERS,
    DECODER,
    GATED,
    MIXTURE,
    MULTIMODAL,
    SILU,
    TRUNK,
    WRAPPERS,
    layer,
    main_dropped,
    main_layers,
    nextn_dropped,
)
from .kda import DELTA, delta

#: Through float64, as NEG_EXP.
EXP = Elementwise(
    lambda x, _: np.exp(x.astype(np.float64)).astype(np.float32),
    lambda x, _: np.log(x.astype(np.float64)).astype(np.float32),
)
ATTENTION = f"{mla.LAYER}.attention"


def _is_full(facts: Facts) -> bool:
    """Whether a layer attends: the last of a group, all after the last whole group, those for further tokens."""
    main, size, number = main_layers(facts), facts.number("layer_group_size"), facts.layer
    return number is not None and ((number + 1) % size == 0 or number >= main // size * size)


def _heads(facts: Facts) -> list[int]:
    return [int(_is_full(facts.at(number))) for number in range(mla.all_layers(facts))]


def _limits(key: str) -> Callable[[Facts], list[float] | None]:
    """Each layer's limit on its activations, 0 for none."""

    def value(facts: Facts) -> list[float] | None:
        given, count = facts.config.get(key), mla.all_layers(facts)
        if given is None:
            return None
        return [float(limit or 0.0) for limit in [*given, *[0.0] * count][:count]]

    return value


def _sections(facts: Facts) -> list[int] | None:
    """How the rotary part is shared by time, height and width, in models that see."""
    given, size = facts.config.get("mrope_section"), facts.number("qk_rope_head_dim")
    if given is None and "vision_config" not in facts.config:
        return None
    if given is None or 2 * sum(given[:3]) != size:
        raise ConversionError(f"config.json: mrope_section {given} must add up to half of qk_rope_head_dim, {size}")
    return [*given[:3], 0]


def _further(facts: Facts) -> Any:
    return mla.kept_further(facts) or None


BAILING3 = Arch(
    "bailingmoe3",
    hf=("BailingMoeV3ForCausalLM", "BailingMoeV3VLForConditionalGeneration"),
    hparams=BASE
    | mla.BLOCKS
    | u32("attention.head_count_kv", value=_heads)
    | u32("vocab_size", "vocab_size", required=True)
    | u32("ssm.conv_kernel", "short_conv_kernel_size", required=True)
    | u32("kda.head_dim", "head_dim", required=True)
    | boolean("kda.safe_gate", "kda_safe_gate", required=True)
    | f32("kda.gate_lower_bound", "kda_lower_bound", required=True)
    | mla.latent_keys(turned=True, value=False)
    | u32("expert_feed_forward_length", "moe_intermediate_size", required=True)
    | u32("expert_shared_feed_forward_length", "moe_shared_expert_intermediate_size", required=True)
    | u32("expert_shared_count", "num_shared_experts", default=1)
    | u32("leading_dense_block_count", "first_k_dense_replace", required=True)
    | f32("expert_weights_scale", "routed_scaling_factor", required=True)
    | boolean("expert_weights_norm", "norm_topk_prob", required=True)
    | f32("swiglu_clamp_exp", value=_limits("expert_swiglu_limit_list"))
    | f32("swiglu_clamp_shexp", value=_limits("share_expert_swiglu_limit_list"))
    | u32("nextn_predict_layers", value=_further)
    | u32("rope.dimension_sections", value=_sections, again=True),
    tensors=DECODER
    | rule("token_embd", "model.word_embeddings")
    | mla.latent(ATTENTION, end="dense")
    | delta(ATTENTION, decay=EXP | Reshape(lambda shape, _: (shape[-1], 1)))
    | rule("blk.{l}.ssm_f_a", f"{ATTENTION}.f_proj")
    | rule("blk.{l}.ssm_g_a", f"{ATTENTION}.g_proj", when=lambda facts: not _is_full(facts))
    | rule("blk.{l}.attn_gate", f"{ATTENTION}.g_proj", when=_is_full)
    | mla.DENSE
    | mla.experts()
    | mla.shared_experts()
    | rule("blk.{l}.ffn_gate_inp", f"{mla.LAYER}.mlp.gate")
    | exact("blk.{l}.exp_probs_b.bias", f"{mla.LAYER}.mlp.gate.expert_bias")
    | rule("blk.{l}.nextn.eh_proj", f"{mla.LAYER}.eh_proj")
    | rule("blk.{l}.nextn.enorm", f"{mla.LAYER}.enorm")
    | rule("blk.{l}.nextn.hnorm", f"{mla.LAYER}.hnorm")
    | rule("blk.{l}.layer_output_norm", f"{mla.LAYER}.final_layernorm"),
    needs=(
        *TRUNK,
        mla.QUERIES,
        Either(((*DELTA, *layer("ssm_f_a", "ssm_g_a")), (*mla.LATENT, *layer("attn_gate")))),
        Either((GATED, (*MIXTURE, *mla.SHARED, *layer("exp_probs_b.bias")))),
        Either((layer("nextn.eh_proj", "nextn.enorm", "nextn.hnorm", "layer_output_norm"), ())),
    ),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=(*BUFFERS, *MULTIMODAL, r"^linear_proj", nextn_dropped(), main_dropped()),
    axes=mla.FURTHER_AXES,
    implied=(
        *SILU,
        ("no_kda_lora", (True,)),
        ("kda_safe_gate", (True,)),
        ("gated_attention_proj_granularity_type", ("head_wise",)),
    ),
    mtp=True,
)

ARCHS = (BAILING3,)
