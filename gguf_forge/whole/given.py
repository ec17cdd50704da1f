"""A file that a user names beside models: read whole, if it is no larger than such files are."""

from __future__ import annotations

import os

from gguf_forge.errors import FormatError, InputError


def read_given(path: str | os.PathLike[str], most: int, what: str) -> bytes:
    """All bytes of a file. Raises InputError, and FormatError for more than `most` bytes of what it is to be."""
    try:
        with open(path, "rb") as file:
            raw = file.read(most + 1)
    except (OSError, ValueError) as error:
        raise InputError(getattr(error, "strerror", None) or str(error), path=path) from error
    if len(raw) > most:
        raise FormatError(f"{what} of more than {most} bytes", path=path)
    return raw
