"""One file into a set of shards, and a set into one file: `split_file` and `merge_files`. Must not print.

The shards are llama-gguf-split's, byte for byte, and either program merges the other's. Its merge leaves keys of the
set in the file; this one leaves none, so that what was split comes back as it was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from gguf_forge.errors import InvalidError, OutputError, RequestError
from gguf_forge.format import reader
from gguf_forge.format.atomic import names_folder
from gguf_forge.format.layout import SPLIT_COUNT
from gguf_forge.format.places import make_folder, remove_folders, require_other
from gguf_forge.format.reader import GGUFFile
from gguf_forge.format.sets import SetWriter, Shard
from gguf_forge.format.shards import SPLIT_KEYS, SPLIT_TOOL_KEYS, cut, name_prefix
from gguf_forge.format.stream import StreamWriter
from gguf_forge.format.validate import align
from gguf_forge.format.values import Value
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.system import long_path
from gguf_forge.whole.copying import (
    Progress,
    copy_tensors,
    declared,
    field_of,
    first_difference,
    stored_metadata,
    stream,
)

StrPath = str | os.PathLike[str]

#: Tensors in a shard where nothing is said.
USUAL_TENSORS = 128


def split_file(
    source: StrPath,
    prefix: StrPath | None = None,
    *,
    max_size: int | None = None,
    max_tensors: int | None = None,
    tensors_in_first: bool = True,
    dry_run: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Shard]:
    """Splits a GGUF file, or a set anew, into PREFIX-00001-of-0000N.gguf and so on; tensors stay whole and as they are.

    `prefix`: by default, and in a folder, the source's name without its ending. `max_size`: bytes of tensors, with
    their padding, in a shard; a larger tensor is alone in its own. `max_tensors`: tensors in a shard, 128 where neither
    is given. `tensors_in_first`: False leaves the first shard, which has the metadata, without tensors. `overwrite`
    replaces shards that are there. `dry_run` writes nothing. `progress` is called with bytes done and all.

    The set appears as a whole: no shard has its name before all are on disk, and the first is named last. Raises
    ForgeError: what `open` raises, RequestError for limits below 1, OutputError; then no shard is left behind.
    """
    for name, limit in (("max_size", max_size), ("max_tensors", max_tensors)):
        if limit is not None and limit < 1:
            raise RequestError(f"{name} is {limit}; at least 1 is needed")
    if max_size is None and max_tensors is None:
        max_tensors = USUAL_TENSORS
    with reader.open(source) as file:
        tensors = [*file.tensors.values()]
        sizes = [align(t.nbytes, file.alignment) for t in tensors]
        shards = [declared(tensors[i] for i in part) for part in cut(sizes, max_size, max_tensors, tensors_in_first)]
        target = _prefix(prefix, file)
        metadata = stored_metadata(file)
        out = SetWriter(
            target, metadata, shards, endian=file.endian, overwrite=overwrite, key_order=SPLIT_TOOL_KEYS
        )
        require_other(file.local_paths(), out.paths)
        made = out.shards()
        if dry_run:
            return made
        _write(out, file, target, prefix, progress)
    return made


def _write(
    out: GGUFWriter | SetWriter, file: GGUFFile, path: Path, given: StrPath | None, progress: Progress | None
) -> None:
    """Copies all tensors into an output at `path`; its folder is made if it was `given` by a name that ends in a
    separator, and removed again where that fails.
    """
    with ExitStack() as unfinished:
        if given is not None and names_folder(given):
            made: list[Path] = []
            unfinished.callback(remove_folders, made)
            make_folder(path.parent, made)
        with out:
            out.begin()
            copy_tensors(file.tensors, out, progress)
            file.check_unchanged()
        unfinished.pop_all()


def _prefix(given: StrPath | None, file: GGUFFile) -> Path:
    path = file.local_paths()[0]
    if given is None:
        return path.with_name(name_prefix(path))
    if os.path.isdir(given) or names_folder(given):
        return Path(given) / name_prefix(path)
    return Path(given)


def merge_files(
    source: StrPath,
    output: StrPath | BinaryIO | None = None,
    *,
    dry_run: bool = False,
    overwrite: bool = True,
    delete: bool = False,
    progress: Progress | None = None,
) -> Shard:
    """Merges the set that `source` is any shard of into one file: the one that was split, byte for byte.

    `output`: by default, and in a folder, the set's name; or a stream that takes bytes. `delete` removes the shards,
    after the file is on disk, has its name, and was read again and found to hold every byte. `dry_run` writes nothing.

    A file that was laid out otherwise than this program and ggml do comes back laid out as they do. Raises ForgeError:
    what `open` raises (shards missing, or not of one model), InvalidError for a file that is no shard, OutputError.
    """
    with reader.open(source) as file:
        if len(file.paths) == 1 and not file.metadata.get(SPLIT_COUNT):
            raise InvalidError(f"no shard of a set: it has no {SPLIT_COUNT}, or it was merged already", path=file.path)
        metadata = {key: value for key, value in stored_metadata(file).items() if key not in SPLIT_KEYS}
        if output is not None and not isinstance(output, (str, os.PathLike)):
            return _streamed(file, metadata, output, dry_run, delete, progress)
        path = _merged_path(output, file)
        require_other(file.local_paths(), [path])
        out = GGUFWriter(path, metadata, endian=file.endian, overwrite=overwrite)
        for tensor in declared(file.tensors.values()):
            out.declare(tensor.name, tensor.shape, tensor.type)
        plan = out.plan()
        made = Shard(path, [*plan.tensors], plan.size)
        if dry_run:
            return made
        _write(out, file, path, output, progress)
        if delete:
            _require_same(file, path)
            paths = file.local_paths()
    if delete:
        _remove(paths)
    return made


def _streamed(
    file: GGUFFile,
    metadata: Mapping[str, Value],
    output: BinaryIO,
    dry_run: bool,
    delete: bool,
    progress: Progress | None,
) -> Shard:
    if delete:
        raise RequestError("shards are not removed after they went to a stream, which cannot be read again")
    out = StreamWriter(output, metadata, declared(file.tensors.values()), endian=file.endian)
    if not dry_run:
        stream(out, file, file.tensors, progress)
    return Shard(Path(out.path), [*out.plan().tensors], out.plan().size)


def _merged_path(given: StrPath | None, file: GGUFFile) -> Path:
    path = file.local_paths()[0]
    name = name_prefix(path) + ".gguf"
    if given is None:
        return path.with_name(name)
    return Path(given) / name if os.path.isdir(given) or names_folder(given) else Path(given)


def _require_same(file: GGUFFile, path: Path) -> None:
    """Reads a merged file and compares all it holds with the set. Raises OutputError."""
    with reader.open(path) as merged:
        for key in file.metadata:
            if key not in SPLIT_KEYS and merged.metadata.stored(key) != file.metadata.stored(key):
                raise OutputError(f"read back, key {key} differs; the shards stay", path=path)
        for tensor in file.tensors.values():
            at = first_difference(tensor, merged.tensors[tensor.name])
            if at is not None:
                text = f"read back, byte {at} differs; the shards stay"
                raise OutputError(text, path=path, field=field_of(tensor.name))


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:  # the first at first: what is left is a set no more
        try:
            Path(long_path(path)).unlink()
        except OSError as error:
            raise OutputError(f"merged, but not removed: {error.strerror or error}", path=path) from error
