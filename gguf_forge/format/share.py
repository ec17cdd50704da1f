"""One machine's share of a file in the making: rows of some of its tensors, and which file they are of.

    16 bytes   magic and version
     8         length of the index, little-endian
    32         SHA-256 of the index
    ...        the index: JSON, which says what file this is a share of, and where in it each piece belongs
    ...        the pieces, one behind the other; in the first share the file's header is the first of them

Knows bytes and places; whose file it is, is for others to compare. What is read here may come from anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gguf_forge.closing import Closing
from gguf_forge.errors import FormatError, InvalidError, LimitError, OutputError, RequestError, TruncatedError, escaped
from gguf_forge.format.atomic import AtomicFile
from gguf_forge.format.mapped import open_regular, read_exactly
from gguf_forge.format.pages import page_sum
from gguf_forge.format.plan import FilePlan

_HEAD = struct.Struct("<16sQ32s")
_MAGIC = b"GGUF Forge part1"
#: The most bytes of an index, and shares of a file.
MOST_INDEX, MOST_SHARES = 256 << 20, 99999
_COPIED = 1 << 22
_NO_DIGEST = "0" * 64


def read_part(word: str) -> tuple[int, int]:
    """Which share of how many a word such as 2/8 means. Raises RequestError."""
    found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", word)
    part = (int(found[1]), int(found[2])) if found else (0, 0)
    require_part(part)
    return part


def require_part(part: tuple[int, int]) -> None:
    """RequestError for what is no share of any number of them: the first is 1/N, the last N/N."""
    number, count = part
    if not 1 <= number <= count <= MOST_SHARES:
        raise RequestError(f"no part I/N: I is from 1 to N, N at most {MOST_SHARES}")


def share_path(path: Path, part: tuple[int, int]) -> Path:
    """Where a share of the file at `path` goes."""
    return path.with_name(f"{path.name}.{part[0]:05}-of-{part[1]:05}.part")


@dataclass(frozen=True)
class Piece:
    """Bytes of a file that a share holds: their place in the file, in the share, how many, and their SHA-256."""

    offset: int
    at: int
    nbytes: int
    sha256: str


class ShareWriter:
    """Writes a share as a GGUFWriter would write the file: rows of tensors, from any thread, then `seal`, `publish`.

    plan: of the whole file. rows: the tensors that it holds rows of, with the first and the one after the last.
    facts: what else its index says, JSON; those of all shares of a file are to agree.
    """

    def __init__(
        self,
        path: Path,
        plan: FilePlan,
        part: tuple[int, int],
        rows: Mapping[str, tuple[int, int]],
        facts: Callable[[], Mapping[str, Any]],
        *,
        overwrite: bool = True,
    ) -> None:
        self.path = share_path(path, part)
        self.endian = plan.endian
        self.part = part
        self._plan, self._rows, self._facts = plan, rows, facts
        self._overwrite = overwrite
        self._file: AtomicFile | None = None
        self._places: dict[str, Piece] = {}
        self._pieces: list[Piece] = []
        self._written: dict[str, int] = {}
        self._lock = threading.Lock()

    def header_digest(self) -> str:
        """SHA-256 of the file's header."""
        return hashlib.sha256(self._plan.header).hexdigest()

    def _lay_out(self) -> bytes:
        """Fixes all places, and makes the share's own head, with digests that are not known yet."""
        found: list[tuple[str, int, int]] = []
        if self.part[0] == 1:
            found.append(("", 0, len(self._plan.header)))
        for name, (start, stop) in self._rows.items():
            extent = self._plan.tensors[name]
            found.append((name, extent.offset + start * extent.row_bytes, (stop - start) * extent.row_bytes))
        found = [one for one in sorted(found, key=lambda one: one[1]) if one[2]]
        self._pieces = [Piece(offset, 0, nbytes, _NO_DIGEST) for _, offset, nbytes in found]
        at = len(self._head())
        pieces = []
        for name, offset, nbytes in found:
            pieces.append(Piece(offset, at, nbytes, _NO_DIGEST))
            self._places[name] = pieces[-1]
            at += nbytes
        self._pieces = pieces
        return self._head()

    def _head(self) -> bytes:
        index = {
            "part": self.part,
            "size": self._plan.size,
            **self._facts(),
            "pieces": [[piece.offset, piece.nbytes, piece.sha256] for piece in self._pieces],
        }
        text = json.dumps(index, separators=(",", ":")).encode()
        return _HEAD.pack(_MAGIC, len(text), hashlib.sha256(text).digest()) + text

    def begin(self, keep: Callable[[], bool] | None = None) -> None:
        """Makes the temporary sibling with all its space; `keep`, errors: as of GGUFWriter."""
        head = self._lay_out()
        size = len(head) + sum(piece.nbytes for piece in self._pieces)
        kept = None if keep is None else lambda found: keep() and found == size
        self._file = AtomicFile(self.path, size, overwrite=self._overwrite, keep=kept)
        if "" in self._places:
            self._file.write_at(self._plan.header, self._places[""].at)

    def _place(self, name: str, start: int, nbytes: int) -> int:
        """Where bytes of a tensor go, from row `start` on."""
        if self._file is None:
            raise OutputError("write before begin, or after the end", path=self.path)
        piece, first = self._places.get(name), self._rows.get(name, (0, 0))[0]
        extent = self._plan.tensors.get(name)
        at = 0 if extent is None else (start - first) * extent.row_bytes
        if piece is None or at < 0 or at + nbytes > piece.nbytes:
            raise InvalidError("rows that are not of this share", path=self.path, field=f'tensor "{escaped(name)}"')
        return piece.at + at

    def write(self, name: str, blocks: np.ndarray[Any, Any], row: int = 0) -> None:
        """Writes encoded rows, as GGUFWriter.write. Raises InvalidError for rows that are not of this share."""
        view = blocks.reshape(-1).view(np.uint8).data
        at = self._place(name, row, len(view))
        if self._file is not None and len(view):
            self._file.write_at(view, at)
        self._count(name, len(view))

    def claim(self, name: str, start: int, stop: int) -> None:
        """Counts rows as written that an earlier run wrote."""
        nbytes = (stop - start) * self._plan.tensors[name].row_bytes
        self._place(name, start, nbytes)
        self._count(name, nbytes)

    def _count(self, name: str, nbytes: int) -> None:
        with self._lock:
            self._written[name] = self._written.get(name, 0) + nbytes

    def page_sum(self, name: str, start: int, stop: int) -> str:
        """A sum over rows as the share holds them."""
        assert self._file is not None
        nbytes = (stop - start) * self._plan.tensors[name].row_bytes
        return page_sum(self._file.read_at, self._place(name, start, nbytes), nbytes)

    def flush(self) -> None:
        """Waits until what was written so far is on disk. Raises OutputError."""
        assert self._file is not None
        self._file.seal()

    def spare(self, spared: bool = True) -> None:
        """Whether `abort` leaves the sibling."""
        if self._file is not None:
            self._file.spare(spared)

    def seal(self) -> None:
        """Checks that all was written, adds digests and index, and waits until it is on disk. Raises OutputError."""
        file = self._file
        assert file is not None
        for name, piece in self._places.items():
            if name and self._written.get(name, 0) != piece.nbytes:
                text = f"{self._written.get(name, 0)} of {piece.nbytes} bytes written"
                raise OutputError(text, path=self.path, field=f'tensor "{escaped(name)}"')
        self._pieces = [Piece(p.offset, p.at, p.nbytes, _digest(file.read_at, p)) for p in self._pieces]
        file.write_at(self._head(), 0)
        file.seal()

    def publish(self) -> None:
        """Gives the sealed share its name. Raises OutputError."""
        assert self._file is not None
        self._file.publish()
        self._file = None

    def abort(self) -> None:
        """Removes the temporary sibling unless it is spared."""
        if self._file is not None:
            file, self._file = self._file, None
            file.discard()


def _digest(read: Callable[[memoryview, int], None], piece: Piece) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(_COPIED, piece.nbytes)))
    for start in range(0, piece.nbytes, _COPIED):
        view = buffer[: min(_COPIED, piece.nbytes - start)]
        read(view, piece.at + start)
        digest.update(view)
    return digest.hexdigest()


class Share(Closing):
    """A share that is read: `part`, the `size` of the whole file, `facts` and `pieces`. A context manager.

    Raises InputError for what cannot be read, FormatError for what is no share, TruncatedError, InvalidError,
    LimitError for a damaged one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = open_regular(path)
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        size = os.fstat(self._fd).st_size
        raw = bytearray(min(_HEAD.size, size))
        read_exactly(self._fd, memoryview(raw), 0, self.path)
        if len(raw) < _HEAD.size or not raw.startswith(_MAGIC):
            raise FormatError("no part of a file that `--part` made", path=self.path)
        _, length, digest = _HEAD.unpack(raw)
        if length > MOST_INDEX:
            raise LimitError(f"an index of {length} bytes, at most {MOST_INDEX}", path=self.path, offset=16)
        if _HEAD.size + length > size:
            raise TruncatedError(f"needs {_HEAD.size + length} bytes, file has {size}", path=self.path)
        text = bytearray(length)
        read_exactly(self._fd, memoryview(text), _HEAD.size, self.path)
        if hashlib.sha256(text).digest() != digest:
            raise InvalidError("the index is not as it was written", path=self.path, offset=_HEAD.size)
        try:
            index = json.loads(text)
        except (ValueError, RecursionError):
            index = None
        found = _parsed(index, _HEAD.size + length) if isinstance(index, dict) else None
        if found is None:
            raise InvalidError("the index does not say what one says", path=self.path, offset=_HEAD.size)
        self.part, self.size, self.pieces = found
        self.facts = {key: value for key, value in index.items() if key not in ("part", "size", "pieces")}
        end = self.pieces[-1].at + self.pieces[-1].nbytes if self.pieces else _HEAD.size + length
        if end != size:
            kind = TruncatedError if end > size else InvalidError
            raise kind(f"needs {end} bytes, file has {size}", path=self.path)

    def data(self, piece: Piece) -> Iterator[memoryview]:
        """The bytes of a piece, a few megabytes at a time. Raises InvalidError, at the end, where they are others."""
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(min(_COPIED, piece.nbytes)))
        for start in range(0, piece.nbytes, _COPIED):
            view = buffer[: min(_COPIED, piece.nbytes - start)]
            read_exactly(self._fd, view, piece.at + start, self.path)
            digest.update(view)
            yield view
        if digest.hexdigest() != piece.sha256:
            raise InvalidError(f"{piece.nbytes} bytes are not as they were written", path=self.path, offset=piece.at)

    def close(self) -> None:
        """Closes the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _parsed(index: Mapping[str, Any], at: int) -> tuple[tuple[int, int], int, Sequence[Piece]] | None:
    """Part, size and pieces of an index, which may say anything; None where it does not say these."""
    part, size, rows = (index.get(key) for key in ("part", "size", "pieces"))
    if not isinstance(part, list) or [type(n) for n in part] != [int, int] or type(size) is not int:
        return None
    if not 1 <= part[0] <= part[1] <= MOST_SHARES or not isinstance(rows, list):
        return None
    pieces = []
    end = 0
    for row in rows:
        if not isinstance(row, list) or [type(value) for value in row] != [int, int, str]:
            return None
        offset, nbytes, digest = row
        if not end <= offset < offset + nbytes <= size:
            return None
        pieces.append(Piece(offset, at, nbytes, digest))
        end, at = offset + nbytes, at + nbytes
    return (part[0], part[1]), size, pieces
