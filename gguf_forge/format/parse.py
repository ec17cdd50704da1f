"""Header bytes to records. Fails only where it cannot step on: bytes that are not there, a value type of unknown
size, nesting or dims above the limits. All other rules are in validate.py. Decodes no values, opens no files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from gguf_forge.errors import FormatError, InvalidError, LimitError, TruncatedError, escaped
from gguf_forge.format.cursor import Buffer, Cursor, number
from gguf_forge.format.layout import (
    EDITING,
    HEADER_BYTES,
    LIMITS,
    MAGIC,
    READ_VERSIONS,
    SCALARS,
    SMALLEST,
    SMALLEST_ENTRY,
    SMALLEST_TENSOR,
    Limits,
    ValueType,
)
from gguf_forge.format.words import skip_strings

_VALUE_TYPES = {int(t): t for t in ValueType}


@dataclass
class Entry:
    """A key and where its value lies: `start` to `end`; of an array, the first element to the end of the last."""

    offset: int
    raw_key: bytes
    type: ValueType
    start: int = 0
    end: int = 0
    element: ValueType | None = None
    count: int = 1
    longest: int = 0  # bytes of the longest string within

    @property
    def key(self) -> str:
        """The key as text; bytes that are no UTF-8 come as surrogates."""
        return self.raw_key.decode("utf-8", "surrogateescape")

    @property
    def field(self) -> str:
        """The key as error messages name it."""
        return f'key "{escaped(self.key)}"'


@dataclass
class Info:
    """A tensor's record. `dims` in the file's order, fastest first; `data` counts from the data section."""

    offset: int
    raw_name: bytes
    dims: tuple[int, ...]
    type_id: int
    data: int

    @property
    def name(self) -> str:
        """The name as text; bytes that are no UTF-8 come as surrogates."""
        return self.raw_name.decode("utf-8", "surrogateescape")

    @property
    def field(self) -> str:
        """The tensor as error messages name it."""
        return f'tensor "{escaped(self.name)}"'


@dataclass
class Header:
    """All records of one file. `end` is where they stop, `size` the length of the whole file, in bytes."""

    path: str
    buffer: Buffer
    size: int
    version: int
    order: str
    entries: list[Entry] = field(default_factory=list)
    infos: list[Info] = field(default_factory=list)
    end: int = 0

    def find(self, key: str) -> Entry | None:
        """The entry of a key, or None."""
        raw = key.encode()
        return next((e for e in self.entries if e.raw_key == raw), None)


def parse(buffer: Buffer, size: int, path: str | os.PathLike[str], limits: Limits = LIMITS) -> Header:
    """Parses the header that `buffer` starts with; `size` is the length in bytes of the file it belongs to.

    Raises FormatError (another format or version), TruncatedError, InvalidError, LimitError; MoreNeeded where the
    buffer ends before the header does, but the file does not.
    """
    cursor = Cursor(buffer, path, size=size)
    version = _parse_version(cursor)
    header = Header(os.fspath(path), buffer, size, version, cursor.order)
    cursor.within("header")
    n_tensors = cursor.u64("count of tensors")
    n_entries = cursor.u64("count of keys")
    for value, smallest, what, at in (
        (n_tensors, SMALLEST_TENSOR, "tensors", 8),
        (n_entries, SMALLEST_ENTRY, "keys", 16),
    ):
        left = cursor.end - cursor.pos
        if value * smallest > left:
            text = f"{number(value)} {what} need at least {smallest} bytes each, {left} left"
            raise cursor.error(TruncatedError, text, at)
    for i in range(n_entries):
        header.entries.append(_parse_entry(cursor, i, limits))
    for i in range(n_tensors):
        header.infos.append(_parse_info(cursor, i, limits))
    header.end = cursor.pos
    return header


def _parse_version(cursor: Cursor) -> int:
    head = cursor.buffer[:HEADER_BYTES]
    if head[:4] != MAGIC:
        raise cursor.error(FormatError, describe_foreign(cursor.buffer[:4096], cursor.end))
    cursor.pos = 4
    cursor.within("version")
    version = cursor.u32("version")
    if version and not version & 0xFFFF:
        cursor.set_order(">")
        version = int.from_bytes(head[4:8], "big")
    if version == 1:
        text = (
            "version 1, of before August 2023, is not read; convert the original checkpoint again, "
            "or rewrite the file as version 3 with a llama.cpp of late 2023 (quantize ... COPY)"
        )
        raise cursor.error(FormatError, text, 4)
    if version not in READ_VERSIONS:
        raise cursor.error(FormatError, f"version {version}, this reads {READ_VERSIONS[0]} to {READ_VERSIONS[-1]}", 4)
    return version


def _parse_entry(cursor: Cursor, index: int, limits: Limits) -> Entry:
    cursor.within(f"key {index}")
    offset = cursor.pos
    raw = cursor.string("key")
    cursor.within("key", raw)
    entry = Entry(offset, raw, _parse_type(cursor))
    if entry.type is ValueType.ARRAY:
        entry.element = _parse_type(cursor)
        entry.count = cursor.count(SMALLEST[entry.element], "array elements")
        entry.start = cursor.pos
        entry.longest = _skip_elements(cursor, entry.element, entry.count, limits, 1)
    else:
        entry.start = cursor.pos
        entry.longest = _skip_elements(cursor, entry.type, 1, limits, 0)
    entry.end = cursor.pos
    return entry


def _parse_type(cursor: Cursor) -> ValueType:
    raw = cursor.u32("value type")
    found = _VALUE_TYPES.get(raw)
    if found is None:
        raise cursor.error(
            InvalidError, f"unknown value type {raw}, known are 0 to {len(_VALUE_TYPES) - 1}", cursor.pos - 4
        )
    return found


def _skip_elements(cursor: Cursor, element: ValueType, count: int, limits: Limits, depth: int) -> int:
    """Steps over values; returns the length of the longest string. `depth` counts the arrays they lie in."""
    scalar = SCALARS.get(element)
    if scalar is not None:
        cursor.need(count * scalar.width, "value")
        cursor.pos += count * scalar.width
        return 0
    if element is ValueType.STRING:
        if depth:
            return skip_strings(cursor, count)
        return len(cursor.string("value"))
    if depth >= limits.depth:
        raise cursor.error(LimitError, f"arrays nested deeper than {limits.depth}")
    longest = 0
    for _ in range(count):
        inner = _parse_type(cursor)
        inner_count = cursor.count(SMALLEST[inner], "array elements")
        longest = max(longest, _skip_elements(cursor, inner, inner_count, limits, depth + 1))
    return longest


def _parse_info(cursor: Cursor, index: int, limits: Limits) -> Info:
    cursor.within(f"tensor {index}")
    offset = cursor.pos
    raw = cursor.string("name")
    cursor.within("tensor", raw)
    n_dims = cursor.u32("n_dims")
    if n_dims > limits.dims:
        raise cursor.error(
            InvalidError, f"{number(n_dims)} dimensions, at most {limits.dims} are allowed", cursor.pos - 4
        )
    dims = cursor.u64s(n_dims, "dims")
    return Info(offset, raw, dims, cursor.u32("tensor type"), cursor.u64("data offset"))


#: Starts of files often met under a .gguf name.
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (EDITING, "a GGUF file whose editing was cut off: gguf-forge edit --recover finishes it"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run git lfs pull"),
    (b"<!DOCTYPE", "an HTML page, not a model: the download failed or needs a login"),
    (b"<!doctype", "an HTML page, not a model: the download failed or needs a login"),
    (b"<html", "an HTML page, not a model: the download failed or needs a login"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"PK\x03\x04", "a zip archive (a torch checkpoint?)"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it first"),
    (b"lmgg", "a ggml file of before GGUF: convert the original checkpoint again"),
    (b"fmgg", "a ggmf file of before GGUF: convert the original checkpoint again"),
    (b"tjgg", "a ggjt file of before GGUF: convert the original checkpoint again"),
    (b"algg", "a ggla adapter of before GGUF: convert the original checkpoint again"),
    (b"FUGG", "no GGUF magic but its bytes reversed (found 'FUGG')"),
    (b"\x80\x02", "a Python pickle (a torch checkpoint?)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x7fELF", "a program"),
)


def describe_foreign(head: bytes, size: int) -> str:
    """Says what a file without the GGUF magic is, from its first bytes."""
    if not size:
        return "empty file"
    for start, what in _FOREIGN:
        if head.startswith(start):
            return f"not a GGUF file: {what}"
    if not head.strip(b"\0"):
        return "not a GGUF file: all zeros, as an interrupted llama-quantize or download leaves it"
    if size < len(MAGIC):
        return f"not a GGUF file: {size} bytes, no GGUF magic"
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        return "not a GGUF file: a safetensors file"
    return f"not a GGUF file: starts with {ascii(bytes(head[:4]))[1:]}, not 'GGUF'"
