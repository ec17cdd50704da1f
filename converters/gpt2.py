"""GPT-2, whose linear layers are stored the other way round; ruGPT3XL, whose layers are named as Llama's are."""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Rule, Table, f32, rule, u32
from gguf_forge.convert.ops import CONCAT, TRANSPOSE

from .common import BASE, BUFFERS, DECODER, FILE_TYPE, GELU, QKV, WRAPPERS, affine, inner_width, layer

LINEAR = (
    ("attn_qkv", "attn.c_attn"),
    ("attn_output", "attn.c_proj"),
    ("ffn_up", "mlp.c_fc"),
    ("ffn_down", "mlp.c_proj"),
)

NORMS = ("attn_norm", "ffn_norm")

#: All but the linear layers.
TRUNK: Table[Rule] = Table(
    (
        rule("token_embd", "wte"),
        rule("position_embd", "wpe"),
        rule("output_norm", "ln_f"),
        rule("output", "lm_head"),
        rule("blk.{l}.attn_norm", "h.{l}.ln_1"),
        rule("blk.{l}.ffn_norm", "h.{l}.ln_2"),
    )
)


GPT2 = Arch(
    "gpt2",
    hf=("GPT2LMHeadModel", "GPT2Model"),
    hparams=Table(
        (
            u32("block_count", "n_layer", required=True),
            u32("context_length", "n_ctx", "n_positions", required=True),
            u32("embedding_length", "n_embd", required=True),
            u32("feed_forward_length", value=inner_width("h.0.mlp.c_fc.weight", 1, "n_embd")),
            u32("attention.head_count", "n_head", required=True),
            f32("attention.layer_norm_epsilon", "layer_norm_epsilon", required=True),
            FILE_TYPE,
        )
    ),
    tensors=TRUNK
    | Table(tuple(rule(f"blk.{{l}}.{out}", f"h.{{l}}.{source}", verb=TRANSPOSE) for out, source in LINEAR)),
    needs=("token_embd", "position_embd", *affine("output_norm"), *layer(*affine(*NORMS, *(out for out, _ in LINEAR)))),
    vocab=(vocab.bpe,),
    renames=((r"^transformer\.", ""),),
    drop=(r"\.attn\.bias$", r"\.attn\.masked_bias$"),
    implied=(*GELU, ("scale_attn_weights", (True,)), ("scale_attn_by_inverse_layer_idx", (False,))),
)

SELF = "model.layers.{l}.self_attn"
RUGPT3XL = replace(
    GPT2,
    hf=("RuGPT3XLForCausalLM",),
    hparams=BASE,
    tensors=DECODER.without(*QKV, "blk.{l}.ffn_gate")
    | rule("position_embd", "model.embed_positions")
    | rule("blk.{l}.attn_qkv", f"{SELF}.q_proj", f"{SELF}.k_proj", f"{SELF}.v_proj", verb=CONCAT),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=GELU,
)

ARCHS = (GPT2, RUGPT3XL)
