"""The model that a draft model serves: its configuration, its family's vocabulary, and tensors that the two share.
And what else a model consists of beside its own checkpoint: modules in folders or files of their own.

Knows folders and where the tables speak of another checkpoint. Must not know families.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf_forge.convert.arch import Arch
from gguf_forge.convert.config import resolve
from gguf_forge.convert.facts import Facts, Options
from gguf_forge.convert.plan import TARGET, applied_rows, rename, with_headers
from gguf_forge.convert.registry import find
from gguf_forge.convert.suggest import unknown_class
from gguf_forge.convert.vocab.job import Part
from gguf_forge.errors import CheckpointError, ConversionError
from gguf_forge.source.checkpoint import Checkpoint, open_checkpoint
from gguf_forge.source.packed import AnyTensor, unpacked
from gguf_forge.source.strict_json import read_json_object
from gguf_forge.source.tensor import SourceTensor


def target_config(options: Options) -> dict[str, Any] | None:
    """The target's configuration, resolved; None where no target is named. CheckpointError where there is none."""
    raw = _raw(options)
    return None if raw is None else resolve(raw)


def target_vocab(options: Options) -> tuple[Path, Sequence[Part]] | None:
    """The target's folder, and how its family makes its vocabulary. ConversionError where no family serves it."""
    raw = _raw(options)
    if options.target is None or raw is None:
        return None
    arch = find(raw)
    if arch is None:
        raise unknown_class(raw, {}, Facts(resolve(raw), options.target))
    return options.target, arch.vocab


def _raw(options: Options) -> dict[str, Any] | None:
    if options.target is None:
        return None
    path = options.target / "config.json"
    if not os.path.isfile(path):
        raise CheckpointError("no config.json, so not the folder of a draft model's target", path=options.target)
    return read_json_object(path)


def with_modules(
    arch: Arch, checkpoint: Checkpoint, facts: Facts, given: Mapping[str, AnyTensor] | None = None
) -> Mapping[str, AnyTensor]:
    """The checkpoint's tensors, or those `given`, then those of folders within it that rules name, `folder/name`.

    A rule that asks for `head/norm.weight` has those of head.safetensors, or of head.pt, where there is no such folder.
    """
    sources = (name for row in applied_rows(arch, facts) for name in row.names if "/" in name)
    tensors = dict(checkpoint.tensors if given is None else given)
    for folder in dict.fromkeys(name.partition("/")[0] for name in sources):
        tensors.update({f"{folder}/{name}": tensor for name, tensor in _module(checkpoint, folder).items()})
    return tensors


def _module(checkpoint: Checkpoint, name: str) -> Mapping[str, SourceTensor]:
    """The tensors of a folder or file of this name; none where there is neither."""
    places = (home / f"{name}{end}" for home in checkpoint.folders for end in ("", ".safetensors", ".pt"))
    place = next((place for place in places if os.path.exists(place)), None)
    if place is None:
        return {}
    if place.suffix == ".pt":
        return checkpoint.read_torch_file(place, {})
    module = open_checkpoint(place)
    checkpoint.hold(module)
    return module.tensors


def with_target(
    arch: Arch, checkpoint: Checkpoint, facts: Facts, given: Mapping[str, AnyTensor] | None = None
) -> Mapping[str, AnyTensor]:
    """The checkpoint's tensors, or those `given`; before them, where a rule asks, the target's: `TARGET` and the name.

    A rule that asks for `1_Dense/linear` has the tensors of the folder of that name within the checkpoint's, if it is
    there. The files are the checkpoint's from then on: closed with it, and not to be changed. ConversionError where a
    rule asks for a target's tensors and no target is named.
    """
    tensors = with_modules(arch, checkpoint, facts, given)
    stored, _ = rename(arch, tensors, facts)
    rows = applied_rows(arch, with_headers(arch, stored, tensors, facts))
    sources = (source for row in rows for source in row.sources if isinstance(source, str))
    wanted = [source for source in sources if source.startswith(TARGET)]
    if not wanted:
        return tensors
    if facts.options.target is None:
        raise ConversionError(
            f"{checkpoint.path}: needs {wanted[0].removeprefix(TARGET)!r} of the model it drafts for: name that one's "
            "folder with --target-model-dir"
        )
    target = open_checkpoint(facts.options.target)
    checkpoint.hold(target)
    return {**{TARGET + name: tensor for name, tensor in unpacked(target).items()}, **tensors}
