"""The safetensors container: header to tensors, every rule checked. Must not know checkpoints of several files.

    u64 N | N bytes of JSON: name -> {dtype, shape, data_offsets [begin, end)} | data, densely packed, to the file's end

Stricter than the usual readers where they let a file mean two things: repeated keys, overlaps, holes and trailing
bytes are errors.
"""

from __future__ import annotations

from math import prod
from typing import Any

from gguf_forge.errors import FormatError, InvalidError, LimitError, TruncatedError, UnsupportedError
from gguf_forge.source.dtypes import DTYPES, Dtype
from gguf_forge.source.input_file import InputFile
from gguf_forge.source.strict_json import parse_json
from gguf_forge.source.tensor import SourceTensor

#: Bytes of JSON; the limit of the format's own library.
MAX_HEADER_BYTES = 100_000_000
#: Tensors of one file; the largest mixtures of experts have about 200,000 in all of theirs.
MAX_TENSORS = 1 << 18
MAX_RANK = 16
MAX_BYTES = 2**63 - 1

_FIELDS = {"dtype", "shape", "data_offsets"}


def read_safetensors(file: InputFile, notes: list[str]) -> dict[str, SourceTensor]:
    """The tensors of an open file, ordered by name. What is legal but odd is added to `notes`, one line each.

    Raises TruncatedError, LimitError, InvalidError, FormatError or UnsupportedError, each naming file and place.
    """
    header, data_start = _read_header(file, notes)
    where = str(file.path)
    _check_metadata(header.pop("__metadata__", None), where)
    data_bytes = file.size - data_start
    tensors: dict[str, SourceTensor] = {}
    spans: list[tuple[int, int, str]] = []
    for name in sorted(header):
        check_tensor_name(name, where)
        element, shape, begin, end = _parse_entry(header[name], f"{where}: tensor {name[:80]!r}", notes)
        tensors[name] = SourceTensor(name, element, shape, file, data_start + begin)
        spans.append((begin, end, name))
    _check_spans(spans, data_start, data_bytes, where)
    return tensors


def _read_header(file: InputFile, notes: list[str]) -> tuple[dict[str, Any], int]:
    file.refuse_lfs_pointer()
    if file.size < 8:
        raise TruncatedError(f"{file.path}: {file.size} bytes, a safetensors header needs 8")
    length = int.from_bytes(file.read(0, 8), "little")
    if length > MAX_HEADER_BYTES:
        raise LimitError(f"{file.path}: offset 0x0: header of {length} bytes exceeds the limit of {MAX_HEADER_BYTES}")
    if 8 + length > file.size:
        raise TruncatedError(f"{file.path}: offset 0x0: header of {length} bytes in a file of {file.size}")
    text = file.read(8, length)
    if not length:
        raise FormatError(f"{file.path}: offset 0x0: header of 0 bytes")
    count = text.count(b'"data_offsets"')
    if count > MAX_TENSORS:
        raise LimitError(f"{file.path}: header of {count} tensors exceeds the limit of {MAX_TENSORS}")
    header = parse_json(text, f"{file.path}: header", unique=True)
    if not isinstance(header, dict):
        raise FormatError(f"{file.path}: header is a JSON {type(header).__name__}, expected an object")
    if not text.startswith(b"{"):
        notes.append(f"{file.path}: header does not begin with '{{'")
    if length % 8:
        notes.append(f"{file.path}: header of {length} bytes is not a multiple of 8")
    return header, 8 + length


def _check_metadata(metadata: object, where: str) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise InvalidError(f"{where}: __metadata__ is a JSON {type(metadata).__name__}, expected an object")
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise InvalidError(f"{where}: __metadata__ {key[:80]!r}: value {value!r:.40} is not a string")


def check_tensor_name(name: str, where: str) -> None:
    """Raise InvalidError for a name that is empty, holds NUL or is not valid Unicode."""
    if not name or "\0" in name:
        raise InvalidError(f"{where}: tensor name {name[:80]!r} is empty or holds NUL")
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InvalidError(f"{where}: tensor name {name[:80]!r} is not valid Unicode") from None


def _parse_entry(entry: object, where: str, notes: list[str]) -> tuple[Dtype, tuple[int, ...], int, int]:
    """Element type, shape, and begin and end of the data, proven to agree with each other."""
    if not isinstance(entry, dict):
        raise InvalidError(f"{where}: entry is a JSON {type(entry).__name__}, expected an object")
    missing = _FIELDS - entry.keys()
    if missing:
        raise InvalidError(f"{where}: no {', '.join(sorted(missing))}")
    if len(entry) > len(_FIELDS):
        notes.append(f"{where}: unknown field {min(entry.keys() - _FIELDS)[:80]!r}")
    element = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if element is None:
        raise UnsupportedError(f"{where}: unknown dtype {entry['dtype']!r:.40}")
    shape = _whole_numbers(entry["shape"], "shape", where)
    if len(shape) > MAX_RANK:
        raise LimitError(f"{where}: {len(shape)} dimensions exceed the limit of {MAX_RANK}")
    begin_end = _whole_numbers(entry["data_offsets"], "data_offsets", where)
    if len(begin_end) != 2:
        raise InvalidError(f"{where}: data_offsets has {len(begin_end)} numbers, expected 2")
    begin, end = begin_end
    bits = element.bits * prod(shape)
    if bits // 8 > MAX_BYTES:
        raise InvalidError(f"{where}: shape {list(shape)} needs more than 2^63-1 bytes")
    if bits % 8:
        raise InvalidError(f"{where}: {list(shape)} elements of {element.bits} bits are not a whole number of bytes")
    if end - begin != bits // 8:
        raise InvalidError(
            f"{where}: {element.name} {list(shape)} needs {bits // 8} bytes, data_offsets [{begin}, {end}] give "
            f"{end - begin}"
        )
    return element, shape, begin, end


def _whole_numbers(value: object, field: str, where: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise InvalidError(f"{where}: {field} is a JSON {type(value).__name__}, expected a list")
    for number in value:
        if type(number) is not int or not 0 <= number <= MAX_BYTES:
            raise InvalidError(f"{where}: {field} holds {number!r:.40}, expected a whole number up to 2^63-1")
    return tuple(value)


def _check_spans(spans: list[tuple[int, int, str]], data_start: int, data_bytes: int, where: str) -> None:
    """The tensors, in order of offset, must tile the data exactly."""
    spans.sort()
    reached, before = 0, ""
    for begin, end, name in spans:
        place = f"{where}: offset {data_start + begin:#x}, tensor {name[:80]!r}"
        if end > data_bytes:
            raise TruncatedError(f"{place}: ends at byte {end} of the data, file has {data_bytes}")
        if begin < reached:
            raise InvalidError(f"{place}: overlaps tensor {before[:80]!r} by {reached - begin} bytes")
        if begin > reached:
            raise InvalidError(f"{place}: hole of {begin - reached} bytes before it")
        reached, before = end, name
    if reached < data_bytes:
        raise InvalidError(
            f"{where}: offset {data_start + reached:#x}: {data_bytes - reached} trailing bytes belong to no tensor"
        )
