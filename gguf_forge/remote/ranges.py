"""A file behind a URL, read by ranges through `requests`. Knows connections, and what is read ahead; not the format.

Requests follow where reads go on from each other, each for twice as many bytes; bodies are streamed, and what is not
read of one is not fetched. A connection that is cut goes on where it was. All bytes are of one version, or it raises.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np

from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.remote.answers import Answer, Version, changed, read_answer, refusal
from gguf_forge.remote.location import EXTRA, Location, Request

if TYPE_CHECKING:
    from requests import Response, Session

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

#: Bytes asked for first, with which most headers begin, and at least, where a read does not go on from another.
FIRST = 512 << 10
#: Bytes taken of a body at a time; what is lost where the connection is cut.
PIECE = 128 << 10
#: A gap in what is read, in bytes, that is read over instead of asking anew; and where a server knows no ranges.
GAP, LONGEST_GAP = 256 << 10, 64 << 20
#: Tries without a byte of progress; seconds before the second, doubled for each further; the longest that a server may
#: ask for by Retry-After.
TRIES, PAUSE, LONGEST_PAUSE = 5, 0.25, 30.0
#: Seconds to a connection, and between bytes of a body.
TIMEOUTS = (15.0, 60.0)
#: Statuses after which the same request may succeed.
PASSING = (408, 425, 429, 500, 502, 503, 504)


class _CutError(Exception):
    """A connection gave no more, or no answer; the text says what happened, without the address."""

    def __init__(self, text: str, pause: float = 0.0) -> None:
        super().__init__(text)
        self.pause = pause


class RemoteFile:
    """A file behind a URL. Storage; see format/storage.py.

    path: the location, by which other files of the same version of a repository are found. Raises InputError (not
    there, not allowed, no answer, no length), ChangedInputError once another version is met, UnsupportedError where a
    package is missing. Safe to be read from several threads, one at a time.
    """

    local = False

    def __init__(self, location: Location) -> None:
        self.path: Location = location
        self.size = 0
        self._lock = RLock()
        self._head = b""
        self._version: Version | None = None
        self._request: Request = location.request()
        self._session: Session | None = _session(location)
        self._body: Response | None = None
        self._at = self._stop = 0  # what is next in the body, and where it ends
        self._ranged = True
        self._ahead = FIRST
        try:
            self._patiently(0, lambda: self._ask(0, FIRST))
        except BaseException:
            self.close()
            raise

    def head(self, stop: int) -> bytes:
        """The first bytes, `stop` at the least or all; twice as many as before at the least where there are so many."""
        with self._lock:
            held = len(self._head)
            count = min(max(stop, 2 * held, FIRST), self.size) - held
            if count > 0:
                more = np.empty(count, np.uint8)
                self._fill(memoryview(more.data), held, ahead=False)
                self._head += more.tobytes()
            return self._head

    def view(self, offset: int, count: int) -> Bytes:
        """Bytes, fetched."""
        out = np.empty(count, np.uint8)
        self.read_into(out, offset)
        out.flags.writeable = False
        return out

    def read_into(self, out: Bytes, offset: int) -> None:
        """Fills `out` from `offset`."""
        view = memoryview(out.reshape(-1).data)
        with self._lock:
            known = memoryview(self._head)[offset : offset + len(view)]
            view[: len(known)] = known
            if len(known) < len(view):
                self._fill(view[len(known) :], offset + len(known))

    def check_unchanged(self) -> None:
        """Raises InputError when the file is closed; another version is found by the next bytes that are read."""
        if self._session is None:
            raise InputError("the file is closed", path=self.path)

    def close(self) -> None:
        """Ends the connection."""
        self._drop()
        if self._session is not None:
            self._session.close()
            self._session = None

    def _fill(self, view: memoryview, offset: int, *, ahead: bool = True) -> None:
        """Fills `view` from the body at hand, or those that are asked for: `ahead`, also for what may be read next."""
        done = 0

        def go_on() -> None:
            nonlocal done
            self._seek(offset + done, len(view) - done, ahead)
            done += self._take(view[done:])

        self.check_unchanged()
        while done < len(view):
            self._patiently(offset + done, go_on)

    def _patiently(self, offset: int, step: Callable[[], None]) -> None:
        """Does a step, and again after a while where a connection was cut before it gave a byte."""
        for n in range(TRIES):
            try:
                step()
                return
            except _CutError as error:
                self._drop()
                if not self._ranged and self._version is not None:
                    text = f"{error}, and the server knows no ranges to go on with"
                    raise InputError(text, path=self.path, offset=offset) from None
                if n == TRIES - 1 or error.pause > LONGEST_PAUSE:
                    raise InputError(str(error), path=self.path, offset=offset or None) from None
                time.sleep(max(PAUSE * 2**n, error.pause))

    def _seek(self, offset: int, count: int, ahead: bool) -> None:
        """Has a body whose next byte is number `offset`: the one at hand, or a new one of `count` bytes, or more."""
        gap = offset - self._at
        if self._body is not None and 0 <= gap <= (GAP if self._ranged else LONGEST_GAP) and offset < self._stop:
            scrap = memoryview(bytearray(min(PIECE, gap)))
            while self._at < offset:
                self._take(scrap[: offset - self._at])
            return
        if not self._ranged:
            text = "the server knows no ranges, and gives the file only in order"
            raise InputError(text, path=self.path, offset=offset)
        self._drop()
        if ahead:
            self._ahead = 2 * self._ahead if 0 <= gap <= GAP else FIRST
            count = max(count, self._ahead)
        self._ask(offset, count)

    def _take(self, view: memoryview) -> int:
        """Moves some bytes from the body; at least one."""
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - of the extra

        assert self._body is not None
        count = min(len(view), PIECE, self._stop - self._at)
        try:
            got: bytes = self._body.raw.read(count, decode_content=False)
        except (HTTPError, OSError) as error:
            raise _CutError(_happened(error)) from None
        if not got:
            raise _CutError("the connection was cut")
        view[: len(got)] = got
        self._at += len(got)
        if self._at == self._stop:
            self._drop()
        return len(got)

    def _ask(self, offset: int, count: int) -> None:
        """Sends a request for `count` bytes from `offset` on, or as many as there are, and takes the answer's head."""
        known = self._version
        stop = offset + count if known is None else min(offset + count, known.size)
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={offset}-{stop - 1}"}
        if known is not None and known.condition is not None:
            headers["If-Range"] = known.condition
        body = self._send(headers)
        try:
            if body.status_code in PASSING:
                raise _CutError(refusal(body.status_code, self.path).text, _asked_pause(body))
            answer = read_answer(body.status_code, body.headers, offset, self.path)
            self._accept(answer, body)
        except BaseException:
            body.close()
            raise
        self._body, self._at = body, answer.start
        self._stop = min(answer.stop, stop) if answer.ranged else answer.stop
        if self._at == self._stop:
            self._drop()

    def _accept(self, answer: Answer, body: Response) -> None:
        """Takes note of the first answer; holds each further against it."""
        if self._version is None:
            self._version, self.size, self._ranged = answer.version, answer.version.size, answer.ranged
            heads = [{k.lower(): v for k, v in one.headers.items()} for one in (*body.history, body)]
            self.path = self.path.pinned(heads)
            self._request = self.path.request()
        elif not answer.ranged or answer.start == answer.stop or not self._version.same(answer.version):
            raise changed(self.path)  # a whole file is what a server sends where If-Range names another version

    def _send(self, headers: dict[str, str]) -> Response:
        from requests import exceptions  # noqa: PLC0415 - of the extra

        self.check_unchanged()
        assert self._session is not None
        try:
            return self._session.get(
                self._request.url, headers={**self._request.headers, **headers}, stream=True, timeout=TIMEOUTS
            )
        except exceptions.SSLError:
            raise InputError("the server's certificate is not to be trusted", path=self.path) from None
        except exceptions.TooManyRedirects:
            raise InputError("the server redirects for ever", path=self.path) from None
        except (exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError) as error:
            raise _CutError(_happened(error)) from None
        except (exceptions.RequestException, ValueError):
            raise InputError("the server redirects to what is no address", path=self.path) from None

    def _drop(self) -> None:
        """Lets the body go; that of one read whole leaves its connection for the next request."""
        body, self._body = self._body, None
        if body is not None:
            body.close()


def _session(place: Location) -> Session:
    try:
        import requests  # noqa: PLC0415 - an extra
    except ImportError:
        raise UnsupportedError(f"URLs need the requests package: {EXTRA}") from None
    return requests.Session()


def _asked_pause(body: Response) -> float:
    """Seconds that the server asks to wait for, none where it says none."""
    said = body.headers.get("Retry-After", "").strip()
    return float(said) if said.isdecimal() and len(said) < 10 else 0.0


def _happened(error: BaseException) -> str:
    """What went wrong with a connection, in our words: those of libraries hold addresses, and so secrets."""
    inner = error.args[0] if error.args else None
    names = " ".join(type(one).__name__ for one in (error, inner, getattr(inner, "reason", None)))
    return next((words for part, words in _HAPPENED.items() if part in names), "the connection was cut")


#: Parts of names of libraries' errors, and what they stand for.
_HAPPENED = {
    "NameResolution": "no server of that name is known",
    "Timeout": "no answer in time",
    "NewConnection": "the server cannot be reached",
    "Proxy": "the proxy cannot be reached",
}
