"""What an HTTP answer says of a file: its length, its version, and which bytes follow. Opens no connection."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gguf_forge.errors import ChangedInputError, ForgeError, InputError
from gguf_forge.remote.location import Location

OK, PARTIAL, UNSATISFIABLE = 200, 206, 416
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_NO_RANGE = re.compile(r"bytes \*/(\d{1,18})")
_LENGTH = re.compile(r"\d{1,18}")
#: What some statuses mean to who wants a file.
_STATUS = {
    401: "needs a login",
    403: "may not be read",
    404: "is not there",
    410: "is no longer there",
    429: "the server wants fewer requests for now",
    451: "may not be read for legal reasons",
}
NOT_THERE = (404, 410)


class NotThereError(InputError):
    """The server has no such file."""


@dataclass(frozen=True)
class Version:
    """What tells one version of a file from another: its size, and the validators that the server gave."""

    size: int
    etag: str | None
    modified: str | None

    @property
    def condition(self) -> str | None:
        """For If-Range: a strong ETag, or a date where there is none; None where only answers can be compared."""
        if self.etag is not None:
            return None if self.etag.startswith("W/") else self.etag
        return self.modified

    def same(self, other: Version) -> bool:
        """Whether nothing tells the two apart: what only one of them has does not."""
        pairs = ((self.etag, other.etag), (self.modified, other.modified) if self.etag is None else (None, None))
        return self.size == other.size and all(a is None or b is None or a == b for a, b in pairs)


@dataclass(frozen=True)
class Answer:
    """Which bytes of a file a body holds: `start` up to `stop`. ranged: whether the server cut them out, as asked."""

    version: Version
    start: int
    stop: int
    ranged: bool


def read_answer(status: int, headers: Mapping[str, str], start: int, place: Location) -> Answer:
    """What follows an answer to a request for bytes from `start` on.

    Raises InputError for a status that is no success, and for headers that do not say which bytes come; NotThereError.
    """
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if status in (OK, PARTIAL) and encoding not in ("identity", ""):
        raise InputError(f"the server sends it packed ({encoding}), against what it was asked for", path=place)
    etag, modified = (headers.get(name) for name in ("ETag", "Last-Modified"))
    if status == PARTIAL:
        said = headers.get("Content-Range", "")
        found = _RANGE.fullmatch(said.strip())
        first, last, size = map(int, found.groups()) if found else (0, 0, 0)
        if found is None or first != start or not first <= last < size:
            raise InputError(f"asked for bytes from {start} on, the server says it sends {said!r}", path=place)
        return Answer(Version(size, etag, modified), start, last + 1, ranged=True)
    if status == OK:
        said = headers.get("Content-Length", "")
        if not _LENGTH.fullmatch(said):
            raise InputError("the server does not say how long it is, and reads no ranges", path=place)
        return Answer(Version(int(said), etag, modified), 0, int(said), ranged=False)
    if status == UNSATISFIABLE:
        found = _NO_RANGE.fullmatch(headers.get("Content-Range", "").strip())
        if found is not None and int(found[1]) <= start:
            return Answer(Version(int(found[1]), etag, modified), start, start, ranged=True)
    raise refusal(status, place)


def refusal(status: int, place: Location) -> ForgeError:
    """The error that an HTTP status is."""
    words = _STATUS.get(status, "the server failed" if status >= 500 else "the server refuses it")
    helps = place.help_for(status)
    kind = NotThereError if status in NOT_THERE else InputError
    return kind(f"{words} (HTTP {status}){f': {helps}' if helps else ''}", path=place)


def changed(place: Location) -> ChangedInputError:
    """The error of a file of which another version is there than was read first."""
    return ChangedInputError("the file was changed on the server while it was read", path=place)
