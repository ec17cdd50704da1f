"""A model without some of its layers, as llama-quantize's --prune-layers: blocks left out, the others renumbered.

Knows the keys that count layers; must not know recipes. What a model's code makes of a layer's number (a sliding window
in every sixth, say) goes by the new one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gguf_forge.convert.job import Quantization
from gguf_forge.convert.model import Model
from gguf_forge.errors import RecipeError, RequestError, escaped, listed
from gguf_forge.format.layout import ValueType
from gguf_forge.format.values import Value, u32

BLOCKS = "block_count"
#: Arrays of one element a layer, by the key under the architecture (of xielu, alone); one number for all stays.
EACH_LAYER = (
    "attention.compress_ratios",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.indexer.types",
    "attention.recurrent_layers",
    "attention.rope_pattern",
    "attention.sliding_window_pattern",
    "activation_sparsity_scale",
    "expert_feed_forward_length",
    "expert_used_count",
    "feed_forward_length",
    "swiglu_clamp_exp",
    "swiglu_clamp_shexp",
    "xielu.alpha_n",
    "xielu.alpha_p",
    "xielu.beta",
    "xielu.eps",
)
#: Numbers of layers at the beginning, and at the end: how many of `count` they are, as a range.
STRETCHES: Mapping[str, Callable[[int, int], range]] = {
    "leading_dense_block_count": lambda number, _: range(number),
    "hash_layer_count": lambda number, _: range(number),
    "nextn_predict_layers": lambda number, count: range(count - number, count),
    "attention.shared_kv_layers": lambda number, count: range(count - number, count),
    "decoder_block_count": lambda number, _: range(number),
}
#: Keys by which layers are chosen that this does not follow.
UNFOLLOWED = ("deepstack_mapping", "hrm.layers_per_stack", "ple.layers", "ple.layer_multipliers", "target_layers")
#: Numbers by which every n-th layer is another: in a model without some, others than before.
PERIODS = (
    "attention.sliding_window_pattern",
    "full_attention_interval",
    "interleave_moe_layer_step",
    "moe_every_n_layers",
    "rescale_every_n_layers",
)
_BLOCK = re.compile(r"blk\.(\d+)\.")
_RANGE = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")
#: The most layers that can be named.
MOST_LAYERS = 1 << 16


def parse_layers(text: str) -> tuple[int, ...]:
    """Layers' numbers from a text as "3,5-8,12", each once, in order. RecipeError for any other text."""
    found: set[int] = set()
    for word in text.split(","):
        match = _RANGE.fullmatch(word.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < MOST_LAYERS:
            raise RecipeError(f"no layers: {escaped(word)!r}; expected numbers and ranges, as 3,5-8")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


@dataclass(frozen=True)
class Pruning:
    """Which layers of how many are left out, and what number each of the others gets."""

    left_out: Sequence[int]
    count: int

    @classmethod
    def of(cls, metadata: Mapping[str, Value], layers: Collection[int]) -> Pruning:
        """Raises RecipeError where the model does not count its layers, lacks one of them, or would have none left."""
        value = metadata.get(f"{_arch(metadata)}.{BLOCKS}")
        if value is None or not isinstance(value.value, int) or value.value < 1:
            raise RecipeError(f"layers cannot be left out of a model that has no {BLOCKS}")
        count, missing = int(value.value), sorted(set(layers) - set(range(value.value)))
        if missing:
            raise RecipeError(f"there is no layer {listed(map(str, missing))} among {count}, which begin at 0")
        if len(set(layers)) == count:
            raise RecipeError(f"all {count} layers would be left out")
        return cls(sorted(set(layers)), count)

    @property
    def kept(self) -> list[int]:
        """The layers that stay, by their old numbers."""
        return [n for n in range(self.count) if n not in self.left_out]

    def name(self, name: str) -> str | None:
        """A tensor's new name; None where it is left out."""
        found = _BLOCK.search(name)
        if found is None or not self.left_out:
            return name
        layer = int(found[1])
        if layer in self.left_out:
            return None
        before = sum(n < layer for n in self.left_out)
        return f"{name[: found.start(1)]}{layer - before}{name[found.end(1) :]}"

    def metadata(self, metadata: Mapping[str, Value]) -> dict[str, Value]:
        """Metadata that count the layers that are left, but the count of all: see `counted_last`.

        RecipeError for keys that choose layers in a way that is not followed.
        """
        arch = _arch(metadata)
        found = dict(metadata)
        unfollowed = [key for name in UNFOLLOWED if (key := f"{arch}.{name}") in found]
        if unfollowed:
            raise RecipeError(f"no layers are left out of a model that chooses some by {listed(unfollowed)}")
        for name in EACH_LAYER:
            key = name if name.startswith("xielu.") else f"{arch}.{name}"
            value = found.get(key)
            if value is not None and value.element is not None and len(value.value) == self.count:
                found[key] = replace(value, value=_picked(value, self.kept))
        for name, stretch in STRETCHES.items():
            value = found.get(f"{arch}.{name}")
            if value is not None and isinstance(value.value, int):
                gone = sum(n in self.left_out for n in stretch(int(value.value), self.count))
                found[f"{arch}.{name}"] = replace(value, value=value.value - gone)
        return found

    def counted_last(self, metadata: Mapping[str, Value]) -> dict[str, Value]:
        """The same with the key that counts all layers behind all others, where llama-quantize writes it."""
        key = f"{_arch(metadata)}.{BLOCKS}"
        return {**{k: v for k, v in metadata.items() if k != key}, key: u32(len(self.kept))}

    def notes(self, metadata: Mapping[str, Value]) -> list[str]:
        """A line for each key that makes every n-th layer another, if that changes what a layer is."""
        arch, lines = _arch(metadata), []
        for name in PERIODS:
            value = metadata.get(f"{arch}.{name}")
            period = value.value if value is not None and value.element is None else None
            if isinstance(period, int) and period > 1:
                moved = [old for new, old in enumerate(self.kept) if old % period != new % period]
                if moved:
                    lines.append(
                        f"{arch}.{name} is {period}: layers {listed(map(str, moved))} become others than they were"
                    )
        return lines


def pruned(model: Model, pruning: Pruning) -> Model:
    """The model without these layers, which recipes count with them, as llama-quantize does."""
    named = [(view, pruning.name(view.name)) for view in model.views]
    views = [view if name == view.name else replace(view, name=name) for view, name in named if name is not None]
    dropped = [*model.dropped, *(view.name for view, name in named if name is None)]
    notes = [*model.notes, *pruning.notes(model.metadata)]
    metadata = pruning.counted_last(pruning.metadata(model.metadata))
    return replace(
        model, views=views, metadata=metadata, dropped=dropped, notes=notes, counted_by=model.metadata
    )


def pruned_statistics(how: Quantization, pruning: Pruning) -> Quantization:
    """The same with an importance matrix under the names that tensors have then. RequestError for a calibration."""
    if how.calibration is not None:
        raise RequestError("a calibration tells of the whole model: make that without these layers, and calibrate it")
    matrix = how.matrix()
    if matrix is None:
        return how
    named = {pruning.name(name): entry for name, entry in matrix.entries.items()}
    entries = {name: entry for name, entry in named.items() if name is not None}
    left_out = len(matrix.entries) - len(entries)
    return replace(how, imatrix=replace(matrix, entries=entries, left_out=left_out))


def _arch(metadata: Mapping[str, Value]) -> str:
    value = metadata.get("general.architecture")
    return str(value.value) if value is not None and value.type is ValueType.STRING else ""


def _picked(value: Value, kept: Sequence[int]) -> Any:
    held = value.value
    return held[np.array(kept, np.intp)] if isinstance(held, np.ndarray) else [held[n] for n in kept]
