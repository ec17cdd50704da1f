"""Where the bytes of a file are: what a Part asks of a local file, or of one behind a URL. Knows no format."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gguf_forge.format.cursor import Buffer
from gguf_forge.format.mapped import MappedFile
from gguf_forge.remote.location import Location

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Storage(Protocol):
    """A file of known size, read at offsets from any thread. Raises InputError, ChangedInputError.

    path: its name. size: in bytes. local: whether any byte costs next to nothing.
    """

    @property
    def path(self) -> Path | Location:
        """The file's name."""

    @property
    def size(self) -> int:
        """Bytes of the whole file."""

    @property
    def local(self) -> bool:
        """Whether reading a few bytes anywhere costs next to nothing."""

    def head(self, stop: int) -> Buffer:
        """The file's first bytes, `stop` at the least (all, where it has fewer); none is read twice."""

    def view(self, offset: int, count: int) -> Bytes:
        """Bytes, read-only: mapped where the file is local."""

    def read_into(self, out: Bytes, offset: int) -> None:
        """Fills `out` from `offset` on; only bytes that are there may be asked for."""

    def check_unchanged(self) -> None:
        """Raises ChangedInputError when the file is known to have changed since it was opened, InputError if closed."""

    def close(self) -> None:
        """Closes the file; arrays of `view` stay valid."""


def open_storage(path: Path | Location) -> Storage:
    """Opens a file, local or not. Raises InputError, InvalidError (no regular file), UnsupportedError (an extra)."""
    if isinstance(path, Location):
        from gguf_forge.remote.ranges import RemoteFile  # noqa: PLC0415 - an extra

        return RemoteFile(path)
    return MappedFile(path)
