"""A position in a header, with every read checked against the bytes that are there. Knows no structure."""

from __future__ import annotations

import mmap
import os
import struct

from gguf_forge.errors import ForgeError, TruncatedError, escaped

Buffer = bytes | mmap.mmap


class MoreNeeded(Exception):  # noqa: N818 - no error: it says how to go on
    """A file's first bytes do not reach: those up to `stop` are needed, and the file has them."""

    def __init__(self, stop: int) -> None:
        super().__init__(stop)
        self.stop = stop


class Cursor:
    """Reads forward over `buffer` from `pos`, in the byte order of `order` ("<" or ">").

    `size`: bytes of the file that the buffer is the start of, if it is not the whole; MoreNeeded is raised where a read
    goes beyond the buffer, but not beyond the file. `held`: where the buffer ends, `end`: where the file does.
    """

    def __init__(
        self, buffer: Buffer, path: str | os.PathLike[str], pos: int = 0, order: str = "<", size: int = 0
    ) -> None:
        self.buffer = buffer
        self.held = len(buffer)
        self.end = max(size, self.held)
        self.path = path
        self.pos = pos
        self._field = ""
        self._raw_name: bytes | None = None
        self.set_order(order)

    def within(self, field: str, raw_name: bytes | None = None) -> None:
        """Says what is being read, for errors: `version`, or `tensor` and its name's bytes."""
        self._field = field
        self._raw_name = raw_name

    def set_order(self, order: str) -> None:
        """Fixes the byte order of all further reads."""
        self.order = order
        self._u32 = struct.Struct(order + "I")
        self._u64 = struct.Struct(order + "Q")

    def error(self, kind: type[ForgeError], text: str, offset: int | None = None) -> ForgeError:
        """An error at `offset` (by default here), in the current field."""
        field = self._field
        if self._raw_name is not None:
            field += f' "{escaped(self._raw_name.decode("utf-8", "surrogateescape"))}"'
        return kind(text, path=self.path, offset=self.pos if offset is None else offset, field=field or None)

    def need(self, count: int, what: str) -> None:
        """Refuses when fewer than `count` bytes are left."""
        if count > self.held - self.pos:
            if count > self.end - self.pos:
                raise self.error(TruncatedError, f"{what} needs {number(count)} bytes, {self.end - self.pos} left")
            raise MoreNeeded(self.pos + count)

    def u32(self, what: str) -> int:
        """The next unsigned 32-bit number."""
        self.need(4, what)
        (value,) = self._u32.unpack_from(self.buffer, self.pos)
        self.pos += 4
        return int(value)

    def u64(self, what: str) -> int:
        """The next unsigned 64-bit number."""
        self.need(8, what)
        (value,) = self._u64.unpack_from(self.buffer, self.pos)
        self.pos += 8
        return int(value)

    def u64s(self, count: int, what: str) -> tuple[int, ...]:
        """The next `count` unsigned 64-bit numbers."""
        self.need(8 * count, what)
        values = struct.unpack_from(f"{self.order}{count}Q", self.buffer, self.pos)
        self.pos += 8 * count
        return values

    def count(self, smallest: int, what: str) -> int:
        """A count of things of at least `smallest` bytes each, refused at once when so many cannot follow."""
        start = self.pos
        value = self.u64(f"count of {what}")
        left = self.end - self.pos
        if value * smallest > left:
            text = f"{number(value)} {what} need at least {number(value * smallest)} bytes, {left} left"
            raise self.error(TruncatedError, text, start)
        return value

    def string(self, what: str) -> bytes:
        """The next string's bytes."""
        start = self.pos
        length = self.u64(f"length of {what}")
        left = self.end - self.pos
        if length > left:
            raise self.error(TruncatedError, f"{what} needs {number(length)} bytes, {left} left", start)
        self.need(length, what)
        self.pos += length
        return self.buffer[self.pos - length : self.pos]


def number(value: int) -> str:
    """A count as people write it: powers of two near 2^31 and above by their power."""
    if value >= 2**31:
        power = value.bit_length() - 1
        if value == 1 << power:
            return f"2^{power}"
        if value + 1 == 1 << (power + 1):
            return f"2^{power + 1}-1"
    return str(value)
