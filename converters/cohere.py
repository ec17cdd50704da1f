"""Cohere's models: Command-R and Aya (one norm a layer), Command-R7B and Command-A (with windows), North-Mini-Code, a
mixture of experts that may predict further tokens.
"""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Drop, Either, Rule, Table, boolean, f32, rule, string, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.errors import ConversionError

from . import mla
from .common import (
    BASE,
    BUFFERS,
    DECODER,
    GATED,
    MIXTURE,
    MULTIMODAL,
    QK_NORM,
    QKV,
    SILU,
    WRAPPERS,
    layer,
    main_dropped,
    nextn_dropped,
    sliding_layers,
    windows_unless_usual,
)
from .qwen import ROUTER, SINGLE_EXPERTS

#: Long contexts come without any scaling.
UNSCALED = string("rope.scaling.type", value=lambda facts: "none", again=True)
LOGIT_SCALE = f32("logit_scale", "logit_scale", required=True)
#: The embedding is the head unless the configuration says otherwise.
TIED = Drop(r"^lm_head\.weight$", lambda _match, facts: facts.config.get("tie_word_embeddings") is not False)

COMMAND_R = Arch(
    "command-r",
    hf=("CohereForCausalLM",),
    hparams=BASE
    # Command-R says 8192 positions, and was trained on model_max_length.
    | u32("context_length", "model_max_length", "max_position_embeddings", required=True)
    | LOGIT_SCALE
    | UNSCALED,
    tensors=DECODER.without("output", "blk.{l}.ffn_norm") | QK_NORM,
    needs=("token_embd", "output_norm", *layer("attn_norm", "attn_output"), *QKV, *GATED),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=(*BUFFERS, TIED),
    implied=SILU,
)


def _turned(facts: Facts) -> int:
    size = facts.number("hidden_size") // facts.number("num_attention_heads")
    return int((facts.config.get("rotary_pct") or 1.0) * size)


COHERE2 = replace(
    COMMAND_R,
    name="cohere2",
    hf=("Cohere2ForCausalLM", "Cohere2VisionForConditionalGeneration"),
    hparams=BASE
    | LOGIT_SCALE
    | u32("attention.sliding_window", "sliding_window", required=True)
    | windows_unless_usual("cohere2")
    | u32("vocab_size", "vocab_size", required=True)
    | u32("rope.dimension_count", value=_turned)
    | UNSCALED,
    # llama.cpp has no place for biases of these models, and refuses a file with them.
    tensors=Table(tuple(replace(row, ends=WEIGHT) for row in DECODER.without("output", "blk.{l}.ffn_norm"))),
    drop=(*BUFFERS, *MULTIMODAL, TIED),
    implied=(*SILU, ("use_qk_norm", (False,))),
)


def _shared(facts: Facts) -> int | None:
    """How many experts all tokens share; their outputs are averaged, as llama.cpp does."""
    count = facts.config.get("num_shared_experts") or None
    way = facts.config.get("shared_expert_combination_strategy", "average")
    if count and way != "average":
        raise ConversionError(f"config.json: shared_expert_combination_strategy must be 'average', got {way!r:.60}")
    return None if count is None else facts.number("num_shared_experts")


def _shared_width(facts: Facts) -> int | None:
    count = _shared(facts)
    return None if count is None else count * facts.number("intermediate_size")


SHARED: Table[Rule] = Table(
    tuple(
        rule(f"blk.{{l}}.ffn_{part}_shexp", f"{mla.LAYER}.mlp.shared_experts.{part}_proj")
        for part in ("gate", "up", "down")
    )
)

COHERE2_MOE = replace(
    COHERE2,
    name="cohere2moe",
    hf=("Cohere2MoeForCausalLM",),
    hparams=BASE
    | mla.BLOCKS
    # Of the leading dense layers, which may be none.
    | u32("feed_forward_length", "prefix_dense_intermediate_size", "intermediate_size")
    | LOGIT_SCALE
    | u32("attention.sliding_window", "sliding_window", required=True)
    | boolean("attention.sliding_window_pattern", value=sliding_layers)
    | u32("vocab_size", "vocab_size", required=True)
    | u32("expert_feed_forward_length", "intermediate_size", required=True)
    | mla.LEADING_DENSE
    | boolean("expert_weights_norm", "norm_topk_prob", default=False)
    | u32("expert_shared_count", value=_shared)
    | u32("expert_shared_feed_forward_length", value=_shared_width)
    | u32("nextn_predict_layers", value=lambda facts: mla.kept_further(facts) or None)
    | u32("rope.dimension_count", "head_dim", required=True)
    | UNSCALED,
    tensors=COHERE2.tensors | rule("output", "lm_head", ends=WEIGHT) | ROUTER | SINGLE_EXPERTS | SHARED | mla.FURTHER,
    needs=(
        *("token_embd", "output_norm"),
        *layer("attn_norm", "attn_output"),
        *QKV,
        Either((GATED, MIXTURE)),
        mla.FURTHER_OR_OWN,
    ),
    drop=(*BUFFERS, *MULTIMODAL, mla.TIED, nextn_dropped(), main_dropped()),
    axes=mla.FURTHER_AXES,
    implied=SILU,
    mtp=True,
)

ARCHS = (COMMAND_R, COHERE2, COHERE2_MOE)
