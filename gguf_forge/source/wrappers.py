"""What training leaves around a model's tensors: the names of modules that wrap it, and adapters, which are no model.

Knows those names and adapter_config.json. Must not know families, nor how weights are stored.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gguf_forge.errors import CheckpointError, ForgeError, escaped
from gguf_forge.source.strict_json import read_json_object

ADAPTER_CONFIG = "adapter_config.json"
_PEFT = "base_model.model."
#: What stands before every name, and what puts it there.
_PREFIXES: Mapping[str, str] = {
    "module.": "torch's DistributedDataParallel and DeepSpeed",
    "_forward_module.": "Lightning Fabric",
    _PEFT: "PEFT, with no adapter among them",
}
#: What stands within names, before a part that is wrapped by itself. No model has modules of these names.
_PARTS: Mapping[str, str] = {
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "torch's FullyShardedDataParallel",
    "_checkpoint_wrapped_module.": "torch's activation checkpointing",
}
#: Tensors that change those of another model: of LoRA and its kin, IA3, LoHa, LoKr, OFT, VeRA.
_ADAPTER = re.compile(r"(^|\.)(lora_\w+|base_layer|ia3_l|hada_\w+|lokr_\w+|b?oft_\w+|vera_\w+)(\.|$)", re.IGNORECASE)
#: Ways of adapting, as people write them; in adapter_config.json they are in capitals, or small letters.
_KINDS = {"LORA": "LoRA", "DORA": "DoRA"}

Tensor = TypeVar("Tensor")


def unwrap(tensors: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by the names they have in the model itself, and a line for each wrapper whose name is left out.

    The names of an adapter stay. CheckpointError when two tensors would have one name.
    """
    names = {name: name for name in tensors}
    notes: list[str] = []
    while not is_adapter(names):
        prefix = next((p for p in _PREFIXES if names and all(name.startswith(p) for name in names)), None)
        part = next((p for p in _PARTS if any(_stands_in(p, name) for name in names)), None)
        if prefix is not None:
            renamed = [name.removeprefix(prefix) for name in names]
            notes.append(f"every tensor's name begins with {prefix!r}, from {_PREFIXES[prefix]}: read without it")
        elif part is not None:
            renamed = [re.sub(rf"(^|\.){part}", r"\1", name) for name in names]
            notes.append(f"tensors' names hold {part!r}, from {_PARTS[part]}: read without it")
        else:
            break
        names = _together(renamed, names.values(), path)
    return {name: tensors[stored] for name, stored in names.items()}, notes


def _stands_in(part: str, name: str) -> bool:
    return name.startswith(part) or f".{part}" in name


def _together(names: Iterable[str], stored: Iterable[str], path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, old in zip(names, stored, strict=True):
        if name in found:
            raise CheckpointError(
                f"tensors {found[name]!r} and {old!r} both stand for {name!r} without the names of wrappers", path=path
            )
        found[name] = old
    return found


def is_adapter(names: Collection[str]) -> bool:
    """Whether these are the tensors of an adapter, or of a model with an adapter in it that was not merged.

    Some models have tensors of such names for good; theirs are not all of that kind, nor named as PEFT does.
    """
    if all(name.startswith(_PEFT) for name in names):
        return any(_ADAPTER.search(name) for name in names)
    return all(_ADAPTER.search(name) for name in names)


def refuse_adapter(folder: Path, names: Collection[str]) -> None:
    """CheckpointError when the tensors are an adapter's, which says what to do."""
    if names and is_adapter(names):
        raise CheckpointError(describe_adapter(folder), path=folder)


def describe_adapter(folder: Path) -> str:
    """What kind of adapter the folder holds, of which model, and what to do with it."""
    settings: dict[str, Any] = {}
    path = folder / ADAPTER_CONFIG
    if os.path.exists(path):
        with contextlib.suppress(ForgeError):  # it is an adapter all the same
            settings = read_json_object(path)
    kind = settings.get("peft_type") or settings.get("fine_tune_type") or ""
    base = settings.get("base_model_name_or_path") or settings.get("model")
    word = _KINDS.get(str(kind).upper(), str(kind))
    what = f"{escaped(word, 40)} adapter".strip()
    whose = f" of {escaped(base)!r}" if isinstance(base, str) else ""
    into = "that model" if whose else "its base model"
    merge = f"merge it into {into} (in PEFT: merge_and_unload) and convert the result"
    here = f", or name the folder of {into} with --merge-into" if word == "LoRA" else ""
    return f"{what}{whose}, not a model: {merge}{here}"
