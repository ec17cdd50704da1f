"""StarCoder and SantaCoder, CodeShell, Refact, StarCoder 2: models of code."""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Table, f32, rule, string, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.rows import equal_parts

from .common import BASE, BUFFERS, DECODER, FILE_TYPE, GATED, GELU, QKV, WRAPPERS, affine, inner_width, layer
from .gpt2 import LINEAR, NORMS
from .gpt2 import TRUNK as GPT2_TRUNK

BOTH_FORWARD = ("ffn_up", "ffn_down")
NEEDS = (*affine("output_norm"), *layer(*affine(*NORMS, *(out for out, _ in LINEAR))))

STARCODER = Arch(
    "starcoder",
    hf=("GPTBigCodeForCausalLM",),
    hparams=Table(
        (
            u32("context_length", "n_positions", required=True),
            u32("embedding_length", "n_embd", required=True),
            u32("feed_forward_length", value=inner_width("h.0.mlp.c_fc.weight", 0, "n_embd")),
            u32("block_count", "n_layer", required=True),
            u32("attention.head_count", "n_head", required=True),
            u32("attention.head_count_kv", value=lambda facts: 1),
            f32("attention.layer_norm_epsilon", "layer_norm_epsilon", required=True),
            FILE_TYPE,
        )
    ),
    # As in GPT-2, but stored as everywhere else.
    tensors=GPT2_TRUNK | Table(tuple(rule(f"blk.{{l}}.{out}", f"h.{{l}}.{source}") for out, source in LINEAR)),
    needs=("token_embd", "position_embd", *NEEDS),
    vocab=(vocab.bpe,),
    renames=((r"^transformer\.", ""),),
    drop=(r"\.attn\.bias$", r"\.attn\.masked_bias$"),
    implied=(*GELU, ("multi_query", (True,)), ("scale_attn_weights", (True,))),
)

CODESHELL = replace(
    STARCODER,
    name="codeshell",
    hf=("CodeShellForCausalLM",),
    hparams=STARCODER.hparams
    | u32("attention.head_count_kv", "num_query_groups", required=True)
    | f32("rope.freq_base", value=lambda facts: 10000.0)
    | string("rope.scaling.type", value=lambda facts: "linear")
    | f32("rope.scaling.factor", value=lambda facts: 1.0),
    # llama.cpp wants a head, which is the embedding where the checkpoint has none.
    tensors=STARCODER.tensors.without("position_embd") | rule("output", ("lm_head", "wte")),
    needs=("token_embd", "output", *NEEDS),
    drop=(*STARCODER.drop, r"\.rotary_emb\.inv_freq$"),
    implied=(*GELU, ("position_embedding_type", ("rope",)), ("rope_scaling", (None,))),
)


def _refacts_width(facts: Facts) -> int:
    """Two thirds of four times the model's width, and from there the next multiple of 256."""
    return (int(8 * facts.number("n_embd") / 3) + 255) // 256 * 256


REFACT = replace(
    STARCODER,
    name="refact",
    hf=("GPTRefactForCausalLM",),
    hparams=STARCODER.hparams.without("attention.layer_norm_epsilon", "general.file_type")
    | u32("feed_forward_length", value=_refacts_width)
    | f32("attention.layer_norm_rms_epsilon", "layer_norm_epsilon", required=True)
    | FILE_TYPE,
    tensors=STARCODER.tensors.without("position_embd", "blk.{l}.attn_qkv", "blk.{l}.ffn_up")
    | rule("blk.{l}.attn_q", "h.{l}.attn.q")
    | rule(("blk.{l}.attn_k", "blk.{l}.attn_v"), "h.{l}.attn.kv", verb=equal_parts(2))
    | rule(("blk.{l}.ffn_gate", "blk.{l}.ffn_up"), "h.{l}.mlp.gate_up_proj", verb=equal_parts(2)),
    needs=("token_embd", "output_norm", *layer(*NORMS, "attn_output"), *QKV, *GATED),
    # What fills in the middle of a text has numbers that no file says.
    vocab=(vocab.bpe, vocab.special_again(("prefix", "suffix", "middle", "eot"), template=False)),
    implied=(("activation_function", ("silu", "gelu_pytorch_tanh")), ("multi_query", (True,))),
)

STARCODER2 = Arch(
    "starcoder2",
    hf=("Starcoder2ForCausalLM",),
    hparams=BASE,
    tensors=DECODER.without("blk.{l}.ffn_gate")
    | rule("blk.{l}.ffn_up", "model.layers.{l}.mlp.c_fc")
    | rule("blk.{l}.ffn_down", "model.layers.{l}.mlp.c_proj"),
    needs=("token_embd", *affine("output_norm"), *layer(*affine(*NORMS, "attn_output", *BOTH_FORWARD)), *QKV),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=GELU,
)

ARCHS = (STARCODER, CODESHELL, REFACT, STARCODER2)
