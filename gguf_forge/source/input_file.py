"""One input file, read at offsets. Knows descriptors, identity and short reads; must not know any file format."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from gguf_forge import _native, system
from gguf_forge.closing import Closing
from gguf_forge.errors import ChangedInputError, FormatError, InputError, InvalidError, TruncatedError

LFS_PREFIX = b"version https://git-lfs.github.com/spec/"

#: Linux moves at most 0x7ffff000 bytes a call.
_MAX_CALL = 1 << 30


@final
class InputFile(Closing):
    """A regular file held open for positioned reads from any thread.

    Opening never blocks (a FIFO is refused, not waited for). Raises InputError when the file cannot be opened,
    InvalidError when it is not a regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = system.open_to_read(path)
        except OSError as error:
            raise InputError(f"cannot be opened: {error.strerror}", path=path) from None
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(self._fd)
            raise InvalidError("not a regular file", path=path)
        self.size: int = found.st_size
        self._identity = _identity(found)
        self._open = True

    def read_into(self, target: npt.NDArray[Any], offset: int) -> None:
        """Fill the C-contiguous array `target` from byte `offset` on.

        Raises TruncatedError when the file ends before the array is full, ChangedInputError when that is because it was
        cut, InputError when it cannot be read.
        """
        if not self._open:
            raise ValueError(f"{self.path}: read after close")
        if not target.size:
            return
        view = memoryview(target.reshape(-1).view(np.uint8).data)
        done, total = 0, len(view)
        while done < total:
            try:
                got = system.read_at(self._fd, view[done : done + _MAX_CALL], offset + done)
            except OSError as error:
                raise InputError(error.strerror or str(error), path=self.path, offset=offset + done) from None
            if got <= 0:
                self._raise_short(offset + done, total - done)
            done += got

    def read_rows_into(self, target: npt.NDArray[Any], offset: int, stride: int) -> None:
        """Fill the rows of the C-contiguous matrix `target`: from byte `offset` on, `stride` bytes on for each next.

        Raises as `read_into`.
        """
        if target.shape[1] * target.itemsize == stride:
            self.read_into(target, offset)
            return
        if not self._open:
            raise ValueError(f"{self.path}: read after close")
        at = 0
        while at < len(target):
            at += _native.read_strided(self._fd, offset + at * stride, stride, target[at:])
            if at < len(target):  # seldom, but on Windows: a signal, or an error to be named
                self.read_into(target[at], offset + at * stride)
                at += 1

    def _raise_short(self, offset: int, missing: int) -> None:
        if not self.unchanged():
            raise ChangedInputError("the file was changed while it was read", path=self.path, offset=offset)
        raise TruncatedError(f"{missing} bytes missing", path=self.path, offset=offset)

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly `nbytes` bytes from `offset`. Raises TruncatedError when they are not there."""
        if offset + nbytes > self.size:
            raise TruncatedError(
                f"needs {nbytes} bytes, file has {max(self.size - offset, 0)}", path=self.path, offset=offset
            )
        data = np.empty(nbytes, np.uint8)
        self.read_into(data, offset)
        return data.tobytes()

    def unchanged(self) -> bool:
        """Whether device, inode, size and times of the open file, and of the path, are what they were on opening."""
        try:
            return _identity(os.fstat(self._fd)) == self._identity == _identity(os.stat(system.long_path(self.path)))
        except OSError:
            return False

    def refuse_lfs_pointer(self) -> None:
        """Raise FormatError when the file is a Git LFS pointer instead of the data it stands for."""
        if self.size <= 1024 and self.read(0, min(self.size, len(LFS_PREFIX))) == LFS_PREFIX:
            raise FormatError("is a Git LFS pointer, not the data; run `git lfs pull`", path=self.path)

    def close(self) -> None:
        """Release the descriptor; further reads are an error."""
        if self._open:
            self._open = False
            os.close(self._fd)


def _identity(found: os.stat_result) -> tuple[int, int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
