"""dots.llm1, and dots3-note's text model, whose layers of two kinds have latent attention of two sizes."""

from __future__ import annotations

import math
from collections.abc import Callable

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import EXPERTS, WEIGHT, Arch, Axis, boolean, f32, optional, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import scale
from gguf_forge.errors import ConversionError

from . import mla, qwen
from .common import (
    BASE,
    BUFFERS,
    DECODER,
    MULTIMODAL,
    QK_NORM,
    QK_NORMS,
    QKV,
    SILU,
    TRUNK,
    WRAPPERS,
    layer,
    main_dropped,
    main_layers,
    nextn_dropped,
)
from .deepseek import TENSORS, keys

DOTS1 = Arch(
    "dots1",
    hf=("Dots1ForCausalLM",),
    hparams=BASE
    | u32("expert_feed_forward_length", "moe_intermediate_size")
    | u32("leading_dense_block_count", "first_k_dense_replace", required=True)
    | u32("expert_shared_count", "n_shared_experts", required=True)
    | f32("expert_weights_scale", "routed_scaling_factor", required=True)
    | boolean("expert_weights_norm", "norm_topk_prob", required=True),
    tensors=DECODER | QK_NORM | mla.MOE | mla.ROUTER_BIAS | qwen.FUSED_EXPERTS,
    needs=(*TRUNK, *QKV, *QK_NORMS, mla.FEEDS),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=SILU,
)


def _further(facts: Facts) -> int:
    """Whether a layer predicts a further token, which only the embedding of its own tells."""
    return int(facts.has(f"model.layers.{main_layers(facts)}.embed_tokens.weight"))


def _span(facts: Facts) -> range:
    main = main_layers(facts)
    return range(main if facts.options.mtp == "only" else 0, main + _further(facts))


def _slides(facts: Facts, number: int | None = None) -> bool:
    """Whether a layer sees a window only: as configured, and the one that predicts a further token."""
    number = facts.layer if number is None else number
    kinds = facts.config["layer_types"]
    return number is not None and (number >= main_layers(facts) or kinds[number] == "sliding_attention")


def _pattern(facts: Facts) -> list[bool]:
    return [_slides(facts, number) for number in range(main_layers(facts))]


def _by_kind(key: str) -> Callable[[Facts], int]:
    """The configuration's number for layers of one kind."""
    return lambda facts: facts.number(f"swa_{key}" if _slides(facts) else key)


def _heads(facts: Facts) -> list[int]:
    layers = range(main_layers(facts) + _further(facts))
    return [_by_kind("num_attention_heads")(facts.at(number)) for number in layers]


def _shared(key: str) -> Callable[[Facts], int]:
    """A number that the layers of both kinds must share, since GGUF has one for both."""

    def value(facts: Facts) -> int:
        found, other = facts.number(key), facts.number(f"swa_{key}")
        if found != other:
            raise ConversionError(f"config.json: {key} is {found}, but swa_{key} {other}; GGUF has one number for both")
        return found

    return value


def _rescaled(key: str) -> Callable[[Facts], float]:
    """What a short vector is multiplied by after its norm, where the configuration says so."""
    rank = _by_kind(key)

    def factor(facts: Facts) -> float:
        if not facts.config.get("apply_mla_qkv_lora_rescale"):
            return 1.0
        return math.sqrt(facts.number("hidden_size") / rank(facts))

    return factor


DOTS3 = Arch(
    "dots3note",
    hf=("Dots3NoteForCausalLM", "Dots3NoteForConditionalGeneration", "Dots3NoteTextForCausalLM"),
    hparams=keys(BASE.without("attention.key_length", "attention.value_length"))
    | u32("block_count", value=lambda facts: len(_heads(facts)))
    | u32("attention.head_count", value=_heads)
    | u32("attention.q_lora_rank", value=_shared("q_lora_rank"))
    | u32("rope.dimension_count", value=_shared("qk_rope_head_dim"))
    | u32("attention.sliding_window", "sliding_window_size", required=True)
    | boolean("attention.sliding_window_pattern", value=_pattern)
    | u32("attention.kv_lora_rank_swa", "swa_kv_lora_rank", required=True)
    | u32("attention.key_length_swa", value=mla.total("swa_kv_lora_rank", "swa_qk_rope_head_dim"))
    | u32("attention.value_length_swa", "swa_kv_lora_rank", required=True)
    | u32("attention.key_length_mla_swa", value=mla.total("swa_qk_nope_head_dim", "swa_qk_rope_head_dim"))
    | u32("attention.value_length_mla_swa", "swa_v_head_dim", required=True)
    | u32("nextn_predict_layers", value=lambda facts: _further(facts) or None)
    | mla.INDEXER_KEYS
    | boolean("attention.indexer.types", value=lambda facts: [not slides for slides in _pattern(facts)]),
    tensors=TENSORS.without("blk.{l}.attn_q")
    | rule(
        ("blk.{l}.attn_k_b", "blk.{l}.attn_v_b"),
        f"{mla.LAYER}.self_attn.kv_b_proj",
        ends=WEIGHT,
        verb=mla.key_and_value(*(_by_kind(key) for key in ("num_attention_heads", "qk_nope_head_dim", "v_head_dim"))),
    )
    | rule("blk.{l}.attn_q_a_norm", f"{mla.LAYER}.self_attn.q_a_layernorm", verb=scale(_rescaled("q_lora_rank")))
    | rule("blk.{l}.attn_kv_a_norm", f"{mla.LAYER}.self_attn.kv_a_layernorm", verb=scale(_rescaled("kv_lora_rank")))
    | rule("blk.{l}.attn_k_norm", f"{mla.LAYER}.self_attn.k_rope_only_layernorm")
    | rule("blk.{l}.attn_gate", f"{mla.LAYER}.self_attn.g_proj")
    | mla.INDEXER
    | mla.FURTHER.without("blk.{l}.nextn.shared_head_head"),
    needs=(
        *TRUNK,
        *mla.SHORT_QUERIES,
        *mla.LATENT,
        *layer("attn_k_norm", "attn_gate"),
        mla.FEEDS,
        optional(*mla.INDEXED),
        mla.FURTHER_OR_OWN,
    ),
    vocab=(vocab.bpe_with(fill={"eot": "<|endofassistant|>"}),),
    renames=(*WRAPPERS, (r"^model\.mtp\.", lambda _match, facts: f"model.layers.{main_layers(facts)}.")),
    drop=(*BUFFERS, *MULTIMODAL, mla.TIED, nextn_dropped(), main_dropped()),
    axes={"l": Axis(_span), "e": EXPERTS},
    implied=(
        *SILU,
        ("use_dsa", (True,)),
        ("normalization", ("RMSNorm",)),
        ("final_norm", ("RMSNorm",)),
        ("k_rope_only_layernorm", (True,)),
        ("topk_method", ("noaux_tc",)),
        ("use_dynamic_rsf", (False,)),
        ("attention_gate_type", ("headwise",)),
        ("swa_attention_gate_type", ("headwise",)),
    ),
    mtp=True,
)

ARCHS = (DOTS1, DOTS3)
