"""One file of a model, opened and checked. Knows how a header is got from a file, not what a tensor or a model is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gguf_forge.errors import FormatError, LimitError
from gguf_forge.format.cursor import Buffer, MoreNeeded
from gguf_forge.format.layout import SMALLEST, Limits, ValueType
from gguf_forge.format.mapped import Identity, MappedFile
from gguf_forge.format.parse import Entry, Header, describe_foreign, parse
from gguf_forge.format.storage import open_storage
from gguf_forge.format.validate import Checked, validate
from gguf_forge.format.values import StoredValue, Value, decode
from gguf_forge.remote.location import Location

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Part:
    """One file of a set: bytes that are checked to be unchanged whenever they are touched.

    storage: where they come from. buffer: those of the header at the least, or all of them.
    """

    def __init__(self, path: Path | Location, limits: Limits, *, unknown_types: bool = False) -> None:
        self.storage = open_storage(path)
        self.path = self.storage.path
        self.size = self.storage.size
        self.buffer: Buffer = b""
        try:
            if not self.size:
                raise FormatError(describe_foreign(b"", 0), path=path)
            self.checked: Checked = validate(self._header(limits), limits, unknown_types=unknown_types)
            self.entries = {e.key: e for e in self.checked.header.entries}
        except BaseException:
            self.close()
            raise

    def _header(self, limits: Limits) -> Header:
        """The header, parsed again with more bytes as long as it goes on: each time at least twice as many."""
        stop = 0
        while True:
            self.buffer = self.storage.head(stop)
            try:
                return parse(self.buffer, self.size, self.path, limits)
            except MoreNeeded as more:
                stop = more.stop
            if stop > limits.remote_header_bytes and not self.storage.local:
                text = f"the header goes on to byte {stop}, at most {limits.remote_header_bytes} are fetched"
                raise LimitError(text, path=self.path)

    @property
    def identity(self) -> Identity:
        """What tells the local file from another, as it was when it was opened."""
        assert isinstance(self.storage, MappedFile)
        return self.storage.identity

    def check_unchanged(self) -> None:
        """Raises ChangedInputError when the file was cut or rewritten: touching a map might kill the process."""
        self.storage.check_unchanged()

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

    def view(self, offset: int, count: int) -> Bytes:
        """Bytes from `offset` on, read-only; of a local file not read, but mapped."""
        return self.storage.view(offset, count)

    def read_into(self, out: Bytes, offset: int) -> None:
        """Fills `out` from `offset`, without a map."""
        self.storage.read_into(out, offset)

    def close(self) -> None:
        """Closes the file; arrays handed out keep a mapping alive."""
        self.buffer = b""
        self.storage.close()
