"""MiniCPM 1 and 2, MiniCPM3, and the text model of MiniCPM-V 4.6, which is a Qwen3.5; PLM."""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Table, boolean, f32, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.rows import interleave_halves, number_of

from .common import (
    BASE,
    BUFFERS,
    DECODER,
    FILE_TYPE,
    GATED,
    HEADS,
    HEADS_KV,
    QKV,
    SILU,
    TRUNK,
    WRAPPERS,
    layer,
    main_layers,
    nextn_layers,
)
from .mla import LAYER, SHORT_QUERIES, TIED, latent, total
from .qwen_next import QWEN35
from .rotary import longrope

MINICPM = Arch(
    "minicpm",
    hf=("MiniCPMForCausalLM",),
    hparams=BASE
    | f32("embedding_scale", "scale_emb", required=True)
    | f32("residual_scale", value=lambda f: f.config["scale_depth"] / f.number("num_hidden_layers") ** 0.5)
    | f32("logit_scale", value=lambda facts: facts.number("hidden_size") / facts.config["dim_model_base"]),
    tensors=longrope(lambda facts: facts.number("hidden_size") // facts.number("num_attention_heads"))
    | DECODER
    | rule(
        "blk.{l}.attn_q",
        f"{LAYER}.self_attn.q_proj",
        ends=WEIGHT,
        verb=interleave_halves(number_of(*HEADS)),
    )
    | rule(
        "blk.{l}.attn_k",
        f"{LAYER}.self_attn.k_proj",
        ends=WEIGHT,
        verb=interleave_halves(number_of(*HEADS_KV, *HEADS)),
    ),
    needs=(*TRUNK, *QKV, *GATED),
    vocab=(vocab.spm,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=SILU,
)

#: Latent attention that is calculated as it is stored.
PLAIN = latent(kv_b=None)
LATENT = layer("attn_kv_a_mqa", "attn_kv_a_norm", "attn_kv_b")

MINICPM3 = Arch(
    "minicpm3",
    hf=("MiniCPM3ForCausalLM",),
    hparams=Table(
        (
            FILE_TYPE,
            u32("context_length", "max_position_embeddings", required=True),
            u32("embedding_length", "hidden_size", required=True),
            u32("block_count", "num_hidden_layers", required=True),
            u32("feed_forward_length", "intermediate_size", required=True),
            u32("attention.head_count", "num_attention_heads", required=True),
            u32("attention.head_count_kv", "num_key_value_heads", required=True),
            f32("attention.layer_norm_rms_epsilon", "rms_norm_eps", required=True),
            u32("vocab_size", "vocab_size", required=True),
            u32("attention.q_lora_rank", "q_lora_rank"),
            u32("attention.kv_lora_rank", "kv_lora_rank", required=True),
            u32("attention.key_length", value=total("qk_nope_head_dim", "qk_rope_head_dim")),
            u32("rope.dimension_count", "qk_rope_head_dim", required=True),
        )
    ),
    tensors=longrope(number_of("qk_rope_head_dim"))
    | DECODER.without(*QKV)
    | PLAIN.without("blk.{l}.attn_q"),
    needs=(*TRUNK, *SHORT_QUERIES, *LATENT, *GATED),
    vocab=(vocab.spm,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=SILU,
)


def _announced(facts: Facts) -> int:
    """How many layers that predict further tokens the file says it has: none of them is in it yet."""
    return 0 if facts.options.mtp == "drop" else nextn_layers("mtp_num_hidden_layers")(facts)


def _recurrent(facts: Facts) -> list[bool]:
    kinds = facts.config["layer_types"]
    return [kind == "linear_attention" for kind in kinds] + [False] * _announced(facts)


MINICPM_V = replace(
    QWEN35,
    hf=("MiniCPMV4_6ForConditionalGeneration",),
    hparams=QWEN35.hparams
    | u32("block_count", value=lambda facts: main_layers(facts) + _announced(facts))
    | u32("nextn_predict_layers", value=lambda facts: _announced(facts) or None)
    | boolean("attention.recurrent_layers", value=_recurrent),
    tensors=Table(tuple(row for row in QWEN35.tensors if ".nextn." not in row.row)),
    needs=tuple(need for need in QWEN35.needs if ".nextn." not in str(need)),
    drop=(*QWEN35.drop, r"^model\.merger\.", r"^mtp"),
)

PLM = Arch(
    "plm",
    hf=("PLMForCausalLM",),
    hparams=BASE
    | u32("vocab_size", "vocab_size", required=True)
    | u32("attention.kv_lora_rank", "kv_lora_rank", required=True)
    | u32("attention.key_length", value=total("qk_nope_head_dim", "qk_rope_head_dim"), again=True)
    | u32("attention.value_length", "v_head_dim", required=True, again=True)
    | u32("rope.dimension_count", "qk_rope_head_dim", required=True),
    tensors=DECODER.without("output", *QKV, "blk.{l}.ffn_gate") | PLAIN.without(*SHORT_QUERIES),
    needs=(*TRUNK, *layer("attn_q", "ffn_up", "ffn_down"), *LATENT),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=(*BUFFERS, TIED),
    implied=(("hidden_act", ("relu2",)),),
)

ARCHS = (MINICPM, MINICPM3, MINICPM_V, PLM)
