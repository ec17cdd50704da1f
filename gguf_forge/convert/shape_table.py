"""What shape each kind of output must have for llama.cpp's loaders: the rows that most architectures share.

A row is named by the output, less `.weight`, with {l} for the number of a layer; its shape has the contiguous axis
last, as a view's. Biases and scales follow from it (see `shapes`), and have rows of their own only where they do not.
Tables only. Source: the create_tensor calls of llama.cpp's src/models (release 11549).
"""

from __future__ import annotations

from collections.abc import Mapping

from gguf_forge.convert.sizes import (
    CACHE,
    CHUNK_FF,
    CONTEXT,
    CONV,
    EMBD,
    EXPERT_FF,
    EXPERTS,
    EXPERTS_PER_GROUP,
    FF,
    HEADS,
    INDEX_HEADS,
    INDEX_KEY,
    INNER,
    KDA,
    KDA_HEAD,
    KEY,
    KEY_MLA,
    KEYS,
    KV_RANK,
    LABELS,
    LAYERS,
    OUT_GROUPS,
    OUT_RANK,
    OVERLAP,
    PER_LAYER,
    Q_RANK,
    QUERIES,
    RATIO,
    ROT,
    SHARED,
    STATE,
    STREAM_RANK,
    STREAMS,
    TIME_STEPS,
    TOKEN_TYPES,
    USED,
    VALUE_EXPERTS,
    VALUE_MLA,
    VALUES,
    VOCAB,
    Flat,
    Shape,
    Size,
    key,
)

Rows = Mapping[str, Shape]


def in_layers(rows: Rows) -> Rows:
    """Rows of outputs that stand in each layer."""
    return {f"blk.{{l}}.{name}": shape for name, shape in rows.items()}


def alike(shape: Shape, *names: str) -> Rows:
    """Rows of outputs of one shape."""
    return dict.fromkeys(names, shape)


def experts(width: Size, embd: Size = EMBD) -> Rows:
    """The experts' matrices, where each is `width` wide."""
    return {
        "ffn_gate_exps": (EXPERTS, width, embd),
        "ffn_up_exps": (EXPERTS, width, embd),
        "ffn_gate_up_exps": (EXPERTS, 2 * width, embd),
        "ffn_down_exps": (EXPERTS, embd, width),
    }


def shared_experts(width: Size) -> Rows:
    """The matrices of the experts that see every token, `width` wide together."""
    return {"ffn_gate_shexp": (width, EMBD), "ffn_up_shexp": (width, EMBD), "ffn_down_shexp": (EMBD, width)}


def feed_forward(width: Size) -> Rows:
    """The matrices of a gated network of this width."""
    return {"ffn_gate": (width, EMBD), "ffn_up": (width, EMBD), "ffn_down": (EMBD, width)}


def attention(queries: Size, keys: Size, values: Size, output: Size) -> Rows:
    """Projections of these widths, together or apart."""
    return {
        "attn_q": (queries, EMBD),
        "attn_k": (keys, EMBD),
        "attn_v": (values, EMBD),
        "attn_qkv": (queries + keys + values, EMBD),
        "attn_output": (EMBD, output),
    }


#: Widths of hyper-connections: of what mixes the streams, and of all streams together.
_MIXED = (STREAMS + 2) * STREAMS
WIDE = STREAMS * EMBD

#: Outputs that stand once in a file.
_GLOBAL: Rows = {
    "token_embd": (VOCAB, EMBD),
    "token_types": (TOKEN_TYPES, EMBD),
    "position_embd": (CONTEXT, EMBD),
    "output": (VOCAB, EMBD),
    "cls": (EMBD, EMBD),
    "cls.output": (LABELS, EMBD),
    "dense_2": (key("dense_2_feat_out", 0), EMBD),
    "dense_3": (EMBD, key("dense_3_feat_in", 0)),
    **alike((EMBD,), "token_embd_norm", "output_norm", "cls.norm", "enc.output_norm", "dec.output_norm"),
    **alike((ROT // 2,), "rope_freqs", "rope_factors_long", "rope_factors_short"),
    "output_hc_fn": (STREAMS, WIDE),
    "output_hc_base": (STREAMS,),
    "output_hc_scale": (1,),
    "output_hc_norm": Flat((STREAMS, EMBD)),
    "output_hc_down": (STREAM_RANK, WIDE),
    "output_hc_up": (WIDE, STREAM_RANK),
    "output_res_score": (EMBD,),
    "per_layer_token_embd": (VOCAB, PER_LAYER * LAYERS),
    "per_layer_model_proj": (PER_LAYER * LAYERS, EMBD),
    "per_layer_proj_norm": (PER_LAYER,),
    "hrm.z_l_init": (EMBD,),
}

#: Outputs of a layer.
_LAYERED: Rows = {
    **attention(QUERIES, KEYS, VALUES, QUERIES),
    **alike((KEY,), "attn_q_norm", "attn_k_norm"),
    "attn_gate": (QUERIES, EMBD),
    "attn_sinks": (HEADS,),
    "attn_q_a": (Q_RANK, EMBD),
    "attn_q_a_norm": (Q_RANK,),
    "attn_q_b": (HEADS * KEY_MLA, Q_RANK),
    "attn_kv_a_mqa": (KV_RANK + ROT, EMBD),
    "attn_kv_a_norm": (KV_RANK,),
    "attn_kv_b": (HEADS * (KEY_MLA - ROT + VALUE_MLA), KV_RANK),
    "attn_k_b": (HEADS, KV_RANK, KEY_MLA - ROT),
    "attn_v_b": (HEADS, VALUE_MLA, KV_RANK),
    "attn_kv": (KEY, EMBD),
    "attn_output_a": Flat((OUT_GROUPS, OUT_RANK, HEADS * KEY // OUT_GROUPS)),
    "attn_output_b": (EMBD, OUT_GROUPS * OUT_RANK),
    **alike((OVERLAP * KEY, EMBD), "attn_compressor_kv", "attn_compressor_gate"),
    "attn_compressor_ape": (RATIO, OVERLAP * KEY),
    "attn_compressor_norm": (KEY,),
    "attn_v_gate": (VALUE_EXPERTS, EMBD),
    "attn_v_exps": (VALUE_EXPERTS, VALUES, EMBD),
    "indexer.proj": (INDEX_HEADS, EMBD),
    **alike((INDEX_KEY,), "indexer.q_norm", "indexer.k_norm", "indexer_compressor_norm"),
    **alike((INDEX_KEY, EMBD), "indexer.attn_k", "indexer.k_proj"),
    "indexer.attn_q_b": (INDEX_HEADS * INDEX_KEY, Q_RANK),
    "indexer.q_proj": (INDEX_HEADS * INDEX_KEY, EMBD),
    **alike((2 * INDEX_KEY, EMBD), "indexer_compressor_kv", "indexer_compressor_gate"),
    "indexer_compressor_ape": (RATIO, 2 * INDEX_KEY),
    **feed_forward(FF),
    "ffn_gate_inp": (EXPERTS, EMBD),
    "ffn_gate_inp.scale": (EMBD,),
    "ffn_gate_inp_shexp": (EMBD,),
    "ffn_gate_tid2eid": (VOCAB, USED),
    **alike((EXPERTS,), "exp_probs_b", "exp_probs_b_vl"),
    **experts(EXPERT_FF),
    **shared_experts(EXPERT_FF * SHARED),
    **alike((EXPERTS // EXPERTS_PER_GROUP, CHUNK_FF, EMBD), "ffn_gate_chexps", "ffn_up_chexps"),
    "ffn_down_chexps": (EXPERTS // EXPERTS_PER_GROUP, EMBD, CHUNK_FF),
    "ffn_sub_norm": (FF,),
    "ffn.act.scales": (FF,),
    **alike(
        (EMBD,),
        *("attn_norm", "attn_norm_2", "attn_sub_norm", "attn_output_norm", "layer_output_norm"),
        *("ffn_norm", "ffn_norm_exps", "post_attention_norm", "post_ffw_norm"),
        *("post_ffw_norm_1", "post_ffw_norm_2", "pre_ffw_norm_2", "post_norm"),
        *("attn_res_score", "ffn_res_score"),
    ),
    "layer_output_scale": (1,),
    "inp_gate": (PER_LAYER, EMBD),
    "proj": (EMBD, PER_LAYER),
    **alike((_MIXED, WIDE), "hc_attn_fn", "hc_ffn_fn"),
    **alike((_MIXED,), "hc_attn_base", "hc_ffn_base"),
    **alike((3,), "hc_attn_scale", "hc_ffn_scale"),
    **alike(
        Flat((STREAMS, EMBD)),
        *("hc_attn_norm", "hc_ffn_norm", "ple_norm_key", "ple_norm_query", "ple_norm_conv", "nextn.hc_head_norm"),
    ),
    **alike((STREAM_RANK, WIDE), "hc_attn_down", "hc_ffn_down", "nextn.hc_head_down"),
    **alike((WIDE, STREAM_RANK), "hc_attn_up", "hc_ffn_up", "nextn.hc_head_up"),
    **alike((STREAMS, WIDE), "hc_attn_inject", "hc_ffn_inject"),
    "ple_key": (WIDE, EMBD),
    "ple_value": (EMBD, EMBD),
    "ple_conv1d": (WIDE, key("ple.conv_kernel")),
    "nextn.eh_proj": (EMBD, 2 * EMBD),
    **alike((VOCAB, EMBD), "nextn.embed_tokens", "nextn.shared_head_head"),
    **alike((EMBD,), "nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm"),
    "shortconv.conv": (EMBD, CACHE),
    "shortconv.in_proj": (3 * EMBD, EMBD),
    "shortconv.out_proj": (EMBD, EMBD),
    "ssm_in": (2 * INNER, EMBD),
    "ssm_conv1d": (INNER, CONV),
    "ssm_x": (TIME_STEPS + 2 * STATE, INNER),
    "ssm_dt": (INNER, TIME_STEPS),
    "ssm_a": (INNER, STATE),
    "ssm_d": (INNER,),
    "ssm_dt_norm": (TIME_STEPS,),
    **alike((STATE,), "ssm_b_norm", "ssm_c_norm"),
    "ssm_out": (EMBD, INNER),
    **alike((KDA, 1, CONV), "ssm_conv1d_q", "ssm_conv1d_k", "ssm_conv1d_v"),
    **alike((KDA_HEAD, EMBD), "ssm_f_a", "ssm_g_a"),
    **alike((KDA, KDA_HEAD), "ssm_f_b", "ssm_g_b"),
    "ssm_g": (KDA, EMBD),
    "ssm_beta": (HEADS, EMBD),
    "ssm_alpha": (TIME_STEPS, EMBD),
    "ssm_ba": (2 * TIME_STEPS, EMBD),
}

COMMON: Rows = {**_GLOBAL, **in_layers(_LAYERED)}
