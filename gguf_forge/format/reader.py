"""Opens GGUF files as views: metadata decoded when asked for, tensors as slices of the mapped file. Knows no rules of
the format (validate.py) and no codecs: who opens a file brings the decoder of its blocks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from gguf_forge.closing import Closing
from gguf_forge.errors import IncompleteSetError, InvalidError, RequestError, UnsupportedError, escaped
from gguf_forge.format import shards
from gguf_forge.format.foreign import probably
from gguf_forge.format.layout import LIMITS, Limits, ValueType
from gguf_forge.format.mapped import MappedFile
from gguf_forge.format.orders import swapped
from gguf_forge.format.parse import Entry
from gguf_forge.format.part import Bytes, Part
from gguf_forge.format.validate import Placed, Unsized
from gguf_forge.format.values import Value
from gguf_forge.remote.answers import NotThereError
from gguf_forge.remote.location import Location, located
from gguf_forge.results import fitting, float_dtype
from gguf_forge.types import TENSOR_TYPES, TensorType

Floats = np.ndarray[Any, np.dtype[np.float32]]


class Decoder(Protocol):
    """Turns blocks of a type into floats, as `gguf_forge.dequantize` does."""

    def __call__(
        self,
        data: Bytes,
        type: TensorType,
        dtype: DTypeLike | str | None = None,
        threads: int | None = None,
        *,
        out: np.ndarray[Any, Any] | None = None,
    ) -> np.ndarray[Any, Any]:
        """Blocks, uint8 (..., row bytes), as floats (..., width) of `dtype`, or float32: a new array, or `out`."""


class Sender(Protocol):
    """Brings a tensor to a GPU, as `gguf_forge.cuda.to_cuda` does."""

    def __call__(self, tensor: Tensor, dtype: DTypeLike | str | None, **how: Any) -> Any:
        """The tensor's values, or without a dtype its blocks, in a device's memory; how: as of `Tensor.to_cuda`."""


#: Elements brought to another byte order, or made floats of integers, at a time.
_PIECE = 1 << 20


class Metadata(Mapping[str, Any]):
    """Metadata by key, in the file's order, decoded when asked for and then kept.

    Scalars come as int, float, bool or str; string arrays as list[str]; numeric arrays as 1-D NumPy arrays of the
    element's dtype; nested arrays as lists. Bytes that are no UTF-8 come as surrogates (`surrogateescape`). Raises
    KeyError for an unknown key.
    """

    def __init__(self, part: Part, entries: dict[str, Entry]) -> None:
        self._part = part
        self._entries = entries
        self._values: dict[str, Value] = {}

    def value(self, key: str) -> Value:
        """The value with its type."""
        found = self._values.get(key)
        if found is None:
            found = self._values[key] = self._part.value(self._entries[key])
        return found

    def stored(self, key: str) -> Value:
        """The value as the file has it, for writing it again to the byte; not decoded until it is looked at."""
        return self._part.stored_value(self._entries[key])

    def type_of(self, key: str) -> ValueType:
        """The value type, without decoding the value."""
        return self._entries[key].type

    def element_type_of(self, key: str) -> ValueType | None:
        """The element type of an array, None for other values; without decoding."""
        return self._entries[key].element

    def count_of(self, key: str) -> int:
        """How many elements an array holds, 1 for other values; without decoding."""
        return self._entries[key].count

    def __getitem__(self, key: str) -> Any:
        return self.value(key).plain()

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Metadata: {len(self)} keys>"


class Tensor:
    """One tensor of an open file. Holds no data; `data` and `read_rows` get it.

    name: as in the file. type: TensorType. shape: NumPy order, the last axis contiguous. nbytes: bytes of its blocks.
    offset: its place in `path`, in bytes from the start.
    """

    def __init__(
        self, part: Part, placed: Placed, decode_rows: Decoder | None, to_device: Sender | None = None
    ) -> None:
        self._part = part
        self._decode_rows = decode_rows
        self._to_device = to_device
        self.name = placed.info.name
        self.type = placed.type
        self.shape = placed.shape
        self.nbytes = placed.nbytes
        self.offset = placed.start
        self.path = part.path

    @property
    def order(self) -> str:
        """The byte order of its file's numbers, "<" or ">"."""
        return self._part.checked.header.order

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of the last axis."""
        return self.type.row_bytes(self.shape[-1] if self.shape else 1)

    @property
    def rows(self) -> int:
        """Rows of the last axis: the product of the leading dims."""
        return int(np.prod(self.shape[:-1], dtype=np.int64))

    @property
    def data(self) -> Bytes:
        """The raw blocks as stored, uint8 of shape (*shape[:-1], row_bytes), read-only; a view of the mapped file, or
        all fetched where that is behind a URL.

        Raises ChangedInputError when the file was changed since it was opened, InputError when it is closed. A file
        that is cut while the view is in use ends the process (SIGBUS); `read_rows` has no such risk.
        """
        self._part.check_unchanged()
        shape = (*self.shape[:-1], self.row_bytes)
        if not self.nbytes:
            return np.empty(shape, dtype=np.uint8)
        return self._part.view(self.offset, self.nbytes).reshape(shape)

    def read_rows(self, start: int, stop: int) -> Bytes:
        """Rows `start` to `stop` over the flattened leading axes: a new uint8 array of shape (stop - start, row_bytes).

        Reads with pread: pins no pages and is safe from several threads. Raises InvalidError for rows that are not
        there, ChangedInputError when the file was cut, InputError when it cannot be read.
        """
        if not 0 <= start <= stop <= self.rows:
            field = f'tensor "{escaped(self.name)}"'
            raise InvalidError(f"rows {start} to {stop} of {self.rows}", path=self.path, field=field)
        self._part.check_unchanged()
        out = np.empty((stop - start, self.row_bytes), dtype=np.uint8)
        self._part.read_into(out, self.offset + start * self.row_bytes)
        return out

    def read_bytes(self, out: Bytes, start: int) -> None:
        """Fills `out` with the tensor's bytes from number `start` on, as `read_rows` does. Raises what that raises."""
        if not 0 <= start <= start + out.nbytes <= self.nbytes:
            field = f'tensor "{escaped(self.name)}"'
            raise InvalidError(f"bytes {start} to {start + out.nbytes} of {self.nbytes}", path=self.path, field=field)
        self._part.check_unchanged()
        self._part.read_into(out, self.offset + start)

    def descriptor(self) -> int | None:
        """The open file's, for sharing its extents; None behind a URL. Raises as `read_bytes`."""
        self._part.check_unchanged()
        storage = self._part.storage
        return storage.descriptor if isinstance(storage, MappedFile) else None

    def dequantize(
        self,
        dtype: DTypeLike | str | None = None,
        threads: int | None = None,
        *,
        out: np.ndarray[Any, Any] | None = None,
    ) -> np.ndarray[Any, Any]:
        """The values in an array of `shape`: float32 unless told otherwise, a new one unless `out` is given.

        dtype, threads, out: as of `gguf_forge.dequantize`. Integers and F64 are rounded to the nearest float32, and
        that to `dtype`. With `out` nothing of the tensor's size is made, but for what is fetched where the file is
        behind a URL. Blocks of big-endian files hold numbers in that order. Raises UnsupportedError for a type without
        a decoder, and for a shape that is too large for an array though it has no elements; QuantError for a dtype or
        `out` that does not fit.
        """
        result = float_dtype(dtype, out)
        field = f'tensor "{escaped(self.name)}"'
        if result.itemsize * math.prod(n for n in self.shape if n) >= 2**63:
            raise UnsupportedError(f"no array of {result} has shape {self.shape}", path=self.path, field=field)
        data = self.data
        if out is not None:
            fitting(out, self.shape, result, data)
        elif result == np.float32 and threads is None:
            return self._decoded(data).reshape(self.shape)
        decode = self._decode_rows
        if decode is None or not (self.type.decodes or self.type.name in _PLAIN):
            raise UnsupportedError(f"no decoder for {self.type.name}", path=self.path, field=field)
        made = np.empty(self.shape, result) if out is None else out
        numpys = self.type.name in _PLAIN and (result == np.float32 or not self.type.decodes)
        if self.order == "<" and not numpys:
            decode(data, self.type, threads=threads, out=made.reshape(data.shape[:-1] + (self.shape or (1,))[-1:]))
            return made
        raw, floats = data.reshape(-1), made.reshape(-1)
        for start in range(0, floats.size, _PIECE):
            part = floats[start : start + _PIECE]
            piece = raw[self.type.nbytes((start,)) : self.type.nbytes((start + part.size,))]
            if numpys and result == np.float32:
                part[:] = self._decoded(piece)
            elif numpys:
                decode(self._decoded(piece).view(np.uint8), TENSOR_TYPES["F32"], threads=threads, out=part)
            else:
                decode(swapped(piece, self.type), self.type, threads=threads, out=part)
        return made

    def to_cuda(
        self,
        dtype: DTypeLike | str | None = None,
        *,
        device: int | str | Any = 0,
        stream: Any = None,
        out: Any = None,
    ) -> Any:
        """The tensor in a GPU's memory, a `gguf_forge.cuda.DeviceArray`: its values of `shape`, decoded there.

        dtype: float32, float16 or "bfloat16"; without one, the blocks as `data` has them, for `gguf_forge.cuda.matvec`.
        device, stream, out: as of `gguf_forge.cuda.dequantize`. Bytes are read into the memory that they are sent from,
        with pread as `read_rows` does. Raises what that and `gguf_forge.cuda.dequantize` raise; UnsupportedError for a
        type without a decoder.
        """
        if self._to_device is None:
            raise UnsupportedError("opened without gguf_forge.open, which knows of GPUs", path=self.path)
        return self._to_device(self, dtype, device=device, stream=stream, out=out)

    def read_values(self, start: int, stop: int) -> Floats:
        """The values number `start` to `stop`, counted over all axes, as `dequantize` gives them: flat, float32.

        Both must be multiples of the type's block, or the end. Reads as `read_rows` does, and raises what that and
        `dequantize` raise.
        """
        first, last = (self.type.nbytes((at,)) for at in (start, stop))
        raw = np.empty(last - first, dtype=np.uint8)
        self.read_bytes(raw, first)
        return self._decoded(raw).reshape(-1)

    def _decoded(self, data: Bytes) -> Floats:
        """The values of blocks, in the blocks' shape or flat."""
        field = f'tensor "{escaped(self.name)}"'
        dtype = _PLAIN.get(self.type.name)
        if dtype is not None:
            plain = data.view(np.dtype(self.order + dtype))
            if self.type.name == "BF16":
                return (plain.astype(np.uint32) << 16).view(np.float32)
            with np.errstate(over="ignore", invalid="ignore"):
                return plain.astype(np.float32)
        if self._decode_rows is None or not self.type.decodes:
            raise UnsupportedError(f"no decoder for {self.type.name}", path=self.path, field=field)
        if self.order == ">":
            data = swapped(data, self.type).reshape(data.shape)
        return self._decode_rows(data, self.type)

    def __repr__(self) -> str:
        return f'<Tensor "{escaped(self.name)}" {self.type} {self.shape}>'


class UnknownTensor:
    """One tensor of a type that is not read, listed where `open` was told `unknown_types`. Its size is not known.

    name, shape, offset, path: as of a Tensor. type_id: the type's number. probably: what that number stands for in
    another program, as "IQ3_KS of ik_llama.cpp"; None when no program is known to use it.
    """

    def __init__(self, part: Part, unsized: Unsized) -> None:
        self.name = unsized.info.name
        self.type_id = unsized.info.type_id
        self.probably = probably(self.type_id)
        self.shape = unsized.shape
        self.offset = unsized.start
        self.path = part.path

    def __repr__(self) -> str:
        return f'<UnknownTensor "{escaped(self.name)}" of type {self.type_id} {self.shape}>'


#: NumPy codes of the types that are plain numbers.
_PLAIN = {"F32": "f4", "F16": "f2", "BF16": "u2", "F64": "f8", "I8": "i1", "I16": "i2", "I32": "i4", "I64": "i8"}


class Tensors(dict[str, Tensor]):
    """Tensors by name, in the files' order."""

    def __repr__(self) -> str:
        return f"<Tensors: {len(self)}>"


class GGUFFile(Closing):
    """An open GGUF file, or a set of shards as one model. A context manager; made by `open`.

    path: the file that was named. paths: all files of the set, in order. version: 2 or 3. endian: "little" or "big".
    alignment: of the first file, in bytes. metadata: Metadata, without the split.* keys when there are several files.
    tensors: dict of name to Tensor, in the files' order. nbytes: size of all files. unknown: where `open` was told
    `unknown_types`, dict of name to UnknownTensor of those whose type is not read; they are not among the `tensors`.
    """

    def __init__(
        self, parts: list[Part], path: Path | Location, decode_rows: Decoder | None, to_device: Sender | None = None
    ) -> None:
        first = parts[0]
        self.parts = parts
        self.path = path
        self.paths = [p.path for p in parts]
        self.version = first.checked.header.version
        self.endian = "little" if first.checked.header.order == "<" else "big"
        self.alignment = first.checked.alignment
        self.nbytes = sum(p.size for p in parts)
        hidden = shards.SPLIT_KEYS if len(parts) > 1 else ()
        self.metadata = Metadata(first, {k: e for k, e in first.entries.items() if k not in hidden})
        self.tensors: Mapping[str, Tensor] = Tensors(
            (t.info.name, Tensor(part, t, decode_rows, to_device)) for part in parts for t in part.checked.tensors
        )
        self.unknown: Mapping[str, UnknownTensor] = {
            t.info.name: UnknownTensor(part, t) for part in parts for t in part.checked.unsized
        }

    def local_paths(self) -> list[Path]:
        """The paths of all files. RequestError where they are behind URLs: this is for what takes local files only."""
        found = [path for path in self.paths if isinstance(path, Path)]
        if len(found) < len(self.paths):
            raise RequestError(f"{self.path}: a file behind a URL; this reads local ones only")
        return found

    def listing(self) -> list[Tensor | UnknownTensor]:
        """All tensors in the files' order, those of unknown types among them."""
        every: dict[str, Tensor | UnknownTensor] = {**self.tensors, **self.unknown}
        return [every[info.name] for part in self.parts for info in part.checked.header.infos]

    def check_unchanged(self) -> None:
        """Raises ChangedInputError when one of the files was replaced, cut or rewritten since it was opened."""
        for part in self.parts:
            part.check_unchanged()

    def close(self) -> None:
        """Closes all files. Arrays that `data` gave stay valid; metadata and tensors can no longer be read."""
        for part in self.parts:
            part.close()

    def __repr__(self) -> str:
        return f"<GGUFFile {escaped(str(self.path))}: {len(self.metadata)} keys, {len(self.tensors)} tensors>"


def open(  # noqa: A001 - the public name
    path: str | os.PathLike[str],
    *,
    limits: Limits = LIMITS,
    decode_rows: Decoder | None = None,
    to_device: Sender | None = None,
    alone: bool = False,
    unknown_types: bool = False,
) -> GGUFFile:
    """Opens a GGUF file of version 2 or 3, either byte order, or the whole set when `path` is any of its shards.

    `path` may be an http(s) URL, or hf://OWNER/REPO[@REVISION]/FILE, read by ranges (UnsupportedError without the
    packages for that); the other shards are looked for beside it. Only headers are read. `limits` bounds what a file
    may declare. `decode_rows` turns blocks of a type, uint8 (..., row bytes), into floats (..., width) for
    `Tensor.dequantize`; without it only plain numbers are decoded, to new float32. `to_device` is what
    `Tensor.to_cuda` calls.
    `alone`: open a shard as it stands, without its set. `unknown_types`: open also a file with tensors whose type is
    not read, for its metadata and its other tensors; these are listed in `unknown`.

    Raises FormatError (not GGUF, or another version), TruncatedError, InvalidError, LimitError, UnsupportedError
    (an unknown tensor type), InputError (missing or unreadable).
    """
    named = located(path)
    parts: list[Part] = []
    try:
        parts.append(Part(named, limits, unknown_types=unknown_types))
        siblings = [] if alone else shards.siblings(parts[0])
        if siblings:
            for sibling in siblings:
                if sibling != named:
                    parts.append(_sibling(sibling, limits, unknown_types))
            parts.sort(key=lambda part: siblings.index(part.path))
            shards.check_set(parts)
    except BaseException:
        for part in parts:
            part.close()
        raise
    return GGUFFile(parts, named, decode_rows, to_device)


def _sibling(path: Path | Location, limits: Limits, unknown_types: bool) -> Part:
    """Another file of a set. Behind a URL it is only now seen whether it is there: IncompleteSetError if not."""
    try:
        return Part(path, limits, unknown_types=unknown_types)
    except NotThereError as error:
        raise IncompleteSetError(f"a shard of the set is missing: {error.text}", path=error.path) from None
