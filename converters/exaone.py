"""EXAONE 3, 3.5, 4 and 4.5 (of which the text model), and K-EXAONE, a mixture of experts."""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import (
    EXPERTS,
    Arch,
    Drop,
    Either,
    Hparam,
    Rule,
    Table,
    array,
    boolean,
    exact,
    f32,
    rule,
    string,
    u32,
)
from gguf_forge.convert.config import block_count
from gguf_forge.convert.facts import Facts
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
    gating,
    layer,
    main_layers,
    nextn_layers,
    with_nextn,
)
from .mla import BLOCKS, FURTHER_OR_OWN, LAYER, MOE, NEXTN, SHARED
from .rotary import LLAMA3, turned

BLOCK = "transformer.h.{l}"
EXAONE = Arch(
    "exaone",
    hf=("ExaoneForCausalLM",),
    # Its epsilon bears the name of a LayerNorm, which is how the reference writes it; readers need that of an RMS norm.
    hparams=BASE
    | u32(
        "rope.dimension_count",
        value=turned(size=lambda facts: facts.number("hidden_size") // facts.number("num_attention_heads")),
    )
    | f32("attention.layer_norm_rms_epsilon", "layer_norm_epsilon", "rms_norm_eps", required=True),
    tensors=LLAMA3
    | Table(
        tuple(
            rule(out, source)
            for out, source in (
                ("token_embd", "transformer.wte"),
                ("output_norm", "transformer.ln_f"),
                ("output", "lm_head"),
                ("blk.{l}.attn_norm", f"{BLOCK}.ln_1"),
                ("blk.{l}.attn_q", f"{BLOCK}.attn.attention.q_proj"),
                ("blk.{l}.attn_k", f"{BLOCK}.attn.attention.k_proj"),
                ("blk.{l}.attn_v", f"{BLOCK}.attn.attention.v_proj"),
                ("blk.{l}.attn_output", f"{BLOCK}.attn.attention.out_proj"),
                ("blk.{l}.ffn_norm", f"{BLOCK}.ln_2"),
                ("blk.{l}.ffn_gate", f"{BLOCK}.mlp.c_fc_0"),
                ("blk.{l}.ffn_up", f"{BLOCK}.mlp.c_fc_1"),
                ("blk.{l}.ffn_down", f"{BLOCK}.mlp.c_proj"),
            )
        )
    ),
    needs=(*TRUNK, *QKV, *GATED),
    vocab=(vocab.bpe,),
    drop=(*BUFFERS, r"\.rotary\.inv_freq$"),
    implied=(("activation_function", ("silu",)),),
)


def _slides(facts: Facts) -> list[bool] | None:
    """Which layers have a window, by the kinds of layers or a pattern of letters, of which L is a layer with one."""
    if facts.config.get("sliding_window") is None:
        return None
    kinds, pattern = facts.config.get("layer_types"), facts.config.get("sliding_window_pattern")
    if kinds:
        return [kind == "sliding_attention" for kind in kinds]
    if isinstance(pattern, str) and pattern:
        return [pattern[i % len(pattern)] == "L" for i in range(block_count(facts.config))]
    return None


KEYS: Table[Hparam] = (
    BASE
    | u32("vocab_size", "vocab_size", required=True)
    | u32("attention.sliding_window", "sliding_window")
    | array("attention.sliding_window_pattern", ValueType.BOOL, value=_slides)
)

EXAONE4 = Arch(
    "exaone4",
    hf=("Exaone4ForCausalLM",),
    hparams=KEYS,
    # What is normalised is what attention and feed-forward give, not what they are given.
    tensors=LLAMA3
    | DECODER.without("blk.{l}.attn_norm", "blk.{l}.ffn_norm")
    | rule("blk.{l}.post_attention_norm", f"{LAYER}.post_attention_layernorm")
    | rule("blk.{l}.post_ffw_norm", f"{LAYER}.post_feedforward_layernorm")
    | QK_NORM,
    needs=(
        "token_embd",
        "output_norm",
        *layer("attn_output", "post_attention_norm", "post_ffw_norm"),
        *QKV,
        *QK_NORMS,
        *GATED,
    ),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=(*BUFFERS, *MULTIMODAL),
    implied=SILU,
)

_AFTER = {"fc": "eh_proj", "norm": "shared_head.norm", "pre_fc_norm_embedding": "enorm", "pre_fc_norm_hidden": "hnorm"}
#: The layer that predicts further tokens gets the number after the model's own. Published models have one at most, and
#: llama.cpp keeps it without using it.
FURTHER_RENAMES = (
    *WRAPPERS,
    (r"^mtp\.layers\.(\d+)\.", lambda m, facts: f"model.layers.{main_layers(facts) + int(m[1])}."),
    (
        rf"^mtp\.({'|'.join(_AFTER)})\.",
        lambda m, facts: f"model.layers.{main_layers(facts)}.{_AFTER[m[1]]}.",
    ),
)
FURTHER: Table[Rule] = Table(
    tuple(
        rule(f"blk.{{l}}.nextn.{out}", f"{LAYER}.{source}")
        for out, source in (
            ("eh_proj", "eh_proj"),
            ("enorm", "enorm"),
            ("hnorm", "hnorm"),
            ("shared_head_norm", "shared_head.norm"),
        )
    )
)
NO_FURTHER = Drop(r"^mtp\.", lambda _match, facts: not nextn_layers(NEXTN)(facts))
AXES = {"l": with_nextn(nextn_layers(NEXTN)), "e": EXPERTS}

EXAONE4_5 = replace(
    EXAONE4,
    hf=("Exaone4_5_ForConditionalGeneration",),
    whole=("Exaone4_5_ForConditionalGeneration",),
    hparams=KEYS | BLOCKS | u32("nextn_predict_layers", value=lambda facts: nextn_layers(NEXTN)(facts) or None),
    tensors=EXAONE4.tensors | FURTHER,
    needs=(*EXAONE4.needs, FURTHER_OR_OWN),
    renames=FURTHER_RENAMES,
    drop=(*EXAONE4.drop, NO_FURTHER),
    axes=AXES,
)

EXAONE_MOE = replace(
    EXAONE4_5,
    name="exaone-moe",
    hf=("ExaoneMoEForCausalLM", "ExaoneMoeForCausalLM"),
    whole=(),
    hparams=KEYS
    | BLOCKS
    # Scores are those of a sigmoid, whether the configuration says so or not; readers want to be told.
    | u32("expert_gating_func", value=lambda facts: gating(facts) or 2)
    | u32("expert_feed_forward_length", "moe_intermediate_size", required=True)
    | u32("expert_shared_count", "num_shared_experts", required=True)
    | u32(
        "expert_shared_feed_forward_length",
        value=lambda facts: facts.number("moe_intermediate_size") * facts.number("num_shared_experts"),
    )
    | f32("expert_weights_scale", "routed_scaling_factor", required=True)
    | boolean("expert_weights_norm", "norm_topk_prob", required=True)
    | u32("leading_dense_block_count", "first_k_dense_replace", "first_last_k_dense_replace", default=0)
    | u32("nextn_predict_layers", NEXTN, default=0)
    | string("rope.scaling.type", value=lambda facts: "none", again=True),
    tensors=LLAMA3
    | DECODER
    | QK_NORM
    | MOE
    | exact("blk.{l}.exp_probs_b.bias", tuple(f"{LAYER}.mlp.{at}e_score_correction.bias" for at in ("", "gate.")))
    | FURTHER,
    needs=(*TRUNK, *QKV, *QK_NORMS, Either((GATED, (*MIXTURE, *SHARED))), FURTHER_OR_OWN),
)

ARCHS = (EXAONE, EXAONE4, EXAONE4_5, EXAONE_MOE)
