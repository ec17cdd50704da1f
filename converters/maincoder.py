"""Maincoder, a Llama with normalised queries and keys."""

from __future__ import annotations

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, u32

from .common import BASE, BUFFERS, DECODER, GATED, QK_NORM, QK_NORMS, QKV, SILU, TRUNK, WRAPPERS

MAINCODER = Arch(
    "maincoder",
    hf=("MaincoderForCausalLM",),
    hparams=BASE | u32("rope.dimension_count", "head_dim"),
    tensors=DECODER | QK_NORM,
    needs=(*TRUNK, *QKV, *QK_NORMS, *GATED),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=SILU,
)

ARCHS = (MAINCODER,)
