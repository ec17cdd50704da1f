"""What is macOS' own: space taken before it is written, flushing as far as the medium, names of any case.

Runs on macOS, and where macOS is imitated: test_elsewhere.py starts it.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from gguf_forge import system
from gguf_forge.errors import OutputError
from gguf_forge.format.atomic import AtomicFile
from tests.conftest import PLATFORM

if PLATFORM != "darwin":
    pytest.skip("of macOS only", allow_module_level=True)
assert sys.platform != "win32"

IMITATED: Any = getattr(sys.modules.get("tests.system.as_macos"), "REQUESTS", None)
imitated = pytest.mark.skipif(IMITATED is None, reason="needs a macOS that does as it is told")
PREALLOCATE, FULLFSYNC = 42, 51


def build(path: Path, size: int = 1 << 20) -> None:
    out = AtomicFile(path, size)
    try:
        out.write_at(b"new", 0)
        out.seal()
        out.publish()
    finally:
        out.discard()


def test_a_file_has_its_length_and_its_space_before_it_is_written(tmp_path: Path) -> None:
    out = AtomicFile(tmp_path / "a", 1 << 20)
    (part,) = tmp_path.iterdir()
    found = part.stat()
    out.discard()
    assert found.st_size == 1 << 20
    assert found.st_blocks * 512 >= 1 << 20
    assert list(tmp_path.iterdir()) == []


@imitated
def test_the_file_and_its_folder_are_flushed_as_far_as_the_medium(tmp_path: Path) -> None:
    IMITATED.seen.clear()
    build(tmp_path / "a")
    assert IMITATED.seen == [PREALLOCATE, FULLFSYNC, FULLFSYNC]


@imitated
@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOTTY, errno.EINVAL])
def test_volumes_that_know_neither_request(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    monkeypatch.setattr(IMITATED, "lacking", number)
    build(tmp_path / "a")
    assert (tmp_path / "a").stat().st_size == 1 << 20
    assert len(flushed) == 2


@imitated
@pytest.mark.parametrize(("number", "text"), [(errno.ENOSPC, "needs 1048576 bytes"), (errno.EIO, "error")])
def test_requests_that_go_wrong(number: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IMITATED, "lacking", number)
    with pytest.raises(OutputError, match=text):
        build(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file(tmp_path: Path) -> None:
    AtomicFile(tmp_path / "a", 0).publish()
    assert (tmp_path / "a").stat().st_size == 0


def test_one_name_in_two_spellings(tmp_path: Path) -> None:
    names = ("Model-\xe9.gguf", "model-e\u0301.gguf", "x/../MODEL-\xc9.gguf")
    keys = {system.path_key(tmp_path / name) for name in names}
    assert len(keys) == 1
    assert keys != {system.path_key(tmp_path / "model-e.gguf")}
