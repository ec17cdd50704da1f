"""Qwen2, Qwen2.5, Qwen3, and their mixtures of experts (Qwen1.5-MoE among them)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Either, Rule, Table, rule, string, strings, u32
from gguf_forge.convert.ops import COPY, STACK, Facts, PickRows, Split
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.errors import ConversionError

from .common import (
    BASE,
    BUFFERS,
    DECODER,
    GATED,
    MIXTURE,
    QK_NORM,
    QK_NORMS,
    QKV,
    SILU,
    TRUNK,
    WRAPPERS,
    layer,
    pooling,
)

POOLING = u32("pooling_type", value=pooling)

#: Experts stored one by one, then as two tensors a layer.
EXPERTS: Table[Rule] = Table(
    (
        *(
            rule(
                f"blk.{{l}}.ffn_{part}_exps.weight",
                f"model.layers.{{l}}.mlp.experts.{{e}}.{part}_proj.weight",
                verb=STACK,
                group="experts",
                every=False,
            )
            for part in ("down", "gate", "up")
        ),
        *(
            rule(
                f"blk.{{l}}.ffn_{out}_exps.weight",
                f"model.layers.{{l}}.mlp.experts.{source}",
                variant=f"fused{end}",
                every=False,
                verb=verb,
            )
            for end in ("", ".weight")
            for out, source, verb in (
                ("down", f"down_proj{end}", COPY),
                ("gate", f"gate_up_proj{end}", Split(0, 2)),
                ("up", f"gate_up_proj{end}", Split(1, 2)),
            )
        ),
    )
)

#: A dense layer among layers of experts.
SOME_DENSE: Table[Rule] = Table(
    tuple(
        rule(f"blk.{{l}}.ffn_{part}", f"model.layers.{{l}}.mlp.{part}_proj", every=False)
        for part in ("gate", "up", "down")
    )
)

SHARED_EXPERT: Table[Rule] = Table(
    (
        rule("blk.{l}.ffn_gate_inp_shexp", "model.layers.{l}.mlp.shared_expert_gate", every=False),
        *(
            rule(f"blk.{{l}}.ffn_{part}_shexp", f"model.layers.{{l}}.mlp.shared_expert.{part}_proj", every=False)
            for part in ("gate", "up", "down")
        ),
    )
)

SHARED = layer("ffn_gate_inp_shexp", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")

MOE: Table[Rule] = (
    DECODER | SOME_DENSE | rule("blk.{l}.ffn_gate_inp", "model.layers.{l}.mlp.gate", every=False) | EXPERTS
)

RERANKERS = ("qwen3-reranker", "qwen3-vl-reranker")
#: GGUF's pooling type of models that rank documents.
RANK = 4
#: What a reranker is asked; as the reference spells it, the file's users fill in query and document.
RERANK_TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct"
    ' provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


def reranks(facts: Facts) -> bool:
    """Whether this Qwen3 is a reranker, which only its name tells: the folder's, or the title of its model card."""
    card = (Folder(facts.directory).text("README.md") or "").lower()
    name = facts.directory.name or facts.directory.resolve().name
    hints = (name.lower(), str(facts.config.get("model_type", "")).lower())
    return any(f"# {known}" in card or any(known in hint for hint in hints) for known in RERANKERS)


def _ranks_by_embedding(facts: Facts) -> bool:
    return reranks(facts) and bool(facts.config.get("tie_word_embeddings"))


def _ranks_by_head(facts: Facts) -> bool:
    return reranks(facts) and not facts.config.get("tie_word_embeddings")


def answers(facts: Facts) -> list[int]:
    """The token ids of a reranker's answers, yes and no."""
    folder = Folder(facts.directory)
    model = (folder.object("tokenizer.json") or {}).get("model") or {}
    tokens = model.get("vocab") or folder.object("vocab.json") or {}
    missing = [word for word in ("yes", "no") if word not in tokens]
    if missing:
        raise ConversionError(f"{facts.directory}: a reranker's vocabulary must have the token {missing[0]!r}")
    return [tokens["yes"], tokens["no"]]


def _if_reranker(value: Any) -> Callable[[Facts], Any]:
    return lambda facts: value if reranks(facts) else None


#: A reranker is its model's answer, yes or no, to whether a document fits a query: two rows of the output.
RERANKER_KEYS = Table(
    (
        u32("pooling_type", value=_if_reranker(RANK), variant="reranker"),
        strings("classifier.output_labels", value=_if_reranker(["yes", "no"])),
        string("tokenizer.chat_template.rerank", value=_if_reranker(RERANK_TEMPLATE)),
        strings("tokenizer.chat_templates", value=_if_reranker(["rerank"])),
    )
)
RERANKER: Table[Rule] = Table(
    (
        rule("cls.output.weight", "model.embed_tokens.weight", verb=PickRows(answers), when=_ranks_by_embedding),
        rule("cls.output.weight", "lm_head.weight", variant="head", verb=PickRows(answers), when=_ranks_by_head),
    )
)

MOE_KEYS = (
    BASE
    | u32("expert_feed_forward_length", "moe_intermediate_size")
    | u32("expert_shared_feed_forward_length", "shared_expert_intermediate_size")
)

QWEN2 = Arch(
    "qwen2",
    hf=("Qwen2ForCausalLM", "Qwen2Model"),
    hparams=BASE | POOLING,
    tensors=DECODER,
    needs=(*TRUNK, *QKV, *GATED),
    vocab=vocab.QWEN,
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=SILU,
)
QWEN2_MOE = Arch(
    "qwen2moe",
    hf=("Qwen2MoeForCausalLM",),
    hparams=MOE_KEYS,
    tensors=MOE | SHARED_EXPERT,
    needs=(*TRUNK, *QKV, Either(((*MIXTURE, *SHARED), GATED))),
    vocab=vocab.BPE,
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=(*SILU, ("norm_topk_prob", (False,))),
)
QWEN3 = Arch(
    "qwen3",
    hf=("Qwen3ForCausalLM", "Qwen3Model"),
    hparams=BASE | POOLING | RERANKER_KEYS,
    tensors=RERANKER | DECODER | QK_NORM | rule("output", "lm_head", when=lambda facts: not _ranks_by_head(facts)),
    needs=(*TRUNK, *QKV, *QK_NORMS, *GATED),
    vocab=vocab.QWEN,
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=SILU,
)
QWEN3_MOE = Arch(
    "qwen3moe",
    hf=("Qwen3MoeForCausalLM",),
    hparams=MOE_KEYS,
    tensors=MOE | QK_NORM,
    needs=(*TRUNK, *QKV, *QK_NORMS, Either((MIXTURE, GATED))),
    vocab=vocab.BPE,
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=(*SILU, ("norm_topk_prob", (True,))),
)

ARCHS = (QWEN2, QWEN2_MOE, QWEN3, QWEN3_MOE)
