"""BERT as an encoder of sentences (MiniLM, BGE) or a classifier."""

from __future__ import annotations

from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Table, boolean, rule, strings, u32
from gguf_forge.convert.facts import Facts

from .common import BASE, BUFFERS, GELU, QKV, affine, layer, pooling

ATTENTION = "encoder.layer.{l}.attention"


def labels(facts: Facts) -> list[str] | None:
    """The classes of a classifier; None for the two unnamed ones that a configuration has when it says nothing."""
    named = {int(k): str(v) for k, v in (facts.config.get("id2label") or {}).items()}
    if not named or (len(named) == 2 and named.get(0) == "LABEL_0"):
        return None
    return [named[k] for k in sorted(named)]


def _unnamed(config: dict[str, Any]) -> dict[int, str]:
    return {i: f"LABEL_{i}" for i in range(config.get("num_labels") or 2)}


BERT = Arch(
    "bert",
    hf=("BertModel", "BertForMaskedLM", "BertForSequenceClassification"),
    hparams=BASE
    | boolean("attention.causal", value=lambda facts: False, again=True)
    | u32("pooling_type", value=pooling)
    | strings("classifier.output_labels", value=labels),
    tensors=Table(
        (
            rule("token_embd", "embeddings.word_embeddings"),
            rule("token_types", "embeddings.token_type_embeddings"),
            rule("position_embd", "embeddings.position_embeddings"),
            rule("token_embd_norm", "embeddings.LayerNorm"),
            rule("blk.{l}.attn_q", f"{ATTENTION}.self.query"),
            rule("blk.{l}.attn_k", f"{ATTENTION}.self.key"),
            rule("blk.{l}.attn_v", f"{ATTENTION}.self.value"),
            rule("blk.{l}.attn_output", f"{ATTENTION}.output.dense"),
            rule("blk.{l}.attn_output_norm", f"{ATTENTION}.output.LayerNorm"),
            rule("blk.{l}.ffn_up", "encoder.layer.{l}.intermediate.dense"),
            rule("blk.{l}.ffn_down", "encoder.layer.{l}.output.dense"),
            rule("blk.{l}.layer_output_norm", "encoder.layer.{l}.output.LayerNorm"),
            rule("cls", "classifier", when=lambda facts: labels(facts) is None),
            rule("cls.output", "classifier", when=lambda facts: labels(facts) is not None),
        )
    ),
    needs=(
        "token_embd",
        "position_embd",
        *affine("token_embd_norm"),
        *QKV,
        *layer("attn_output", "ffn_up", "ffn_down", *affine("attn_output_norm", "layer_output_norm")),
    ),
    vocab=(vocab.token_type_count, vocab.wordpiece),
    renames=((r"^bert\.", ""), (r"\.gamma$", ".weight"), (r"\.beta$", ".bias")),
    drop=(
        *BUFFERS,
        r"^embeddings\.position_ids$",
        # Embeddings are pooled without BERT's own pooler, and nothing is predicted.
        r"^pooler\.dense\.",
        r"^cls\.predictions",
        r"^cls\.seq_relationship",
    ),
    implied=(*GELU, ("position_embedding_type", ("absolute",))),
)

ARCHS = (BERT,)
