"""What a base model makes of a text, stored to be compared with: the file of llama-perplexity's --kl-divergence-base.

    _logits_ | u32 context | i32 vocabulary | i32 windows | i32 tokens[windows * context]
    for each window, for each position from context/2 to context - 2: a row of `statistics.store`

All little-endian. After what llama-perplexity reads we write 40 bytes: FORGEKLD and the SHA-256 of what the base is, so
that rows of another model are not taken for its own. Knows the file; must not know how models are run.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gguf_forge.errors import InputError, InvalidError, TruncatedError
from gguf_forge.format.atomic import AtomicFile
from gguf_forge.quality.statistics import Codes, Tokens, row_width

MAGIC, TAG = b"_logits_", b"FORGEKLD"
_HEAD = struct.Struct("<8sIii")
_DIGEST = 32
#: Bytes of a model's file that are hashed at its beginning and at its end.
_SAMPLE = 1 << 20


def first_position(context: int) -> int:
    """The first position of a window that is judged: those before it have too little text before them."""
    return context // 2


def judged(context: int) -> int:
    """Positions of a window that are judged: of its second half those that a token of the window follows."""
    return context - 1 - first_position(context)


@dataclass(frozen=True, eq=False)
class Stored:
    """A file of base logits, mapped. tokens: int32 (windows, context), as in the text; rows: (windows, judged, width).

    digest: of the model they come from; empty where the file does not say.
    """

    path: Path
    vocabulary: int
    tokens: Tokens
    rows: Codes
    digest: bytes

    def following(self, window: int) -> Tokens:
        """The tokens that follow the judged positions of a window."""
        return self.tokens[window, first_position(self.tokens.shape[1]) + 1 :]

    def of_window(self, window: int) -> Codes:
        """The rows of a window, (judged, width)."""
        found: Codes = np.asarray(self.rows[window])
        return found


class Storing:
    """Writes such a file, window after window; it appears under its name once `publish` is called."""

    def __init__(self, path: Path, tokens: Tokens, vocabulary: int, digest: bytes) -> None:
        windows, context = tokens.shape
        head = _HEAD.pack(MAGIC, context, vocabulary, windows) + tokens.astype("<i4").tobytes()
        self._at = len(head)
        rows = 2 * windows * judged(context) * row_width(vocabulary)
        self._file = AtomicFile(path, self._at + rows + len(TAG) + _DIGEST)
        self._file.write_at(head, 0)
        self._file.write_at(TAG + digest, self._at + rows)

    def add(self, rows: Codes) -> None:
        """The rows of the next windows."""
        data = rows.astype("<u2", copy=False).tobytes()
        self._file.write_at(data, self._at)
        self._at += len(data)

    def publish(self) -> None:
        """Gives the file its name."""
        self._file.seal()
        self._file.publish()

    def discard(self) -> None:
        """Removes what was written."""
        self._file.discard()


def open_stored(path: Path) -> Stored:
    """Maps a file of base logits. Raises InputError, InvalidError (no such file, or damaged), TruncatedError."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size or head[: len(MAGIC)] != MAGIC:
                raise InvalidError("not a file of base logits: it does not begin with _logits_", path=path)
            _, context, vocabulary, windows = _HEAD.unpack(head)
            if not 4 <= context <= 1 << 24 or not 0 < vocabulary <= 1 << 24 or windows <= 0:
                raise InvalidError(f"base logits of {windows} windows of {context} tokens of {vocabulary}", path=path)
            start = _HEAD.size + 4 * windows * context
            end = start + 2 * windows * judged(context) * row_width(vocabulary)
            if size < end:
                raise TruncatedError(f"has {size} bytes of {end}", path=path)
            tokens = np.frombuffer(file.read(4 * windows * context), "<i4").reshape(windows, context)
            file.seek(end)
            tag = file.read(len(TAG) + _DIGEST)
    except OSError as error:
        raise InputError(error.strerror or str(error), path=path) from None
    if tokens.min() < 0 or tokens.max() >= vocabulary:
        raise InvalidError(f"a token outside the vocabulary of {vocabulary}", path=path)
    shape = (windows, judged(context), row_width(vocabulary))
    rows = np.memmap(path, np.dtype("<u2"), "r", start, shape)
    digest = tag[len(TAG) :] if tag.startswith(TAG) and len(tag) == len(TAG) + _DIGEST else b""
    return Stored(path, vocabulary, tokens.astype(np.int32), rows, digest)


def digest_of(paths: list[Path]) -> bytes:
    """What a model is known again by: SHA-256 of the size, the beginning and the end of each of its files."""
    found = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            size = file.seek(0, io.SEEK_END)
            found.update(struct.pack("<Q", size))
            for start in (0, max(0, size - _SAMPLE)):
                file.seek(start)
                found.update(file.read(_SAMPLE))
    return found.digest()
