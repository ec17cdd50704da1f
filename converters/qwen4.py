"""Qwen3.8-Flash-Next, which its classes call Qwen4Exp.

A Qwen3.5 mixture with streams in place of norms (hyper-connections), attention to the tokens that an indexer picks, and
on one layer embeddings of hashed n-grams, from a table that is larger than the rest of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gguf_forge.convert.arch import Axis, Drop, Either, Hparam, Rule, Table, array, exact, optional, rule, u32
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import CONCAT, SQUEEZE, TRANSPOSE
from gguf_forge.convert.rows import parts_of
from gguf_forge.errors import ConversionError
from gguf_forge.format.layout import ValueType

from .common import DECODER, MIXTURE, QK_NORM, layer, main_layers
from .qwen import SHARED
from .qwen_next import (
    AHEAD,
    APART,
    ATTENDS,
    AXES,
    DROP,
    EXPERT,
    KEEPS_APART,
    QWEN35_MOE,
    RENAMES,
    SHIFTED,
    nextn,
    parts,
    shifted,
)

#: Where the rules have the table of n-grams and the numbers that hash them; only one layer can use them.
TABLE = "model.ngrams"
HASHES = {
    "layer_multipliers": "layer_multipliers",
    "head_offsets": "ngram_heads_offsets",
    "head_vocab_sizes": "ngram_heads_vocab_sizes",
}


def _ratios(facts: Facts) -> list[int]:
    """How many tokens of a layer are one to its indexer; 0 where there is none.

    transformers says indexed_attention of what published configurations call full_attention.
    """
    ratio = facts.number("indexer_compress_ratio")
    kinds = need(facts.config, "layer_types")
    return [0 if kind == "linear_attention" else ratio for kind in kinds] + [ratio] * nextn(facts)


def _with_ngrams(value: Callable[[Facts], Any]) -> Callable[[Facts], Any]:
    """The value, where the file has embeddings of n-grams: those that predict further tokens do without."""

    def given(facts: Facts) -> Any:
        return value(facts) if facts.config.get("ple_layer_ids") and facts.options.mtp != "only" else None

    return given


def _needed(key: str) -> Callable[[Facts], Any]:
    return _with_ngrams(lambda facts: need(facts.config, key))


def _hash(name: str) -> Callable[[Facts], Any]:
    return _with_ngrams(lambda facts: [int(number) for number in facts.look(f"{TABLE}.{name}")])


def _end(facts: Facts) -> int:
    """The token after which n-grams begin anew: of several that end texts the last."""
    ends = need(facts.config, "eos_token_id")
    found = ends[-1] if isinstance(ends, list) and ends else ends
    if not isinstance(found, int):
        raise ConversionError(f"config.json: eos_token_id {ends!r:.60} is no token, after which n-grams begin anew")
    return found


KEYS: Table[Hparam] = QWEN35_MOE.hparams | Table(
    (
        u32("hyper_connection.count", "hc_count", required=True),
        u32("hyper_connection.low_rank", "hc_lowrank", required=True),
        u32("attention.indexer.head_count", "indexer_n_heads", required=True),
        u32("attention.indexer.key_length", "indexer_head_dim", required=True),
        u32("attention.indexer.top_k", "indexer_budget", required=True),
        array("attention.compress_ratios", ValueType.INT32, value=_ratios),
        array("ple.layers", ValueType.INT32, value=_with_ngrams(lambda f: [n - 1 for n in f.config["ple_layer_ids"]])),
        u32("ple.ngram_size", value=_needed("ngram_size")),
        u32("ple.heads_per_ngram", value=_needed("heads_per_ngram")),
        u32("ple.conv_kernel", value=_needed("ple_conv_kernel_size")),
        u32("ple.eos_token_id", value=_with_ngrams(_end)),
        u32("ple.image_token_id", value=_with_ngrams(lambda facts: facts.config.get("image_token_id"))),
        u32("embedding_length_per_layer_input", value=_with_ngrams(lambda f: f.headers[f"{TABLE}.0.weight"].shape[-1])),
        *(array(f"ple.{key}", ValueType.UINT64, value=_hash(name)) for key, name in HASHES.items()),
    )
)

STREAM = {"norm": "hc_norm", "down": "input_mix_weight_down", "up": "input_mix_weight_up"}
INJECTED = {**STREAM, "inject": "block_inject_weight"}
STREAMS = shifted(
    Table(tuple(rule(f"output_hc_{o}", f"model.hyper_connection_mixer.{s}") for o, s in STREAM.items()))
    | parts(**{f"hc_attn_{o}": f"attn_hyper_connection.{s}" for o, s in INJECTED.items()})
    | parts(**{f"hc_ffn_{o}": f"mlp_hyper_connection.{s}" for o, s in INJECTED.items()})
    | parts(**{f"nextn.hc_head_{o}": f"hyper_connection_mixer.{s}" for o, s in STREAM.items()})
)
INDEXER = shifted(parts(**{f"indexer.{x}_norm": f"self_attn.indexer.{x}_layernorm" for x in "qk"})) | exact(
    ("blk.{l}.indexer.q_proj.weight", "blk.{l}.indexer.k_proj.weight"),
    "model.layers.{l}.self_attn.indexer.index_qk_proj.weight",
    verb=parts_of(lambda f: [n * f.number("indexer_head_dim") for n in (f.number("indexer_n_heads"), 1)]),
)
NGRAMS = (
    parts(ple_key="ple.key_proj", ple_value="ple.value_proj")
    | parts(SHIFTED, **{f"ple_norm_{x}": f"ple.norm_{x}" for x in ("key", "query", "conv")})
    | parts(SQUEEZE, ple_conv1d="ple.conv1d")
    | rule("per_layer_token_embd", f"{TABLE}.{{s}}", verb=CONCAT)
)
#: A layer that predicts a further token reads an embedding and each stream: two matrices, here side by side.
NEXTN = shifted(parts(**{"nextn.enorm": "enorm", "nextn.hnorm": "hnorm"})) | rule(
    "blk.{l}.nextn.eh_proj",
    "model.layers.{l}.fc_embedding",
    "model.layers.{l}.fc_hidden",
    verb=TRANSPOSE | CONCAT | TRANSPOSE,
)
ROWS: Table[Rule] = (
    shifted(
        DECODER.without("output_norm", *layer("attn_norm", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")) | QK_NORM
    )
    | APART
    | EXPERT
    | STREAMS
    | INDEXER
    | NGRAMS
    | NEXTN
)


def _only_ahead(pattern: str) -> Drop:
    """What only the model's own layers use is left out with them under --mtp."""
    return Drop(pattern, lambda _match, facts: facts.options.mtp == "only")


QWEN4 = replace(
    QWEN35_MOE,
    name="qwen4exp",
    hf=("Qwen4ExpForConditionalGeneration", "Qwen4ExpForCausalLM"),
    hparams=KEYS,
    tensors=ROWS,
    needs=(
        "token_embd",
        optional(*(f"output_hc_{part}" for part in STREAM)),
        *layer(*(f"hc_{where}_{part}" for where in ("attn", "ffn") for part in INJECTED)),
        Either(((*ATTENDS, *layer(*(f"indexer.{x}" for x in ("q_proj", "k_proj", "q_norm", "k_norm")))), KEEPS_APART)),
        optional(*layer(*(row.out[0].removeprefix("blk.{l}.") for row in NGRAMS if row.out[0].startswith("blk")))),
        optional(*AHEAD, *layer(*(f"nextn.hc_head_{part}" for part in STREAM))),
        *MIXTURE,
        *SHARED,
    ),
    renames=(
        *RENAMES,
        (
            r"^(?:model\.)?mtp\.(fc_embedding|fc_hidden|hyper_connection_mixer)\.",
            lambda m, facts: f"model.layers.{main_layers(facts)}.{m[1]}.",
        ),
        (r"^model\.layers\.\d+\.ple\.ple_embedding\.(ngram_embedding\.shard_)?", f"{TABLE}."),
    ),
    drop=(*DROP, _only_ahead(r"^model\.hyper_connection_mixer\."), _only_ahead(r"\.ple\.ple_embedding\.")),
    axes={**AXES, "s": Axis(lambda facts: facts.number("split_ngram_parts"))},
    looks=tuple(f"{TABLE}.{name}" for name in HASHES.values()),
    implied=(*QWEN35_MOE.implied, ("output_gate_type", ("sigmoid",)), ("norm_topk_prob", (True,))),
)

ARCHS = (QWEN4,)
