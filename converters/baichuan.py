"""Models that Llama's first release inspired: Baichuan 1 and 2, XVERSE, Orion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Table, f32, rule, string, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import COPY, Each, Elementwise
from gguf_forge.convert.rows import equal_parts, interleave_halves, number_of
from gguf_forge.convert.view import Array
from gguf_forge.errors import ConversionError

from .common import BASE, BUFFERS, DECODER, FILE_TYPE, GATED, QKV, SILU, TRUNK, WRAPPERS, affine, layer
from .rotary import width_by_heads

LAYOUT = string("tensor_data_layout", value=lambda facts: "Meta AI original pth")
HEADS, HEADS_KV = number_of("num_attention_heads"), number_of("num_key_value_heads", "num_attention_heads")


#: Baichuan 2 has this many tokens or more, Baichuan 1 half as many.
VOCAB_2 = 125696


def _of_unit_length(values: Array, facts: Facts) -> Array:
    lengths = np.maximum(np.sqrt(np.square(values).sum(axis=-1, keepdims=True)), 1e-12)
    return np.asarray(values / lengths)


def _is_second(facts: Facts) -> bool:
    return facts.number("vocab_size") >= VOCAB_2


BAICHUAN = Arch(
    "baichuan",
    hf=("BaichuanForCausalLM", "BaiChuanForCausalLM"),
    hparams=BASE | LAYOUT | u32("rope.dimension_count", value=width_by_heads),
    tensors=DECODER.without(*QKV)
    | rule(
        QKV,
        "model.layers.{l}.self_attn.W_pack",
        ends=WEIGHT,
        verb=equal_parts(3) | Each(interleave_halves(HEADS), interleave_halves(HEADS), COPY),
    )
    | rule("output", "lm_head", when=lambda facts: not _is_second(facts))
    # Baichuan 2 brings each row of the head to unit length before it multiplies; readers do not.
    | rule("output", "lm_head", variant="second", verb=Elementwise(_of_unit_length), when=_is_second),
    needs=(*TRUNK, *QKV, *GATED, "output"),
    vocab=(vocab.spm,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=SILU,
)


@vocab.loader
def xverse(job: vocab.VocabJob) -> vocab.Keys | None:
    """Llama's kind of vocabulary in tokenizer.json, without scores; bytes stand among its tokens, NUL written out."""
    if not job.folder.has("tokenizer.json"):
        return None
    backend = vocab.open_tokenizer(job.folder).backend
    by_id = {number: token for token, number in backend.get_vocab(with_added_tokens=True).items()}
    added = backend.get_added_tokens_decoder()
    tokens = vocab.Vocabulary("llama", "default", [], [])
    for number in range(job.count("vocab_size") or len(by_id)):
        text = by_id.get(number)
        if text is None:
            raise ConversionError(f"{job.directory / 'tokenizer.json'}: no token has id {number}")
        if text == "\0" or vocab.BYTE_TOKEN.fullmatch(text):
            tokens.put(number, "<b'\\x00'>" if text == "\0" else text, vocab.TokenType.BYTE)
        elif number in added:
            special = added[number].special
            tokens.put(number, text, vocab.TokenType.CONTROL if special else vocab.TokenType.USER_DEFINED)
        else:
            tokens.put(number, text, vocab.TokenType.NORMAL)
    return vocab.finish(job, tokens)


XVERSE = replace(
    BAICHUAN,
    name="xverse",
    hf=("XverseForCausalLM",),
    tensors=DECODER
    | rule("blk.{l}.attn_q", "model.layers.{l}.self_attn.q_proj", verb=interleave_halves(HEADS))
    | rule("blk.{l}.attn_k", "model.layers.{l}.self_attn.k_proj", verb=interleave_halves(HEADS_KV)),
    vocab=(xverse,),
)
ORION = Arch(
    "orion",
    hf=("OrionForCausalLM",),
    hparams=Table(
        (
            FILE_TYPE,
            LAYOUT,
            u32("context_length", "max_sequence_length", "max_position_embeddings", "model_max_length", required=True),
            u32("embedding_length", "hidden_size", required=True),
            u32("block_count", "num_hidden_layers", required=True),
            u32("feed_forward_length", "intermediate_size", required=True),
            u32("attention.head_count", "num_attention_heads", required=True),
            u32("attention.head_count_kv", "num_key_value_heads", "num_attention_heads", required=True),
            # Its norms are LayerNorms, whatever the configuration calls their epsilon.
            f32("attention.layer_norm_epsilon", "rms_norm_eps", required=True),
        )
    ),
    tensors=DECODER,
    needs=(
        "token_embd",
        "output",
        *affine("output_norm", *layer("attn_norm", "ffn_norm")),
        *layer("attn_output"),
        *QKV,
        *GATED,
    ),
    vocab=(vocab.spm,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=(*SILU, ("rope_theta", (10000.0,))),
)
ARCHS = (BAICHUAN, XVERSE, ORION)
