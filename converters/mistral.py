"""Mistral from Small 3.1 on: Mistral 3, Ministral 3, Mistral Small 4; and Mistral's own layout of any of its models.

Checkpoints in that layout (params.json, consolidated*.safetensors) have other names, and rows of queries and keys in
llama.cpp's order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Hparam, Replacement, Table, exact, f32, string, u32
from gguf_forge.convert.config import text_part
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.params import NATIVE_CLASS
from gguf_forge.errors import ConversionError

from .common import BASE, DECODER, GATED, TRUNK, WRAPPERS, layer
from .deepseek import DEEPSEEK2, KEYS, TENSORS
from .llama import KEYS as LLAMA_KEYS
from .llama import LLAMA, LONG, NEEDS
from .mla import LATENT, QUERIES, SHARED, SHORT_QUERIES, experts
from .rotary import attention_growth, head_dim, rope_value

MISTRAL_3 = "Mistral3ForConditionalGeneration"


def _is_ministral3(facts: Facts) -> bool:
    return facts.config.get("model_type") == "ministral3"


def _stretched(key: str) -> Callable[[Facts], Any]:
    """A rotary parameter of Ministral 3, which is always stretched by YaRN."""

    def value(facts: Facts) -> Any:
        if not _is_ministral3(facts):
            return None
        rope = facts.config["rope_parameters"]
        if rope.get("rope_type") != "yarn" or rope.get(key) is None:
            raise ConversionError(f"config.json: a Ministral 3's rope_parameters must be of type 'yarn' and have {key}")
        return rope[key]

    return value


MISTRAL3 = replace(
    LLAMA,
    name="mistral3",
    hf=(MISTRAL_3, "Ministral3ForCausalLM"),
    hparams=LLAMA_KEYS
    | f32("rope.scaling.attn_factor", value=lambda facts: None if _is_ministral3(facts) else attention_growth(facts))
    | f32("rope.scaling.yarn_log_multiplier", value=_stretched("mscale_all_dim"))
    | f32("attention.temperature_scale", value=_stretched("llama_4_scaling_beta")),
    tensors=LONG.without("rope_freqs.weight"),
    needs=(*NEEDS, *GATED),
)


def _is_mistral4(config: Mapping[str, Any]) -> bool:
    return (text_part(config) or config).get("model_type") == "mistral4"


FUSED = (*layer("ffn_gate_inp", "ffn_gate_up_exps", "ffn_down_exps"), *SHARED)
SINGLE = tuple(row.row for row in experts())
MISTRAL4 = replace(
    DEEPSEEK2,
    name="mistral4",
    hf=(MISTRAL_3, "Mistral4ForCausalLM"),
    # Attention sharpens with distance, as Ministral 3's does.
    hparams=KEYS
    | f32("attention.temperature_scale", value=rope_value("llama_4_scaling_beta"))
    | u32("attention.temperature_length", value=rope_value("original_max_position_embeddings")),
    # Experts come as two tensors, and stay two.
    tensors=TENSORS.without(*SINGLE, "blk.{l}.exp_probs_b.bias", "blk.{l}.attn_q", *GATED)
    | exact("blk.{l}.ffn_gate_up_exps.weight", "model.layers.{l}.mlp.experts.gate_up_proj")
    | exact("blk.{l}.ffn_down_exps.weight", "model.layers.{l}.mlp.experts.down_proj"),
    needs=(*TRUNK, *SHORT_QUERIES, *LATENT, *FUSED),
    vocab=(vocab.bpe,),
    when=_is_mistral4,
)

#: Names in Mistral's own layout, brought to those of the Hub.
NATIVE_NAMES: tuple[tuple[str, Replacement], ...] = (
    (r"^tok_embeddings\.", "model.embed_tokens."),
    (r"^output\.", "lm_head."),
    (r"\.attention_norm\.", ".input_layernorm."),
    (r"\.ffn_norm\.", ".post_attention_layernorm."),
    (r"\.attention\.wkv_a_with_mqa\.", ".self_attn.kv_a_proj_with_mqa."),
    (r"\.attention\.(q|kv)_a_norm\.", r".self_attn.\1_a_layernorm."),
    (r"\.attention\.w(q_a|q_b|kv_b|q|k|v|o)\.", r".self_attn.\1_proj."),
    (r"^(layers\.\d+)\.(gate|experts|shared_experts)\.", r"\1.mlp.\2."),
    (r"\.feed_forward\.", ".mlp."),
    (r"\.w1\.", ".gate_proj."),
    (r"\.w2\.", ".down_proj."),
    (r"\.w3\.", ".up_proj."),
    *WRAPPERS,
)


def _yarn(key: str) -> dict[str, Any]:
    return {"value": lambda facts: (facts.config.get("yarn") or {}).get(key)}


def _mscale(facts: Facts) -> float | None:
    """How much attention grows with the stretch; not at all where the scale is applied elsewhere."""
    yarn = facts.config.get("yarn")
    return None if yarn is None else float(not yarn["apply_scale"])


def _temperature(facts: Facts) -> Any:
    return (facts.config.get("llama_4_scaling") or {}).get("beta")


#: How far the context is stretched, and how attention sharpens with distance.
STRETCHED: Table[Hparam] = Table(
    (
        string("rope.scaling.type", value=lambda facts: "yarn" if facts.config.get("yarn") else None, again=True),
        f32("rope.scaling.factor", **_yarn("factor"), again=True),
        f32("rope.scaling.yarn_beta_fast", **_yarn("beta"), again=True),
        f32("rope.scaling.yarn_beta_slow", **_yarn("alpha"), again=True),
        f32("rope.scaling.yarn_log_multiplier", value=_mscale),
        u32("rope.scaling.original_context_length", **_yarn("original_max_position_embeddings"), again=True),
        f32("attention.temperature_scale", value=_temperature),
    )
)


def _in_llama(config: Mapping[str, Any]) -> bool:
    """Whether the model is one that llama.cpp runs as a Llama: it has no temperature of its own."""
    return not config.get("moe") and "llama_4_scaling" not in config


NATIVE = Arch(
    "llama",
    hf=(NATIVE_CLASS,),
    hparams=BASE | u32("rope.dimension_count", value=head_dim) | STRETCHED,
    tensors=DECODER,
    needs=(*NEEDS, *GATED),
    vocab=(vocab.mistral,),
    renames=NATIVE_NAMES,
    drop=LLAMA.drop,
    when=_in_llama,
)
NATIVE_3 = replace(NATIVE, name="mistral3", when=lambda config: not config.get("moe") and not _in_llama(config))
NATIVE_MOE = replace(
    NATIVE,
    name="deepseek2",
    hparams=KEYS.without("rope.scaling.yarn_log_multiplier")
    | STRETCHED
    # llama.cpp's deepseek2 wants a tenth of the scale.
    | f32("rope.scaling.yarn_log_multiplier", value=lambda facts: 0.1 if facts.config.get("yarn") else None)
    | u32("attention.temperature_length", **_yarn("original_max_position_embeddings")),
    tensors=TENSORS.without("blk.{l}.attn_q", "blk.{l}.exp_probs_b.bias"),
    needs=tuple(need for need in DEEPSEEK2.needs if need is not QUERIES) + SHORT_QUERIES,
    when=lambda config: bool(config.get("moe")),
)

ARCHS = (MISTRAL3, MISTRAL4, NATIVE, NATIVE_3, NATIVE_MOE)

