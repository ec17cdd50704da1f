"""The names of files behind URLs: http(s), and `hf://OWNER/REPO[@REVISION]/FILE`. Opens no connection.

As text a location shows no user, password or query: those may be secrets, and texts go into messages.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from gguf_forge.errors import InputError, UnsupportedError

StrPath = str | os.PathLike[str]

#: What to install for reading URLs.
EXTRA = "pip install 'gguf-forge[remote]'"
_SCHEME = re.compile(r"(https?|hf)://", re.IGNORECASE)
_HUB = re.compile(
    r"(?:(?P<kind>models|datasets|spaces)/)?(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>refs/[^/]+/[^/]+|[^/]+))?/(?P<file>.+)"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Request:
    """What is asked of a server: an address, with secrets where it has them, and headers."""

    url: str
    headers: dict[str, str]


class Location(os.PathLike[str]):
    """A file behind a URL, as far as it is like a Path: it has a name, and others beside it."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        raise NotImplementedError

    def with_name(self, name: str) -> Location:
        """The file of another name in the same place."""
        raise NotImplementedError

    def request(self) -> Request:
        """How the file is asked for. UnsupportedError where a package is missing."""
        raise NotImplementedError

    def pinned(self, headers: list[dict[str, str]]) -> Location:
        """The location by which the same version is had again, from the headers of answers; by default this one."""
        return self

    def help_for(self, status: int) -> str:
        """What may help where a server answers with this status; empty where nothing is known."""
        return ""

    def __fspath__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class WebLocation(Location):
    """A file at an http or https address."""

    url: str = field(repr=False)

    @property
    def name(self) -> str:
        """The last part of the path, or the server's name."""
        parts = urlsplit(self.url)
        return unquote(parts.path.rpartition("/")[2]) or parts.hostname or ""

    def with_name(self, name: str) -> WebLocation:
        """The file of another name in the same folder, asked for with the same query."""
        parts = urlsplit(self.url)
        folder = parts.path.rpartition("/")[0]
        return WebLocation(urlunsplit(parts._replace(path=f"{folder}/{quote(name)}")))

    def request(self) -> Request:
        """How the file is asked for: a user and password, or those in ~/.netrc, are left to the library."""
        return Request(urlunsplit(urlsplit(self.url)._replace(fragment="")), {})

    def help_for(self, status: int) -> str:
        """A login."""
        return "a user and password are taken from ~/.netrc" if status == 401 else ""

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        server = f"***@{parts.netloc.rpartition('@')[2]}" if "@" in parts.netloc else parts.netloc
        return f"{parts.scheme}://{server}{parts.path}" + ("?..." if parts.query else "")


@dataclass(frozen=True)
class HubLocation(Location):
    """A file in a repository of the Hugging Face Hub. `commit`: that of what was read first, once it is known."""

    repo: str
    file: str
    revision: str | None = None
    kind: str | None = None
    commit: str | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.file.rpartition("/")[2]

    def with_name(self, name: str) -> HubLocation:
        """The file of another name in the same folder and of the same commit."""
        folder, slash, _ = self.file.rpartition("/")
        return replace(self, file=f"{folder}{slash}{name}")

    def request(self) -> Request:
        """How the file is asked for: address, endpoint and token are the library's business."""
        try:
            from huggingface_hub import get_token, hf_hub_url  # noqa: PLC0415 - an extra
            from huggingface_hub.errors import HFValidationError  # noqa: PLC0415
        except ImportError:
            raise UnsupportedError(f"hf:// paths need the huggingface_hub package: {EXTRA}") from None
        kind = None if self.kind in (None, "models") else self.kind[:-1]
        try:
            url = hf_hub_url(self.repo, self.file, repo_type=kind, revision=self.commit or self.revision)
        except HFValidationError as error:
            raise InputError(str(error), path=self) from None
        token = get_token()
        return Request(url, {"Authorization": f"Bearer {token}"} if token else {})

    def pinned(self, headers: list[dict[str, str]]) -> HubLocation:
        """The location at the commit that the Hub said it answered with."""
        said = next((h["x-repo-commit"] for h in headers if "x-repo-commit" in h), "")
        return replace(self, commit=said) if _COMMIT.fullmatch(said) else self

    def help_for(self, status: int) -> str:
        """A token."""
        if status in (401, 403):
            return "a repository that is private, gated or not there; a token is taken from HF_TOKEN or `hf auth login`"
        return ""

    def __str__(self) -> str:
        kind = "" if self.kind is None else f"{self.kind}/"
        return f"hf://{kind}{self.repo}{'' if self.revision is None else f'@{self.revision}'}/{self.file}"


def located(path: StrPath) -> Path | Location:
    """A path, or where text is a URL, its Location. Raises InputError for a URL that none can be read from."""
    if isinstance(path, Location):
        return path
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
    found = _SCHEME.match(text) if isinstance(text, str) else None
    if found is None:
        return Path(path)
    if found[1].lower() == "hf":
        parts = _HUB.fullmatch(text[found.end() :])
        if parts is None:
            raise InputError("expected hf://OWNER/REPO[@REVISION]/FILE", path=text.partition("?")[0])
        revision = parts["revision"]
        return HubLocation(parts["repo"], parts["file"], revision and unquote(revision), parts["kind"])
    try:
        if not urlsplit(text).hostname:
            raise ValueError
        _ = urlsplit(text).port
    except ValueError:
        raise InputError("not an address that can be read: expected http(s)://SERVER/PATH") from None
    return WebLocation(text)


def is_url(text: object) -> bool:
    """Whether text is the name of a file behind a URL."""
    return isinstance(text, str) and _SCHEME.match(text) is not None
