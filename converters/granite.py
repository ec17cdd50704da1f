"""Granite 3 to 4.1: dense, mixtures of experts, with sliding windows, with state-space layers (Bamba, too), and Granite
Switch, which holds adapters that single tokens choose. Of Granite Speech and Granite Vision the text model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import (
    WEIGHT,
    Arch,
    Axis,
    Either,
    Hparam,
    Rule,
    Table,
    array,
    boolean,
    exact,
    f32,
    optional,
    rule,
    u32,
)
from gguf_forge.convert.config import block_count, first_of, need, text_part
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Reshape, Rows, Whole
from gguf_forge.convert.rows import equal_parts, grouped, interleave_halves, number_of
from gguf_forge.convert.view import Numbers
from gguf_forge.errors import ConversionError
from gguf_forge.format.layout import ValueType

from .common import BASE, BUFFERS, DECODER, GATED, MIXTURE, MULTIMODAL, QKV, SILU, TRUNK, WRAPPERS, layer
from .llama import LLAMA_VOCAB, NEEDS, TURNED
from .mamba import STATE, STATE_NORM, state_space

LAYER = "model.layers.{l}"
QUERY_HEADS, KEY_HEADS = number_of("num_attention_heads"), number_of("num_key_value_heads")


def _has_experts(facts: Facts) -> bool:
    return bool(facts.config.get("num_local_experts"))


def _has_none(facts: Facts) -> bool:
    return not _has_experts(facts)


def _feed_forward(facts: Facts) -> Any:
    """The width of a layer, or of each expert. Without experts, the shared one is all there is."""
    shared = facts.config.get("shared_intermediate_size")
    return shared if shared and _has_none(facts) else facts.config.get("intermediate_size")


def _receivers(facts: Facts) -> list[int] | None:
    """Granite Vision: which projector's output each layer is given; -1 for none. The first feeds the embedding."""
    config, layers = facts.config, block_count(facts.config)
    deep = [given % layers for _, given in config.get("deepstack_layer_map") or ()]
    given = sorted([*deep, *(config.get("spatial_target_layers") or ())])
    if given and given[-1] >= layers:
        raise ConversionError(f"config.json: spatial_target_layers names layer {given[-1]} of {layers}")
    return [given.index(i, 1) if i in given[1:] else -1 for i in range(layers)] if given else None


def _scales(default: float | None) -> Table[Hparam]:
    """Granite's factors, and what they are where the configuration does not say."""
    return Table(
        (
            f32("attention.scale", "attention_multiplier", default=default),
            f32("embedding_scale", "embedding_multiplier", default=default),
            f32("residual_scale", "residual_multiplier", default=default),
            f32("logit_scale", "logits_scaling", default=default),
        )
    )


KEYS = (
    BASE.without("attention.key_length", "attention.value_length")
    | u32("feed_forward_length", value=_feed_forward)
    | u32("vocab_size", "vocab_size", required=True)
    | u32("rope.dimension_count", value=lambda f: f.number("hidden_size") // f.number("num_attention_heads"))
    | _scales(1.0)
    | array("deepstack_mapping", ValueType.INT32, value=_receivers)
)
SHARED_WIDTH = u32(
    "expert_shared_feed_forward_length", value=lambda facts: facts.config.get("shared_intermediate_size") or None
)
MOE_KEYS = KEYS | SHARED_WIDTH

ATTENTION: Table[Rule] = DECODER.without(*GATED) | TURNED
SPARSE, SHARED = f"{LAYER}.block_sparse_moe", f"{LAYER}.shared_mlp"
ROUTER = rule("blk.{l}.ffn_gate_inp", (f"{SPARSE}.router.layer", f"{SPARSE}.router"), ends=WEIGHT)
#: Gate and up projections stand one below the other, in each expert and in the one that all share.
EXPERTS: Table[Rule] = Table(
    (
        exact(
            ("blk.{l}.ffn_gate_exps.weight", "blk.{l}.ffn_up_exps.weight"),
            f"{SPARSE}.input_linear.weight",
            verb=equal_parts(2),
        ),
        rule("blk.{l}.ffn_down_exps", f"{SPARSE}.output_linear", ends=WEIGHT),
        ROUTER,
        exact(
            ("blk.{l}.ffn_gate_shexp.weight", "blk.{l}.ffn_up_shexp.weight"),
            f"{SHARED}.input_linear.weight",
            verb=equal_parts(2),
            when=_has_experts,
        ),
        rule("blk.{l}.ffn_down_shexp", f"{SHARED}.output_linear", ends=WEIGHT, when=_has_experts),
    )
)
#: A model of that class without experts.
ONLY_SHARED: Table[Rule] = Table(
    (
        exact(
            ("blk.{l}.ffn_gate.weight", "blk.{l}.ffn_up.weight"),
            f"{SHARED}.input_linear.weight",
            verb=equal_parts(2),
            when=_has_none,
        ),
        rule("blk.{l}.ffn_down", f"{SHARED}.output_linear", ends=WEIGHT, when=_has_none),
    )
)
SHARED_EXPERT = optional(*layer("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"))

GRANITE = Arch(
    "granite",
    hf=(
        "GraniteForCausalLM",
        "GraniteSpeechForConditionalGeneration",
        "GraniteSpeechPlusForConditionalGeneration",
        "Granite4VisionForConditionalGeneration",
    ),
    hparams=KEYS,
    tensors=DECODER | TURNED,
    needs=(*NEEDS, *GATED),
    vocab=LLAMA_VOCAB,
    renames=WRAPPERS,
    drop=(*BUFFERS, *MULTIMODAL, r"^encoder\.", r"image_|(layerwise|spatial)_projectors"),
    implied=SILU,
)
GRANITE_MOE = replace(
    GRANITE,
    name="granitemoe",
    hf=("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"),
    hparams=MOE_KEYS,
    tensors=ATTENTION | EXPERTS | ONLY_SHARED,
    needs=(*NEEDS, Either((MIXTURE, GATED)), SHARED_EXPERT),
)


def _slides(facts: Facts) -> list[bool]:
    """Which layers have a window: by default all but every fourth, from the first on."""
    kinds = facts.config.get("layer_types")
    if kinds:
        return [kind == "sliding_attention" for kind in kinds]
    return [i % 4 != 0 for i in range(block_count(facts.config))]


def _turns(facts: Facts) -> list[bool] | None:
    """Which layers turn queries and keys."""
    turned = facts.config.get("no_rope_layers")
    return [bool(flag) for flag in turned] if turned else None


GRANITE_SWA = replace(
    GRANITE,
    name="granite_swa",
    hf=("GraniteSWAForCausalLM", "GraniteMoeSWAForCausalLM"),
    hparams=KEYS
    | u32("attention.sliding_window", "sliding_window", default=128)
    | array("attention.sliding_window_pattern", ValueType.BOOL, value=_slides)
    | array("attention.rope_pattern", ValueType.BOOL, value=_turns)
    | SHARED_WIDTH,
    tensors=DECODER
    | TURNED
    | exact("blk.{l}.attn_sinks.weight", (f"{LAYER}.self_attn.sinks", f"{LAYER}.self_attn.sinks.weight"))
    | ROUTER
    # Gate and up projections stay one tensor.
    | exact("blk.{l}.ffn_gate_up_exps.weight", (f"{SPARSE}.experts.gate_up_proj", f"{SPARSE}.input_linear.weight"))
    | exact("blk.{l}.ffn_down_exps.weight", (f"{SPARSE}.experts.down_proj", f"{SPARSE}.output_linear.weight"))
    | rule("blk.{l}.ffn_up_shexp", f"{SHARED}.input_linear")
    | rule("blk.{l}.ffn_down_shexp", f"{SHARED}.output_linear"),
    needs=(
        *NEEDS,
        *layer("attn_sinks"),
        Either((layer("ffn_gate_inp", "ffn_gate_up_exps", "ffn_down_exps"), GATED)),
        optional(*layer("ffn_up_shexp", "ffn_down_shexp")),
    ),
)


#: What layers that attend are called: in published models, and when transformers 5 has saved them again.
ATTENDING = ("attention", "full_attention")


def attention_layers(config: Mapping[str, Any]) -> list[int]:
    """The layers that attend; the others keep a state. ConversionError when the configuration does not say."""
    kinds, listed = config.get("layer_types"), config.get("attn_layer_indices")
    if kinds:
        return [i for i, kind in enumerate(kinds) if kind in ATTENDING]
    if listed:
        return list(listed)
    step, first = need(config, "attn_layer_period"), need(config, "attn_layer_offset")
    return [i for i in range(block_count(config)) if i % step == first]


def _attends(facts: Facts) -> list[bool]:
    found = set(attention_layers(facts.config))
    return [i in found for i in range(block_count(facts.config))]


def _turns_at_all(facts: Facts) -> bool:
    """Whether queries and keys turn with the position: in Bamba, and where the configuration says so."""
    kind = facts.config.get("position_embedding_type")
    if kind is not None:
        return bool(kind == "rope")
    return facts.config["architectures"][0] == "BambaForCausalLM" or all(_attends(facts))


def _context(facts: Facts) -> Any:
    """Without positions, the context is as long as one likes."""
    return facts.config.get("max_position_embeddings") if _turns_at_all(facts) else 1 << 20


GROUPS = ("n_groups", "num_groups", "mamba_n_groups")


def _heads_kv(facts: Facts) -> list[int]:
    heads = facts.number("num_key_value_heads")
    return [heads if attends else 0 for attends in _attends(facts)]


HYBRID_KEYS: Table[Hparam] = (
    MOE_KEYS
    # Bamba has none of them.
    | _scales(None)
    | u32("context_length", value=_context)
    | u32("attention.head_count_kv", value=_heads_kv)
    | u32("rope.dimension_count", value=lambda facts: facts.config.get("attn_rotary_emb") or None, again=True)
    | u32("ssm.conv_kernel", "conv_kernel", "d_conv", "mamba_d_conv", required=True)
    | u32("ssm.state_size", "state_size", "d_state", "ssm_state_size", "mamba_d_state", required=True)
    | u32("ssm.group_count", *GROUPS, required=True)
    | u32("ssm.inner_size", value=lambda facts: facts.number("expand", "mamba_expand") * facts.number("hidden_size"))
    | u32("ssm.time_step_rank", "n_heads", "num_heads", "mamba_n_heads", required=True)
    | boolean("rope.scaling.finetuned", value=_turns_at_all)
)


def _turned_part(heads: Callable[[Facts], int]) -> Rows:
    """The halves of what turns of each head interleaved; in Bamba that is the first part of a head."""

    def take(rows: Numbers, facts: Facts) -> Numbers:
        by_head = grouped(rows, heads(facts))
        part = facts.config.get("attn_rotary_emb") or by_head.shape[1]
        turned = by_head[:, :part].reshape(by_head.shape[0], 2, -1).swapaxes(1, 2).reshape(by_head.shape[0], -1)
        return np.concatenate([turned, by_head[:, part:]], axis=1).reshape(-1)

    return Rows(take)


GRANITE_HYBRID = replace(
    GRANITE_MOE,
    name="granitehybrid",
    hf=("GraniteMoeHybridForCausalLM", "BambaForCausalLM"),
    hparams=HYBRID_KEYS,
    tensors=ATTENTION
    | rule("blk.{l}.attn_q", f"{LAYER}.self_attn.q_proj", verb=_turned_part(QUERY_HEADS))
    | rule("blk.{l}.attn_k", f"{LAYER}.self_attn.k_proj", verb=_turned_part(KEY_HEADS))
    | state_space(f"{LAYER}.mamba", number_of(*GROUPS))
    | EXPERTS
    | ONLY_SHARED
    # Bamba's names.
    | rule("output_norm", ("model.norm", "model.final_layernorm"))
    | rule("blk.{l}.ffn_norm", (f"{LAYER}.post_attention_layernorm", f"{LAYER}.pre_ff_layernorm"))
    | Table(
        tuple(
            rule(f"blk.{{l}}.ffn_{part}", f"{LAYER}.feed_forward.{part}_proj", variant="bamba")
            for part in ("gate", "up", "down")
        )
    ),
    needs=(
        *(name for name in TRUNK if not name.endswith("attn_output")),
        Either(((*QKV, *layer("attn_output")), (*STATE, *STATE_NORM))),
        Either((MIXTURE, GATED)),
        SHARED_EXPERT,
    ),
    vocab=(vocab.spm, vocab.bpe),
)


def _only_attends(config: Mapping[str, Any]) -> bool:
    """Whether this is a model of the hybrids' class without a layer that keeps a state."""
    text = text_part(config) or config
    hybrid = any(key in text for key in ("layer_types", "attn_layer_indices", "attn_layer_period"))
    return hybrid and len(attention_layers(text)) == block_count(text)


def _is_dense(config: Mapping[str, Any]) -> bool:
    text = text_part(config) or config
    return not first_of(text, "num_experts_per_tok", "num_experts_per_token")


#: The hybrids' class, all of whose layers attend.
GRANITE_4 = replace(
    GRANITE_HYBRID,
    name="granite",
    hf=("GraniteMoeHybridForCausalLM", "Granite4VisionForConditionalGeneration"),
    tensors=ATTENTION | ONLY_SHARED,
    needs=(*NEEDS, *GATED),
    when=lambda config: _only_attends(config) and _is_dense(config),
)
GRANITE_4_MOE = replace(
    GRANITE_4,
    name="granitemoe",
    tensors=ATTENTION | EXPERTS,
    needs=(*NEEDS, *MIXTURE, SHARED_EXPERT),
    when=lambda config: _only_attends(config) and not _is_dense(config),
)


#: Stacked matrices with one of zeros before them: the adapter of tokens that choose none.
AFTER_ZEROS = Whole(
    lambda stacks, _: np.concatenate([np.zeros_like(stacks[0][:1]), stacks[0]]),
    lambda shapes, _: (shapes[0][0] + 1, *shapes[0][1:]),
)


def _drop_ones(shape: tuple[int, ...], _: Facts) -> tuple[int, ...]:
    """Adapters, one, height, width: without the one."""
    return (shape[0], *shape[2:])


ADAPTER = Reshape(_drop_ones) | AFTER_ZEROS
ATTN, FFN = f"{LAYER}.self_attn", SHARED


def _turned_together(rows: Numbers, facts: Facts) -> Numbers:
    """Of queries, keys and values in one matrix, the halves of each head of queries and keys interleaved."""
    heads, keys = QUERY_HEADS(facts), KEY_HEADS(facts)
    by_head = grouped(rows, heads + 2 * keys, 2)
    turned = by_head[: heads + keys].reshape(heads + keys, 2, -1).swapaxes(1, 2)
    return np.concatenate([turned.reshape(-1), by_head[heads + keys :].reshape(-1)])


def _adapter(out: str, down: str, up: str, heads: Any = None) -> tuple[Rule, Rule]:
    """The two factors of what adapters add to a projection."""
    verb = interleave_halves(heads) if heads else None
    adapted = Reshape(_drop_ones) | verb | AFTER_ZEROS if verb else ADAPTER
    return exact(f"blk.{{l}}.{out}.lora_a", down, verb=ADAPTER), exact(f"blk.{{l}}.{out}.lora_b", up, verb=adapted)


def _sliced(out: str, source: str, number: int, heads: Any = None) -> tuple[Rule, Rule]:
    return _adapter(out, f"{source}.lora_A_slices.{number}", f"{source}.lora_B_slices.{number}", heads)


SWITCHED: Table[Rule] = Table(
    (
        exact("blk.{l}.attn_output.weight", f"{ATTN}.o_proj.base_layer.weight"),
        *_adapter("attn_output", f"{ATTN}.o_proj.lora_A", f"{ATTN}.o_proj.lora_B"),
        exact("blk.{l}.attn_qkv.weight", f"{ATTN}.qkv_proj.base_layer.weight", verb=Rows(_turned_together)),
        *_sliced("attn_q", f"{ATTN}.qkv_proj", 0, QUERY_HEADS),
        *_sliced("attn_k", f"{ATTN}.qkv_proj", 1, KEY_HEADS),
        *_sliced("attn_v", f"{ATTN}.qkv_proj", 2),
        exact(
            ("blk.{l}.ffn_gate.weight", "blk.{l}.ffn_up.weight"),
            f"{FFN}.input_linear.base_layer.weight",
            verb=equal_parts(2),
        ),
        *_sliced("ffn_gate", f"{FFN}.input_linear", 0),
        *_sliced("ffn_up", f"{FFN}.input_linear", 1),
        exact("blk.{l}.ffn_down.weight", f"{FFN}.output_linear.base_layer.weight"),
        *_adapter("ffn_down", f"{FFN}.output_linear.lora_A", f"{FFN}.output_linear.lora_B"),
    )
)


def _without_switch(facts: Facts) -> int:
    """One of the layers that the configuration counts has no weights: it only chooses."""
    return block_count(facts.config) - 1


def _adapters(key: str) -> dict[str, Any]:
    return {"value": lambda facts: [int(number) for number in need(facts.config, key)]}


GRANITE_SWITCH = replace(
    GRANITE_MOE,
    name="graniteswitch",
    hf=("GraniteSwitchForCausalLM",),
    hparams=MOE_KEYS
    | u32("block_count", value=_without_switch)
    # Without experts, the number used is a leftover.
    | u32("expert_used_count", value=lambda f: f.number("num_experts_per_tok") if _has_experts(f) else 0)
    | u32("adapters.count", "num_adapters", required=True)
    | u32("adapters.lora_rank", "max_lora_rank", required=True)
    | array("adapters.token_ids_activate", ValueType.INT32, **_adapters("adapter_token_ids"))
    | array("adapters.token_ids_substitute", ValueType.INT32, **_adapters("adapter_substitute_token_ids"))
    | f32("adapters.router_gain", "control_token_gain", default=15.0),
    tensors=DECODER.without("output", "blk.{l}.attn_output", *QKV, *GATED) | SWITCHED,
    needs=(
        *TRUNK,
        *layer("attn_qkv"),
        *GATED,
        *(f"blk.{{l}}.{out.split('.')[2]}.lora_{x}" for out in (*QKV, *GATED, *layer("attn_output")) for x in "ab"),
    ),
    drop=(*BUFFERS, r"^(model\.)?switch\.", r"\.(adapter_token_ids|control_to_substitute_lut)$", r"^lm_head\.weight$"),
    axes={"l": Axis(_without_switch)},
)

ARCHS = (GRANITE, GRANITE_MOE, GRANITE_SWA, GRANITE_HYBRID, GRANITE_4, GRANITE_4_MOE, GRANITE_SWITCH)
