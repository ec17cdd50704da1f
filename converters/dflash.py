"""Draft models that fill in a block of tokens from what their target computed: DFlash, DSpark, Muse Glimmer's.

They have their target's vocabulary, and mostly its embedding and head, which their file need not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Drop, Hparam, Rule, Table, array, boolean, exact, f32, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Rows, Single
from gguf_forge.convert.rows import grouped
from gguf_forge.convert.view import Array, Numbers, View, changed
from gguf_forge.errors import ConversionError
from gguf_forge.format.layout import ValueType
from gguf_forge.source.input_file import InputFile
from gguf_forge.source.torch_pickle import read_torch_pickle

from .common import (
    BASE,
    BUFFERS,
    DECODER,
    GATED,
    MULTIMODAL,
    QK_NORM,
    QK_NORMS,
    QKV,
    SILU,
    TRUNK,
    WRAPPERS,
    main_layers,
    sliding_layers,
)
from .rotary import head_dim

MASK_FILE = "mask_embedding.pt"
EMBEDDING = "target:model.embed_tokens.weight"


def _own(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is DFlash's own in a configuration, whichever way it is written down."""
    given = config.get("dflash_config")
    if given is not None:
        found: Mapping[str, Any] = given
        return found
    # EAGLE's way: layers are counted by what goes into them.
    counted = config.get("aux_hidden_state_layer_ids")
    layers = config.get("target_layer_ids") if counted is None else [number - 1 for number in counted]
    return {"target_layer_ids": layers, "mask_token_id": config.get("mask_token_id")}


def _said(*names: str) -> Callable[[Facts], Any]:
    """The first of these keys that is not null: in DFlash's own part, then beside it."""

    def value(facts: Facts) -> Any:
        parts = (_own(facts.config), facts.config)
        return next((part[name] for part in parts for name in names if part.get(name) is not None), None)

    return value


def _turned(facts: Facts) -> int | None:
    part = facts.config["rope_parameters"].get("partial_rotary_factor")
    return None if part is None else int(head_dim(facts) * part)


def _capped(facts: Facts) -> float | None:
    cap = _said("final_logit_softcapping")(facts)
    return float(cap) if cap is not None and float(cap) > 0 else None


def _embedding_scale(facts: Facts) -> Any:
    """As said; else as the target scales the embedding that the two share, which only Gemma does."""
    said, target = _said("input_embedding_scale")(facts), facts.target or {}
    if said is None and str((target.get("architectures") or [""])[0]).startswith("Gemma"):
        return target["hidden_size"] ** 0.5
    return said


def _target_layers(facts: Facts) -> list[int] | None:
    """The layers whose input is what the draft is given of its target."""
    return [number + 1 for number in _said("target_layer_ids")(facts) or ()] or None


def _window(facts: Facts) -> Any:
    used = facts.config.get("use_sliding_window") or _own(facts.config).get("use_swa")
    return _said("swa_window_size", "sliding_window")(facts) or None if used else None


def _windowed(facts: Facts) -> list[bool] | None:
    if _window(facts) is None:
        return None
    return [True] * main_layers(facts) if _own(facts.config).get("use_swa") else sliding_layers(facts)


def _causal(facts: Facts) -> bool | None:
    said = facts.config.get("is_causal")
    said = _own(facts.config).get("causal") if said is None else said
    return None if said is None else bool(said)


def _one_axis(facts: Facts) -> list[int] | None:
    """Sections for a target whose positions have several axes: the draft turns by the first alone."""
    if "mrope_section" not in (facts.target or {}).get("rope_parameters", {}):
        return None
    return [head_dim(facts) // 2, 0, 0, 0]


def _convolves(name: str) -> Hparam:
    return u32(name, value=lambda facts: _own(facts.config).get(name))


KEYS: Table[Hparam] = BASE | Table(
    (
        u32("rope.dimension_count", value=_turned),
        f32("attention.value_scale", value=_said("attention_value_scale")),
        u32("block_size", value=_said("block_size"), default=16),
        *map(_convolves, ("conv_kernel_size", "conv_group_size", "selector_rank", "selector_top_k")),
        f32("logit_scale", value=_said("output_multiplier")),
        f32("final_logit_softcapping", value=_capped),
        f32("embedding_scale", value=_embedding_scale),
        array("target_layers", ValueType.INT32, value=_target_layers),
        u32("attention.sliding_window", value=_window),
        array("attention.sliding_window_pattern", ValueType.BOOL, value=_windowed),
        boolean("attention.causal", value=_causal, again=True),
        u32("rope.dimension_sections", value=_one_axis, again=True),
    )
)


def _sampled(facts: Facts) -> bool:
    """Whether the token that a block begins with is followed by its guess, not only known."""
    kind = facts.config.get("markov_head_type", "vanilla")
    if kind != "vanilla":
        raise ConversionError(f"config.json: markov_head_type {kind!r:.40} is not known, vanilla is")
    eagle = {"transformer_layer_config", "aux_hidden_state_layer_ids"} & facts.config.keys()
    return bool(facts.config.get("sample_from_anchor", not eagle))


def _halves(rows: Numbers, facts: Facts) -> Numbers:
    """Rotary pairs that stand side by side, in halves: in each head the first of each pair, then the second."""
    if facts.config.get("rope_is_neox_style", True):
        return rows
    by_head = grouped(rows, rows.shape[0] // facts.number("head_dim"), 2)
    return by_head.reshape(len(by_head), -1, 2).swapaxes(1, 2).reshape(-1)


def _has_mask(facts: Facts) -> bool:
    return (facts.directory / MASK_FILE).is_file()


def _mask(facts: Facts) -> tuple[int, Array]:
    """The masked token's id and its embedding, which the draft brings along where its target never learned one."""
    wanted, width = _own(facts.config).get("mask_token_id"), facts.number("hidden_size")
    numbers: dict[str, int | float] = {}
    file = InputFile(facts.directory / MASK_FILE)
    try:
        tensors = read_torch_pickle(file, [], numbers)
        found = numbers.get("mask_token_id")
        if not isinstance(found, int) or found != wanted or not 0 <= found < facts.number("vocab_size"):
            raise ConversionError(f"{MASK_FILE}: mask_token_id is {found}, by config.json {wanted}")
        if "embedding" not in tensors or tensors["embedding"].shape != (width,):
            raise ConversionError(f"{MASK_FILE}: has no embedding of {width} numbers")
        values = tensors["embedding"].read()
    finally:
        file.close()
    if values.dtype == np.uint16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return found, values.astype(np.float32)


class Masked(Single):
    """An embedding with the masked token's row of the draft, where it brings one."""

    def one(self, source: View, facts: Facts) -> View:
        """The embedding."""
        if not _has_mask(facts):
            return source
        number, values = _mask(facts)
        if source.shape != (facts.number("vocab_size"), facts.number("hidden_size")):
            raise ConversionError(f"{source.name} {list(source.shape)} is not of config.json's vocabulary and width")
        if source.type.name == "BF16":
            bits = values.view(np.uint32)
            row = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
        else:
            row = values.astype(np.float16 if source.type.name == "F16" else np.float32)

        def rows(start: int, stop: int) -> Array:
            found = source.rows(start, stop)
            if start <= number < stop:
                found = found.copy()
                found[number - start] = row
            return found

        return changed(source, rows=rows)

    def back(self, output: View, like: View, facts: Facts) -> View:
        """The embedding again, if no row was put in another's place."""
        if _has_mask(facts):
            raise ConversionError(f"{output.name}: the numbers of the masked token in {like.name} were not kept")
        return output


class Absolute(Single):
    """Ids of the target's tokens, by number of the draft's, of how much each is beyond its number."""

    def one(self, source: View, facts: Facts) -> View:
        """The ids."""

        def rows(start: int, stop: int) -> Array:
            ids = source.rows(0, source.count).astype(np.int64) + np.arange(source.elements)
            if ids.min() < 0 or ids.max() >= facts.number("vocab_size") or np.unique(ids).size != ids.size:
                raise ConversionError(f"{source.name}: not every token of the draft stands for another of its target's")
            return ids[start:stop]

        return changed(source, rows=rows)

    def back(self, output: View, like: View, facts: Facts) -> View:
        """The differences again."""
        return changed(output, rows=lambda start, stop: output.rows(start, stop) - np.arange(output.elements))


def _lent(where: str, tied: bool) -> Rule:
    """The target's head, to be read with an embedding that is no longer its own."""

    def holds(facts: Facts) -> bool:
        shares = bool((facts.target or {}).get("tie_word_embeddings"))
        return _has_mask(facts) and not facts.has("model.lm_head.weight") and shares is tied

    return exact("output.weight", where, variant="tied" if tied else "target", when=holds)


#: What a draft with a mask of its own borrows from its target.
LENT: Table[Rule] = Table(
    (
        _lent("target:lm_head.weight", tied=False),
        _lent(EMBEDDING, tied=True),
        exact(
            "token_embd.weight",
            EMBEDDING,
            variant="target",
            verb=Masked(),
            when=lambda facts: _has_mask(facts) and not facts.has("model.embed_tokens.weight"),
        ),
    )
)
ENDS: Table[Rule] = Table(
    (
        rule("token_embd", "model.embed_tokens", verb=Masked()),
        rule("output", "model.lm_head"),
        rule("fc", "model.fc"),
        rule("enc.output_norm", "model.hidden_norm"),
    )
)
LAYERS: Table[Rule] = DECODER.without("token_embd", "output") | QK_NORM
TURNED = Rows(_halves)
SINKS = tuple(f"model.layers.{{l}}.self_attn.{name}.weight" for name in ("sinks", "attention_sink_bias"))
#: DFlash 2 mixes neighbours by convolutions, and chooses among candidates.
CHOICE: Table[Rule] = Table(
    (
        exact("blk.{l}.attn_conv_base", "model.layers.{l}.attention_conv.base_kernel"),
        rule("blk.{l}.attn_conv_proj", "model.layers.{l}.attention_conv.kernel_projection"),
        exact("blk.{l}.ffn_conv_base", "model.layers.{l}.mlp_conv.base_kernel"),
        rule("blk.{l}.ffn_conv_proj", "model.layers.{l}.mlp_conv.kernel_projection"),
        exact("selector_predecessor.weight", "model.candidate_selector.predecessor_codebook"),
        exact("selector_successor.weight", "model.candidate_selector.successor_codebook"),
        rule("selector_hidden", "model.candidate_selector.hidden_projection"),
    )
)
#: DSpark adds what the token before makes likely, and how sure it is.
MARKOV: Table[Rule] = Table(
    (
        rule("markov_w1", "model.markov_head.markov_w1"),
        rule("markov_w2", "model.markov_head.markov_w2"),
        rule("conf_proj", "model.confidence_head.proj"),
        exact("d2t", "model.d2t", verb=Absolute(), type="I64", last=True),
    )
)
PLAIN: Table[Rule] = (
    ENDS
    | LAYERS
    | rule("blk.{l}.attn_q", "model.layers.{l}.self_attn.q_proj", verb=TURNED)
    | rule("blk.{l}.attn_k", "model.layers.{l}.self_attn.k_proj", verb=TURNED)
    | rule("blk.{l}.attn_q_norm", "model.layers.{l}.self_attn.q_norm", verb=TURNED)
    | rule("blk.{l}.attn_k_norm", "model.layers.{l}.self_attn.k_norm", verb=TURNED)
    | exact("blk.{l}.attn_sinks.weight", SINKS)
)


@vocab.step
def mask_token(job: vocab.VocabJob) -> vocab.Changes:
    """The token that stands for one to be guessed."""
    number = _own(job.config).get("mask_token_id")
    return {} if number is None else vocab.ids(mask=number)(job) or {}


def _shared(pattern: str, holds: Callable[[Facts], bool]) -> Drop:
    """What is the same as the target's, and read from there."""
    return Drop(pattern, lambda _match, facts: holds(facts))


def _same_vocabulary(facts: Facts) -> bool:
    return facts.config.get("draft_vocab_size") in (None, facts.config.get("vocab_size"))


DFLASH = Arch(
    "dflash",
    hf=("DFlashDraftModel", "DFlash2DraftModel"),
    hparams=KEYS,
    tensors=LENT | PLAIN | CHOICE,
    needs=("fc", "enc.output_norm", "output_norm", *(need for need in TRUNK if "{l}" in need), *QKV, *QK_NORMS, *GATED),
    vocab=(vocab.of_target, mask_token),
    renames=(
        (r"language_model\.", ""),
        (r"^(?!model\.|target:)", "model."),
        (r"learnable_sink_param", "sinks"),
        (r"(sinks|attention_sink_bias)$", r"\1.weight"),
    ),
    drop=(
        *BUFFERS,
        *MULTIMODAL,
        _shared(r"^(model\.)?embed_tokens\.", lambda facts: not facts.config.get("has_embed_tokens", True)),
    ),
    implied=SILU,
)
DSPARK = replace(
    DFLASH,
    hf=("Qwen3DSparkModel", "DSparkDraftModel", "DSparkSpeculator", "Lfm2DSparkDraftModel", "LingDSparkModel"),
    hparams=KEYS
    | boolean("sample_from_anchor", value=_sampled)
    | boolean("has_confidence_head", value=lambda facts: facts.has("model.confidence_head.proj.weight")),
    tensors=PLAIN | MARKOV,
    needs=(*DFLASH.needs, "markov_w1", "markov_w2"),
    drop=(*DFLASH.drop, r"^t2d$", _shared(r"lm_head\.weight$", _same_vocabulary)),
)
ASSISTANT = replace(
    DFLASH,
    hf=("MuseGlimmerAssistantModel",),
    hparams=BASE
    | u32("block_size", "block_size", required=True)
    | array("target_layers", ValueType.INT32, value=_target_layers)
    | u32("attention.sliding_window", value=lambda facts: facts.config.get("sliding_window") or None)
    | array(
        "attention.sliding_window_pattern",
        ValueType.BOOL,
        value=lambda facts: sliding_layers(facts) if facts.config.get("sliding_window") else None,
    ),
    tensors=LAYERS | rule("fc", "encoder.fc") | rule("enc.output_norm", "encoder.output_norm_enc"),
    renames=WRAPPERS,
    drop=BUFFERS,
)

ARCHS = (DFLASH, DSPARK, ASSISTANT)
