"""Nemotron: decoders (Nemotron-4, Minitron), and hybrids of layers with a state, with attention, and with neither.

Of the hybrids Nemotron-H and Nemotron Nano v2, which are dense; Nemotron 3 Nano, Super and Ultra, with experts; Puzzle,
whose layers differ in their experts; and of Nemotron Nano VL the text model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import (
    WEIGHT,
    Arch,
    Axis,
    Drop,
    Either,
    Hparam,
    Rule,
    Table,
    boolean,
    exact,
    f32,
    optional,
    rule,
    string,
    u32,
)
from gguf_forge.convert.config import need, text_part
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import STACK, add
from gguf_forge.convert.rope import rope_of
from gguf_forge.convert.rows import interleave_halves, number_of
from gguf_forge.errors import ConversionError

from . import mamba
from .common import BASE, BUFFERS, DECODER, MULTIMODAL, QKV, WRAPPERS, affine, layer
from .rotary import head_dim, turned_of_width

#: Squared ReLU.
RELU2 = (("hidden_act", ("relu2",)),)
#: Norms whose weights are stored less one.
PLUS_ONE: Table[Rule] = Table(
    tuple(
        exact(f"{out}.{end}", f"{source}.{end}", **({"verb": add(1.0)} if end == "weight" else {}))
        for out, source in (
            ("output_norm", "model.norm"),
            ("blk.{l}.attn_norm", "model.layers.{l}.input_layernorm"),
            ("blk.{l}.ffn_norm", "model.layers.{l}.post_attention_layernorm"),
        )
        for end in ("weight", "bias")
    )
)


def _factor(facts: Facts) -> Any:
    return facts.config.get("factor") or rope_of(facts.config).get("factor")


NEMOTRON = Arch(
    "nemotron",
    hf=("NemotronForCausalLM",),
    hparams=BASE
    | u32("vocab_size", "vocab_size", required=True)
    | f32(
        "attention.layer_norm_epsilon",
        "layer_norm_eps",
        "layer_norm_epsilon",
        "norm_epsilon",
        "norm_eps",
        required=True,
        again=True,
    )
    | u32("rope.dimension_count", value=turned_of_width(("hidden_size", "n_embd"), ("num_attention_heads", "n_head")))
    | string("rope.scaling.type", value=lambda facts: "linear" if _factor(facts) else "none", again=True)
    | f32("rope.scaling.factor", value=_factor, again=True),
    tensors=DECODER.without("output_norm", "blk.{l}.attn_norm", "blk.{l}.ffn_norm", "blk.{l}.ffn_gate") | PLUS_ONE,
    needs=(
        "token_embd",
        "output",
        *affine("output_norm", *layer("attn_norm", "ffn_norm")),
        *QKV,
        *layer("attn_output", "ffn_up", "ffn_down"),
    ),
    vocab=(vocab.spm, vocab.ids(pad=0, unk=1)),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=RELU2,
)

#: What a hybrid's layers are called, by the letters of a pattern.
KINDS = {
    **dict.fromkeys(("M", "mamba", "linear_attention"), "M"),
    **dict.fromkeys(("*", "attention", "full_attention"), "*"),
    **dict.fromkeys(("-", "mlp"), "-"),
    **dict.fromkeys(("E", "moe"), "E"),
}


def kinds_of(config: Mapping[str, Any]) -> str:
    """A letter for each of the model's own layers. ConversionError when the configuration does not say."""
    blocks = config.get("block_configs")
    given = [block.get("block_type") for block in blocks] if blocks else None
    found = given or need(config, "hybrid_override_pattern", "layers_block_type", "layer_types")
    unknown = next((kind for kind in found if kind not in KINDS), None)
    if unknown is not None:
        raise ConversionError(f"config.json: unknown kind of layer {unknown!r:.60}; known: {', '.join(KINDS)}")
    return "".join(KINDS[kind] for kind in found)


def main_layers(facts: Facts) -> int:
    """The model's own layers: as many as the pattern has."""
    return len(kinds_of(facts.config))


def further_layers(facts: Facts) -> int:
    """The layers kept that predict further tokens: one, of attention and experts, or none."""
    count = facts.config.get("num_nextn_predict_layers") or 0
    # Puzzle has one of a layout of its own, which llama.cpp does not know.
    if facts.options.mtp == "drop" or facts.config.get("block_configs"):
        return 0
    if count not in (0, 1):
        raise ConversionError(f"config.json: num_nextn_predict_layers must be 0 or 1, got {count!r:.60}")
    return int(count)


def all_layers(facts: Facts) -> int:
    """The model's own layers and those that predict further tokens."""
    return main_layers(facts) + further_layers(facts)


def _is_further(facts: Facts) -> bool:
    return facts.layer is not None and facts.layer >= main_layers(facts)


def _only_where(letters: str, *names: str) -> dict[str, Any]:
    """A row's value: for each layer of these kinds what config.json says under `names`, 0 for the others."""

    def value(facts: Facts) -> list[int]:
        size = facts.number(*names)
        # A layer for further tokens attends and has experts.
        kinds = kinds_of(facts.config) + "?" * further_layers(facts)
        return [size if kind in letters + "?" else 0 for kind in kinds]

    return {"value": value}


def head_size(facts: Facts) -> int:
    """Elements of a head of attention."""
    return facts.number("attention_head_dim") if facts.config.get("head_dim") is None else head_dim(facts)


FORWARD = ("intermediate_size", "n_inner", "hidden_dim")
KEYS: Table[Hparam] = (
    BASE.without("attention.key_length", "attention.value_length")
    | u32("block_count", value=main_layers)
    | mamba.ENDLESS
    | u32("feed_forward_length", **_only_where("-", *FORWARD))
    | u32("attention.head_count_kv", **_only_where("*", "num_key_value_heads"))
    | u32("vocab_size", "vocab_size", required=True)
    | u32("rope.dimension_count", value=head_size)
    | u32("ssm.conv_kernel", "conv_kernel", required=True)
    | u32("ssm.state_size", "ssm_state_size", required=True)
    | u32("ssm.group_count", "n_groups", required=True)
    | u32("ssm.inner_size", value=lambda facts: facts.number("mamba_num_heads") * facts.number("mamba_head_dim"))
    | u32("ssm.time_step_rank", "mamba_num_heads", required=True)
    | boolean("rope.scaling.finetuned", value=lambda facts: False)
    | u32("attention.key_length", value=head_size)
    | u32("attention.value_length", value=head_size)
)


MIXER = mamba.MIXER
ATTENTION: Table[Rule] = Table(
    (
        rule("blk.{l}.attn_k", f"{MIXER}.k_proj", verb=interleave_halves(number_of("num_key_value_heads"))),
        rule("blk.{l}.attn_output", f"{MIXER}.o_proj"),
        rule("blk.{l}.attn_q", f"{MIXER}.q_proj", verb=interleave_halves(number_of("num_attention_heads"))),
        rule("blk.{l}.attn_v", f"{MIXER}.v_proj"),
    )
)
HYBRID: Table[Rule] = mamba.TRUNK | mamba.state_space(MIXER, number_of("n_groups")) | ATTENTION
ATTENDS = (*QKV, *layer("attn_output"))
STATES = (*mamba.STATE, *mamba.STATE_NORM)

#: The trunk of Puzzle, and of whatever transformers 5 saves, is called as other models' is.
RENAMES = (
    *WRAPPERS,
    (r"\.e_score_correction_bias$", ".e_score_correction.bias"),
    (r"^model\.", "backbone."),
)
ACTIVATIONS = (
    ("mlp_hidden_act", ("relu2",)),
    ("mamba_hidden_act", ("silu", "swish")),
    ("hidden_act", ("silu", "swish", "relu2")),
)


def _has_experts(config: Mapping[str, Any]) -> bool:
    return "E" in kinds_of(text_part(config) or config)


#: What transformers 5 says of experts when it saves a model, whether or not it has any; llama.cpp then looks for them.
OF_EXPERTS = ("expert_count", "expert_used_count", "expert_group_count", "expert_group_used_count")
NEMOTRON_H = Arch(
    "nemotron_h",
    hf=("NemotronHForCausalLM", "NemotronH_Nano_VL_V2"),
    hparams=KEYS.without(*OF_EXPERTS),
    tensors=HYBRID
    | rule("blk.{l}.ffn_down", f"{MIXER}.down_proj")
    | rule("blk.{l}.ffn_up", f"{MIXER}.up_proj"),
    needs=(*mamba.NEEDS, Either((STATES, ATTENDS, layer("ffn_up", "ffn_down")))),
    vocab=(vocab.bpe,),
    renames=RENAMES,
    drop=(*BUFFERS, *MULTIMODAL),
    axes={"l": Axis(main_layers)},
    implied=ACTIVATIONS,
    when=lambda config: not _has_experts(config),
)

MOE_KEYS: Table[Hparam] = (
    KEYS
    | u32("feed_forward_length", **_only_where("E", "moe_intermediate_size"))
    | u32("expert_feed_forward_length", "moe_intermediate_size", required=True)
    | u32("expert_shared_feed_forward_length", "moe_shared_expert_intermediate_size", required=True)
    | u32("expert_shared_count", "n_shared_experts", required=True)
    | boolean("expert_weights_norm", "norm_topk_prob", required=True)
    | f32("expert_weights_scale", "routed_scaling_factor", required=True)
    | u32("moe_latent_size", "moe_latent_size")
)
SHARED = f"{MIXER}.shared_experts"
SPARSE: Table[Rule] = Table(
    (
        *(
            rule(
                f"blk.{{l}}.ffn_{part}_exps",
                f"{MIXER}.experts.{{e}}.{part}_proj",
                ends=WEIGHT,
                verb=STACK,
                group="experts",
            )
            for part in ("down", "up")
        ),
        rule("blk.{l}.ffn_latent_down", f"{MIXER}.fc1_latent_proj", ends=WEIGHT),
        rule("blk.{l}.ffn_latent_up", f"{MIXER}.fc2_latent_proj", ends=WEIGHT),
        exact("blk.{l}.exp_probs_b.bias", f"{MIXER}.gate.e_score_correction.bias"),
        rule("blk.{l}.ffn_gate_inp", f"{MIXER}.gate", ends=WEIGHT, when=lambda facts: not _is_further(facts)),
        rule("blk.{l}.ffn_down_shexp", f"{SHARED}.down_proj", ends=WEIGHT),
        rule("blk.{l}.ffn_up_shexp", f"{SHARED}.up_proj", ends=WEIGHT),
    )
)
MIXTURE = layer(
    "ffn_gate_inp", "exp_probs_b.bias", "ffn_up_exps", "ffn_down_exps", "ffn_up_shexp", "ffn_down_shexp"
)
LATENT = optional(*layer("ffn_latent_down", "ffn_latent_up"))

def _by_block(facts: Facts, key: str) -> list[int]:
    """What each layer says for itself."""
    return [block.get(key) or 0 for block in need(facts.config, "block_configs")]


PUZZLE = replace(
    NEMOTRON_H,
    name="nemotron_h_moe",
    hf=("NemotronHPuzzleForCausalLM",),
    hparams=MOE_KEYS
    | u32("feed_forward_length", value=lambda facts: _by_block(facts, "moe_intermediate_size"))
    | u32("expert_feed_forward_length", value=lambda facts: _by_block(facts, "moe_intermediate_size"))
    | u32("expert_used_count", value=lambda facts: _by_block(facts, "num_experts_per_tok")),
    tensors=HYBRID | SPARSE,
    needs=(*mamba.NEEDS, Either((STATES, ATTENDS, MIXTURE)), LATENT),
    drop=(*BUFFERS, *MULTIMODAL, r"^mtp\."),
    axes={"l": Axis(main_layers), "e": Axis(number_of("n_routed_experts"))},
    when=None,
)


def _further_name(match: re.Match[str], facts: Facts) -> str:
    """The layers of attention and of experts that predict further tokens, as the one layer after the last."""
    name = "post_norm.weight" if match[1] == "1" and match[2] == "norm.weight" else match[2]
    return f"backbone.layers.{main_layers(facts)}.{name}"


def _further_span(facts: Facts) -> range:
    """A checkpoint may lack the layer that its configuration speaks of, as transformers saves it."""
    if facts.options.mtp == "keep" and not facts.has(f"backbone.layers.{main_layers(facts)}.eh_proj.weight"):
        return range(main_layers(facts))
    return range(main_layers(facts) if facts.options.mtp == "only" else 0, all_layers(facts))


NEXTN = layer("nextn.eh_proj", "nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm", "post_attention_norm")
LAST = "backbone.layers.{l}"
NEMOTRON_3 = replace(
    PUZZLE,
    hf=NEMOTRON_H.hf,
    hparams=MOE_KEYS
    | u32("block_count", value=all_layers)
    | u32("nextn_predict_layers", value=lambda facts: further_layers(facts) or None),
    tensors=PUZZLE.tensors
    # The reference keeps every other router in F32.
    | rule(
        "blk.{l}.ffn_gate_inp",
        f"{MIXER}.gate",
        ends=WEIGHT,
        variant="further",
        type=True,
        when=_is_further,
    )
    | rule("blk.{l}.nextn.eh_proj", f"{LAST}.eh_proj", ends=WEIGHT)
    | rule("blk.{l}.nextn.enorm", f"{LAST}.enorm", ends=WEIGHT)
    | rule("blk.{l}.nextn.hnorm", f"{LAST}.hnorm", ends=WEIGHT)
    | rule("blk.{l}.nextn.shared_head_norm", f"{LAST}.final_layernorm", ends=WEIGHT)
    | rule("blk.{l}.post_attention_norm", f"{LAST}.post_norm", ends=WEIGHT),
    needs=(*mamba.NEEDS, Either((STATES, ATTENDS, MIXTURE)), LATENT, optional(*NEXTN)),
    renames=(*RENAMES, (r"^mtp\.layers\.([01])\.(.*)$", _further_name)),
    drop=(
        *BUFFERS,
        *MULTIMODAL,
        Drop(r"^mtp\.", lambda _, facts: not further_layers(facts)),
        Drop(
            r"^backbone\.layers\.(\d+)\.",
            lambda match, facts: facts.options.mtp == "only" and int(match[1]) < main_layers(facts),
        ),
    ),
    axes={"l": Axis(_further_span), "e": Axis(number_of("n_routed_experts"))},
    when=_has_experts,
    mtp=True,
)

ARCHS = (NEMOTRON, NEMOTRON_H, PUZZLE, NEMOTRON_3)
