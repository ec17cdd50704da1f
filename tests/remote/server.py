"""A server of files on this machine, which keeps to HTTP or breaks it in one way, and counts what it sends."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Site:
    """Files by path, and how they are served.

    ranges: whether the server cuts out what is asked for. etag: whether it says which version a file is: strong, weak
    or None. cut: bytes of a body after which the connection ends, of the first `cuts` answers. short: bytes that a body
    lacks at its end, if it has twice as many, without the connection saying so. lie: added to both ends in
    Content-Range. statuses: those of the next answers, before any file is sent. redirects: from one path to an address.
    requires: what Authorization must be. forwarded: headers of answers that redirect. declared: a size told instead of
    the file's, for files of which only the beginning is there.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etag: str | None = "strong"
    cut: int | None = None
    cuts: int = 1 << 30
    short: int = 0
    lie: int = 0
    length: bool = True
    encoding: str | None = None
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    forwarded: dict[str, str] = field(default_factory=dict)
    requires: str | None = None
    declared: int = 0
    sent: int = 0
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    address: str = ""

    def tag(self, data: bytes) -> str:
        """A file's ETag."""
        return f'"{hashlib.sha256(data).hexdigest()[:16]}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *args: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        site = self.site
        site.requests.append((self.path, dict(self.headers)))
        path = self.path.partition("?")[0]
        if site.statuses:
            status, headers = site.statuses.pop(0)
            return self._empty(status, headers)
        if path in site.redirects:
            return self._empty(302, {"Location": site.redirects[path], **site.forwarded})
        if site.requires is not None and self.headers.get("Authorization") != site.requires:
            return self._empty(401, {"WWW-Authenticate": "Basic"})
        if path not in site.files:
            return self._empty(404, {})
        return self._file(site.files[path])

    def _empty(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _file(self, data: bytes) -> None:
        site = self.site
        size = site.declared or len(data)
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        version = self.headers.get("If-Range")
        if asked is not None and site.ranges and version in (None, site.tag(data)):
            start, stop = int(asked[1]), min(int(asked[2] or size) + 1, size)
            if start >= size:
                return self._empty(416, {"Content-Range": f"bytes */{size}"})
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start + site.lie}-{stop - 1 + site.lie}/{size}")
        else:
            start, stop = 0, size
            self.send_response(200)
        if site.etag is not None:
            self.send_header("ETag", ("W/" if site.etag == "weak" else "") + site.tag(data))
        short = site.short if stop - start > 2 * site.short else 0
        if site.encoding is not None:
            self.send_header("Content-Encoding", site.encoding)
        if site.length:
            self.send_header("Content-Length", str(stop - start - short))
        else:
            self.close_connection = True
        self.end_headers()
        return self._body(data, start, stop - short)

    def _body(self, data: bytes, start: int, stop: int) -> None:
        site = self.site
        end = stop
        if site.cut is not None and site.cuts > 0 and stop - start > site.cut:
            site.cuts -= 1
            end = start + site.cut
        try:
            for at in range(start, end, 1 << 16):
                piece = data[at : min(at + (1 << 16), end)]
                piece += bytes(min(1 << 16, end - at) - len(piece))
                self.wfile.write(piece)
                site.sent += len(piece)
            if end < stop:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
        except OSError:  # who asked has seen enough
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *args: object) -> None:
        """Says nothing: that connections end is what is tested."""


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serves a site on this machine; its `address` is that of the server."""
    handler = type("Handler", (_Handler,), {"site": site})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
