"""Gemma 1, 2 and 3, and EmbeddingGemma; of a multimodal Gemma 3 the text model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Hparam, Rule, Table, exact, f32, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import add
from gguf_forge.convert.rope import rope_of
from gguf_forge.convert.rows import first_rows
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.errors import ConversionError

from .common import (
    BASE,
    BUFFERS,
    DECODER,
    FILE_TYPE,
    GATED,
    GELU,
    MULTIMODAL,
    QK_NORM,
    QK_NORMS,
    QKV,
    TRUNK,
    WRAPPERS,
    layer,
    pooling,
    windows_unless_usual,
)

SHIFTED = add(1.0)

KEYS: Table[Hparam] = Table(
    (
        u32("context_length", "max_position_embeddings", required=True),
        u32("embedding_length", "hidden_size", required=True),
        u32("block_count", "num_hidden_layers", required=True),
        u32("feed_forward_length", "intermediate_size", required=True),
        u32("attention.head_count", "num_attention_heads", required=True),
        u32("attention.head_count_kv", "num_key_value_heads", "num_attention_heads", required=True),
        f32("attention.layer_norm_rms_epsilon", "rms_norm_eps", required=True),
        u32("attention.key_length", "head_dim", required=True),
        u32("attention.value_length", "head_dim", required=True),
        FILE_TYPE,
    )
)

#: Gemma stores its norms' weights less one.
NORMS: Table[Rule] = Table(
    (
        rule("output_norm", "model.norm", verb=SHIFTED),
        rule("blk.{l}.attn_norm", "model.layers.{l}.input_layernorm", verb=SHIFTED),
        rule("blk.{l}.ffn_norm", "model.layers.{l}.post_attention_layernorm", verb=SHIFTED),
    )
)
SANDWICH: Table[Rule] = Table(
    (
        rule("blk.{l}.post_attention_norm", "model.layers.{l}.post_attention_layernorm", verb=SHIFTED),
        rule("blk.{l}.ffn_norm", "model.layers.{l}.pre_feedforward_layernorm", verb=SHIFTED),
        rule("blk.{l}.post_ffw_norm", "model.layers.{l}.post_feedforward_layernorm", verb=SHIFTED),
    )
)
NEEDS = (*TRUNK, *QKV, *GATED)
POST_NORMS = layer("post_attention_norm", "post_ffw_norm")

HEAD = (r"^lm_head\.weight$",)
VISION = (r"^(model\.)?(vision_tower|multi_modal_projector|vision_model|multimodal_projector)\.",)


def vocab_rows(facts: Facts) -> int:
    """Rows of the embedding that stand for tokens: as many as the vocabulary is padded to."""
    size = facts.config.get("vocab_size")
    if isinstance(size, int):
        return size
    found = Folder(facts.directory).object("tokenizer.json")
    if found is None:
        raise ConversionError(f"{facts.directory}: neither vocab_size nor tokenizer.json to count tokens by")
    return len(found["model"]["vocab"]) + len(found["added_tokens"])


def _window(facts: Facts) -> Any:
    """The sliding window, unless every layer has full attention."""
    kinds = facts.config.get("layer_types")
    if facts.config.get("sliding_window_pattern") == 1 or (kinds and "sliding_attention" not in kinds):
        return None
    window = facts.config.get("sliding_window")
    if facts.config.get("use_bidirectional_attention") and isinstance(window, int):
        return window // 2 * 2
    return window


def _softcap(facts: Facts) -> Any:
    if facts.config.get("attn_logit_softcapping") is not None:
        raise ConversionError("config.json: Gemma 3 has no attn_logit_softcapping")
    return facts.config.get("final_logit_softcapping") or None


def _query_scale(layers_27b: int) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Whose root queries are divided by in llama.cpp: the size of a head; in the 27B model, known by its number of
    layers, the width divided by the heads.
    """

    def meant(config: Mapping[str, Any]) -> tuple[Any, ...]:
        if config.get("num_hidden_layers") == layers_27b:
            return (config["hidden_size"] // config["num_attention_heads"],)
        return (config.get("head_dim"),)

    return meant


def _module(number: int, axis: int) -> Callable[[Facts], int | None]:
    """The length of an axis of a dense layer after the pooling, where it is kept."""

    def length(facts: Facts) -> int | None:
        header = facts.headers.get(f"{number}_Dense/linear.weight")
        return None if header is None or not facts.options.dense_modules else header.shape[axis]

    return length


def _dense(number: int) -> Rule:
    return exact(
        f"dense_{number}.weight",
        f"{number}_Dense/linear.weight",
        when=lambda facts: facts.options.dense_modules,
        first=4 - number,
    )


GEMMA = Arch(
    "gemma",
    hf=("GemmaForCausalLM",),
    hparams=KEYS,
    tensors=DECODER.without("output") | NORMS,
    needs=NEEDS,
    vocab=(
        vocab.spm,
        # Gemma's end-of-infill token is CodeGemma's; its companions have no key any more.
        vocab.special_again(("prefix", "suffix", "middle", "fsep", "eot"), {"eot": 107}, template=False),
        vocab.space_prefix(False),
    ),
    renames=WRAPPERS,
    drop=(*BUFFERS, *HEAD, *MULTIMODAL),
    implied=GELU,
)
GEMMA2 = Arch(
    "gemma2",
    hf=("Gemma2ForCausalLM",),
    hparams=KEYS
    | f32("attn_logit_softcapping", "attn_logit_softcapping", required=True)
    | f32("final_logit_softcapping", "final_logit_softcapping", required=True)
    | u32("attention.sliding_window", "sliding_window", required=True)
    | windows_unless_usual("gemma2"),
    tensors=DECODER.without("output") | NORMS | SANDWICH,
    needs=(*NEEDS, *POST_NORMS),
    vocab=(vocab.spm, vocab.space_prefix(False)),
    renames=WRAPPERS,
    drop=(*BUFFERS, *HEAD, *MULTIMODAL),
    implied=(*GELU, ("query_pre_attn_scalar", _query_scale(46))),
)
GEMMA3 = Arch(
    "gemma3",
    hf=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    hparams=BASE
    | u32("context_length", "max_position_embeddings", default=131072, again=True)
    | u32("attention.head_count", "num_attention_heads", default=8, again=True)
    | f32("attention.layer_norm_rms_epsilon", "rms_norm_eps", default=1e-6, again=True)
    | u32("attention.key_length", "head_dim", default=256, again=True)
    | u32("attention.value_length", "head_dim", default=256, again=True)
    | f32("rope.freq_base", value=lambda facts: rope_of(facts.config).get("rope_theta", 1e6), again=True)
    | f32("final_logit_softcapping", value=_softcap)
    | u32("attention.sliding_window", value=_window)
    | windows_unless_usual("gemma3")
    | u32("attention.head_count_kv", "num_key_value_heads", default=4, again=True),
    tensors=DECODER
    | NORMS
    | SANDWICH
    | Table(tuple(rule(r.out, *r.sources, verb=SHIFTED) for r in QK_NORM))
    | rule("token_embd", "model.embed_tokens", verb=first_rows(vocab_rows)),
    needs=(*NEEDS, *POST_NORMS, *QK_NORMS),
    vocab=(vocab.together(vocab.spm, vocab.space_prefix(False)), vocab.bpe),
    renames=WRAPPERS,
    drop=BUFFERS + VISION,
    implied=(*GELU, ("query_pre_attn_scalar", _query_scale(62)), ("use_bidirectional_attention", (False,))),
)

#: EmbeddingGemma: its window is the one in config.json, whatever its attention.
GEMMA_EMBEDDING = replace(
    GEMMA3,
    name="gemma-embedding",
    hf=("Gemma3TextModel",),
    tensors=GEMMA3.tensors.without("output") | _dense(2) | _dense(3),
    drop=GEMMA3.drop + HEAD,
    implied=GEMMA3.implied[:-1],
    hparams=GEMMA3.hparams
    | u32("attention.sliding_window", "sliding_window", required=True)
    | u32("dense_2_feat_in", value=_module(2, 1))
    | u32("dense_2_feat_out", value=_module(2, 0))
    | u32("dense_3_feat_in", value=_module(3, 1))
    | u32("dense_3_feat_out", value=_module(3, 0))
    | u32("pooling_type", value=pooling),
)

ARCHS = (GEMMA, GEMMA2, GEMMA3, GEMMA_EMBEDDING)
