"""Qwen 1, 2, 2.5 and 3, and the latter's mixtures of experts (Qwen1.5-MoE among them).

Of multimodal models built on them (Qwen2-Audio, Audio Flamingo 3, dots.ocr, Intern-S1) the text model. KORMo is a
Qwen2, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import (
    WEIGHT,
    Arch,
    Either,
    Hparam,
    Rule,
    Table,
    exact,
    f32,
    rule,
    string,
    strings,
    u32,
)
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import STACK
from gguf_forge.convert.rows import equal_parts, picked_rows
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.errors import ConversionError

from .common import (
    BASE,
    BUFFERS,
    DECODER,
    GATED,
    MIXTURE,
    MULTIMODAL,
    QK_NORM,
    QK_NORMS,
    QKV,
    SILU,
    TRUNK,
    WRAPPERS,
    affine,
    layer,
    pooling,
)

POOLING = u32("pooling_type", value=pooling)
DROP = (*BUFFERS, *MULTIMODAL)


def sections(*sizes: int) -> Hparam:
    """A row of the rotary sections that a model's code has where its configuration names none; readers need some."""

    def value(facts: Facts) -> list[int] | None:
        return None if "mrope_section" in facts.config["rope_parameters"] else [*sizes, 0]

    return u32("rope.dimension_sections", value=value, again=True)



def fused(part: str) -> tuple[str, str]:
    """Where the experts of a layer may be stored as one tensor, with the ending of a weight or without."""
    return f"model.layers.{{l}}.mlp.experts.{part}", f"model.layers.{{l}}.mlp.experts.{part}.weight"


#: Experts stored one by one.
SINGLE_EXPERTS: Table[Rule] = Table(
    tuple(
        rule(
            f"blk.{{l}}.ffn_{part}_exps",
            f"model.layers.{{l}}.mlp.experts.{{e}}.{part}_proj",
            ends=WEIGHT,
            verb=STACK,
            group="experts",
        )
        for part in ("down", "gate", "up")
    )
)
#: Experts stored as two tensors a layer.
FUSED_EXPERTS: Table[Rule] = Table(
    (
        exact("blk.{l}.ffn_down_exps.weight", fused("down_proj"), variant="fused"),
        exact(
            ("blk.{l}.ffn_gate_exps.weight", "blk.{l}.ffn_up_exps.weight"),
            fused("gate_up_proj"),
            verb=equal_parts(2),
        ),
    )
)
#: Experts stored one by one, or as two tensors a layer.
EXPERTS: Table[Rule] = SINGLE_EXPERTS | FUSED_EXPERTS

SHARED_EXPERT: Table[Rule] = Table(
    (
        rule("blk.{l}.ffn_gate_inp_shexp", "model.layers.{l}.mlp.shared_expert_gate"),
        *(
            rule(f"blk.{{l}}.ffn_{part}_shexp", f"model.layers.{{l}}.mlp.shared_expert.{part}_proj")
            for part in ("gate", "up", "down")
        ),
    )
)

SHARED = layer("ffn_gate_inp_shexp", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")

ROUTER = rule("blk.{l}.ffn_gate_inp", "model.layers.{l}.mlp.gate")
#: With dense layers among those of experts.
MOE: Table[Rule] = DECODER | ROUTER | EXPERTS
#: Without.
SPARSE: Table[Rule] = DECODER.without(*GATED) | QK_NORM | ROUTER | SINGLE_EXPERTS

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
        u32("pooling_type", value=_if_reranker(RANK), again=True),
        strings("classifier.output_labels", value=_if_reranker(["yes", "no"])),
        string("tokenizer.chat_template.rerank", value=_if_reranker(RERANK_TEMPLATE)),
        strings("tokenizer.chat_templates", value=_if_reranker(["rerank"])),
    )
)
RERANKER: Table[Rule] = Table(
    (
        exact("cls.output.weight", "model.embed_tokens.weight", verb=picked_rows(answers), when=_ranks_by_embedding),
        exact("cls.output.weight", "lm_head.weight", variant="head", verb=picked_rows(answers), when=_ranks_by_head),
    )
)

MOE_KEYS = (
    BASE
    | u32("expert_feed_forward_length", "moe_intermediate_size")
    | u32("expert_shared_feed_forward_length", "shared_expert_intermediate_size")
)
#: Qwen 1 feeds forward through two projections of half its `intermediate_size`; what readers know as gate is its w2.
QWEN1: Table[Rule] = Table(
    (
        rule("token_embd", "transformer.wte"),
        rule("output_norm", "transformer.ln_f"),
        rule("output", "lm_head"),
        *(
            rule(f"blk.{{l}}.{out}", f"transformer.h.{{l}}.{name}")
            for out, name in (
                ("attn_norm", "ln_1"),
                ("attn_qkv", "attn.c_attn"),
                ("attn_output", "attn.c_proj"),
                ("ffn_norm", "ln_2"),
                ("ffn_gate", "mlp.w2"),
                ("ffn_up", "mlp.w1"),
                ("ffn_down", "mlp.c_proj"),
            )
        ),
    )
)


def _is_intern_s1(job: vocab.VocabJob) -> bool:
    """Whether the folder is Intern-S1's, whose text model is a Qwen3 by its own name."""
    named = (job.folder.object("config.json") or {}).get("architectures")
    return isinstance(named, list) and named[:1] == ["InternS1ForConditionalGeneration"]


INTERN_S1 = vocab.when(_is_intern_s1, vocab.bpe_with(fill={"bos": 151643}))

QWEN = Arch(
    "qwen",
    hf=("QWenLMHeadModel",),
    # Its epsilon bears the name of a LayerNorm, which is how the reference writes it; readers need that of an RMS norm.
    hparams=BASE | f32("attention.layer_norm_rms_epsilon", "layer_norm_epsilon", required=True),
    tensors=QWEN1,
    needs=(*TRUNK, "output", *affine("blk.{l}.attn_qkv"), *GATED),
    vocab=(vocab.qwen_tiktoken,),
    drop=(*BUFFERS, r"^transformer\.visual\."),
)
QWEN2 = Arch(
    "qwen2",
    hf=(
        "Qwen2ForCausalLM",
        "Qwen2Model",
        "Qwen2AudioForConditionalGeneration",
        "KORMoForCausalLM",
        "AudioFlamingo3ForConditionalGeneration",
        "DotsOCRForCausalLM",
    ),
    hparams=BASE | POOLING,
    tensors=DECODER,
    needs=(*TRUNK, *QKV, *GATED),
    vocab=(vocab.spm, vocab.bpe),
    renames=(
        *WRAPPERS,
        (r"\.pre_attention_layernorm\.", ".input_layernorm."),
        (r"\.pre_mlp_layernorm\.", ".post_attention_layernorm."),
    ),
    drop=DROP,
    implied=SILU,
)
QWEN2_MOE = Arch(
    "qwen2moe",
    hf=("Qwen2MoeForCausalLM",),
    hparams=MOE_KEYS,
    tensors=MOE | SHARED_EXPERT,
    needs=(*TRUNK, *QKV, Either(((*MIXTURE, *SHARED), GATED))),
    vocab=(vocab.bpe,),
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
    vocab=(INTERN_S1, vocab.spm, vocab.bpe),
    renames=WRAPPERS,
    drop=DROP,
    implied=SILU,
)
QWEN3_MOE = Arch(
    "qwen3moe",
    hf=("Qwen3MoeForCausalLM",),
    hparams=MOE_KEYS,
    tensors=MOE | QK_NORM,
    needs=(*TRUNK, *QKV, *QK_NORMS, Either((MIXTURE, GATED))),
    vocab=(INTERN_S1, vocab.bpe),
    renames=WRAPPERS,
    drop=DROP,
    implied=(*SILU, ("norm_topk_prob", (True,))),
)

ARCHS = (QWEN, QWEN2, QWEN2_MOE, QWEN3, QWEN3_MOE)
