"""The safetensors container: header to tensors, every rule checked. Must not know checkpoints of several files.

    u64 N | N bytes of JSON: name -> {dtype, shape, data_offsets [begin, end)} | data, densely packed, to the file's end

Stricter than the usual readers where they let a file mean two things: repeated keys, overlaps, holes and trailing
bytes are errors.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from gguf_forge.errors import FormatError, InvalidError, LimitError, TruncatedError, UnsupportedError
from gguf_forge.source.dtypes import DTYPES, Dtype
from gguf_forge.source.input_file import InputFile
from gguf_forge.source.strict_json import parse_json
from gguf_forge.source.tensor import SourceTensor, tensor_field

#: Bytes of JSON; the limit of the format's own library.
MAX_HEADER_BYTES = 100_000_000
#: Tensors of one file; the largest mixtures of experts have about 200,000 in all of theirs.
MAX_TENSORS = 1 << 18
MAX_RANK = 16
MAX_BYTES = 2**63 - 1

_FIELDS = {"dtype", "shape", "data_offsets"}


def read_safetensors(
    file: InputFile, notes: list[str], metadata: dict[str, str] | None = None
) -> dict[str, SourceTensor]:
    """The tensors of an open file, ordered by name. What is legal but odd is added to `notes`, one line each.

    `metadata`, if given, takes the texts that the header has beside tensors.

    Raises TruncatedError, LimitError, InvalidError, FormatError or UnsupportedError, each naming file and place.
    """
    header, data_start = _read_header(file, notes)
    path = file.path
    beside = _metadata(header.pop("__metadata__", None), path)
    if metadata is not None:
        metadata.update(beside)
    data_bytes = file.size - data_start
    tensors: dict[str, SourceTensor] = {}
    spans: list[tuple[int, int, str]] = []
    for name in sorted(header):
        check_tensor_name(name, path)
        element, shape, begin, end = _parse_entry(header[name], file.path, tensor_field(name), notes)
        tensors[name] = SourceTensor(name, element, shape, file, data_start + begin)
        spans.append((begin, end, name))
    _check_spans(spans, data_start, data_bytes, path)
    return tensors


def _read_header(file: InputFile, notes: list[str]) -> tuple[dict[str, Any], int]:
    file.refuse_lfs_pointer()
    if file.size < 8:
        raise TruncatedError(f"{file.size} bytes, a safetensors header needs 8", path=file.path)
    length = int.from_bytes(file.read(0, 8), "little")
    if length > MAX_HEADER_BYTES:
        raise LimitError(f"header of {length} bytes exceeds the limit of {MAX_HEADER_BYTES}", path=file.path, offset=0)
    if 8 + length > file.size:
        raise TruncatedError(f"header of {length} bytes in a file of {file.size}", path=file.path, offset=0)
    text = file.read(8, length)
    if not length:
        raise FormatError("header of 0 bytes", path=file.path, offset=0)
    count = text.count(b'"data_offsets"')
    if count > MAX_TENSORS:
        raise LimitError(f"header of {count} tensors exceeds the limit of {MAX_TENSORS}", path=file.path)
    header = parse_json(text, file.path, "header", unique=True)
    if not isinstance(header, dict):
        raise FormatError(f"header is a JSON {type(header).__name__}, expected an object", path=file.path)
    if not text.startswith(b"{"):
        notes.append(f"{file.path}: header does not begin with '{{'")
    if length % 8:
        notes.append(f"{file.path}: header of {length} bytes is not a multiple of 8")
    return header, 8 + length


def _metadata(metadata: object, path: Path) -> dict[str, str]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise InvalidError(f"__metadata__ is a JSON {type(metadata).__name__}, expected an object", path=path)
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise InvalidError(f"__metadata__ {key[:80]!r}: value {value!r:.40} is not a string", path=path)
    return metadata


def check_tensor_name(name: str, path: Path) -> None:
    """Raise InvalidError for a name that is empty, holds NUL or is not valid Unicode."""
    if not name or "\0" in name:
        raise InvalidError(f"tensor name {name[:80]!r} is empty or holds NUL", path=path)
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InvalidError(f"tensor name {name[:80]!r} is not valid Unicode", path=path) from None


def _parse_entry(entry: object, path: Path, field: str, notes: list[str]) -> tuple[Dtype, tuple[int, ...], int, int]:
    """Element type, shape, and begin and end of the data, proven to agree with each other."""
    if not isinstance(entry, dict):
        raise InvalidError(f"entry is a JSON {type(entry).__name__}, expected an object", path=path, field=field)
    missing = _FIELDS - entry.keys()
    if missing:
        raise InvalidError(f"no {', '.join(sorted(missing))}", path=path, field=field)
    if len(entry) > len(_FIELDS):
        notes.append(f"{path}: {field}: unknown field {min(entry.keys() - _FIELDS)[:80]!r}")
    element = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if element is None:
        raise UnsupportedError(f"unknown dtype {entry['dtype']!r:.40}", path=path, field=field)
    shape = _whole_numbers(entry["shape"], "shape", path, field)
    if len(shape) > MAX_RANK:
        raise LimitError(f"{len(shape)} dimensions exceed the limit of {MAX_RANK}", path=path, field=field)
    begin_end = _whole_numbers(entry["data_offsets"], "data_offsets", path, field)
    if len(begin_end) != 2:
        raise InvalidError(f"data_offsets has {len(begin_end)} numbers, expected 2", path=path, field=field)
    begin, end = begin_end
    bits = element.bits * prod(shape)
    if bits // 8 > MAX_BYTES:
        raise InvalidError(f"shape {list(shape)} needs more than 2^63-1 bytes", path=path, field=field)
    if bits % 8:
        raise InvalidError(
            f"{list(shape)} elements of {element.bits} bits are not a whole number of bytes", path=path, field=field
        )
    if end - begin != bits // 8:
        raise InvalidError(
            f"{element.name} {list(shape)} needs {bits // 8} bytes, data_offsets [{begin}, {end}] give {end - begin}",
            path=path,
            field=field,
        )
    return element, shape, begin, end


def _whole_numbers(value: object, what: str, path: Path, field: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise InvalidError(f"{what} is a JSON {type(value).__name__}, expected a list", path=path, field=field)
    for number in value:
        if type(number) is not int or not 0 <= number <= MAX_BYTES:
            raise InvalidError(
                f"{what} holds {number!r:.40}, expected a whole number up to 2^63-1", path=path, field=field
            )
    return tuple(value)


def _check_spans(spans: list[tuple[int, int, str]], data_start: int, data_bytes: int, path: Path) -> None:
    """The tensors, in order of offset, must tile the data exactly."""
    spans.sort()
    reached, before = 0, ""
    for begin, end, name in spans:
        at, field = data_start + begin, tensor_field(name)
        if end > data_bytes:
            raise TruncatedError(
                f"ends at byte {end} of the data, file has {data_bytes}", path=path, offset=at, field=field
            )
        if begin < reached:
            raise InvalidError(
                f"overlaps tensor {before[:80]!r} by {reached - begin} bytes", path=path, offset=at, field=field
            )
        if begin > reached:
            raise InvalidError(f"hole of {begin - reached} bytes before it", path=path, offset=at, field=field)
        reached, before = end, name
    if reached < data_bytes:
        raise InvalidError(
            f"{data_bytes - reached} trailing bytes belong to no tensor", path=path, offset=data_start + reached
        )
