"""A local file, mapped: bytes that are checked to be unchanged whenever they are touched. Knows no format."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

from gguf_forge import system
from gguf_forge.errors import ChangedInputError, InputError, InvalidError
from gguf_forge.format.cursor import Buffer

#: Bytes of a header that are read at first, how many times as many when it goes on, and the most that are.
_FIRST, _GROWTH, _READ = 1 << 16, 256, 1 << 26

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
#: What tells one file from another: device, number, size, time of the last change.
Identity = tuple[int, int, int, int]


class MappedFile:
    """A regular file, held open and mapped. Storage; see storage.py.

    identity: as it was when the file was opened. Raises InputError, InvalidError for what is no regular file.
    """

    local = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = open_regular(path)
        self._buffer: Buffer = b""
        self._head = b""
        try:
            self.identity = _identity(self._fd)
            self.size = self.identity[2]
            if self.size:
                self._buffer = mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ)
        except OSError as error:
            self.close()
            raise InputError(_reason(error), path=path) from error
        except BaseException:
            self.close()
            raise

    @property
    def descriptor(self) -> int:
        """The open file's, of which whoever takes it closes nothing."""
        return self._fd

    def head(self, stop: int) -> Buffer:
        """The file's first bytes, read: of a map, a file that is cut takes what a parser stands on, and the process.

        More than _READ are not worth that memory, whatever a header says: they are mapped.
        """
        if stop > _READ:
            return self._buffer
        if len(self._head) < min(stop, self.size) or not self._head:
            self._head = self._first(min(self.size, max(stop, _GROWTH * len(self._head), _FIRST)))
            self.check_unchanged()
        return self._head

    def _first(self, size: int) -> bytes:
        """The file's first bytes."""
        found = b""
        while len(found) < size:
            try:
                piece = system.bytes_at(self._fd, size - len(found), len(found))
            except OSError as error:
                raise InputError(_reason(error), path=self.path, offset=len(found)) from error
            if not piece:
                raise ChangedInputError("the file was cut while it was opened", path=self.path, offset=len(found))
            found += piece
        return found

    def check_unchanged(self) -> None:
        """Raises ChangedInputError when the file was cut or rewritten: touching the map might kill the process."""
        if self._fd < 0:
            raise InputError("the file is closed", path=self.path)
        if _identity(self._fd) != self.identity:
            raise ChangedInputError("the file was changed while it was open", path=self.path)

    def view(self, offset: int, count: int) -> Bytes:
        """Bytes of the map, read-only."""
        return np.frombuffer(self._buffer, np.uint8, count, offset)

    def read_into(self, out: Bytes, offset: int) -> None:
        """Fills `out` from `offset`, without the map."""
        read_exactly(self._fd, out.reshape(-1).data, offset, self.path)

    def close(self) -> None:
        """Closes the file; arrays handed out keep the mapping alive."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        buffer, self._buffer, self._head = self._buffer, b"", b""
        if isinstance(buffer, mmap.mmap):
            try:
                buffer.close()
            except BufferError:  # the arrays' own
                del buffer


def open_regular(path: Path) -> int:
    """A descriptor of a regular file. Raises InputError; InvalidError for what is no regular file."""
    try:
        fd = system.open_to_read(path)
    except ValueError as error:
        raise InputError(str(error), path=path) from error
    except OSError as error:
        raise InputError(_reason(error), path=path) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidError("not a regular file", path=path)
    return fd


def read_exactly(fd: int, view: memoryview, offset: int, path: Path) -> None:
    """Fills `view` from `offset` on. Raises InputError; ChangedInputError where the file ends before."""
    done = 0
    while done < len(view):
        try:
            count = system.read_at(fd, view[done : done + (1 << 30)], offset + done)
        except OSError as error:
            raise InputError(_reason(error), path=path, offset=offset + done) from error
        if not count:
            raise ChangedInputError("the file was cut while it was open", path=path, offset=offset + done)
        done += count


def _identity(fd: int) -> Identity:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
