"""What a run has finished of a file in the making, in a journal beside it: `.NAME.journal`. Knows lines, no models.

A line is a digest of the rest of it and a JSON object: first whose journal it is, then a record after a record. The
first line comes with the file, in one step. Records are added one at a time, each on disk before the next, so that a
crash can only have spoiled the last: a journal ends before a last line that is not whole, and one with any other line
that is not whole is refused. What may stand in records is their reader's to check; whoever wrote them may be anyone.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import Any

from gguf_forge import system
from gguf_forge.errors import InvalidError, LimitError, OutputError
from gguf_forge.format.atomic import AtomicFile, sibling_name

#: What the first line says it is, and the version of all that follows.
KIND, VERSION = "journal", "GGUF Forge 1"
#: The most bytes of a journal: one of a million finished pieces takes a third of it.
MOST_JOURNAL = 256 << 20
#: Hexadecimal digits of a line's digest.
_DIGITS = 16


def journal_path(target: Path) -> Path:
    """Where the journal of a file is, while that is made. `target`: the file itself, no link to it."""
    return target.with_name(sibling_name(target.name, ".journal"))


@dataclass(frozen=True)
class Kept:
    """A journal as it was read: whose it is, its records each with its line's number, and its bytes up to their end."""

    path: Path
    owner: Mapping[str, Any]
    records: Sequence[tuple[int, Mapping[str, Any]]]
    nbytes: int


def read_journal(path: Path) -> Kept | None:
    """The journal at `path`, None where there is none.

    Raises InvalidError with the line and byte that are not as they were written, LimitError for more than MOST_JOURNAL
    bytes, OutputError for what cannot be read.
    """
    try:
        with FileIO(path, opener=lambda name, _: system.open_to_read(name)) as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            raw = file.read(MOST_JOURNAL + 1) if regular else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(error.strerror or str(error), path=path) from error
    if raw is None:
        raise InvalidError("not a regular file", path=path)
    if len(raw) > MOST_JOURNAL:
        raise LimitError(f"a journal of more than {MOST_JOURNAL} bytes", path=path)
    return parse_journal(raw, path)


def parse_journal(raw: bytes, path: Path) -> Kept:
    """Reads a journal's bytes; `path` names it in errors. Raises InvalidError."""
    lines = raw.split(b"\n")
    found = [_read(line) for line in lines[:-1]]  # the last has no end: it was not written whole, or is empty
    whole = next((i for i, one in enumerate(found) if one is None), len(found))
    if not whole or any(one is not None for one in found[whole:]):
        raise _refused("not as it was written", lines, whole, path)
    objects = [_object(text, lines, number, path) for number, text in enumerate(found[:whole]) if text is not None]
    if objects[0].get(KIND) != VERSION:
        raise _refused(f"no {KIND} of this version, which is {VERSION}", lines, 0, path)
    records = [(number + 1, record) for number, record in enumerate(objects)][1:]
    return Kept(path, objects[0], records, sum(len(line) + 1 for line in lines[:whole]))


def _read(line: bytes) -> bytes | None:
    """The JSON of a line; None where its digest is not that."""
    digest, blank, text = line.partition(b" ")
    return text if blank and digest == _digest(text) else None


def _digest(text: bytes) -> bytes:
    return sha256(text).hexdigest()[:_DIGITS].encode()


def _object(text: bytes, lines: Sequence[bytes], number: int, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _refused("not a JSON object", lines, number, path)
    return found


def _refused(text: str, lines: Sequence[bytes], number: int, path: Path) -> InvalidError:
    offset = sum(len(line) + 1 for line in lines[:number])
    return InvalidError(text, path=path, offset=offset, field=f"line {number + 1}")


def _line(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, separators=(",", ":")).encode()
    return b"%b %b\n" % (_digest(text), text)


class Journal:
    """A journal that is being written, by whoever has the file it is about locked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None
        self._end = 0

    @property
    def begun(self) -> bool:
        """Whether it is there, on disk."""
        return self._file is not None

    def begin(self, owner: Mapping[str, Any], records: Sequence[Mapping[str, Any]] = ()) -> None:
        """Makes it anew, in the place of one that is there, and waits until it is on disk. Raises OutputError."""
        self.close()
        if os.path.islink(self.path):
            raise OutputError("is a link, which no journal is", path=self.path)
        raw = b"".join([_line({KIND: VERSION, **owner}), *map(_line, records)])
        out = AtomicFile(self.path, len(raw))
        try:
            out.write_at(raw, 0)
            out.seal()
            out.publish()
        except BaseException:
            out.discard()
            raise
        try:
            self._file = system.open_itself(self.path)
        except OSError as error:
            raise self._error(error) from error
        self._end = len(raw)

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds a record and waits until it is on disk. Raises OutputError."""
        assert self._file is not None
        view = memoryview(_line(record))
        done = 0
        try:
            while done < len(view):
                done += system.write_at(self._file.fileno(), view[done:], self._end + done)
            system.flush(self._file.fileno())
        except OSError as error:
            raise self._error(error) from error
        self._end += done

    def close(self) -> None:
        """Leaves it where it is."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Removes it, also one that another run left. Raises OutputError where it stays."""
        self.close()
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise self._error(error) from error

    def discard(self) -> None:
        """Removes it, if that can be: something else went wrong, and is the error to report."""
        with contextlib.suppress(OutputError):
            self.remove()

    def _error(self, error: OSError) -> OutputError:
        return OutputError(error.strerror or str(error), path=os.fspath(self.path))
