"""OLMo, whose norms have no weights, OLMo 2 and 3, which normalise behind each half of a layer, OLMoE; Seed-OSS."""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, boolean, f32, rule, u32
from gguf_forge.convert.facts import Facts

from .common import (
    BASE,
    BUFFERS,
    DECODER,
    GATED,
    MIXTURE,
    QK_NORM,
    QK_NORMS,
    QKV,
    SILU,
    TRUNK,
    WRAPPERS,
    layer,
    main_layers,
)
from .llama import TURNED
from .qwen import SPARSE

SEED_OSS = Arch(
    "seed_oss",
    hf=("SeedOssForCausalLM",),
    hparams=BASE,
    # What other models call ffn_norm.
    tensors=DECODER.without("blk.{l}.ffn_norm")
    | rule("blk.{l}.post_attention_norm", "model.layers.{l}.post_attention_layernorm"),
    needs=("token_embd", "output_norm", *layer("attn_norm", "attn_output", "post_attention_norm"), *QKV, *GATED),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=SILU,
)

OLMO = replace(
    SEED_OSS,
    name="olmo",
    hf=("OlmoForCausalLM", "OLMoForCausalLM"),
    hparams=BASE
    | f32("attention.layer_norm_epsilon", value=lambda facts: 1e-5, again=True)
    | f32("attention.clamp_kqv", "clip_qkv"),
    tensors=DECODER.without("output_norm", "blk.{l}.attn_norm", "blk.{l}.ffn_norm") | TURNED,
    needs=("token_embd", *layer("attn_output"), *QKV, *GATED),
)


def _slides(facts: Facts) -> list[bool] | None:
    """The layers with a window: of OLMo 3 all but every fourth, unless the configuration says otherwise."""
    if facts.config.get("sliding_window") is None:
        return None
    kinds = facts.config.get("layer_types")
    if kinds is not None:
        return [kind == "sliding_attention" for kind in kinds]
    return [(i + 1) % 4 != 0 for i in range(main_layers(facts))]


OLMO2 = replace(
    SEED_OSS,
    name="olmo2",
    hf=("Olmo2ForCausalLM", "Olmo3ForCausalLM"),
    hparams=BASE
    | u32("attention.sliding_window", "sliding_window")
    | boolean("attention.sliding_window_pattern", value=_slides),
    tensors=DECODER.without("blk.{l}.attn_norm", "blk.{l}.ffn_norm")
    | QK_NORM
    | rule("blk.{l}.post_attention_norm", "model.layers.{l}.post_attention_layernorm")
    | rule("blk.{l}.post_ffw_norm", "model.layers.{l}.post_feedforward_layernorm"),
    needs=(
        *("token_embd", "output_norm", "output"),
        *layer("attn_output", "post_attention_norm", "post_ffw_norm"),
        *QK_NORMS,
        *QKV,
        *GATED,
    ),
)
OLMOE = replace(
    SEED_OSS,
    name="olmoe",
    hf=("OlmoeForCausalLM",),
    hparams=BASE | f32("attention.layer_norm_rms_epsilon", value=lambda facts: 1e-5, again=True),
    tensors=SPARSE,
    needs=(*TRUNK, "output", *QKV, *QK_NORMS, *MIXTURE),
    # llama.cpp neither clamps queries, keys and values of this model nor makes its experts' weights add up to one.
    implied=(*SILU, ("clip_qkv", (None,)), ("norm_topk_prob", (False,))),
)

ARCHS = (SEED_OSS, OLMO, OLMO2, OLMOE)
