"""Sets of files that hold one model: their names, their split.* keys, and whether they belong together."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from gguf_forge.errors import ForgeError, IncompleteSetError, InvalidError, escaped, listed
from gguf_forge.format.layout import SPLIT_COUNT, SPLIT_NO, SPLIT_TENSORS, ValueType
from gguf_forge.format.part import Part
from gguf_forge.format.values import Value, i32, u16
from gguf_forge.remote.location import Location
from gguf_forge.system import long_path

#: In the order of converters and of llama-quantize, and in that of llama-gguf-split.
SPLIT_KEYS = (SPLIT_NO, SPLIT_COUNT, SPLIT_TENSORS)
SPLIT_TOOL_KEYS = (SPLIT_NO, SPLIT_TENSORS, SPLIT_COUNT)
_NAME = re.compile(r"(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_INTEGERS = (
    ValueType.UINT8,
    ValueType.INT8,
    ValueType.UINT16,
    ValueType.INT16,
    ValueType.UINT32,
    ValueType.INT32,
    ValueType.UINT64,
    ValueType.INT64,
)


def shard_name(prefix: str, number: int, count: int) -> str:
    """The name of shard `number` (from 1) of `count`."""
    return f"{prefix}-{number:05d}-of-{count:05d}.gguf"


def shard_keys(index: int, count: int, tensors: int, order: Sequence[str] = SPLIT_KEYS) -> dict[str, Value]:
    """The keys of shard `index` (from 0) of `count`, in this order; `tensors` of the whole set."""
    keys = {SPLIT_NO: u16(index), SPLIT_COUNT: u16(count), SPLIT_TENSORS: i32(tensors)}
    return {key: keys[key] for key in order}


def name_prefix(path: Path) -> str:
    """A file's name without what says that it is GGUF, or a shard."""
    match = _NAME.fullmatch(path.name)
    return match["prefix"] if match is not None else path.name.removesuffix(".gguf")


def shard_prefix(path: Path) -> Path:
    """What the shards' names begin with where one file would be called `path`."""
    return path.with_name(path.name.removesuffix(".gguf"))


def cut(sizes: Sequence[int], max_size: int | None, max_tensors: int | None, tensors_in_first: bool) -> list[range]:
    """Which tensors, by number, go into which shard, as llama-gguf-split does it; at least one shard.

    sizes: the tensors' bytes with their padding. A shard ends before the tensor with which its sum would be above
    `max_size`, and after `max_tensors`; a tensor larger than that has a shard to itself. `tensors_in_first`: whether
    the first shard, which has the metadata, holds tensors too.
    """
    starts = [0] if tensors_in_first or not sizes else [0, 0]
    total = 0
    for number, nbytes in enumerate(sizes):
        held = number - starts[-1]
        above = max_size is not None and total + nbytes > max_size
        if held and (above or (max_tensors is not None and held >= max_tensors)):
            starts.append(number)
            total = 0
        total += nbytes
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(sizes)], strict=True)]


def siblings(part: Part) -> Sequence[Path | Location]:
    """The paths of all shards of the set that `part` is of, in order; empty when it is a whole model.

    Whether those behind URLs are there is not known. Raises IncompleteSetError when shards are missing, or not to be
    found as this one's name is none of a shard's; InvalidError for a name or keys that contradict the keys.
    """
    count = _number(part, SPLIT_COUNT, (ValueType.UINT16,))
    if count is None or count <= 1:  # 0 is what llama-gguf-split leaves in a file that it merged
        return []
    index = _index(part, count)
    match = _NAME.fullmatch(part.path.name)
    if match is None:
        text = f"shard {index + 1} of {count} must be named like {shard_name('model', index + 1, count)}"
        raise IncompleteSetError(text, path=part.path)
    if (int(match["number"]), int(match["count"])) != (index + 1, count):
        text = (
            f"the name says shard {int(match['number'])} of {int(match['count'])}, the keys say {index + 1} of {count}"
        )
        raise InvalidError(text, path=part.path)
    paths = [part.path.with_name(shard_name(match["prefix"], n, count)) for n in range(1, count + 1)]
    missing = [p.name for p in paths if isinstance(p, Path) and not os.path.exists(long_path(p))]
    if missing:
        raise IncompleteSetError(f"{len(missing)} of {count} shards are missing: {listed(missing)}", path=part.path)
    return paths


def check_set(parts: Sequence[Part]) -> None:
    """Checks that the files are one set, whole and in order. Raises InvalidError."""
    first = parts[0]
    count = len(parts)
    for index, part in enumerate(parts):
        found = _number(part, SPLIT_COUNT, (ValueType.UINT16,))
        if found != count:
            raise _error(part, SPLIT_COUNT, f"a shard of a set of {count}, found {found}")
        number = _index(part, count)
        if number != index:
            raise _error(part, SPLIT_NO, f"{number} in shard {index + 1}, expected {index}")
        if part.checked.header.order != first.checked.header.order:
            raise InvalidError(f"byte order differs from {escaped(first.path.name)}", path=part.path)
        _check_same_model(first, part)
    _check_tensors(parts)


def _check_same_model(first: Part, part: Part) -> None:
    for key in ("general.architecture", "general.name"):
        entry, expected = part.entries.get(key), first.entries.get(key)
        if entry is not None and expected is not None and part.value(entry) != first.value(expected):
            here, there = escaped(str(part.value(entry).value)), escaped(str(first.value(expected).value))
            raise _error(part, key, f"{here!r}, but {there!r} in {escaped(first.path.name)}: shards of two models")


def _check_tensors(parts: Sequence[Part]) -> None:
    seen: dict[str, Part] = {}
    for part in parts:
        for info in part.checked.header.infos:
            other = seen.setdefault(info.name, part)
            if other is not part:
                text = f"also in {escaped(other.path.name)}"
                raise InvalidError(text, path=part.path, offset=info.offset, field=info.field)
    for part in parts:
        total = _number(part, SPLIT_TENSORS, _INTEGERS)
        if total is not None and total != len(seen):
            text = f"{total} tensors declared, the {len(parts)} shards hold {len(seen)}: shards of two models?"
            raise _error(part, SPLIT_TENSORS, text)


def _index(part: Part, count: int) -> int:
    index = _number(part, SPLIT_NO, (ValueType.UINT16,))
    if index is None:
        raise InvalidError(f"{SPLIT_COUNT} is {count}, but there is no {SPLIT_NO}", path=part.path)
    if index >= count:
        raise _error(part, SPLIT_NO, f"{index} in a set of {count}, the highest is {count - 1}")
    return index


def _number(part: Part, key: str, types: tuple[ValueType, ...]) -> int | None:
    entry = part.entries.get(key)
    if entry is None:
        return None
    if entry.type not in types:
        wanted = types[0].name if len(types) == 1 else "an integer"
        raise _error(part, key, f"must be {wanted}, found {entry.type.name}")
    return int(part.value(entry).value)


def _error(part: Part, key: str, text: str) -> ForgeError:
    entry = part.entries.get(key)
    offset = None if entry is None else entry.offset
    return InvalidError(text, path=part.path, offset=offset, field=f'key "{key}"')
