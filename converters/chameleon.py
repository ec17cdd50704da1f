"""Chameleon and CogVLM: Llamas that read images as tokens, or through experts of their own. Here the text model."""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Rule, Table, boolean, rule
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Reshape
from gguf_forge.convert.rows import interleave_halves, number_of

from .common import BASE, BUFFERS, DECODER, GATED, HEADS, HEADS_KV, QK_NORMS, SILU, TRUNK, layer
from .llama import KEYS, LLAMA, TURNED

SELF, MLP = "model.layers.{l}.self_attn", "model.layers.{l}.mlp"


def _flat(shape: tuple[int, ...], _: Facts) -> tuple[int]:
    size = 1
    for length in shape:
        size *= length
    return (size,)


def _norm(part: str, *keys: str) -> Rule:
    """The norm of each head, whose elements go the way of the queries' and keys' rows."""
    heads = number_of(*keys)
    verb = Reshape(_flat) | interleave_halves(heads) | Reshape(lambda shape, f: (heads(f), shape[0] // heads(f)))
    return rule(f"blk.{{l}}.attn_{part}_norm", f"{SELF}.{part}_norm", verb=verb)


CHAMELEON = replace(
    LLAMA,
    name="chameleon",
    hf=("ChameleonForConditionalGeneration", "ChameleonForCausalLM"),
    hparams=BASE | boolean("swin_norm", "swin_norm", default=False),
    tensors=DECODER | TURNED | _norm("q", *HEADS) | _norm("k", *HEADS_KV, *HEADS),
    needs=(*LLAMA.needs[:-1], *GATED, *QK_NORMS),
    vocab=(vocab.bpe,),
    drop=(*BUFFERS, r"^model\.vqmodel\."),
)

EXPERTS: Table[Rule] = Table(
    (
        rule("blk.{l}.attn_qkv", f"{SELF}.language_expert_query_key_value"),
        rule("blk.{l}.attn_output", f"{SELF}.language_expert_dense"),
        rule("blk.{l}.vis_attn_qkv", f"{SELF}.vision_expert_query_key_value"),
        rule("blk.{l}.vis_attn_output", f"{SELF}.vision_expert_dense"),
        *(
            rule(f"blk.{{l}}.{out}_{part}", f"{MLP}.{source}_mlp.{part}_proj")
            for out, source in (("ffn", "language"), ("vis", "vision"))
            for part in ("gate", "up", "down")
        ),
    )
)
COGVLM = replace(
    LLAMA,
    name="cogvlm",
    hf=("CogVLMForCausalLM",),
    hparams=KEYS,
    tensors=DECODER.without("blk.{l}.attn_q", "blk.{l}.attn_k", "blk.{l}.attn_v") | EXPERTS,
    needs=(*TRUNK, *layer("attn_qkv", "vis_attn_qkv", "vis_attn_output", "vis_gate", "vis_up", "vis_down"), *GATED),
    drop=(*BUFFERS, r"^model\.vision\."),
    implied=SILU,
)

ARCHS = (CHAMELEON, COGVLM)
