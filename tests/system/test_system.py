"""The parts of system.py that work alike everywhere, or whose other ways can be taken here."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gguf_forge import system
from gguf_forge.errors import OutputError
from gguf_forge.format.atomic import AtomicFile
from tests.conftest import PLATFORM

posix = pytest.mark.skipif(PLATFORM == "win32", reason="of POSIX")


def build(path: Path, size: int = 100_000) -> None:
    out = AtomicFile(path, size)
    try:
        out.write_at(b"new", size - 3)
        out.seal()
        out.publish()
    finally:
        out.discard()


@pytest.mark.skipif(PLATFORM != "linux", reason="of Linux")
@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_file_systems_that_reserve_nothing(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", fail)
    build(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == bytes(99_997) + b"new"


@posix
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_systems_without_locks(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", fail)
    path, part = tmp_path / "a", tmp_path / ".a.part"
    build(path)
    assert os.listdir(tmp_path) == ["a"]
    first = AtomicFile(path, 3)
    with pytest.raises(OutputError, match=r"\.a\.part is another writer's, or was; remove it"):
        AtomicFile(path, 3)
    assert part.exists()
    first.discard()
    assert os.listdir(tmp_path) == ["a"]
    part.write_bytes(b"left over")
    with pytest.raises(OutputError, match="remove it"):
        build(path)
    assert part.read_bytes() == b"left over"


@posix
def test_what_a_failing_lock_leaves_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(OutputError, match="error"):
        build(tmp_path / "a")
    monkeypatch.undo()
    build(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]


#: On macOS before version 11, and in the same way on Windows.
_ONE_POSITION = """
from tests.system.macos import imitate
imitate(old=True)
import os, sys
from concurrent.futures import ThreadPoolExecutor
from gguf_forge import system
assert not hasattr(os, "preadv")
os.pwrite = None
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
pieces = [bytes([n]) * 5000 for n in range(200)]
def write(n): assert system.write_at(fd, memoryview(pieces[n]), n * 5000) == 5000
def read(n):
    found = bytearray(5000)
    assert system.read_at(fd, memoryview(found), n * 5000) == 5000
    assert found == pieces[n]
def both(n): write(n); read(n)
with ThreadPoolExecutor(8) as pool: list(pool.map(both, range(200)))
with ThreadPoolExecutor(8) as pool: list(pool.map(read, range(200)))
at_end = bytearray(10)
assert system.read_at(fd, memoryview(at_end), 199 * 5000 + 4997) == 3
assert system.read_at(fd, memoryview(at_end), 1 << 40) == 0
print(os.fstat(fd).st_size)
"""


@pytest.mark.skipif(PLATFORM != "linux", reason="imitated under Linux only")
def test_bytes_at_offsets_where_a_file_has_one_position(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)])
    command = [sys.executable, "-c", _ONE_POSITION, str(tmp_path / "a")]
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert (ended.stdout, ended.stderr) == ("1000000\n", "")


def test_bytes_at_offsets(tmp_path: Path) -> None:
    with system.create(tmp_path / "a") as file:
        assert system.lock(file)
        assert system.write_at(file.fileno(), memoryview(b"abc"), 7) == 3
        found = bytearray(20)
        assert system.read_at(file.fileno(), memoryview(found), 5) == 5
        assert found[:5] == b"\0\0abc"
        assert system.read_at(file.fileno(), memoryview(found), 10) == 0
    with pytest.raises(FileExistsError):
        system.create(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        system.open_itself(tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("model.gguf", ""),
        ("auxiliary.gguf", ""),
        ("com10.gguf", ""),
        ("Llama-3.2-1B {Q4_K}, \xe9\u6a21.gguf", ""),
        (".gguf", ""),
        ("con", "con is a device's name on Windows"),
        ("NUL.tar.gz", "NUL.tar.gz is a device's name on Windows"),
        ("Aux .gguf", "Aux .gguf is a device's name on Windows"),
        ("COM1.gguf", "COM1.gguf is a device's name on Windows"),
        ("lpt\xb2", "lpt\xb2 is a device's name on Windows"),
        ("conout$", "conout$ is a device's name on Windows"),
        ("a:b.gguf", "a file's name cannot hold : on Windows"),
        ("a\tb", "a file's name cannot hold \t on Windows"),
        ('"quoted"', "a file's name cannot hold \" on Windows"),
        ("model.gguf.", "a file's name cannot end in a dot or a blank on Windows"),
        ("model.gguf ", "a file's name cannot end in a dot or a blank on Windows"),
    ],
)
def test_names_of_windows(name: str, wrong: str) -> None:
    assert (system.refused_by_windows(name) or "") == wrong
    assert system.refused_name(name) == ((wrong or None) if PLATFORM == "win32" else None)


@pytest.mark.parametrize(
    ("path", "prefixed"),
    [
        (r"C:\folder\model.gguf", r"\\?\C:\folder\model.gguf"),
        (r"\\server\share\model.gguf", r"\\?\UNC\server\share\model.gguf"),
        (r"\\?\C:\folder\model.gguf", r"\\?\C:\folder\model.gguf"),
        (r"\\.\pipe\model", r"\\.\pipe\model"),
    ],
)
def test_long_paths_of_windows(path: str, prefixed: str) -> None:
    assert system.prefixed(path) == prefixed


def test_one_file_has_one_key(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    key = system.path_key(tmp_path / "folder" / "model.gguf")
    assert system.path_key(tmp_path / "folder" / ".." / "folder" / "model.gguf") == key
    assert system.path_key(tmp_path / "folder" / "other.gguf") != key
    alike = system.path_key(tmp_path / "folder" / "MODEL.gguf") == key
    assert alike == (PLATFORM == "darwin" or sys.platform == "win32")


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), True),
        (OSError(errno.EINVAL, "Invalid argument"), PLATFORM == "win32"),
        (OSError(errno.EINVAL, "Invalid argument", "model.gguf"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
    ],
)
def test_readers_that_left(error: OSError, left: bool) -> None:
    assert system.reader_left(error) == left


def test_processors_and_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= system.processors() <= (os.cpu_count() or 1)
    assert 0 < system.free_space(tmp_path) < 1 << 60
    unknown: Any = None
    monkeypatch.setattr(os, "cpu_count", lambda: unknown)
    assert system.processors() >= 1
