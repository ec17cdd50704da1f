"""openPangu Embedded."""

from __future__ import annotations

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Drop, u32
from gguf_forge.convert.facts import Facts

from .common import BASE, BUFFERS, DECODER, GATED, QKV, SILU, TRUNK, WRAPPERS, tied_head
from .rotary import head_dim


def _undeclared(facts: Facts) -> int | None:
    """The size of a head that config.json leaves to be derived."""
    return None if facts.config.get("head_dim") is not None else head_dim(facts)


PANGU = Arch(
    "pangu-embedded",
    hf=("PanguEmbeddedForCausalLM",),
    hparams=BASE
    | u32("vocab_size", "vocab_size", required=True)
    | u32("rope.dimension_count", value=head_dim)
    | u32("attention.key_length", value=_undeclared, again=True)
    | u32("attention.value_length", value=_undeclared, again=True),
    tensors=DECODER,
    needs=(*TRUNK, "blk.{l}.attn_output.bias", *QKV, *GATED),
    vocab=(vocab.spm, vocab.config_space_prefix),
    renames=WRAPPERS,
    drop=(*BUFFERS, Drop(r"^lm_head\.weight$", lambda _match, facts: tied_head(facts))),
    implied=SILU,
)

ARCHS = (PANGU,)
