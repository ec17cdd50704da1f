"""Sets of rows in which some of llama.cpp's architectures differ from the common ones, and sizes that only they have.

Tables, and small functions of the metadata. Must not know which architecture takes which set: see `shape_exceptions`.
"""

from __future__ import annotations

from collections.abc import Mapping

from gguf_forge.convert.shape_table import (
    Rows,
    alike,
    attention,
    experts,
    feed_forward,
    in_layers,
    shared_experts,
)
from gguf_forge.convert.sizes import (
    ANY,
    BUCKETS,
    CONV,
    DECAY_RANK,
    EMBD,
    EXPERT_FF,
    FF,
    GROUPS,
    HEADS,
    HEADS_KV,
    INNER,
    KDA,
    KDA_HEAD,
    KEY,
    KEY_MLA,
    KEYS,
    KV_RANK,
    LAYERS,
    MIX_RANK,
    Q_RANK,
    QUERIES,
    ROT,
    ROT_FULL,
    SHARED,
    SHARED_FF,
    STATE,
    TIME_STEPS,
    USED,
    VALUE,
    VALUE_MLA,
    VALUES,
    VOCAB,
    WKV_HEAD,
    Basis,
    Size,
    attends,
    attends_by_interval,
    axis,
    each,
    key,
    length,
    predicts,
    slides,
    where,
)

#: Queries as wide as the embedding, keys as wide as values, whatever the heads' sizes.
SQUARE = in_layers(attention(EMBD, VALUES, VALUES, EMBD))
#: Keys as wide as values.
AS_VALUES = in_layers(attention(QUERIES, VALUES, VALUES, QUERIES))
#: Values as wide as keys.
AS_KEYS = in_layers(attention(QUERIES, KEYS, KEYS, QUERIES))
#: Heads whose whole width turns.
BY_ROT = in_layers(attention(HEADS * ROT, HEADS_KV * ROT, HEADS_KV * ROT, HEADS * ROT))
#: Each layer with its own numbers of heads: of one size, or of the layer's own.
HEADS_ONLY_EACH = in_layers(
    attention(each(HEADS) * KEY, each(HEADS_KV) * KEY, each(HEADS_KV) * VALUE, each(HEADS) * KEY)
)
HEADS_EACH = in_layers(attention(each(HEADS) * KEY, each(KEYS), each(VALUES), each(HEADS) * KEY))
SIZES_EACH = in_layers(
    {
        **attention(each(QUERIES), each(KEYS), each(VALUES), each(QUERIES)),
        **alike((each(KEY),), "attn_q_norm", "attn_k_norm"),
    }
)
FORWARD_EACH = in_layers(feed_forward(each(FF)))
#: Gate and up projection in one.
DOUBLED = in_layers({"ffn_up": (2 * FF, EMBD)})
NORMS_WHOLE = in_layers(alike((EMBD,), "attn_q_norm", "attn_k_norm"))
#: Norms with weights for each head, and whether they may lie flat.
NORMS_PER_HEAD = in_layers(
    {
        **alike((HEADS, KEY), "attn_q_norm", "attn_q_norm.bias"),
        **alike((HEADS_KV, KEY), "attn_k_norm", "attn_k_norm.bias"),
    }
)
EXPERTS_BY_FF = in_layers(experts(FF))
EXPERTS_SHARE_FF = in_layers(experts(key("expert_feed_forward_length", 0) | FF // USED))
EXPERTS_OR_FF = in_layers(experts(key("expert_feed_forward_length", 0) | FF))
SHARED_SAID = in_layers(shared_experts(SHARED_FF))
SHARED_OR_FF = in_layers(shared_experts(SHARED_FF | FF))
SHARED_OR_EACH_FF = in_layers(shared_experts(SHARED_FF | each(FF)))
SHARED_OR_ONE = in_layers(shared_experts(SHARED_FF | EXPERT_FF))
SHARED_OR_MANY = in_layers(shared_experts(SHARED_FF | EXPERT_FF * SHARED))
#: Latent attention: heads of the sizes they have once unfolded.
LATENT = in_layers({"attn_q": (HEADS * KEY_MLA, EMBD), "attn_output": (EMBD, HEADS * VALUE_MLA)})
#: The same with heads of the sizes that other models have.
LATENT_PLAIN = in_layers(
    {
        "attn_q_b": (QUERIES, Q_RANK),
        "attn_kv_b": (HEADS * (KEY - ROT + VALUE), KV_RANK),
        "attn_output": (EMBD, HEADS * VALUE),
    }
)
#: The same, or a gated delta rule in the layers without key and value heads.
LATENT_OR_KDA = in_layers(
    {
        **attention(where(attends, HEADS * KEY_MLA, KDA), KDA, KDA, where(attends, HEADS * VALUE_MLA, KDA)),
        "attn_qkv": (3 * KDA, EMBD),
        "ssm_a": (HEADS,),
        "ssm_dt": (KDA, ANY),
        "ssm_norm": (KDA_HEAD,),
    }
)
#: Mamba 2: heads in groups.
_STATES = INNER + 2 * GROUPS * STATE
MAMBA_2 = in_layers(
    {
        "ssm_in": (INNER + _STATES + TIME_STEPS, EMBD),
        "ssm_conv1d": (_STATES, CONV),
        "ssm_dt": (TIME_STEPS, ANY),
        **alike((TIME_STEPS, 1), "ssm_a", "ssm_d"),
        "ssm_norm": (GROUPS, INNER // GROUPS),
    }
)
#: Gated delta rules with key heads in groups, and attention with gates among the queries.
_DELTA_KEYS, _DELTA_VALUES = STATE * GROUPS, STATE * TIME_STEPS
DELTA = in_layers(
    {
        **attention(2 * QUERIES, KEYS, VALUES, QUERIES),
        "attn_qkv": (where(attends_by_interval, 2 * QUERIES + KEYS + VALUES, 2 * _DELTA_KEYS + _DELTA_VALUES), EMBD),
        "attn_gate": (_DELTA_VALUES, EMBD),
        "ssm_in": (2 * _DELTA_KEYS + 2 * _DELTA_VALUES, EMBD),
        "ssm_conv1d": (2 * _DELTA_KEYS + _DELTA_VALUES, CONV),
        "ssm_dt": (TIME_STEPS, ANY),
        "ssm_a": (TIME_STEPS,),
        "ssm_beta": (TIME_STEPS, EMBD),
        "ssm_norm": (STATE,),
        "ssm_out": (EMBD, _DELTA_VALUES),
    }
)


def _time_mix(**ranks: Size) -> Rows:
    return {f"time_mix_{name}1": (rank, EMBD) for name, rank in ranks.items()} | {
        f"time_mix_{name}2": (EMBD, rank) for name, rank in ranks.items()
    }


#: What all RWKV share, and then the sixth and the seventh.
_RWKV = in_layers(
    {
        **alike((EMBD, EMBD), *(f"time_mix_{part}" for part in ("key", "value", "receptance", "gate", "output"))),
        **alike((EMBD,), "time_mix_ln", *(f"time_mix_lerp_{part}" for part in "xwkvrg")),
        **alike((EMBD,), "channel_mix_lerp_k", "channel_mix_lerp_r"),
        "channel_mix_key": (FF, EMBD),
        "channel_mix_value": (EMBD, FF),
        "channel_mix_receptance": (EMBD, EMBD),
    }
)
RWKV_6 = {
    **_RWKV,
    **in_layers(
        {
            "time_mix_w1": (5 * MIX_RANK, EMBD),
            "time_mix_w2": (5, EMBD, MIX_RANK),
            "time_mix_lerp_fused": (5, 1, 1, EMBD),
            "time_mix_first": (EMBD // WKV_HEAD, WKV_HEAD),
            "time_mix_decay": (EMBD,),
            **_time_mix(decay_w=DECAY_RANK),
        }
    ),
}
_ICLR = key("attention.iclr_lora_rank")
RWKV_7 = {
    **_RWKV,
    **in_layers(
        {
            **alike((EMBD,), *(f"time_mix_{part}" for part in ("w0", "a0", "v0", "k_k", "k_a", "r_k"))),
            **_time_mix(
                w=key("attention.decay_lora_rank"),
                a=_ICLR,
                v=where(lambda basis, layer: layer > 0, key("attention.value_residual_mix_lora_rank"), _ICLR),
                g=key("attention.gate_lora_rank", 0),
            ),
            "time_mix_lerp_fused": (6, 1, 1, EMBD),
        }
    ),
}
#: Encoders and decoders of T5, and the encoder that stands alone.
T5: Rows = {
    **{
        f"{side}.blk.{{l}}.{name}": shape
        for side, parts in (("enc", ("attn",)), ("dec", ("attn", "cross_attn")))
        for part in parts
        for name, shape in {
            f"{part}_q": (KEYS, EMBD),
            f"{part}_k": (KEYS, EMBD),
            f"{part}_v": (VALUES, EMBD),
            f"{part}_o": (EMBD, VALUES),
            f"{part}_rel_b": (BUCKETS, HEADS),
            f"{part}_norm": (EMBD,),
            "ffn_norm": (EMBD,),
            **feed_forward(FF),
        }.items()
    }
}
#: Drafts from the hidden states of several layers of another model; a smaller vocabulary of their own, if d2t is there.
TARGETS = length("target_layers")
DRAFT_TOKENS = axis("d2t", -1, VOCAB)
DRAFT: Rows = {
    "fc": (EMBD, TARGETS * EMBD),
    "output": (DRAFT_TOKENS, EMBD),
    "d2t": (DRAFT_TOKENS,),
}


def decision_head(embd: Size, forward: Size) -> Rows:
    """Clef's head, whose two widths are those of its own tensors."""
    attention = [f"{part}_{letter}" for part in ("attn", "cross_attn") for letter in "qkvo"]
    norms = ("attn_norm", "cross_attn_norm", "cross_attn_norm_kv", "ffn_norm")
    projections = ("memory", "question", "option_question", "global", "option_context", "option_lexical")
    return {
        **alike((embd, embd), *(f"dec.blk.{{l}}.{name}" for name in attention)),
        **alike((embd,), *(f"dec.blk.{{l}}.{name}" for name in norms)),
        "dec.blk.{l}.ffn_up": (forward, embd),
        "dec.blk.{l}.ffn_down": (embd, forward),
        **alike((embd, EMBD), *(f"decision.proj_{name}" for name in projections)),
        **alike((embd,), *(f"decision.{name}_norm" for name in ("option_summary", "field", "option"))),
        "decision.hidden_norm": (EMBD,),
        "decision.scales": (3,),
        "decision.scorer": (embd, 4 * embd),
        "decision.scorer_out": (1, embd),
        "token_types": (3, embd),
    }


def decides(basis: Basis, layer: int) -> bool:
    """Whether a layer belongs to the head that decides, which stands last."""
    return layer >= (LAYERS.of(basis, 0) or 0) - (basis.number("decision.block_count", 0) or 0)


def wavtokenizer() -> Rows:
    """The decoder of WavTokenizer: convolutions, two networks after them, and no layers of the usual kind."""
    width, net = key("posnet.embedding_length"), key("convnext.embedding_length")
    features = key("features_length")
    return {
        "token_embd": (VOCAB, features),
        "token_embd_norm": (width,),
        "conv1d": (width, features, 7),
        "conv1d.bias": (width, 1),
        **alike((width, width, 3), "posnet.{l}.conv1", "posnet.{l}.conv2"),
        **alike((width, width, 1), *(f"posnet.{{l}}.attn_{part}" for part in ("q", "k", "v", "output"))),
        **alike((width, 1), *(f"posnet.{{l}}.{part}norm{n}" for part, n in (("", 1), ("", 2), ("attn_", "")))),
        **alike((width, 1), *(f"posnet.{{l}}.{p}.bias" for p in ("conv1", "conv2", "norm1", "norm2", "attn_norm"))),
        **alike((width, 1), *(f"posnet.{{l}}.attn_{part}.bias" for part in ("q", "k", "v", "output"))),
        "convnext.{l}.dw": (net, 1, 7),
        "convnext.{l}.dw.bias": (net, 1),
        **alike((net,), "convnext.{l}.norm", "convnext.{l}.gamma", "output_norm"),
        "convnext.{l}.pw1": (FF, net),
        "convnext.{l}.pw2": (net, FF),
        "output": (EMBD, net),
    }


def _low_rank(slots: Size, rank: Size, shapes: Mapping[str, tuple[Size, Size]]) -> Rows:
    """Two matrices for each adapter beside a projection of this shape."""
    return {f"{name}.lora_a": (slots, rank, width) for name, (_, width) in shapes.items()} | {
        f"{name}.lora_b": (slots, rows, rank) for name, (rows, _) in shapes.items()
    }


def adapters() -> Rows:
    """Granite's adapters beside each projection, one of them for none."""
    slots, rank = key("adapters.count") + 1, key("adapters.lora_rank")
    projections = {
        "attn_q": (QUERIES, EMBD),
        "attn_k": (KEYS, EMBD),
        "attn_v": (KEYS, EMBD),
        "attn_output": (EMBD, QUERIES),
        "ffn_gate": (FF, EMBD),
        "ffn_up": (FF, EMBD),
        "ffn_down": (EMBD, FF),
    }
    return in_layers({"attn_qkv": (QUERIES + 2 * KEYS, EMBD), **_low_rank(slots, rank, projections)})


def _slides_or_predicts(basis: Basis, layer: int) -> bool:
    return slides(basis, layer) or predicts(basis, layer)


def _by_window(name: str, size: Size) -> Size:
    return where(_slides_or_predicts, key(f"{name}_swa"), size)


def latent_by_window() -> Rows:
    """Latent attention of other sizes in the layers that slide."""
    rank = _by_window("attention.kv_lora_rank", KV_RANK)
    head_k = _by_window("attention.key_length_mla", KEY_MLA)
    head_v = _by_window("attention.value_length_mla", VALUE_MLA)
    heads = each(HEADS)
    return in_layers(
        {
            "attn_q_b": (heads * head_k, Q_RANK),
            "attn_kv_a_mqa": (rank + ROT, EMBD),
            "attn_kv_a_norm": (rank,),
            "attn_k_b": (heads, rank, head_k - ROT),
            "attn_v_b": (heads, head_v, rank),
            "attn_gate": (heads, EMBD),
            "attn_output": (EMBD, heads * head_v),
            "attn_k_norm": (ROT,),
        }
    )


def widest_rotation(basis: Basis, layer: int) -> int | None:
    """Step 3.5's rotary dimensions: half of what the file says where attention is full, of which the largest counts."""
    del layer
    layers = range(LAYERS.of(basis, 0) or 0)
    whole = ROT_FULL.of(basis, 0)
    if whole is None:
        return None
    sliding = key("rope.dimension_count_swa", whole).of(basis, 0) or 0
    return max((sliding if slides(basis, one) else whole // 2 for one in layers), default=whole // 2)


def hashed_rows(basis: Basis, layer: int) -> int | None:
    """Rows of Qwen 4's embedding of hashed words: as many as there are, if its heads' ranges end before."""
    offsets, sizes = (basis.value(f"ple.head_{part}") for part in ("offsets", "vocab_sizes"))
    if offsets is None or sizes is None:
        return None
    least = max((int(a) + int(b) for a, b in zip(offsets.value, sizes.value, strict=False)), default=0)
    there = axis("per_layer_token_embd.weight", -2).of(basis, layer)
    return None if there is None else max(there, least)
