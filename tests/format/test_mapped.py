"""A local file whose head is read and whose rest is mapped, and what the system may say to either."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import pytest

from gguf_forge import system
from gguf_forge.errors import InputError
from gguf_forge.format import mapped
from gguf_forge.format.mapped import MappedFile
from tests.conftest import descriptors


def failure() -> OSError:
    return OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "a"
    found.write_bytes(bytes(range(200)))
    return found


@pytest.mark.parametrize("error", [failure(), KeyboardInterrupt()], ids=["fault", "interrupt"])
def test_a_file_that_cannot_be_mapped(error: BaseException, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(mmap.mmap):
        def __new__(cls, *_: object, **__: object) -> Failing:
            raise error

    before = descriptors()
    monkeypatch.setattr(mmap, "mmap", Failing)
    if isinstance(error, OSError):
        with pytest.raises(InputError, match="Input/output error") as caught:
            MappedFile(path)
        assert caught.value.path == str(path)
    else:
        with pytest.raises(KeyboardInterrupt):
            MappedFile(path)
    assert descriptors() == before


def test_a_head_that_cannot_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise failure()

    file = MappedFile(path)
    monkeypatch.setattr(system, "bytes_at", fail)
    with pytest.raises(InputError, match="Input/output error") as caught:
        file.head(10)
    assert (caught.value.path, caught.value.offset) == (str(path), 0)
    file.close()


def test_a_head_is_read_once_and_mapped_where_it_is_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = MappedFile(path)
    first = file.head(10)
    assert bytes(first[:10]) == bytes(range(10))
    assert file.head(5) is first
    monkeypatch.setattr(mapped, "_READ", 20)
    long = file.head(21)
    assert isinstance(long, mmap.mmap)
    assert bytes(long[:]) == bytes(range(200))
    file.close()
