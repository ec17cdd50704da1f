"""Every error a caller may meet, and how names are written in messages.

One base class; messages name the rule, the place and the value found.
"""

from __future__ import annotations

import os
from collections.abc import Iterable


def printable(text: str) -> str:
    r"""Text made fit for one line of a terminal, which no file steers: all but printable characters as escapes.

    Bytes that are no UTF-8, held as surrogates (`surrogateescape`), appear as \xff.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def as_utf8(text: str) -> str:
    r"""Text that UTF-8 can hold, such as a name that a file system gave: bytes of it that are none appear as \xff."""
    return text if is_utf8(text) else "".join(_escape(c) if "\ud800" <= c <= "\udfff" else c for c in text)


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can hold the text: it has no surrogates, which stand for bytes that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return ascii(character)[1:-1]


def escaped(text: str, limit: int = 200) -> str:
    """A name from a file made fit for one line of a terminal, as `printable` does; a long one is cut."""
    return printable(text[:limit]) + "..." if len(text) > limit else printable(text)


def listed(names: Iterable[str], most: int | None = 8) -> str:
    """Names for one line of a terminal: the first of them (None: all), and how many more there are."""
    found = list(names)
    rest = f" and {len(found) - most} more" if most is not None and len(found) > most else ""
    return ", ".join(escaped(name) for name in found[:most]) + rest


class ForgeError(Exception):
    """Base of all errors raised on bad input, bad arguments or a failed write. One line, no traceback needed.

    `path`, `offset` (in bytes) and `field` (such as `tensor "a"`) say where, if known; they lead the message:
    `model.gguf: offset 0x1a4, tensor "a": dims product 2^64 exceeds 2^63-1`. What is not printable is escaped.
    """

    def __init__(
        self,
        text: str = "",
        *,
        path: str | os.PathLike[str] | None = None,
        offset: int | None = None,
        field: str | None = None,
    ) -> None:
        self.path = None if path is None else escaped(os.fspath(path), 4096)
        self.offset = offset
        self.field = field
        self.text = text = printable(text)
        place = ", ".join(p for p in (None if offset is None else f"offset {offset:#x}", field) if p)
        super().__init__(": ".join(p for p in (self.path, place, text) if p))


class FormatError(ForgeError):
    """The file is not of the expected format or version."""


class TruncatedError(FormatError):
    """Bytes the file declares are not there."""


class LimitError(FormatError):
    """A declared count or length is above a named bound."""


class InvalidError(FormatError):
    """The file breaks a rule of its format."""


class IncompleteSetError(InvalidError):
    """Shards of the set are not there, or cannot be found: this one's name is none of a shard's."""


class UnsupportedError(ForgeError):
    """The file is well formed, but uses something this version does not read or write."""


class UnsafeInputError(ForgeError):
    """Reading the input would run code or leave its folder."""


class InputError(ForgeError):
    """The input is not there or could not be read."""


class ChangedInputError(InputError):
    """The input was replaced, cut or edited while it was in use."""


class CheckpointError(ForgeError):
    """A checkpoint directory is incomplete or contradicts itself."""


class ConversionError(ForgeError):
    """A checkpoint cannot be mapped to GGUF: architecture, tensor or tokenizer."""


class QuantError(ForgeError):
    """Values cannot be encoded as, or decoded from, a block type."""


class RecipeError(ForgeError):
    """A recipe, override or importance matrix does not fit the model."""


class OutputError(ForgeError):
    """The output could not be written; the old file is as it was."""


class RequestError(ForgeError):
    """What is asked for contradicts itself, whatever the input. Nothing was written."""
