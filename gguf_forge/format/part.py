"""One file of a model, mapped and checked. Knows how bytes are got from a file, not what a tensor or a model is."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

from gguf_forge import system
from gguf_forge.errors import ChangedInputError, FormatError, InputError, InvalidError
from gguf_forge.format.layout import SMALLEST, Limits, ValueType
from gguf_forge.format.parse import Entry, describe_foreign, parse
from gguf_forge.format.validate import Checked, validate
from gguf_forge.format.values import StoredValue, Value, decode

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Part:
    """One file of a set, mapped: bytes that are checked to be unchanged whenever they are touched."""

    def __init__(self, path: Path, limits: Limits, *, unknown_types: bool = False) -> None:
        self.path = path
        self.fd = open_regular(path)
        try:
            self.identity = _identity(self.fd)
            self.size = self.identity[2]
            if not self.size:
                raise FormatError(describe_foreign(b"", 0), path=path)
            self.buffer = mmap.mmap(self.fd, 0, access=mmap.ACCESS_READ)
            header = parse(self.buffer, self.size, path, limits)
            self.checked: Checked = validate(header, limits, unknown_types=unknown_types)
            self.entries = {e.key: e for e in self.checked.header.entries}
        except OSError as error:
            self.close()
            raise InputError(_reason(error), path=path) from error
        except BaseException:
            self.close()
            raise

    def check_unchanged(self) -> None:
        """Raises ChangedInputError when the file was cut or rewritten: touching the map might kill the process."""
        if self.fd < 0:
            raise InputError("the file is closed", path=self.path)
        if _identity(self.fd) != self.identity:
            raise ChangedInputError("the file was changed while it was open", path=self.path)

    def value(self, entry: Entry) -> Value:
        """Decodes one value."""
        self.check_unchanged()
        return decode(
            self.buffer, self.checked.header.order, entry.start, entry.type, element=entry.element, count=entry.count
        )

    def stored_value(self, entry: Entry) -> StoredValue:
        """A value to be written as it is here, to the byte."""
        self.check_unchanged()
        start = entry.start - (SMALLEST[ValueType.ARRAY] if entry.type is ValueType.ARRAY else 0)
        raw = self.buffer[start : entry.end]
        return StoredValue(entry.type, entry.element, entry.count, raw, self.checked.header.order)

    def read_into(self, out: Bytes, offset: int) -> None:
        """Fills `out` from `offset`, without the map."""
        read_exactly(self.fd, out.reshape(-1).data, offset, self.path)

    def close(self) -> None:
        """Closes the file; arrays handed out keep the mapping alive."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        buffer = getattr(self, "buffer", None)
        if buffer is not None:
            try:
                buffer.close()
            except BufferError:
                del self.buffer


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


def _identity(fd: int) -> tuple[int, int, int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
