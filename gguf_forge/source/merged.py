"""A LoRA adapter merged into the model it was trained for: tensors whose rows are the model's and what it adds to them.

Knows PEFT's names and adapter_config.json. Must not know families, or what adapters add to anything but weights.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_forge.errors import CheckpointError, escaped, listed
from gguf_forge.source.checkpoint import Checkpoint, open_checkpoint
from gguf_forge.source.dtypes import DTYPES
from gguf_forge.source.strict_json import read_json_object
from gguf_forge.source.tensor import SourceTensor
from gguf_forge.source.wrappers import ADAPTER_CONFIG

_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_PART = re.compile(r"^(?:base_model\.model\.)?(.*)\.lora_([AB])(?:\.default)?\.weight$")
#: Settings with which an adapter is more, or other, than the product of two matrices added to a weight.
_NOT_PLAIN = (
    *("use_dora", "lora_bias", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out"),
    *("megatron_config", "layer_replication", "trainable_token_indices", "use_qalora", "alora_invocation_tokens"),
)

#: Element types of weights that are what they say; others have scales beside them.
_PLAIN = ("F64", "F32", "F16", "BF16")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class MergedTensor(SourceTensor):
    """A matrix with `scale` times `up` (rows x rank) by `down` (rank x columns) added, as float32.

    The product is calculated in float64 and rounded once: it does not depend on how a library sums.
    """

    own: SourceTensor
    down: SourceTensor
    up: SourceTensor
    scale: float

    def stored_rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows start..stop-1 of the sum."""
        product = _floats(self.up, start, stop).astype(np.float64) @ _floats(self.down, 0, self.down.shape[0])
        added = product.astype(np.float32) * np.float32(self.scale)
        result: Floats = _floats(self.own, start, stop) + added
        return result


def _floats(tensor: SourceTensor, start: int, stop: int) -> Floats:
    rows = tensor.rows(start, stop)
    if tensor.type.name == "BF16":
        widened: Floats = (rows.astype(np.uint32) << 16).view(np.float32)
        return widened
    return rows.astype(np.float32)


def merge_adapter(model: Checkpoint, folder: Path) -> None:
    """Makes the open model that with the adapter in `folder` merged into it, whose files are the model's from then on.

    CheckpointError where the adapter is no plain LoRA, or has a weight that fits none of the model's.
    """
    settings = _settings(folder)
    name = next((name for name in _FILES if os.path.exists(folder / name)), None)
    if name is None:
        raise CheckpointError(f"no adapter: looked for {listed(_FILES)}", path=folder)
    adapter = open_checkpoint(folder / name)
    model.hold(adapter)
    pairs = _pairs(adapter.tensors, folder / name)
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if not isinstance(rank, int) or rank <= 0 or not isinstance(alpha, (int, float)):
        rule = f"r and lora_alpha must be numbers, got {rank!r:.20} and {alpha!r:.20}"
        raise CheckpointError(rule, path=folder / ADAPTER_CONFIG)
    scale = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    by_place: dict[str, str] = {}
    for own in model.tensors:
        by_place.setdefault(_place(own), own)
    merged = dict(model.tensors)
    for place, (down, up) in pairs.items():
        stored = by_place.get(_place(f"{place}.weight"))
        if stored is None:
            raise CheckpointError(f"{escaped(place, 120)!r} is no weight of {model.path}", path=folder / name)
        merged[stored] = _merged(model.tensors[stored], down, up, scale)
    model.tensors = MappingProxyType(merged)
    model.adapter = folder
    model.notes.append(f"{len(pairs)} weights are merged with the adapter in {folder}")


def _settings(folder: Path) -> Mapping[str, Any]:
    """adapter_config.json of a plain LoRA."""
    path = folder / ADAPTER_CONFIG
    if not os.path.exists(path):
        raise CheckpointError(f"no {ADAPTER_CONFIG}, so no adapter to be merged", path=folder)
    settings = read_json_object(path)
    wanted = {"peft_type": "LORA", "bias": "none", **dict.fromkeys(_NOT_PLAIN)}
    for key, value in wanted.items():
        if (settings.get(key, value) or None) != value:
            rule = f"only a plain LoRA can be merged, and {key} is {settings[key]!r:.40}"
            raise CheckpointError(f"{rule}: merge it in PEFT (merge_and_unload)", path=path)
    return settings


def _pairs(tensors: Mapping[str, SourceTensor], path: Path) -> dict[str, tuple[SourceTensor, SourceTensor]]:
    """The two matrices of each weight, by the name of its module."""
    parts: dict[str, dict[str, SourceTensor]] = {}
    for name, tensor in tensors.items():
        match = _PART.match(name)
        if match is None:
            raise CheckpointError(f"{escaped(name, 120)!r} is no matrix of a LoRA", path=path)
        parts.setdefault(match[1], {})[match[2]] = tensor
    halved = next((place for place, found in parts.items() if len(found) < 2), None)
    if halved is not None:
        raise CheckpointError(f"{escaped(halved, 120)!r} has only one of its two matrices", path=path)
    return {place: (found["A"], found["B"]) for place, found in parts.items()}


def _place(name: str) -> str:
    """A name without what says that the model is part of another, or has a head."""
    return name.replace("language_model.", "").removeprefix("model.")


def _merged(own: SourceTensor, down: SourceTensor, up: SourceTensor, scale: float) -> MergedTensor:
    fits = len(own.shape) == len(down.shape) == len(up.shape) == 2
    if not fits or own.shape != (up.shape[0], down.shape[1]) or up.shape[1] != down.shape[0]:
        rule = f"{list(up.shape)} by {list(down.shape)} cannot be added to {own.name!r}, {list(own.shape)}"
        raise CheckpointError(rule, path=down.file.path)
    if own.dtype not in _PLAIN:
        rule = f"{own.name!r} is {own.dtype}, and only weights of {listed(_PLAIN)} are merged with an adapter"
        raise CheckpointError(rule, path=own.file.path)
    f32 = DTYPES["F32"]
    return MergedTensor(
        own.name, f32, own.shape, own.file, own.offset, own=own, down=down, up=up, scale=scale
    )
