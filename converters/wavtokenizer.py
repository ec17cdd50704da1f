"""WavTokenizer's decoder: from codes to the spectrum of a voice, by convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Axis, Either, Table, boolean, f32, rule, u32
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts

from .common import BASE, affine


def _of(part: str, key: str) -> Callable[[Facts], Any]:
    return lambda facts: need(need(facts.config, part), key)


def _axis(part: str) -> Axis:
    return Axis(lambda facts: int(_of(part, "n_layer")(facts)))


BLOCK, POSNET = "backbone.convnext.{c}", "backbone.posnet.{p}"
CONVOLUTIONS = affine(*(f"posnet.{{p}}.{part}" for part in ("norm1", "conv1", "norm2", "conv2")))
ATTENTION = affine(*(f"posnet.{{p}}.attn_{part}" for part in ("norm", "q", "k", "v", "output")))

WAV_TOKENIZER = Arch(
    "wavtokenizer-dec",
    hf=("WavTokenizerDec",),
    hparams=BASE
    | u32("vocab_size", "vocab_size", required=True)
    | u32("features_length", "n_embd_features", required=True)
    | u32("feed_forward_length", "n_ff", required=True, again=True)
    | f32("attention.group_norm_epsilon", "group_norm_epsilon", required=True)
    | u32("attention.group_norm_groups", "group_norm_groups", required=True)
    | u32("posnet.embedding_length", value=_of("posnet", "n_embd"))
    | u32("posnet.block_count", value=_of("posnet", "n_layer"))
    | u32("convnext.embedding_length", value=_of("convnext", "n_embd"))
    | u32("convnext.block_count", value=_of("convnext", "n_layer"))
    | boolean("attention.causal", value=lambda facts: False, again=True),
    tensors=Table(
        (
            rule("token_embd", "embed_tokens"),
            rule("conv1d", "backbone.embed"),
            rule("token_embd_norm", "backbone.norm"),
            rule("output_norm", "backbone.final_layer_norm"),
            rule("output", "head.out"),
            rule("convnext.{c}.dw", f"{BLOCK}.dwconv"),
            rule("convnext.{c}.norm", f"{BLOCK}.norm"),
            rule("convnext.{c}.pw1", f"{BLOCK}.pwconv1"),
            rule("convnext.{c}.pw2", f"{BLOCK}.pwconv2"),
            rule("convnext.{c}.gamma", f"{BLOCK}.gamma"),
            *(rule(f"posnet.{{p}}.{part}", f"{POSNET}.{part}") for part in ("conv1", "conv2", "norm1", "norm2")),
            rule("posnet.{p}.attn_norm", f"{POSNET}.norm"),
            *(rule(f"posnet.{{p}}.attn_{part}", f"{POSNET}.{part}") for part in "qkv"),
            rule("posnet.{p}.attn_output", f"{POSNET}.proj_out"),
        )
    ),
    needs=(
        *("token_embd", *affine("conv1d", "token_embd_norm", "output_norm", "output")),
        *(*affine(*(f"convnext.{{c}}.{part}" for part in ("dw", "norm", "pw1", "pw2"))), "convnext.{c}.gamma"),
        # Of six blocks the third attends, and the last is a norm.
        Either((CONVOLUTIONS, ATTENTION, ATTENTION[:2])),
    ),
    vocab=(vocab.none,),
    drop=(r"codebook\.(cluster_size|embed_avg|inited)$",),
    axes={"c": _axis("convnext"), "p": _axis("posnet")},
)

ARCHS = (WAV_TOKENIZER,)
