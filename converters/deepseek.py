"""DeepSeek: DeepSeekMoE, V2, V2.5, V3, R1, V3.2, and DeepSeek-OCR's text models.

And what has the shape of V2 or V3: Kimi K2 and K2.5, Moonlight, Kimi-VL, GigaChat 3, Kanana 2, Youtu-LLM and Youtu-VL.
"""

from __future__ import annotations

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Hparam, Table, f32, rule, string, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.rows import interleave_halves, number_of

from . import mla
from .common import (
    BASE,
    BUFFERS,
    DECODER,
    GATING,
    HEADS,
    HEADS_KV,
    MULTIMODAL,
    QKV,
    SILU,
    TRUNK,
    WRAPPERS,
    beyond,
    gating,
    main_dropped,
    nextn_dropped,
)
from .rotary import head_dim, log_multiplier

DEEPSEEK = Arch(
    "deepseek",
    hf=("DeepseekForCausalLM",),
    hparams=BASE
    | u32("rope.dimension_count", value=head_dim)
    | string("rope.scaling.type", value=lambda facts: "none", again=True)
    | mla.LEADING_DENSE
    | u32("vocab_size", "vocab_size", required=True)
    | u32("expert_feed_forward_length", "moe_intermediate_size", required=True)
    | f32("expert_weights_scale", value=lambda facts: 1.0)
    | u32("expert_shared_count", "n_shared_experts", required=True),
    tensors=DECODER
    | rule("blk.{l}.attn_q", f"{mla.LAYER}.self_attn.q_proj", verb=interleave_halves(number_of(*HEADS)))
    | rule("blk.{l}.attn_k", f"{mla.LAYER}.self_attn.k_proj", verb=interleave_halves(number_of(*HEADS_KV, *HEADS)))
    | mla.MOE,
    needs=(*TRUNK, *QKV, mla.FEEDS),
    vocab=(vocab.spm, vocab.bpe),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=(*SILU, ("norm_topk_prob", (False,)), ("scoring_func", ("softmax",))),
)


def _gating(facts: Facts) -> int | None:
    """How experts are scored: in V3 by a sigmoid, whether or not config.json says so."""
    always = str(facts.config.get("model_type")).startswith("deepseek_v3")
    return gating(facts) or (GATING["sigmoid"] if always else None)


def _sizes(base: Table[Hparam]) -> Table[Hparam]:
    epsilon = f32("attention.layer_norm_rms_epsilon", "rms_norm_eps", "norm_eps", default=1e-6)
    # How much attention grows with the context, llama.cpp takes from yarn_log_multiplier here.
    base = base.without("rope.scaling.attn_factor")
    base |= u32("expert_gating_func", value=_gating)
    return base | epsilon | mla.LEADING_DENSE | u32("vocab_size", "vocab_size", required=True)


_MOE_AND_ROPE = (
    mla.EXPERT_KEYS
    | u32("rope.dimension_count", "qk_rope_head_dim", required=True)
    | f32("rope.scaling.yarn_log_multiplier", value=log_multiplier(0.1))
)


def keys(base: Table[Hparam] = BASE) -> Table[Hparam]:
    """V2's keys, and those of models that came after it."""
    return _sizes(base) | mla.ONE_HEAD_KV | mla.latent_keys() | _MOE_AND_ROPE


KEYS = keys()
TENSORS = DECODER.without(*QKV) | mla.latent() | mla.MOE | mla.ROUTER_BIAS
DROP = (*BUFFERS, mla.TIED)

DEEPSEEK2 = Arch(
    "deepseek2",
    hf=(
        "DeepseekV2ForCausalLM",
        "DeepseekV3ForCausalLM",
        "KimiVLForConditionalGeneration",
        "KimiK25ForConditionalGeneration",
        "YoutuForCausalLM",
        "YoutuVLForConditionalGeneration",
    ),
    hparams=KEYS,
    tensors=TENSORS,
    needs=(*TRUNK, mla.QUERIES, *mla.LATENT, mla.FEEDS),
    # Kimi's vocabulary is a file of ranks.
    vocab=(vocab.bpe, vocab.tiktoken),
    renames=WRAPPERS,
    drop=(*DROP, *MULTIMODAL, beyond(r"^model\.layers\.")),
    # V2 prefers groups of experts by their best, llama.cpp (and V3) by their best two.
    implied=(*SILU, ("topk_method", ("noaux_tc", "greedy"))),
)


def _window(facts: Facts) -> int | None:
    """Unlimited-OCR's window, under one of two names; readers compute without it."""
    return facts.config.get("sliding_window_size") or facts.config.get("sliding_window") or None


#: Only the messages, one after the other, where no file has a template.
PLAIN_TEMPLATE = "{% for m in messages %}{{m['content']}}{% endfor %}"

OCR = ("DeepseekOCRForCausalLM", "DeepseekOCR2ForCausalLM", "UnlimitedOCRForCausalLM")
DEEPSEEK2_OCR = Arch(
    "deepseek2-ocr",
    hf=OCR,
    whole=OCR,
    hparams=_sizes(BASE)
    | string("tokenizer.chat_template", value=lambda facts: PLAIN_TEMPLATE, early=True)
    | _MOE_AND_ROPE
    | u32("attention.sliding_window", value=_window),
    tensors=DECODER | mla.MOE,
    needs=(*TRUNK, *QKV, mla.FEEDS),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=(*DROP, *MULTIMODAL, r"sam_model|qwen2_model"),
    implied=SILU,
)

DEEPSEEK32 = Arch(
    "deepseek32",
    hf=("DeepseekV32ForCausalLM",),
    hparams=KEYS | mla.BLOCKS | mla.KEPT_FURTHER | mla.INDEXER_KEYS,
    tensors=TENSORS.without("blk.{l}.attn_q") | mla.INDEXER | mla.FURTHER,
    needs=(*TRUNK, *mla.SHORT_QUERIES, *mla.LATENT, mla.FEEDS, *mla.INDEXED, mla.FURTHER_OR_OWN),
    # Every text begins with its token, which the tokenizer's files of some releases leave open.
    vocab=(vocab.bpe, vocab.adds(bos=True)),
    renames=WRAPPERS,
    drop=(*DROP, nextn_dropped(), main_dropped()),
    axes=mla.FURTHER_AXES,
    implied=SILU,
    mtp=True,
)

ARCHS = (DEEPSEEK, DEEPSEEK2, DEEPSEEK2_OCR, DEEPSEEK32)
