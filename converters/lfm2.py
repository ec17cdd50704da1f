"""LFM2: layers of short convolutions, and of attention here and there; dense, and with experts.

Of LFM2-VL and LFM2-Audio the text model, of LFM2.5-Audio the model that makes sound of its tokens, and those that make
embeddings: LFM2-ColBERT, and LFM2.5-Embedding and Encoder, which see both ways.
"""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Either, Hparam, Rule, Table, boolean, exact, rule, u32
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import STACK, Reshape

from .common import BASE, BUFFERS, DECODER, GATED, GATING, MIXTURE, MULTIMODAL, QKV, SILU, WRAPPERS, layer, pooling

LAYER = "model.layers.{l}"
ATTENTION, FORWARD = f"{LAYER}.self_attn", f"{LAYER}.feed_forward"


def heads_kv(facts: Facts) -> list[int]:
    """Each layer's heads of keys and values: none where it convolves."""
    heads = facts.number("num_key_value_heads")
    return [0 if kind == "conv" else heads for kind in need(facts.config, "layer_types")]


def forward_width(facts: Facts) -> int:
    """The width of a layer's feed-forward: two thirds of what is declared, stretched, and rounded up."""
    config, width = facts.config, facts.number("block_ff_dim", "intermediate_size")
    if not config.get("block_auto_adjust_ff_dim", True):
        return width
    width = int(2 * width / 3)
    stretch, step = config.get("block_ffn_dim_multiplier", 1.0), config.get("block_multiple_of", 256)
    if stretch is not None:
        width = int(stretch * width)
    return -(width // -int(step)) * int(step)


ENDS: Table[Hparam] = Table(
    (
        u32("vocab_size", "vocab_size", required=True),
        u32("shortconv.l_cache", "conv_L_cache", required=True),
    )
)
KEYS: Table[Hparam] = BASE | u32("attention.head_count_kv", value=heads_kv)
LFM2_KEYS = KEYS | ENDS | u32("feed_forward_length", value=forward_width, again=True)

SHORT: Table[Rule] = Table(
    (
        rule("blk.{l}.shortconv.conv", f"{LAYER}.conv.conv", ends=WEIGHT, verb=Reshape(lambda s, _: (s[0], s[-1]))),
        rule("blk.{l}.shortconv.in_proj", f"{LAYER}.conv.in_proj", ends=WEIGHT),
        rule("blk.{l}.shortconv.out_proj", f"{LAYER}.conv.out_proj", ends=WEIGHT),
    )
)
TENSORS: Table[Rule] = (
    DECODER.without("output_norm", "output")
    # llama.cpp knows the last norm by this name.
    | rule("token_embd_norm", "model.embedding_norm", ends=WEIGHT)
    | SHORT
    | Table(
        tuple(
            rule(f"blk.{{l}}.ffn_{part}", f"{FORWARD}.{source}", ends=WEIGHT)
            for part, source in (("gate", "w1"), ("down", "w2"), ("up", "w3"))
        )
    )
    | rule("blk.{l}.ffn_norm", f"{LAYER}.ffn_norm", ends=WEIGHT)
    | rule("blk.{l}.attn_norm", f"{LAYER}.operator_norm", ends=WEIGHT)
    | rule("blk.{l}.attn_k_norm", f"{ATTENTION}.k_layernorm", ends=WEIGHT)
    | rule("blk.{l}.attn_q_norm", f"{ATTENTION}.q_layernorm", ends=WEIGHT)
    | rule("blk.{l}.attn_output", f"{ATTENTION}.out_proj", ends=WEIGHT)
)
#: A layer convolves or attends.
CONVOLVES_OR_ATTENDS = Either(
    (
        layer("shortconv.conv", "shortconv.in_proj", "shortconv.out_proj"),
        (*QKV, *layer("attn_output", "attn_q_norm", "attn_k_norm")),
    )
)
TRUNK: tuple[str | Either, ...] = (
    "token_embd",
    "token_embd_norm",
    *layer("attn_norm", "ffn_norm"),
    CONVOLVES_OR_ATTENDS,
)
#: What LFM2-Audio has beside its text model.
AUDIO = (r"audio|codebook|conformer|depth_embedding|depthformer|depth_linear",)
RENAMES = (*WRAPPERS, (r"^lfm2?\.", "model."), (r"^embedding_norm\.", "model.embedding_norm."))

LFM2 = Arch(
    "lfm2",
    hf=(
        "Lfm2ForCausalLM",
        "LFM2ForCausalLM",
        "Lfm2VlForConditionalGeneration",
        "Lfm2AudioForConditionalGeneration",
    ),
    hparams=LFM2_KEYS,
    tensors=TENSORS | rule("output", "lm_head", ends=WEIGHT),
    needs=(*TRUNK, *GATED),
    vocab=(vocab.bpe,),
    renames=RENAMES,
    drop=(*BUFFERS, *MULTIMODAL, *AUDIO),
    implied=(*SILU, ("conv_bias", (False,))),
)


def _causal(facts: Facts) -> bool | None:
    return None if facts.config["architectures"][0] == "Lfm2Model" else False


#: What brings ColBERT's token vectors to their size.
PROJECTION = "1_Dense/linear.weight"


def _projected(facts: Facts) -> int | None:
    return facts.headers[PROJECTION].shape[0] if facts.has(PROJECTION) else None


LFM2_EMBEDDING = replace(
    LFM2,
    hf=("Lfm2Model", "Lfm2BidirectionalModel", "Lfm2BidirectionalForMaskedLM"),
    hparams=LFM2_KEYS
    | u32("embedding_length_out", value=_projected, early=True)
    | boolean("attention.causal", value=_causal, again=True)
    | u32("pooling_type", value=pooling),
    tensors=TENSORS | exact("dense_2.weight", PROJECTION, first=1),
)

#: LFM2.5-Audio's: codes of a codec in, spectra out, a window of attention.
LFM2_DETOKENIZER = replace(
    LFM2,
    hf=("Lfm25AudioTokenizer",),
    hparams=LFM2_KEYS
    | u32("attention.sliding_window", "sliding_window", required=True)
    | u32("embedding_length_out", "output_size", required=True),
    tensors=TENSORS | rule("dense_2", "lin"),
    vocab=(vocab.none,),
    drop=(*BUFFERS, *AUDIO, r"^istft\.window$", r"^emb\.emb"),
)

EXPERTS: Table[Rule] = Table(
    tuple(
        rule(
            f"blk.{{l}}.ffn_{part}_exps",
            f"{FORWARD}.experts.{{e}}.{source}",
            ends=WEIGHT,
            verb=STACK,
            group="experts",
        )
        for part, source in (("gate", "w1"), ("down", "w2"), ("up", "w3"))
    )
)


LFM2_MOE = replace(
    LFM2,
    name="lfm2moe",
    hf=("Lfm2MoeForCausalLM",),
    hparams=KEYS
    | u32("expert_feed_forward_length", "moe_intermediate_size", required=True)
    | u32("leading_dense_block_count", "num_dense_layers", required=True)
    | u32("expert_gating_func", value=lambda facts: GATING["sigmoid"], again=True)
    | ENDS,
    tensors=TENSORS
    | exact("blk.{l}.exp_probs_b.bias", f"{FORWARD}.expert_bias")
    | EXPERTS
    | rule("blk.{l}.ffn_gate_inp", f"{FORWARD}.gate", ends=WEIGHT),
    needs=(*TRUNK, Either((GATED, (*MIXTURE, *layer("exp_probs_b.bias"))))),
    implied=(*LFM2.implied, ("norm_topk_prob", (True,)), ("routed_scaling_factor", (1, 1.0))),
)

ARCHS = (LFM2, LFM2_EMBEDDING, LFM2_DETOKENIZER, LFM2_MOE)
