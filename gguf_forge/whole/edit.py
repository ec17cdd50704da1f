"""Keys and tensors' names changed, removed and added: `edit_file`. Must not print; reads no weights but to copy them.

Where the new header takes no more room than the old one, only the header is written (inplace.py). Room is what padding
leaves before the data, and a key of zeros that has no other meaning, `gguf_forge.slack`: it shrinks as other keys grow,
and grows as they shrink, so that the data stay where they are. Else the file is written anew in one pass.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gguf_forge.errors import (
    ForgeError,
    InvalidError,
    OutputError,
    RecipeError,
    RequestError,
    UnsupportedError,
    escaped,
    is_utf8,
)
from gguf_forge.format import reader
from gguf_forge.format.layout import ALIGNMENT_KEY, LIMITS, MAGIC, SLACK_KEY, WRITE_NAME_BYTES, Limits, ValueType
from gguf_forge.format.parse import Info, parse
from gguf_forge.format.part import Part
from gguf_forge.format.places import require_other
from gguf_forge.format.plan import Declared, plan_file
from gguf_forge.format.reader import GGUFFile, Tensor
from gguf_forge.format.shards import SPLIT_KEYS
from gguf_forge.format.stream import StreamWriter
from gguf_forge.format.validate import validate
from gguf_forge.format.values import Value, array, encode, encode_string, typed
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.system import EXTENT
from gguf_forge.whole.copying import Progress, copy_tensors, stream
from gguf_forge.whole.diff import KeyDifference
from gguf_forge.whole.inplace import FINISHED_BY, pending, replace_header

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Edits:
    r"""What changes, in this order: keys are removed, renamed, set and added; tensors dropped and renamed.

    remove, drop_tensors: names or globs; one that fits nothing is an error. rename: old names to new ones. set: new
    values, of keys that are there (which keep their place) or are not; a Value, or an object that GGUFWriter.add takes.
    add: the same, of keys that must not be there. rename_tensors: regular expressions that fit whole names, to new
    names, in which \1 and so on stand for groups; the first that fits a name counts. slack: bytes of room for later.
    endian: "little" or "big", the byte order of keys, numbers, and numbers in blocks.
    """

    set: Mapping[str, Any] = field(default_factory=dict)
    add: Mapping[str, Any] = field(default_factory=dict)
    remove: Sequence[str] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    rename_tensors: Mapping[str, str] = field(default_factory=dict)
    drop_tensors: Sequence[str] = ()
    slack: int | None = None
    endian: str | None = None


@dataclass(frozen=True)
class Edited:
    """What was done, or would be: where, whether in place, the keys that differ, tensors' old names to new ones.

    A tensor that was dropped has None for a new name; those that keep theirs are not listed.
    """

    path: Path
    in_place: bool
    keys: Sequence[KeyDifference]
    tensors: Mapping[str, str | None]
    nbytes: int

    @property
    def changed(self) -> bool:
        """Whether anything is other than it was."""
        return bool(self.keys or self.tensors)


def edit_file(
    source: StrPath,
    output: StrPath | BinaryIO | None = None,
    edits: Edits = Edits(),
    *,
    dry_run: bool = False,
    overwrite: bool = True,
    limits: Limits = LIMITS,
    progress: Progress | None = None,
) -> Edited:
    """Changes a GGUF file's keys and tensors' names; no weight changes.

    Without `output` the file itself changes: its header alone where the new one has room, which a crash leaves old or
    new, or closed to all readers until `gguf-forge edit --recover` finishes it; else the file is replaced by a new one
    in one step. With `output`, a path or a stream that takes bytes, that is made, and the source stays. `dry_run`
    writes nothing. Of a set, keys change in the first shard, names in any; tensors are not dropped.

    Raises RequestError for edits that contradict each other, RecipeError for names that are not there, InvalidError for
    a result that would break a rule of the format, OutputError, and what `open` raises.
    """
    with reader.open(source, limits=limits, unknown_types=True) as file:
        path = Path(source)
        if pending(path):
            raise OutputError(f"an edit was cut off: {FINISHED_BY}", path=path)
        part = file.parts[file.paths.index(path)]
        if output is not None and len(file.parts) > 1:
            raise RequestError("shards are edited in their place; merge the set to have another file")
        metadata = _metadata(part, file, edits)
        tensors = _names(part, file, edits)
        have = _slack_of(part) or 0
        if edits.slack and output is None and edits.slack <= have < edits.slack + EXTENT:
            edits = replace(edits, slack=None)
        header = None
        endian = edits.endian or file.endian
        if endian != file.endian and len(file.parts) > 1:
            raise RequestError("a set has one byte order; merge it to have another")
        if output is None and edits.slack is None and endian == file.endian and None not in tensors.values():
            header = _header_in_place(part, metadata, tensors, limits)
        renamed = {old: new for old, new in tensors.items() if old != new}
        done = Edited(path, header is not None, _differences(part, metadata), renamed, part.size)
        if header is None:
            keys, kept = _whole(file, part, metadata, tensors, edits.slack)
            if output is not None and not isinstance(output, (str, os.PathLike)):
                return _streamed(done, file, keys, kept, output, endian, dry_run, progress)
            out = _writer(file, part, path if output is None else Path(output), keys, kept, endian, overwrite)
            done = replace(done, path=Path(out.path), nbytes=out.plan().size)
            if not dry_run:
                _fill(out, file, kept, progress)
        else:
            unchanged, identity = header == part.storage.head(len(header))[: len(header)], part.identity
    if dry_run:
        return done
    if header is None:  # now that the file is closed: what is mapped cannot be replaced everywhere
        _publish(out)
    elif not unchanged:
        replace_header(path, header, identity)
    return done


# What the file shall hold.


def _metadata(part: Part, file: GGUFFile, edits: Edits) -> dict[str, Value]:
    """The keys as they shall be, without the one that only keeps room."""
    kept = {key: part.stored_value(entry) for key, entry in part.entries.items() if key != SLACK_KEY}
    new = typed(edits.set), typed(edits.add)
    named = [*edits.remove, *edits.rename, *edits.rename.values(), *new[0], *new[1]]
    for key in named:
        if key == SLACK_KEY or (key in SPLIT_KEYS and len(file.parts) > 1):
            raise RequestError(f"{key} is not for editing: it says how the file is laid out, or which shard it is")
    found: dict[str, Value] = dict(kept)
    for pattern in edits.remove:
        gone = [key for key in found if fnmatchcase(key, pattern)]
        if not gone:
            raise RecipeError(f"no key matches {escaped(pattern)!r}", path=part.path)
        for key in gone:
            del found[key]
    found = _renamed(found, edits.rename, part)
    found |= new[0]
    for key, value in new[1].items():
        if key in found:
            raise RecipeError("is there already; set replaces it", path=part.path, field=f'key "{escaped(key)}"')
        found[key] = value
    if named and part is not file.parts[0]:
        raise RequestError(f"{part.path}: is no place for keys; they are in {file.parts[0].path.name}")
    return found


def _renamed(found: dict[str, Value], names: Mapping[str, str], part: Part) -> dict[str, Value]:
    for old in names:
        if old not in found:
            raise RecipeError("is not there", path=part.path, field=f'key "{escaped(old)}"')
    renamed = [(names.get(key, key), value) for key, value in found.items()]
    taken: dict[str, Value] = {}
    for key, value in renamed:
        if key in taken:
            raise RecipeError("two keys would have this name", path=part.path, field=f'key "{escaped(key)}"')
        taken[key] = value
    return taken


def _names(part: Part, file: GGUFFile, edits: Edits) -> dict[str, str | None]:
    """Every tensor's name as it is, and as it shall be; None of one that is dropped."""
    names: dict[str, str | None] = {info.name: info.name for info in part.checked.header.infos}
    for pattern in edits.drop_tensors:
        gone = [name for name in names if fnmatchcase(name, pattern)]
        if not gone:
            raise RecipeError(f"no tensor matches {escaped(pattern)!r}", path=part.path)
        if len(file.parts) > 1:
            raise RequestError("tensors of a set are not dropped; merge it first")
        names |= dict.fromkeys(gone)
    rules = [(_pattern(text), text, new) for text, new in edits.rename_tensors.items()]
    used = set()
    for old in [name for name, new in names.items() if new is not None]:
        for rule, text, replacement in rules:
            match = rule.fullmatch(old)
            if match is not None:
                names[old] = _expanded(match, replacement)
                used.add(text)
                break
    for text in edits.rename_tensors:
        if text not in used:
            raise RecipeError(f"no tensor matches {escaped(text)!r}", path=part.path)
    others = {info.name for other in file.parts if other is not part for info in other.checked.header.infos}
    taken = set(others)
    for name in names.values():
        if name in taken:
            raise RecipeError("two tensors would have this name", path=part.path, field=f'tensor "{escaped(name)}"')
        if name is not None:
            taken.add(name)
    for old, new in names.items():
        if new is not None and new != old and (not is_utf8(new) or len(new.encode()) > WRITE_NAME_BYTES):
            text = f"'{escaped(new)}' is no name: not text, or above the {WRITE_NAME_BYTES} bytes that ggml reads"
            raise RecipeError(text, path=part.path, field=f'tensor "{escaped(old)}"')
    return names


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise RequestError(f"'{escaped(text, 80)}' is no regular expression: {error}") from error


def _expanded(match: re.Match[str], replacement: str) -> str:
    try:
        return match.expand(replacement)
    except (re.error, IndexError) as error:
        raise RequestError(f"'{escaped(replacement, 80)}' stands for no name: {error}") from error


def _differences(part: Part, metadata: Mapping[str, Value]) -> list[KeyDifference]:
    old = {key: part.stored_value(entry) for key, entry in part.entries.items() if key != SLACK_KEY}
    every = [KeyDifference(key, old.get(key), metadata.get(key)) for key in dict.fromkeys((*old, *metadata))]
    return [one for one in every if one.old != one.new]


# In place.


def _header_in_place(
    part: Part, metadata: Mapping[str, Value], tensors: Mapping[str, str | None], limits: Limits
) -> bytes | None:
    """The new header, as long as the old one with its padding; None where it does not fit, or moves the data."""
    checked, header = part.checked, part.checked.header
    room = checked.data_start
    old = part.entries.get(ALIGNMENT_KEY)
    if metadata.get(ALIGNMENT_KEY) != (None if old is None else part.stored_value(old)) or room > part.size:
        return None
    order = header.order
    records = b"".join(_record(part, info, tensors[info.name], order) for info in header.infos)
    entries = [_entry(key, value, order) for key, value in metadata.items()]
    size = len(MAGIC) + 4 + 16 + sum(map(len, entries)) + len(records)
    spare = room - size
    if not 0 <= spare < checked.alignment or SLACK_KEY in part.entries:
        left = spare - len(_slack(0, order))
        if left >= 0:
            entries.append(_slack(left, order))
        elif not 0 <= spare < checked.alignment:
            return None
    start = MAGIC + struct.pack(order + "IQQ", header.version, len(header.infos), len(entries))
    made = (start + b"".join(entries) + records).ljust(room, b"\0")
    assert len(made) == room
    found = validate(parse(made, part.size, part.path, limits), limits, unknown_types=True)
    assert found.data_start == room
    return made


def _entry(key: str, value: Value, order: str) -> bytes:
    try:
        return encode_string(key, order) + struct.pack(order + "I", value.type) + encode(value, order)
    except ForgeError as error:
        raise InvalidError(error.text, field=f'key "{escaped(key)}"') from error


def _record(part: Part, info: Info, name: str | None, order: str) -> bytes:
    """A tensor's record under its new name."""
    assert name is not None
    dims = info.dims
    rest = struct.pack(f"{order}I{len(dims)}QIQ", len(dims), *dims, info.type_id, info.data)
    return encode_string(info.raw_name if name == info.name else name, order) + rest


def _room(nbytes: int) -> Value:
    return array(ValueType.UINT8, np.zeros(nbytes, np.uint8))


def _slack(nbytes: int, order: str) -> bytes:
    return _entry(SLACK_KEY, _room(nbytes), order)


def _slack_of(part: Part) -> int | None:
    entry = part.entries.get(SLACK_KEY)
    return None if entry is None else entry.count


# Anew.


def _whole(
    file: GGUFFile, part: Part, metadata: Mapping[str, Value], tensors: Mapping[str, str | None], slack: int | None
) -> tuple[dict[str, Value], dict[str, Tensor]]:
    """All keys, with the one that keeps room, and the tensors under their new names."""
    if part.checked.unsized:
        text = "of a type that is not read, so that the file cannot be written anew"
        raise UnsupportedError(text, path=part.path, field=part.checked.unsized[0].info.field)
    kept = {new: file.tensors[old] for old, new in tensors.items() if new is not None}
    slack = _slack_of(part) if slack is None else slack
    if not slack:
        return dict(metadata), kept
    # A little more, so that data lie in blocks of the file system as they do here: then their extents can be shared.
    planned = plan_file({**metadata, SLACK_KEY: _room(slack)}, _declared(kept), path=part.path)
    slack += (part.checked.data_start - planned.data_start) % EXTENT
    return {**metadata, SLACK_KEY: _room(slack)}, kept


def _declared(tensors: Mapping[str, Tensor]) -> list[Declared]:
    return [Declared(name, tensor.shape, tensor.type) for name, tensor in tensors.items()]


def _writer(
    file: GGUFFile,
    part: Part,
    path: Path,
    keys: Mapping[str, Value],
    tensors: Mapping[str, Tensor],
    endian: str,
    overwrite: bool,
) -> GGUFWriter:
    out = GGUFWriter(path, keys, endian=endian, overwrite=overwrite)
    for one in _declared(tensors):
        out.declare(one.name, one.shape, one.type)
    if path != part.path:
        require_other(file.local_paths(), [path])
    return out


def _streamed(
    done: Edited,
    file: GGUFFile,
    keys: Mapping[str, Value],
    tensors: Mapping[str, Tensor],
    output: BinaryIO,
    endian: str,
    dry_run: bool,
    progress: Progress | None,
) -> Edited:
    out = StreamWriter(output, keys, _declared(tensors), endian=endian)
    if not dry_run:
        stream(out, file, tensors, progress, endian)
    return replace(done, path=Path(out.path), nbytes=out.plan().size)


def _fill(out: GGUFWriter, file: GGUFFile, tensors: Mapping[str, Tensor], progress: Progress | None) -> None:
    """Copies all tensors, and has them on disk."""
    try:
        out.begin()
        copy_tensors(tensors, out, progress, out.endian)
        file.check_unchanged()
        out.seal()
    except BaseException:
        out.abort()
        raise


def _publish(out: GGUFWriter) -> None:
    try:
        out.publish()
    except BaseException:
        out.abort()
        raise
