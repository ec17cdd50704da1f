"""A GGUF file before it exists: header bytes and the place of every tensor. Touches no disk."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gguf_forge.errors import ForgeError, InvalidError, LimitError, escaped
from gguf_forge.format.layout import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    LIMITS,
    MAGIC,
    ORDERS,
    WRITE_NAME_BYTES,
    WRITE_VERSION,
    Limits,
    ValueType,
)
from gguf_forge.format.parse import parse
from gguf_forge.format.validate import align, validate
from gguf_forge.format.values import Value, encode, encode_string, u32
from gguf_forge.types import TensorType


@dataclass(frozen=True)
class Declared:
    """A tensor to be written: shape in NumPy order."""

    name: str
    shape: tuple[int, ...]
    type: TensorType


@dataclass(frozen=True)
class Extent:
    """A tensor's place in a planned file: `offset` from the start of the file, in bytes."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    nbytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of the last axis."""
        return self.type.row_bytes(self.shape[-1] if self.shape else 1)


@dataclass(frozen=True)
class FilePlan:
    """A whole file: `header` with its padding, where the data starts, each tensor's extent, the file's size in bytes.

    What lies between extents, and after the last up to `size`, is zeros.
    """

    header: bytes
    data_start: int
    tensors: Mapping[str, Extent]
    size: int
    alignment: int
    endian: str

    def __repr__(self) -> str:
        return f"<FilePlan: {len(self.tensors)} tensors, {self.size} bytes>"


def plan_file(
    metadata: Mapping[str, Value],
    tensors: Sequence[Declared],
    *,
    endian: str = "little",
    alignment: int | None = None,
    path: str | os.PathLike[str] = "output",
    limits: Limits = LIMITS,
    pad: bool = True,
) -> FilePlan:
    """Lays out a version 3 file and checks it with the reader's rules; `path` only names it in errors.

    `alignment` in bytes: by default that of the metadata, or 32; one other than 32 that the metadata lacks is added to
    it. Every tensor is padded to the alignment, the last one too, and so is a header that no tensor
    follows, unless `pad` is False. Raises InvalidError, LimitError.
    """
    if endian not in ORDERS:
        raise InvalidError(f"endian must be 'little' or 'big', found {endian!r}")
    order = ORDERS[endian]
    alignment, metadata = _settle_alignment(metadata, alignment, path)
    sizes = [_nbytes(t, path) for t in tensors]
    parts = [MAGIC, struct.pack(order + "IQQ", WRITE_VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        try:
            parts += [encode_string(key, order), struct.pack(order + "I", value.type), encode(value, order)]
        except ForgeError as error:
            raise InvalidError(error.text, path=path, field=f'key "{escaped(key)}"') from error
    data = 0
    offsets = []
    for tensor, nbytes in zip(tensors, sizes, strict=True):
        offsets.append(data)
        dims = tensor.shape[::-1]
        record = struct.pack(f"{order}I{len(dims)}QIQ", len(dims), *dims, tensor.type.id, data)
        parts += [encode_string(tensor.name, order), record]
        data += align(nbytes, alignment)
        if data >= 2**63:
            raise InvalidError("the file would exceed 2^63-1 bytes", path=path, field=_field(tensor))
    header = b"".join(parts)
    start = align(len(header), alignment if tensors or pad else 1)
    validate(parse(header, start + data, path, limits), limits)
    extents = {
        t.name: Extent(t.name, t.shape, t.type, start + offset, nbytes)
        for t, offset, nbytes in zip(tensors, offsets, sizes, strict=True)
    }
    return FilePlan(header.ljust(start, b"\0"), start, extents, start + data, alignment, endian)


def _field(tensor: Declared) -> str:
    return f'tensor "{escaped(tensor.name)}"'


def _nbytes(tensor: Declared, path: str | os.PathLike[str]) -> int:
    name_bytes = len(tensor.name.encode("utf-8", "surrogatepass"))
    if name_bytes > WRITE_NAME_BYTES:
        text = f"name of {name_bytes} bytes, ggml reads at most {WRITE_NAME_BYTES}"
        raise LimitError(text, path=path, field=_field(tensor))
    if any(not 0 <= dim < 2**63 for dim in tensor.shape):
        raise InvalidError(f"shape {tensor.shape} is out of range", path=path, field=_field(tensor))
    try:
        return tensor.type.nbytes(tensor.shape)
    except ForgeError as error:
        raise InvalidError(error.text, path=path, field=_field(tensor)) from error


def _settle_alignment(
    metadata: Mapping[str, Value], alignment: int | None, path: str | os.PathLike[str]
) -> tuple[int, Mapping[str, Value]]:
    stated = metadata.get(ALIGNMENT_KEY)
    field = f'key "{ALIGNMENT_KEY}"'
    if stated is None:
        chosen = DEFAULT_ALIGNMENT if alignment is None else alignment
    else:
        if stated.type is not ValueType.UINT32:
            raise InvalidError(f"must be UINT32, found {stated.type.name}", path=path, field=field)
        chosen = int(stated.value)
        if alignment is not None and alignment != chosen:
            raise InvalidError(f"the metadata say {chosen}, the caller {alignment}", path=path, field=field)
    if chosen <= 0 or chosen & (chosen - 1):
        raise InvalidError(f"alignment {chosen} is not a power of two", path=path, field=field)
    if stated is None and chosen != DEFAULT_ALIGNMENT:
        metadata = {**metadata, ALIGNMENT_KEY: u32(chosen)}
    return chosen, metadata
