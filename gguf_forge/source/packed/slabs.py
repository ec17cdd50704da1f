"""Columns of matrices: neighbouring ones are read together and kept for a while, for threads that ask for them in turn.

Knows files and threads; must not know what columns mean.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_forge.source.tensor import SourceTensor

Array = npt.NDArray[Any]

#: Bytes of columns read together, of a piece of them that one thread reads, and of all that is kept.
_SLAB_BYTES, _PIECE_BYTES, _KEPT_BYTES = 8 << 20, 1 << 20, 24 << 20
#: Bytes of a row that are read along with those wanted, because a call for each row takes longer than copying them.
_CHEAP_BYTES = 16 << 10


def columns(tensor: SourceTensor) -> Callable[[int, int], Array]:
    """Columns start..stop-1 of a matrix as its file holds them: an array (height, stop - start), not to be written to.

    Neighbouring columns are read together and kept for a while: a row of few is too little for one call.
    """
    stored = tensor.element.stored
    if stored is None or tensor.strides is not None or tensor.big_endian or len(tensor.shape) != 2:
        return lambda start, stop: tensor.stored_rows(0, tensor.shape[0])[:, start:stop]
    height, width = tensor.shape
    step = max(1, _SLAB_BYTES // max(1, height * stored.itemsize))

    def read(start: int, stop: int) -> Array:
        pieces = []
        for number in range(start // step, -(-stop // step)):
            first = number * step
            piece = _SLABS.get(tensor, first, min(width, first + step))
            pieces.append(piece[:, max(0, start - first) : stop - first])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)

    return read


class _Slab:
    """Columns first..last-1 of a matrix, read in pieces of rows by all threads that wait for them."""

    def __init__(self, tensor: SourceTensor, first: int, last: int) -> None:
        stored = tensor.element.stored
        assert stored is not None
        self._tensor = tensor
        self._first = first
        self._values = np.empty((tensor.shape[0], last - first), stored)
        row_bytes, wanted = tensor.shape[1] * stored.itemsize, (last - first) * stored.itemsize
        self._by_rows = 0 < row_bytes - wanted <= _CHEAP_BYTES
        self._step = max(1, _PIECE_BYTES // max(1, row_bytes if self._by_rows else wanted))
        self._next, self._left = 0, -(-tensor.shape[0] // self._step)
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._whole = threading.Event()

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self._values.nbytes

    def get(self) -> Array:
        """The columns. Reads what nobody else does, waits for the rest, and raises what went wrong for anyone."""
        height = len(self._values)
        while self._error is None:
            with self._lock:
                start, self._next = self._next, self._next + self._step
            if start >= height:
                break
            try:
                self._read(start, min(height, start + self._step))
            except BaseException as error:
                self._error = error
                self._whole.set()
                raise
            with self._lock:
                self._left -= 1
                last = not self._left
            if last:
                self._whole.set()
        if height:
            self._whole.wait()
        if self._error is not None:
            raise self._error
        return self._values

    def _read(self, start: int, stop: int) -> None:
        wanted, row_bytes = self._values[start:stop], self._tensor.shape[1] * self._values.itemsize
        at = self._tensor.offset + start * row_bytes
        if not self._by_rows:
            self._tensor.file.read_rows_into(wanted, at + self._first * wanted.itemsize, row_bytes)
            return
        rows = np.empty((stop - start, self._tensor.shape[1]), wanted.dtype)
        self._tensor.file.read_into(rows, at)
        wanted[...] = rows[:, self._first : self._first + wanted.shape[1]]


class _Slabs:
    """The slabs last read, of whichever tensors: runs of rows that follow each other share them across threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[SourceTensor, int], _Slab] = OrderedDict()

    def get(self, tensor: SourceTensor, first: int, last: int) -> Array:
        """Columns first..last-1 of this tensor."""
        key = tensor, first
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                found = self._kept[key] = _Slab(tensor, first, last)
            self._kept.move_to_end(key)
            total = sum(slab.nbytes for slab in self._kept.values())
            while total > _KEPT_BYTES and len(self._kept) > 1:
                total -= self._kept.popitem(last=False)[1].nbytes
        return found.get()


_SLABS = _Slabs()
