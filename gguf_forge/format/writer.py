"""Writes GGUF files: a plan first, then bytes at their offsets. Knows no codecs; blocks arrive encoded."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from gguf_forge.errors import InvalidError, OutputError, UnsupportedError, escaped
from gguf_forge.format.arrays import as_array
from gguf_forge.format.atomic import AtomicFile
from gguf_forge.format.layout import ValueType
from gguf_forge.format.pages import page_sum
from gguf_forge.format.plan import Declared, Extent, FilePlan, plan_file
from gguf_forge.format.values import Value, array, infer, scalar, typed
from gguf_forge.system import EXTENT
from gguf_forge.types import TensorType, tensor_type

if TYPE_CHECKING:
    from typing_extensions import Self


class GGUFWriter:
    """Builds one GGUF file, version 3.

        with GGUFWriter("model.gguf", {"general.architecture": "llama"}) as out:
            out.add("llama.block_count", 2)
            out.add_tensor("token_embd.weight", embedding)

    or, for tensors that come in pieces: `declare` them all, `begin`, `write` rows in any order and from any thread.
    Leaving the block commits; an exception, KeyboardInterrupt too, aborts, and the old file stays as it was.

    path: the output; a symlink stays and its target is replaced. metadata: keys in the order of the file, each with a
    Value or an object that `add` takes. endian: "little" or "big". alignment in bytes: a power of two, by default
    general.alignment of the metadata, or 32.
    overwrite: False refuses an output that exists. pad: False ends a file without tensors where its keys end.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: Mapping[str, Any] | None = None,
        *,
        endian: str = "little",
        alignment: int | None = None,
        overwrite: bool = True,
        pad: bool = True,
    ) -> None:
        self.path = path
        self.metadata: dict[str, Value] = typed(metadata or {})
        self.endian = endian
        self.alignment = alignment
        self.pad = pad
        self._overwrite = overwrite
        self._declared: dict[str, Declared] = {}
        self._pending: dict[str, np.ndarray[Any, Any]] = {}
        self._plan: FilePlan | None = None
        self._file: AtomicFile | None = None
        self._published: AtomicFile | None = None
        self._written: dict[str, int] = {}
        self._lock = threading.Lock()
        self._closed = False

    def add(self, key: str, value: Any, type: ValueType | None = None) -> None:
        """Adds a key: a Value, or a Python or NumPy object, of `type` (of a list or array: its elements' type).

        Without a type: bool BOOL, int UINT32 (INT32 if negative, 64 bits if it must), float FLOAT32, str STRING, arrays
        by dtype, lists of int INT32. Raises InvalidError for a value that does not fit, or a key there already.
        """
        self._check_open()
        if key in self.metadata:
            raise InvalidError("duplicate key", path=self.path, field=f'key "{escaped(key)}"')
        try:
            self.metadata[key] = _typed(value, type)
        except InvalidError as error:
            raise InvalidError(error.text, path=self.path, field=f'key "{escaped(key)}"') from error

    def declare(self, name: str, shape: Sequence[int], type: TensorType | str) -> None:
        """Announces a tensor: shape in NumPy order, the last axis contiguous. Its rows come by `write`."""
        self._check_open()
        if name in self._declared:
            raise InvalidError("duplicate tensor name", path=self.path, field=_field(name))
        self._declared[name] = Declared(name, tuple(int(d) for d in shape), tensor_type(type))

    def add_tensor(self, name: str, data: ArrayLike, type: TensorType | str | None = None) -> None:
        """Adds a whole tensor: an array, or what NumPy makes one of. An array is kept, not copied, until `begin`.

        Without `type`, float32, float16, float64, int8 to int64 are stored as they are; Python's numbers and lists of
        them as F32, integers as I32, or I64 where they must. With it, an array is either of that type's own numbers
        (uint16 for BF16) or uint8 blocks of shape (..., row_bytes); lists are turned to a type of plain numbers. Raises
        InvalidError when data and type do not fit, UnsupportedError for quantized blocks in a big-endian file.
        """
        try:
            taken, kind, shape = as_array(data, type)
        except InvalidError as error:
            raise InvalidError(error.text, path=self.path, field=_field(name)) from error
        if self.endian == "big" and kind.quantized:
            raise UnsupportedError("quantized blocks are not written big-endian", path=self.path, field=_field(name))
        self.declare(name, shape, kind)
        self._pending[name] = taken

    def plan(self) -> FilePlan:
        """The file as it stands: header bytes, each tensor's extent, size. Raises what the reader would for it."""
        if self._plan is not None:
            return self._plan
        return plan_file(
            self.metadata,
            list(self._declared.values()),
            endian=self.endian,
            alignment=self.alignment,
            path=self.path,
            pad=self.pad,
        )

    @property
    def begun(self) -> bool:
        """Whether the file is being made."""
        return self._file is not None

    def begin(self, keep: Callable[[], bool] | None = None) -> FilePlan:
        """Fixes the plan, makes the temporary sibling with all its space, writes the header and the added tensors.

        `keep`, where an earlier run left a sibling: whether what is in it stays, as far as `claim` says so later. Where
        it raises, the sibling is left. Raises InvalidError for a bad plan, OutputError for one that cannot be written.
        """
        self._check_open()
        self._plan = plan = self.plan()
        kept = None if keep is None else lambda size: keep() and size == plan.size
        self._file = AtomicFile(self.path, plan.size, overwrite=self._overwrite, keep=kept)
        try:
            self._file.write_at(plan.header, 0)
            if self._file.kept:
                self._clear_padding(self._file, plan)
            for name in list(self._pending):
                self.write(name, _stored_bytes(self._pending.pop(name), plan.endian))
        except BaseException:
            self.abort()
            raise
        return plan

    @staticmethod
    def _clear_padding(file: AtomicFile, plan: FilePlan) -> None:
        """Makes zeros of what lies between tensors: nothing is sure of a file that a crash left."""
        extents = sorted(plan.tensors.values(), key=lambda extent: extent.offset)
        ends = [extent.offset + extent.nbytes for extent in extents]
        starts = [*(extent.offset for extent in extents[1:]), plan.size]
        for start, stop in zip(ends, starts, strict=False):  # of no tensors there are no ends
            file.write_at(bytes(stop - start), start)

    def header_digest(self) -> str:
        """SHA-256 of the header, which says all of a file but its tensors' data. Raises what `plan` raises."""
        return sha256(self.plan().header).hexdigest()

    def write(self, name: str, blocks: np.ndarray[Any, Any] | bytes | memoryview, row: int = 0) -> None:
        """Writes encoded rows from `row` on (rows of the last axis, counted over the flattened leading axes).

        blocks: C-contiguous bytes as the file stores them, a multiple of the row's. From any thread, in any order.
        Raises InvalidError when they do not fit the tensor, OutputError when they cannot be written.
        """
        extent, view = self._extent(name), _flat(blocks, name)
        start = row * extent.row_bytes
        if row < 0 or start + len(view) > extent.nbytes or (extent.row_bytes and len(view) % extent.row_bytes):
            text = f"{len(view)} bytes at row {row} do not fit {extent.nbytes} bytes of rows of {extent.row_bytes}"
            raise InvalidError(text, path=self.path, field=_field(name))
        self._write(extent, view, start)

    def write_bytes(self, name: str, data: np.ndarray[Any, Any] | bytes | memoryview, start: int) -> None:
        """Writes a piece of a tensor's bytes, from byte `start` of it on: for copies, whose rows may be of any length.

        From any thread, in any order. Raises what `write` raises.
        """
        extent, view = self._extent(name), _flat(data, name)
        if not 0 <= start <= start + len(view) <= extent.nbytes:
            text = f"{len(view)} bytes at byte {start} do not fit {extent.nbytes} bytes"
            raise InvalidError(text, path=self.path, field=_field(name))
        self._write(extent, view, start)

    def share_bytes(self, name: str, source: int, offset: int, nbytes: int) -> tuple[int, int]:
        """Takes as much over of a tensor's `nbytes`, from `offset` of the open file `source` on, as can be shared.

        Returns from which byte of the tensor up to which it is there, (0, 0) where nothing is: the file system cannot,
        or the bytes lie otherwise between the ends of its blocks than they do there. Raises OutputError.
        """
        extent = self._extent(name)
        first = -offset % EXTENT
        count = (nbytes - first) // EXTENT * EXTENT
        if (extent.offset - offset) % EXTENT or count <= 0 or nbytes != extent.nbytes or self._file is None:
            return 0, 0
        if not self._file.share(source, offset + first, extent.offset + first, count):
            return 0, 0
        with self._lock:
            self._written[name] = self._written.get(name, 0) + count
        return first, first + count

    def claim(self, name: str, start: int, stop: int) -> None:
        """Counts rows as written that an earlier run wrote, into a sibling that was kept."""
        extent = self._extent(name)
        with self._lock:
            self._written[name] = self._written.get(name, 0) + (stop - start) * extent.row_bytes

    def page_sum(self, name: str, start: int, stop: int) -> str:
        """A sum over rows as the file holds them. Raises OutputError where they cannot be read."""
        extent = self._extent(name)
        assert self._file is not None
        nbytes = (stop - start) * extent.row_bytes
        return page_sum(self._file.read_at, extent.offset + start * extent.row_bytes, nbytes)

    def flush(self) -> None:
        """Waits until what was written so far is on disk. Raises OutputError; the file cannot be trusted then."""
        assert self._file is not None
        self._file.seal()

    def spare(self, spared: bool = True) -> None:
        """Whether `abort` leaves the sibling, for a later run to take over."""
        if self._file is not None:
            self._file.spare(spared)

    def _extent(self, name: str) -> Extent:
        if self._file is None or self._plan is None:
            raise OutputError("write before begin, or after the end", path=self.path)
        extent = self._plan.tensors.get(name)
        if extent is None:
            raise InvalidError("not declared", path=self.path, field=_field(name))
        return extent

    def _write(self, extent: Extent, view: memoryview, start: int) -> None:
        assert self._file is not None
        self._file.write_at(view, extent.offset + start)
        with self._lock:
            self._written[extent.name] = self._written.get(extent.name, 0) + len(view)

    def seal(self) -> None:
        """Checks that every tensor was written and waits until all is on disk; `publish` is left to do.

        For sets of files: seal them all, then publish them with the first shard last. Raises OutputError.
        """
        if self._file is None:
            self.begin()
        file, plan = self._file, self._plan
        assert file is not None
        assert plan is not None
        for extent in plan.tensors.values():
            written = self._written.get(extent.name, 0)
            if written != extent.nbytes:
                text = f"{written} of {extent.nbytes} bytes written"
                raise OutputError(text, path=self.path, field=_field(extent.name))
        file.seal()

    def publish(self) -> None:
        """Gives the sealed file its name. Raises OutputError."""
        assert self._file is not None
        self._published = self._file
        self._file.publish()
        self._file = None
        self._closed = True

    def take_back(self) -> None:
        """Removes the file again, published or not, or if it is spared its name: sets become whole or not at all."""
        self.abort()
        if self._published is not None:
            self._published.take_back()

    def commit(self) -> None:
        """Seals and publishes. On any error the output is aborted. Raises OutputError, and what `begin` raises."""
        self._check_open(begun=True)
        try:
            self.seal()
            self.publish()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Removes the temporary sibling unless it is spared; an old file stays. Safe to call at any time."""
        self._closed = True
        self._pending.clear()
        if self._file is not None:
            file, self._file = self._file, None
            file.discard()

    def _check_open(self, begun: bool = False) -> None:
        if self._closed or (self._file is not None and not begun):
            text = "the writer is closed" if self._closed else "the file is laid out already"
            raise OutputError(text, path=self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif not self._closed:
            self.commit()


def _field(name: str) -> str:
    return f'tensor "{escaped(name)}"'


def _typed(value: Any, kind: ValueType | None) -> Value:
    if kind is None or isinstance(value, Value):
        return infer(value)
    if isinstance(value, (list, tuple, np.ndarray)):
        return array(kind, value)
    return scalar(kind, value)


def _stored_bytes(data: np.ndarray[Any, Any], endian: str) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("<" if endian == "little" else ">"))


def _flat(blocks: np.ndarray[Any, Any] | bytes | memoryview, name: str) -> memoryview:
    if isinstance(blocks, np.ndarray):
        if not blocks.flags.c_contiguous:
            raise InvalidError("rows must be C-contiguous", field=_field(name))
        return blocks.reshape(-1).view(np.uint8).data
    return memoryview(blocks).cast("B")
