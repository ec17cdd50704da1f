"""GPT-NeoX (Pythia, Dolly, the first StableLM), Bloom, and Falcon: queries, keys and values in one matrix, by head."""

from __future__ import annotations

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Rule, Table, boolean, f32, optional, rule, string, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import CONCAT, Verb
from gguf_forge.convert.rows import parts_of_heads

from .common import BUFFERS, FILE_TYPE, GELU, HEADS, affine, inner_width, layer
from .rotary import turned, unusual_base

WIDTH = ("hidden_size", "n_embed")
LAYERS = ("num_hidden_layers", "n_layer")
HEAD_COUNT = u32("attention.head_count", *HEADS, required=True)
ROPE_BASE = f32("rope.freq_base", value=unusual_base)


def _heads(facts: Facts) -> int:
    return facts.number(*HEADS)


def _size(facts: Facts) -> int:
    return facts.number(*WIDTH) // _heads(facts)


#: A head's query, key and value stand together; in GGUF all queries, all keys, all values do.
BY_PART = parts_of_heads(_heads, lambda facts: [_size(facts)] * 3) | CONCAT


def _decoder(prefix: str, attention: str, qkv: Verb = BY_PART) -> Table[Rule]:
    return Table(
        (
            rule("blk.{l}.attn_norm", f"{prefix}.input_layernorm"),
            rule("blk.{l}.attn_qkv", f"{prefix}.{attention}.query_key_value", verb=qkv),
            rule("blk.{l}.attn_output", f"{prefix}.{attention}.dense"),
            rule("blk.{l}.ffn_norm", f"{prefix}.post_attention_layernorm"),
            rule("blk.{l}.ffn_up", f"{prefix}.mlp.dense_h_to_4h"),
            rule("blk.{l}.ffn_down", f"{prefix}.mlp.dense_4h_to_h"),
        )
    )


FORWARD = ("ffn_up", "ffn_down")
NEEDS = (*affine("output_norm"), *layer(*affine("attn_norm", "attn_qkv", "attn_output", "ffn_norm", *FORWARD)))

GPT_NEOX = Arch(
    "gptneox",
    hf=("GPTNeoXForCausalLM",),
    hparams=Table(
        (
            u32("context_length", "max_position_embeddings", required=True),
            u32("embedding_length", "hidden_size", required=True),
            u32("block_count", "num_hidden_layers", required=True),
            u32("feed_forward_length", "intermediate_size", required=True),
            u32("rope.dimension_count", value=turned(0.25, _size)),
            HEAD_COUNT,
            boolean("use_parallel_residual", "use_parallel_residual", default=True),
            f32("attention.layer_norm_epsilon", "layer_norm_eps", required=True),
            ROPE_BASE,
        )
    ),
    tensors=_decoder("layers.{l}", "attention")
    | rule("token_embd", "embed_in")
    | rule("output_norm", "final_layer_norm")
    | rule("output", "embed_out"),
    needs=("token_embd", "output", *NEEDS),
    vocab=(vocab.bpe,),
    renames=((r"^gpt_neox\.", ""),),
    drop=BUFFERS,
    implied=GELU,
)

BLOOM = Arch(
    "bloom",
    hf=("BloomForCausalLM", "BloomModel"),
    hparams=Table(
        (
            u32("context_length", value=lambda facts: facts.config.get("seq_length", facts.number(*WIDTH))),
            u32("embedding_length", *WIDTH, required=True),
            u32("feed_forward_length", value=lambda facts: 4 * facts.number(*WIDTH)),
            u32("block_count", *LAYERS, required=True),
            HEAD_COUNT,
            u32("attention.head_count_kv", *HEADS, required=True),
            f32("attention.layer_norm_epsilon", "layer_norm_epsilon", required=True),
            FILE_TYPE,
        )
    ),
    tensors=_decoder("h.{l}", "self_attention")
    | rule("token_embd", "word_embeddings")
    | rule("token_embd_norm", "word_embeddings_layernorm")
    | rule("output_norm", "ln_f")
    | rule("output", "lm_head"),
    needs=("token_embd", *affine("token_embd_norm"), *NEEDS),
    vocab=(vocab.bpe,),
    renames=((r"^transformer\.", ""),),
    drop=BUFFERS,
    implied=(("apply_residual_connection_post_layernorm", (False,)),),
)


def _groups(facts: Facts) -> int:
    """The heads of keys and values, each of which several heads of queries share."""
    return next((facts.number(key) for key in ("num_kv_heads", "n_head_kv") if facts.config.get(key)), 1)


#: The queries of a group stand before its key and its value.
BY_GROUP = parts_of_heads(_groups, lambda f: [_heads(f) // _groups(f) * _size(f), _size(f), _size(f)]) | CONCAT

FALCON = Arch(
    "falcon",
    hf=("FalconForCausalLM", "RWForCausalLM"),
    hparams=Table(
        (
            # Falcon 1 does not say that it has 2048 positions.
            u32("context_length", "max_position_embeddings", default=2048),
            string("tensor_data_layout", value=lambda facts: "jploski"),
            u32("embedding_length", *WIDTH, required=True),
            u32("feed_forward_length", value=inner_width("h.0.mlp.dense_h_to_4h.weight", 0, *WIDTH)),
            u32("block_count", *LAYERS, required=True),
            HEAD_COUNT,
            u32("attention.head_count_kv", value=_groups),
            f32("attention.layer_norm_epsilon", "layer_norm_epsilon", required=True),
            ROPE_BASE,
            FILE_TYPE,
        )
    ),
    tensors=_decoder("h.{l}", "self_attention").without("blk.{l}.ffn_norm")
    | rule("blk.{l}.attn_qkv", "h.{l}.self_attention.query_key_value", ends=WEIGHT, verb=BY_GROUP)
    | rule("token_embd", "word_embeddings")
    | rule("output_norm", "ln_f")
    | rule("output", "lm_head")
    # Falcon-40B and -180B normalise the inputs of both halves of a layer apart.
    | rule("blk.{l}.attn_norm", ("h.{l}.input_layernorm", "h.{l}.ln_mlp"))
    | rule("blk.{l}.attn_norm_2", "h.{l}.ln_attn"),
    needs=(
        "token_embd",
        *affine("output_norm"),
        *layer(*affine("attn_norm"), "attn_qkv", "attn_output", *FORWARD),
        optional(*layer(*affine("attn_norm_2"))),
    ),
    vocab=(vocab.bpe,),
    renames=((r"^transformer\.", ""),),
    drop=BUFFERS,
    implied=(("alibi", (False,)), ("parallel_attn", (True,)), ("bias", (False,)), ("ff_factor", (4,))),
)

ARCHS = (GPT_NEOX, BLOOM, FALCON)
