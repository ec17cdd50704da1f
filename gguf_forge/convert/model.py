"""A source as a model: views and metadata, before any type is chosen. From a checkpoint, or from a GGUF file.

Asks the family's tables for tensors and keys, the folder for names and vocabulary, and gathers what a reader should
know. Must not know recipes, or where anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gguf_forge.convert.arch import Arch
from gguf_forge.convert.biases import require_read
from gguf_forge.convert.config import resolve
from gguf_forge.convert.facts import USUAL, Facts, Options
from gguf_forge.convert.general import general_metadata
from gguf_forge.convert.hparams import metadata_of, misfits
from gguf_forge.convert.naming import ParameterCounts
from gguf_forge.convert.plan import Outputs, Packing, plan_outputs
from gguf_forge.convert.registry import find, named
from gguf_forge.convert.remarks import Subject, remarks
from gguf_forge.convert.shapes import check_shapes
from gguf_forge.convert.suggest import refuse_without_text, unknown_class
from gguf_forge.convert.target import target_config, target_vocab, with_target
from gguf_forge.convert.unconfigured import supply_config
from gguf_forge.convert.view import Array, View
from gguf_forge.convert.vocab import load_vocab
from gguf_forge.convert.wrapped import unwrapped
from gguf_forge.errors import ConversionError, listed
from gguf_forge.format import reader
from gguf_forge.format.layout import SLACK_KEY
from gguf_forge.format.orders import swapped
from gguf_forge.format.values import Value, string, u32
from gguf_forge.quant.header import QUANTIZATION_VERSION
from gguf_forge.quant.outtype import auto_outtype
from gguf_forge.source.checkpoint import Checkpoint
from gguf_forge.source.packed import unpacked

#: Endings of tensors of a packed form that families' rules may read themselves.
PACKED = (".weight_packed", ".weight_scale", ".weight_scale_inv")
VERSION_KEY = "general.quantization_version"


@dataclass(frozen=True)
class Model:
    """A source as views and metadata, before types are chosen.

    `auto` is the checkpoint's own outtype; `types` what the family's rules say of the types of outputs (see
    `arch.Rule`), for the converter's outtypes; `packed` tells of outputs that another tool quantized, by name; `verify`
    raises when the source changed since it was opened, `sources` are its files; `as_stored`: recipes take the tensors
    in the views' order, and not in the one that llama-quantize brings them into.
    """

    views: Sequence[View]
    metadata: Mapping[str, Value]
    auto: str = "f16"
    types: Mapping[str, str | bool] = field(default_factory=dict)
    dropped: Sequence[str] = ()
    notes: Sequence[str] = ()
    verify: Callable[[], None] = lambda: None
    sources: Sequence[Path] = ()
    packed: Mapping[str, Packing] = field(default_factory=dict)
    as_stored: bool = False
    counted_by: Mapping[str, Value] | None = None


def checkpoint_model(
    checkpoint: Checkpoint,
    *,
    pre: str | None,
    model_name: str | None,
    overrides: Mapping[str, Value],
    options: Options = USUAL,
    arch_name: str | None = None,
    allow_unused: Sequence[str] = (),
) -> Model:
    """What the checkpoint becomes under its family's rules, with `overrides` last among the metadata.

    `pre` names the pre-tokenizer where it is not recognised, `model_name` the model, `arch_name` the architecture where
    the configuration's class is not known; tensors that no rule uses are left out where a regular expression of
    `allow_unused` fits. ConversionError says what of the folder cannot be used.
    """
    supply_config(checkpoint)
    raw = checkpoint.config
    with _sound_config(checkpoint, arch_name):
        facts = Facts(resolve(raw), checkpoint.path, options=options, target=target_config(options))
        if arch_name is None:
            refuse_without_text(raw, checkpoint.tensors)
        arch = find(raw, draft=options.draft) if arch_name is None else named(arch_name)
        if arch is None:
            raise unknown_class(raw, checkpoint.tensors, facts)
        arch = unwrapped(arch, raw)
        _require_mtp(arch, options)
        tensors = unpacked(checkpoint, _read_by_rules(checkpoint, arch))
        outputs = plan_outputs(arch, with_target(arch, checkpoint, facts, tensors), facts, allow_unused=allow_unused)
        early, keys = metadata_of(arch, outputs.facts)
    if not outputs.views:
        raise ConversionError(f"{checkpoint.path}: no tensors")
    notes: list[str] = [*checkpoint.notes]
    metadata = _metadata(checkpoint, arch, outputs, early, keys, options, pre, model_name, notes.append)
    metadata.update(overrides)
    check_shapes(((v.name, v.shape) for v in outputs.views), metadata, arch.name, arch.shapes)
    names = [view.name for view in outputs.views]
    require_read(names, arch.name)
    notes += remarks(Subject(checkpoint.path, facts.config, arch, metadata, names, outputs.dropped))
    auto = auto_outtype((t.dtype, len(t.shape)) for t in tensors.values())
    if options.fuse_qkv and not any("attn_qkv" in fusion.name for fusion in outputs.fusions):
        notes.append(f"--fuse-qkv has no effect on this {arch.name}")
    if outputs.unused:
        notes.append(f"{len(outputs.unused)} tensors that no rule uses are left out: {listed(outputs.unused)}")
    if options.vocab_only:
        outputs = Outputs((), (), outputs.facts)
    verify, sources = checkpoint.require_unchanged, checkpoint.sources()
    return Model(outputs.views, metadata, auto, outputs.types, outputs.dropped, notes, verify, sources, outputs.packed)


def _metadata(
    checkpoint: Checkpoint,
    arch: Arch,
    outputs: Outputs,
    early: Mapping[str, Value],
    keys: Mapping[str, Value],
    options: Options,
    pre: str | None,
    model_name: str | None,
    note: Callable[[str], None],
) -> dict[str, Value]:
    """All keys in the reference's order: the early ones, general.*, the architecture's, the tokenizer's."""
    metadata: dict[str, Value] = {"general.architecture": string(arch.name), **early}
    counts = ParameterCounts.of((v.name, v.shape) for v in outputs.views if not options.vocab_only)
    folder, written = checkpoint.folders[0], _written(checkpoint)
    metadata.update(
        general_metadata(folder, written, architecture=arch.name, counts=counts, name=model_name, note=note)
    )
    metadata.update(keys)
    metadata[VERSION_KEY] = u32(QUANTIZATION_VERSION)
    metadata.update(
        load_vocab(
            checkpoint.path,
            dict(outputs.facts.config),
            arch.vocab,
            pre=pre,
            note=note,
            architecture=arch.name,
            native=options.mistral_format,
            community_template=options.community_template,
            target=target_vocab(options),
        )
    )
    return metadata


def _written(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """config.json, which may lie beside Mistral's params.json, too; none of a model that bears an adapter's name."""
    if checkpoint.adapter is not None:
        return {}
    return (checkpoint.read_json("config.json") or {}) if checkpoint.native else checkpoint.config


def _require_mtp(arch: Arch, options: Options) -> None:
    """ConversionError for options about layers that the architecture never has."""
    if options.mtp != "keep" and not arch.mtp:
        raise ConversionError(f"{arch.name} has no layers that predict further tokens: --mtp and --no-mtp mean nothing")


def _read_by_rules(checkpoint: Checkpoint, arch: Arch) -> list[str]:
    """The tensors of another tool's packed form that the family's own rules read as they are."""
    ends = tuple({f".{n.rpartition('}.')[2]}" for row in arch.tensors for n in row.names if n.endswith(PACKED)})
    return [name for name in checkpoint.tensors if name.endswith(ends)]


@contextmanager
def _sound_config(checkpoint: Checkpoint, arch_name: str | None) -> Iterator[None]:
    """Turns what a value of the wrong kind leads to, in tables that trust their configuration, into one clear error."""
    try:
        yield
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        arch = find(checkpoint.config) if arch_name is None else named(arch_name)
        wrong = [] if arch is None else misfits(checkpoint.config, arch.hparams)
        if isinstance(error, KeyError):
            what = f"has no {error}"
        elif wrong:
            what = f"cannot be used, perhaps because {listed(wrong)}"
        else:
            what = "cannot be used: a value in it is not of the kind, or in the range, that the model needs"
        raise ConversionError(f"{checkpoint.path / 'config.json'}: {what}") from error


def gguf_model(file: reader.GGUFFile) -> Model:
    """The tensors and metadata of an open GGUF file, or of a set of shards, as they stand."""
    views = [stored_view(tensor, file.endian) for tensor in file.tensors.values()]
    metadata = {key: file.metadata.value(key) for key in file.metadata if key != SLACK_KEY}
    return Model(views, metadata, verify=file.check_unchanged, sources=file.local_paths())


def stored_view(tensor: reader.Tensor, endian: str) -> View:
    """A GGUF file's tensor as rows in this machine's byte order; blocks in the little-endian one, as the codecs are."""
    kind = tensor.type
    if kind.quantized:

        def blocks(start: int, stop: int) -> Array:
            found = tensor.read_rows(start, stop)
            return found if endian == "little" else swapped(found, kind).reshape(found.shape)

        return View(tensor.name, tensor.shape, kind, blocks)
    code = {"BF16": "u2", "F16": "f2", "F32": "f4", "F64": "f8"}.get(kind.name, f"i{kind.block_bytes}")
    stored = np.dtype((">" if endian == "big" else "<") + code)

    def rows(start: int, stop: int) -> Array:
        return tensor.read_rows(start, stop).view(stored).astype(stored.newbyteorder("="), copy=False)

    return View(tensor.name, tensor.shape, kind, rows)
