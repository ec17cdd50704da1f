"""Mixtures of experts of several makers, each a few rows beside the usual decoder: Trinity (AFMoE), Laguna, Mellum 2,
Maple, GroveMoE and SmallThinker.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import (
    EXPERTS,
    LAYERS,
    WEIGHT,
    Arch,
    Axis,
    Either,
    Rule,
    Table,
    array,
    boolean,
    exact,
    f32,
    rule,
    u32,
)
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import STACK
from gguf_forge.convert.rope import rope_of, sliding_rope_of
from gguf_forge.errors import ConversionError
from gguf_forge.format.layout import ValueType

from .common import (
    BASE,
    BUFFERS,
    DECODER,
    GATED,
    GATING,
    MIXTURE,
    QK_NORM,
    QK_NORMS,
    QKV,
    SILU,
    TRUNK,
    WRAPPERS,
    layer,
    main_layers,
    sliding_layers,
    windows_unless_usual,
)
from .llama import LLAMA_VOCAB
from .mla import LAYER, ROUTER, SHARED, experts, shared_experts
from .rotary import head_dim, turned

WIDTH = u32("expert_feed_forward_length", "moe_intermediate_size")
WINDOW = u32("attention.sliding_window", "sliding_window")
#: In the order in which they stand in the file.
GATE_FIRST = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}


WINDOWS = array("attention.sliding_window_pattern", ValueType.BOOL, value=sliding_layers)
#: A mixture in every layer.
SPARSE: Table[Rule] = DECODER.without(*GATED) | QK_NORM | ROUTER | experts()

AFMOE = Arch(
    "afmoe",
    hf=("AfmoeForCausalLM",),
    hparams=BASE
    | u32("vocab_size", "vocab_size", required=True)
    | u32("rope.dimension_count", value=head_dim)
    | u32("expert_shared_count", "num_shared_experts")
    | WIDTH
    | u32("leading_dense_block_count", "num_dense_layers")
    | boolean("expert_weights_norm", "route_norm")
    | f32("expert_weights_scale", "route_scale")
    | WINDOW
    | windows_unless_usual("afmoe"),
    tensors=DECODER
    | QK_NORM
    | rule("blk.{l}.attn_gate", f"{LAYER}.self_attn.gate_proj")
    | rule("blk.{l}.post_attention_norm", f"{LAYER}.post_attention_layernorm")
    | rule("blk.{l}.ffn_norm", f"{LAYER}.pre_mlp_layernorm")
    | rule("blk.{l}.post_ffw_norm", f"{LAYER}.post_mlp_layernorm")
    | rule("blk.{l}.ffn_gate_inp", f"{LAYER}.mlp.router.gate")
    | exact("blk.{l}.exp_probs_b.bias", f"{LAYER}.mlp.expert_bias")
    | experts(**GATE_FIRST)
    | shared_experts(),
    needs=(
        *TRUNK,
        *QKV,
        *QK_NORMS,
        *layer("attn_gate", "post_attention_norm", "post_ffw_norm"),
        Either((GATED, (*MIXTURE, *layer("exp_probs_b.bias")))),
    ),
    vocab=LLAMA_VOCAB,
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=(*SILU, ("mup_enabled", (True,))),
)


def _slides(facts: Facts) -> bool:
    """Whether any layer has a window. Where none has, its size must not be there: llama.cpp would use or refuse it."""
    if facts.config.get("use_sliding_window") is False or facts.config.get("sliding_window") is None:
        return False
    return facts.config.get("layer_types") is None or any(sliding_layers(facts))


def _heads(facts: Facts) -> list[int]:
    heads, count = facts.config.get("num_attention_heads_per_layer"), main_layers(facts)
    if heads and len(heads) != count:
        raise ConversionError(f"config.json: num_attention_heads_per_layer has {len(heads)} of {count} layers")
    return list(heads or [facts.number("num_attention_heads")] * count)


def _leading_dense(facts: Facts) -> int:
    return len(list(takewhile(lambda kind: kind == "dense", need(facts.config, "mlp_layer_types"))))


def _turned(rope: Callable[[Any], dict[str, Any]]) -> Callable[[Facts], int | None]:
    """How much of a head turns in layers of one kind, if there are such layers."""

    def value(facts: Facts) -> int | None:
        found = rope(facts.config)
        return int(head_dim(facts) * float(found.get("partial_rotary_factor", 1.0))) if found else None

    return value


def _assistant_end(_: vocab.VocabJob, tokens: vocab.Vocabulary) -> vocab.Vocabulary:
    """The end of an answer is no text, whatever the tokenizer says."""
    kinds = zip(tokens.tokens, tokens.types, strict=True)
    tokens.types = [vocab.TokenType.CONTROL if text == "</assistant>" else kind for text, kind in kinds]
    return tokens


@vocab.step
def laguna_end(job: vocab.VocabJob) -> vocab.Changes | None:
    """The token that ends a turn: the first that ends a text and does not begin one."""
    ends = job.config.get("eos_token_id")
    extra = [end for end in ends if end != job.config.get("bos_token_id")] if isinstance(ends, list) else []
    return vocab.ids(eot=extra[0])(job) if extra else None


LAGUNA = Arch(
    "laguna",
    hf=("LagunaForCausalLM",),
    hparams=BASE
    | u32("attention.head_count", value=_heads)
    | u32("vocab_size", "vocab_size", required=True)
    | u32("attention.sliding_window", value=lambda f: (f.config.get("sliding_window") or None) if _slides(f) else None)
    | u32("expert_feed_forward_length", "moe_intermediate_size", required=True)
    | u32("expert_shared_feed_forward_length", "shared_expert_intermediate_size", required=True)
    | boolean("expert_weights_norm", value=lambda facts: True)
    | f32("expert_weights_scale", "moe_routed_scaling_factor", required=True)
    | u32("expert_gating_func", value=lambda facts: GATING["sigmoid"], again=True)
    | u32("leading_dense_block_count", value=_leading_dense)
    | u32("rope.dimension_count", value=_turned(rope_of))
    | u32("rope.dimension_count_swa", value=_turned(sliding_rope_of))
    | windows_unless_usual("laguna"),
    tensors=DECODER
    | QK_NORM
    | rule("blk.{l}.attn_gate", f"{LAYER}.self_attn.g_proj")
    | ROUTER
    | exact("blk.{l}.exp_probs_b.bias", f"{LAYER}.mlp.experts.e_score_correction.bias")
    | experts(**GATE_FIRST)
    | shared_experts(f"{LAYER}.mlp.shared_expert"),
    needs=(
        *TRUNK,
        *QKV,
        *QK_NORMS,
        *layer("attn_gate"),
        Either((GATED, (*MIXTURE, *SHARED, *layer("exp_probs_b.bias")))),
    ),
    vocab=(vocab.bpe_with(edit=_assistant_end), vocab.template_of_file, laguna_end),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=(*SILU, ("moe_apply_router_weight_on_input", (False,)), ("moe_router_logit_softcapping", (0, 0.0))),
)


MELLUM = Arch(
    "mellum",
    hf=("MellumForCausalLM",),
    hparams=BASE
    | WIDTH
    | u32("attention.sliding_window", value=lambda f: f.config["sliding_window"] if _slides(f) else None)
    | array(
        "attention.sliding_window_pattern",
        ValueType.BOOL,
        value=lambda f: sliding_layers(f) if _slides(f) else None,
    ),
    tensors=SPARSE,
    needs=(*TRUNK, "output", *QKV, *QK_NORMS, *MIXTURE),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=(*SILU, ("norm_topk_prob", (True,))),
)
MAPLE = Arch(
    "maple",
    hf=("MapleForCausalLM",),
    hparams=BASE
    | u32("vocab_size", "vocab_size", required=True)
    | u32("rope.dimension_count", value=turned())
    | u32("attention.sliding_window", "sliding_window", required=True)
    | WINDOWS
    | u32("expert_feed_forward_length", "moe_intermediate_size", required=True)
    # The model's own code clamps at this number, which config.json does not have.
    | f32("swiglu_clamp_exp", value=lambda facts: [7.0] * main_layers(facts)),
    tensors=SPARSE,
    needs=MELLUM.needs,
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=(
        *SILU,
        ("norm_topk_prob", (True,)),
        ("num_shared_experts", (0,)),
        ("nope_on_global_attention", (True,)),
    ),
)

#: Experts of GroveMoE that share one smaller expert, and the factor on what that one says: constants of its code.
GROUP, GROUP_SCALE = 2, 0.05
CHUNKS = layer("ffn_down_chexps", "ffn_gate_chexps", "ffn_up_chexps")
CHUNK_EXPERTS: Table[Rule] = Table(
    tuple(
        rule(
            f"blk.{{l}}.ffn_{part}_chexps",
            f"{LAYER}.mlp.chunk_experts.{{c}}.{part}_proj",
            ends=WEIGHT,
            verb=STACK,
            group="chunks",
        )
        for part in ("down", "gate", "up")
    )
)
GROVEMOE = Arch(
    "grovemoe",
    hf=("GroveMoeForCausalLM", "modeling_grove_moe.GroveMoeForCausalLM"),
    hparams=BASE
    | WIDTH
    | u32("expert_chunk_feed_forward_length", value=lambda facts: facts.config.get("head_dim") or 128)
    | u32("experts_per_group", value=lambda facts: GROUP)
    | f32("expert_group_scale", value=lambda facts: GROUP_SCALE),
    tensors=SPARSE | CHUNK_EXPERTS,
    needs=(*TRUNK, *QKV, *QK_NORMS, *MIXTURE, *CHUNKS),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    # The model does not use its biases of experts.
    drop=(*BUFFERS, r"\.mlp\.gate\.expert_bias$"),
    axes={"l": LAYERS, "e": EXPERTS, "c": Axis(lambda facts: len(EXPERTS.numbers(facts)) // GROUP)},
    implied=(*SILU, ("norm_topk_prob", (True,))),
)


def _window(facts: Facts) -> Any:
    """The size of windows, if any layer has one."""
    return facts.config.get("sliding_window_size") if any(facts.config.get("sliding_window_layout") or ()) else None


SMALLTHINKER = Arch(
    "smallthinker",
    hf=("SmallThinkerForCausalLM",),
    hparams=BASE
    | u32("expert_count", "moe_num_primary_experts", again=True)
    | u32("expert_used_count", "moe_num_active_primary_experts", again=True)
    | u32("expert_feed_forward_length", "moe_ffn_hidden_size")
    | u32("feed_forward_length", "moe_ffn_hidden_size", again=True)
    | u32(
        "expert_gating_func",
        value=lambda f: GATING["softmax" if f.config.get("moe_primary_router_apply_softmax") else "sigmoid"],
        again=True,
    )
    | u32("attention.sliding_window", value=_window),
    tensors=DECODER.without(*GATED)
    | rule("blk.{l}.ffn_gate_inp", f"{LAYER}.block_sparse_moe.primary_router")
    | experts(f"{LAYER}.block_sparse_moe", down="down", gate="gate", up="up"),
    needs=(*TRUNK, *QKV, *MIXTURE),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=BUFFERS,
    axes={"l": LAYERS, "e": Axis(lambda facts: facts.number("moe_num_primary_experts", "num_experts"))},
    implied=(("moe_enable_secondary_experts", (False,)),),
)

ARCHS = (AFMOE, LAGUNA, MELLUM, MAPLE, GROVEMOE, SMALLTHINKER)
