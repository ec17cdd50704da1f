"""GLM from GLM-4-0414 on: GLM-4, GLM-4.1V, GLM-OCR; with experts GLM-4.5 to 4.7, 4.5V and Solar Open.

With latent attention, too, GLM-4.7-Flash and GLM-5; with delta attention GLM-5.3-Flash.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Either, Table, boolean, exact, f32, optional, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Rows
from gguf_forge.convert.rows import grouped, number_of
from gguf_forge.convert.view import Numbers

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
    TRUNK,
    WRAPPERS,
    layer,
    main_dropped,
    main_layers,
    nextn_dropped,
)
from .deepseek import DEEPSEEK2, KEYS, TENSORS
from .kda import DELTA_OR_LATENT, FORGET, GATE, KDA_KEYS, delta
from .rotary import head_dim, turned

END, USER = "<|endoftext|>", "<|user|>"
GLM4_BPE = vocab.bpe_with(fill={"eos": END, "eot": USER, "unk": END, "bos": END})
GLM_BPE = vocab.bpe_with(fill={"bos": "[gMASK]", "eot": USER, "unk": END, "eom": "<|observation|>"})
SOLAR_BPE = vocab.bpe_with(fill={"eos": END, "eot": END, "unk": "<unk>", "bos": "<|startoftext|>"})

NEXTN_DROP = (*BUFFERS, *MULTIMODAL, nextn_dropped(), main_dropped())


TURNED = turned(0.5)


def _halves(rows: Numbers, facts: Facts) -> Numbers:
    """GLM turns neighbours; llama.cpp turns halves where positions have several axes: a head's even rows come first."""
    if "mrope_section" not in facts.config["rope_parameters"]:
        return rows
    heads = grouped(rows, rows.shape[-1] // int(head_dim(facts)))
    part, rest = np.split(heads, [TURNED(facts)], axis=-1)
    return np.concatenate((part[..., ::2], part[..., 1::2], rest), axis=-1).reshape(rows.shape)


ROPE = u32("rope.dimension_count", value=TURNED)

GLM4 = Arch(
    "glm4",
    hf=("Glm4ForCausalLM", "Glm4vForConditionalGeneration"),
    hparams=BASE | ROPE,
    tensors=DECODER.without("blk.{l}.ffn_gate")
    | rule("blk.{l}.attn_q", f"{mla.LAYER}.self_attn.q_proj", verb=Rows(_halves))
    | rule("blk.{l}.attn_k", f"{mla.LAYER}.self_attn.k_proj", verb=Rows(_halves))
    | rule("blk.{l}.ffn_up", f"{mla.LAYER}.mlp.gate_up_proj")
    | rule("blk.{l}.post_attention_norm", f"{mla.LAYER}.post_self_attn_layernorm")
    | rule("blk.{l}.post_ffw_norm", f"{mla.LAYER}.post_mlp_layernorm"),
    needs=(*TRUNK, *QKV, *layer("ffn_up", "ffn_down", "post_attention_norm", "post_ffw_norm")),
    vocab=(GLM4_BPE,),
    renames=WRAPPERS,
    drop=(*BUFFERS, *MULTIMODAL),
    implied=SILU,
)
GLM_OCR = replace(
    GLM4,
    hf=("GlmOcrForConditionalGeneration",),
    hparams=GLM4.hparams | mla.BLOCKS | mla.KEPT_FURTHER,
    tensors=GLM4.tensors | mla.FURTHER,
    needs=(*GLM4.needs, mla.FURTHER_OR_OWN),
    axes=mla.FURTHER_AXES,
)

SOLAR = Arch(
    "glm4moe",
    hf=("SolarOpenForCausalLM",),
    hparams=BASE
    | ROPE
    | u32("expert_count", "n_routed_experts", again=True)
    | u32("expert_feed_forward_length", "moe_intermediate_size")
    | u32("expert_shared_count", "n_shared_experts")
    | u32("leading_dense_block_count", "first_k_dense_replace")
    | u32("expert_gating_func", value=lambda facts: 2, again=True)
    | f32("expert_weights_scale", "routed_scaling_factor")
    | boolean("expert_weights_norm", "norm_topk_prob"),
    tensors=DECODER.without("blk.{l}.ffn_norm")
    | rule("blk.{l}.post_attention_norm", f"{mla.LAYER}.post_attention_layernorm")
    | mla.MOE
    | mla.ROUTER_BIAS,
    needs=(
        *(name for name in TRUNK if not name.endswith("ffn_norm")),
        *layer("post_attention_norm"),
        *QKV,
        Either((GATED, (*MIXTURE, *mla.SHARED, *layer("exp_probs_b.bias")))),
    ),
    vocab=(SOLAR_BPE,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=SILU,
)
GLM4_MOE = replace(
    SOLAR,
    hf=("Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration"),
    hparams=SOLAR.hparams | mla.BLOCKS | mla.KEPT_FURTHER,
    tensors=SOLAR.tensors | QK_NORM | mla.FURTHER,
    needs=(*SOLAR.needs, mla.FURTHER_OR_OWN),
    vocab=(GLM_BPE,),
    drop=NEXTN_DROP,
    axes=mla.FURTHER_AXES,
    mtp=True,
)

FURTHER_IF_ANY = u32("nextn_predict_layers", value=lambda facts: mla.kept_further(facts) or None)

GLM4_MOE_LITE = replace(
    DEEPSEEK2,
    hf=("Glm4MoeLiteForCausalLM",),
    hparams=KEYS | mla.BLOCKS | FURTHER_IF_ANY,
    tensors=TENSORS.without("blk.{l}.attn_q") | mla.FURTHER,
    needs=(*TRUNK, *mla.SHORT_QUERIES, *mla.LATENT, mla.FEEDS, mla.FURTHER_OR_OWN),
    vocab=(GLM_BPE,),
    drop=(*NEXTN_DROP, mla.TIED),
    axes=mla.FURTHER_AXES,
    mtp=True,
)


def _indexed(facts: Facts) -> list[bool] | None:
    """Which layers look for the tokens they read; the others take those of the layer before."""
    kinds = facts.config.get("indexer_types")
    return None if kinds is None else [kind == "full" for kind in kinds[: main_layers(facts)]]


INDEXER_TYPES = boolean("attention.indexer.types", value=_indexed)


GLM_DSA = replace(
    GLM4_MOE_LITE,
    name="glm-dsa",
    hf=("GlmMoeDsaForCausalLM",),
    hparams=KEYS
    | mla.BLOCKS
    | u32("rope.dimension_count", value=turned(1.0, number_of("qk_rope_head_dim")))
    | mla.KEPT_FURTHER
    | mla.INDEXER_KEYS
    | INDEXER_TYPES,
    tensors=GLM4_MOE_LITE.tensors | mla.INDEXER,
    needs=(*GLM4_MOE_LITE.needs, optional(*mla.INDEXED)),
)


def _latent_heads(facts: Facts) -> list[int]:
    """One key-value head in layers of full attention, and in those that predict further tokens; none elsewhere."""
    own = [int(kind != "linear_attention") for kind in facts.config["layer_types"]]
    return own + [1] * (mla.all_layers(facts) - len(own))


def _clamp(facts: Facts) -> list[float] | None:
    limit = facts.config.get("swiglu_limit")
    return None if limit is None else [limit] * mla.all_layers(facts)


KPOOL = f"{mla.LAYER}.self_attn.indexer.index_kpool_compress"

GLM5_NEXT = replace(
    GLM4_MOE_LITE,
    name="glm5-next",
    hf=("Glm5NextForConditionalGeneration",),
    hparams=BASE.without("attention.key_length", "attention.value_length")
    | mla.BLOCKS
    | u32("attention.head_count_kv", value=_latent_heads)
    | u32("vocab_size", "vocab_size", required=True)
    | f32("attention.layer_norm_epsilon", value=lambda facts: 1e-6, again=True)
    | FURTHER_IF_ANY
    | KDA_KEYS
    | mla.latent_keys(turned=True)
    | mla.INDEXER_KEYS
    | u32("attention.indexer.kpool", "index_kpool", required=True)
    | boolean("attention.indexer.kpool_select_tail", "index_kpool_always_select_tail", default=True)
    | INDEXER_TYPES
    | mla.HYPER_KEYS
    | u32("leading_dense_block_count", "first_k_dense_replace", required=True)
    | mla.EXPERT_KEYS
    | f32("swiglu_clamp_exp", value=_clamp)
    | f32("swiglu_clamp_shexp", value=_clamp),
    tensors=GLM4_MOE_LITE.tensors
    | rule("blk.{l}.attn_q", f"{mla.LAYER}.self_attn.q_proj")
    | mla.INDEXER
    | delta()
    | FORGET
    | GATE
    | Table(tuple(exact(f"blk.{{l}}.{part}.weight", f"{mla.LAYER}.{part}", type="F32") for part in mla.HYPER))
    | exact("blk.{l}.indexer_compressor_ape.weight", f"{KPOOL}_ape", type="F32")
    | exact("blk.{l}.indexer_compressor_gate.weight", f"{KPOOL}_gate", type="F32"),
    needs=(
        *TRUNK,
        "output",
        DELTA_OR_LATENT,
        optional(*mla.SHORT_QUERIES),
        optional(*mla.INDEXED, *layer("indexer_compressor_ape", "indexer_compressor_gate")),
        Either((layer(*mla.HYPER), layer("nextn.eh_proj", "nextn.enorm", "nextn.hnorm"))),
        Either((GATED, (*MIXTURE, *mla.SHARED, *layer("exp_probs_b.bias")))),
    ),
    implied=(*SILU, ("mla_use_nope", (True,)), ("qk_rope_head_dim", (0,)), ("mhc", (True,))),
)

ARCHS = (GLM4, GLM_OCR, SOLAR, GLM4_MOE, GLM4_MOE_LITE, GLM_DSA, GLM5_NEXT)
