"""Parts of a model as files of their own, and the layers that predict further tokens back into it. Must not print.

Those layers (MTP, "nextn") are a model's last blocks, `nextn_predict_layers` of them. A file of them alone numbers
them as the model does, and has the model's keys, embeddings and output, as convert_hf_to_gguf.py --mtp makes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from gguf_forge.convert.prune import EACH_LAYER, STRETCHES, Pruning
from gguf_forge.errors import RecipeError, RequestError, listed
from gguf_forge.format import reader
from gguf_forge.format.layout import SLACK_KEY
from gguf_forge.format.places import require_other
from gguf_forge.format.plan import Declared
from gguf_forge.format.reader import GGUFFile, Tensor
from gguf_forge.format.sets import Shard
from gguf_forge.format.stream import StreamWriter
from gguf_forge.format.values import Value
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.names import layer_of
from gguf_forge.whole.copying import Progress, copy_tensors

StrPath = str | os.PathLike[str]
Part = Literal["mtp", "no-mtp", "vocab"]

#: The key under the architecture that says how many of a model's blocks, the last ones, predict further tokens.
FURTHER = "nextn_predict_layers"
BLOCKS = "block_count"
#: What a file of such layers has beside them.
SHARED = ("token_embd.", "output_norm.", "output.")


def extract_file(
    source: StrPath,
    output: StrPath | BinaryIO,
    part: Part,
    *,
    dry_run: bool = False,
    overwrite: bool = True,
    progress: Progress | None = None,
) -> Shard:
    """Makes a file of a part of a model, whose bytes stay as they are; of a set when given any shard.

    `part`: "mtp", the layers that predict further tokens, with embeddings and output; "no-mtp", the model without them;
    "vocab", all keys and no tensor. `output`: a path, or a stream that takes bytes. `dry_run` writes nothing. Raises
    RecipeError where the model has no such layers, and what `open` raises.
    """
    with reader.open(source) as file:
        metadata = _metadata(file)
        tensors = dict(file.tensors)
        if part == "vocab":
            tensors = {}
        else:
            main, count = _layers(file, metadata)
            further = {name for name in tensors if (layer_of(name) or 0) >= main}
            if part == "mtp":
                tensors = {n: t for n, t in tensors.items() if n in further or n.startswith(SHARED)}
            else:
                tensors = {n: t for n, t in tensors.items() if n not in further}
                metadata = _without_further(metadata, Pruning(range(main, count), count))
        return _write([file], file, metadata, tensors, output, dry_run, overwrite, progress, pad=part != "vocab")


def insert_mtp(
    source: StrPath,
    mtp: StrPath,
    output: StrPath | BinaryIO,
    *,
    dry_run: bool = False,
    overwrite: bool = True,
    progress: Progress | None = None,
) -> Shard:
    """Puts the layers that predict further tokens back into a model: what `extract_file` made of one gives it again.

    `mtp`: the file of those layers. Embeddings and output are the model's. Raises RecipeError where the two are not of
    one model, or the model has such layers, and what `open` raises.
    """
    with reader.open(source) as file, reader.open(mtp) as more:
        metadata, theirs = _metadata(file), _metadata(more)
        _require_fit(file, metadata, more, theirs)
        main, _ = _layers(more, theirs)
        further = {name for name in more.tensors if (layer_of(name) or 0) >= main}
        tensors = _inserted(file.tensors, more.tensors, further)
        keys = _with_further(metadata, theirs)
        return _write([file, more], file, keys, tensors, output, dry_run, overwrite, progress)


def _metadata(file: GGUFFile) -> dict[str, Value]:
    return {key: file.metadata.value(key) for key in file.metadata if key != SLACK_KEY}


@dataclass(frozen=True)
class _Counts:
    """The keys that count a model's layers, and what they say."""

    blocks: str
    further: str
    count: int
    own: int

    @classmethod
    def of(cls, metadata: Mapping[str, Value], path: object) -> _Counts:
        value = metadata.get("general.architecture")
        arch = "" if value is None else str(value.value)
        numbers = []
        for key in (f"{arch}.{BLOCKS}", f"{arch}.{FURTHER}"):
            held = metadata.get(key)
            numbers.append(held.value if held is not None and isinstance(held.value, int) else 0)
        if not 0 <= numbers[1] < max(numbers[0], 1):
            raise RecipeError(f"{path}: {numbers[1]} of {numbers[0]} layers predict further tokens")
        return cls(f"{arch}.{BLOCKS}", f"{arch}.{FURTHER}", numbers[0], numbers[0] - numbers[1])


def _layers(file: GGUFFile, metadata: Mapping[str, Value]) -> tuple[int, int]:
    """How many layers are the model's own, and how many there are. RecipeError where that is all of them."""
    counts = _Counts.of(metadata, file.path)
    if counts.own == counts.count:
        raise RecipeError(f"{file.path}: no layers that predict further tokens: no {counts.further}, or it is 0")
    if not any((layer_of(name) or 0) >= counts.own for name in file.tensors):
        raise RecipeError(f"{file.path}: {counts.further} is {counts.count - counts.own}, and no tensor is of one")
    return counts.own, counts.count


def _without_further(metadata: Mapping[str, Value], pruning: Pruning) -> dict[str, Value]:
    """Keys of the model without those layers, each where it was."""
    counts = _Counts.of(metadata, "")
    found = pruning.metadata(metadata)
    del found[counts.further]
    return {key: value if key != counts.blocks else _number(value, counts.own) for key, value in found.items()}


def _number(like: Value, number: int) -> Value:
    return Value(like.type, number)


def _require_fit(
    file: GGUFFile, metadata: Mapping[str, Value], more: GGUFFile, theirs: Mapping[str, Value]
) -> None:
    """RecipeError where layers are not of this model."""
    here, there = _Counts.of(metadata, file.path), _Counts.of(theirs, more.path)
    if here.own != here.count:
        raise RecipeError(f"{file.path}: has {here.count - here.own} layers that predict further tokens already")
    if here.count != there.own:
        raise RecipeError(f"{more.path}: layers for a model of {there.own}, and {file.path} has {here.count}")
    arch = here.blocks.removesuffix(BLOCKS)
    for key in ("general.architecture", f"{arch}embedding_length", f"{arch}vocab_size"):
        one, other = metadata.get(key), theirs.get(key)
        if one is not None and other is not None and one != other:
            raise RecipeError(f"{more.path}: {key} is {other.value}, and {one.value} in {file.path}")
    if file.endian != more.endian:
        raise RequestError(f"{more.path} is {more.endian}-endian, {file.path} is not")


def _with_further(metadata: Mapping[str, Value], theirs: Mapping[str, Value]) -> dict[str, Value]:
    """The model's keys, those that count layers as the file of the layers has them, where that has them."""
    counts = _Counts.of(theirs, "")
    arch = counts.blocks.removesuffix(BLOCKS)
    counting = {counts.blocks, counts.further, *(arch + name for name in (*EACH_LAYER, *STRETCHES)), *EACH_LAYER}
    found: dict[str, Value] = {}
    order = [key for key in theirs if key in metadata or key in counting]
    waiting = [key for key in order if key not in metadata]
    for key, value in metadata.items():
        found[key] = theirs[key] if key in counting and key in theirs else value
        while waiting and order.index(waiting[0]) == _place(order, key) + 1:
            key = waiting.pop(0)  # noqa: PLW2901 - what follows it there follows it here
            found[key] = theirs[key]
    return found | {key: theirs[key] for key in waiting}


def _place(order: list[str], key: str) -> int:
    return order.index(key) if key in order else -2


def _inserted(
    tensors: Mapping[str, Tensor], more: Mapping[str, Tensor], further: Iterable[str]
) -> dict[str, Tensor]:
    """All tensors, each further one before the one that follows it in its own file, or at the end."""
    before: dict[str, list[str]] = {}
    held: list[str] = []
    wanted = set(further)
    twice = sorted(wanted & {*tensors})
    if twice:
        raise RecipeError(f"the model has {listed(twice)} already")
    for name in more:
        if name in wanted:
            held.append(name)
        elif name in tensors:
            before[name], held = held, []
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for one in before.get(name, ()):
            found[one] = more[one]
        found[name] = tensor
    return found | {name: more[name] for name in held}


def _write(
    files: list[GGUFFile],
    model: GGUFFile,
    metadata: Mapping[str, Value],
    tensors: Mapping[str, Tensor],
    output: StrPath | BinaryIO,
    dry_run: bool,
    overwrite: bool,
    progress: Progress | None,
    *,
    pad: bool = True,
) -> Shard:
    wanted = [Declared(name, tensor.shape, tensor.type) for name, tensor in tensors.items()]
    if not isinstance(output, (str, os.PathLike)):
        out = StreamWriter(output, metadata, wanted, endian=model.endian, pad=pad)
        if not dry_run:
            out.begin()
            copy_tensors(tensors, out, progress)
            for file in files:
                file.check_unchanged()
            out.seal()
        return Shard(Path(out.path), [*out.plan().tensors], out.plan().size)
    path = Path(output)
    require_other([one for file in files for one in file.local_paths()], [path])
    made = GGUFWriter(path, metadata, endian=model.endian, overwrite=overwrite, pad=pad)
    for one in wanted:
        made.declare(one.name, one.shape, one.type)
    plan = made.plan()
    if not dry_run:
        with made:
            made.begin()
            copy_tensors(tensors, made, progress)
            for file in files:
                file.check_unchanged()
    return Shard(path, [*plan.tensors], plan.size)
