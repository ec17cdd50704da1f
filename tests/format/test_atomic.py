"""Outputs beside names that are taken, lost, locked, or no file's: what AtomicFile does at each of its forks."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path

import pytest

from gguf_forge import system
from gguf_forge.errors import OutputError
from gguf_forge.format.atomic import AtomicFile, names_folder


def part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def finish(file: AtomicFile, data: bytes) -> None:
    file.write_at(data, 0)
    file.seal()
    file.publish()


def test_a_name_that_can_only_be_a_folders(tmp_path: Path) -> None:
    given = f"{tmp_path}{os.sep}new{os.sep}"
    assert names_folder(given)
    assert not names_folder(tmp_path)
    with pytest.raises(OutputError, match="names a folder, as it ends in a separator") as caught:
        AtomicFile(given, 1)
    assert caught.value.path == given
    assert os.listdir(tmp_path) == []


def test_a_name_that_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "refused_name", lambda name: f"{name} is a device")
    with pytest.raises(OutputError, match="con is a device") as caught:
        AtomicFile(tmp_path / "con", 1)
    assert caught.value.path == str(tmp_path / "con")
    assert os.listdir(tmp_path) == []


def test_a_published_file_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "a"
    file = AtomicFile(path, 3)
    finish(file, b"abc")
    assert path.read_bytes() == b"abc"
    file.discard()  # after publish it does nothing
    assert path.read_bytes() == b"abc"
    file.take_back()
    assert os.listdir(tmp_path) == []
    file.take_back()  # nor does this, where nothing is left
    file.discard()


def test_a_published_file_that_is_spared_loses_its_name_only(tmp_path: Path) -> None:
    file = AtomicFile(tmp_path / "a", 3)
    file.spare()
    finish(file, b"abc")
    file.take_back()
    assert os.listdir(tmp_path) == [".a.part"]
    again = AtomicFile(tmp_path / "a", 3, keep=lambda size: size == 3)
    assert again.kept
    finish(again, b"")
    assert (tmp_path / "a").read_bytes() == b"abc"


def test_discarded_twice(tmp_path: Path) -> None:
    file = AtomicFile(tmp_path / "a", 3)
    assert os.listdir(tmp_path) == [".a.part"]
    file.discard()
    part(tmp_path / "a").write_bytes(b"another's")
    file.discard()
    assert part(tmp_path / "a").read_bytes() == b"another's"


def test_a_leftover_that_is_locked_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where opening a file is to have it alone."""
    part(tmp_path / "a").write_bytes(b"left")

    def taken(path: Path) -> FileIO:
        raise BlockingIOError

    monkeypatch.setattr(system, "open_itself", taken)
    with pytest.raises(OutputError, match="another writer is making this file") as caught:
        AtomicFile(tmp_path / "a", 1)
    assert caught.value.path == str(tmp_path / "a")
    assert part(tmp_path / "a").read_bytes() == b"left"


def test_a_leftover_whose_writer_publishes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is locked, but has lost its name by then: another is made."""
    path, real, calls = tmp_path / "a", system.lock, 0
    part(path).write_bytes(b"theirs")

    def lock(file: FileIO) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            os.replace(part(path), path)
        return real(file)

    monkeypatch.setattr(system, "lock", lock)
    file = AtomicFile(path, 4)
    assert calls == 2
    assert path.read_bytes() == b"theirs"
    finish(file, b"ours")
    assert path.read_bytes() == b"ours"
    assert os.listdir(tmp_path) == ["a"]


def test_a_leftover_that_gives_way_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is another file's by the time it is locked."""
    path, real, calls = tmp_path / "a", system.lock, 0
    part(path).write_bytes(b"theirs")

    def lock(file: FileIO) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            (tmp_path / "new").write_bytes(b"next")
            os.replace(tmp_path / "new", part(path))
        return real(file)

    monkeypatch.setattr(system, "lock", lock)
    finish(AtomicFile(path, 4), b"ours")
    assert calls == 2
    assert path.read_bytes() == b"ours"
    assert os.listdir(tmp_path) == ["a"]


def test_a_leftover_that_is_removed_before_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "a", system.open_itself
    part(path).write_bytes(b"theirs")

    def opened(name: Path) -> FileIO:
        part(path).unlink(missing_ok=True)
        return real(name)

    monkeypatch.setattr(system, "open_itself", opened)
    finish(AtomicFile(path, 4), b"ours")
    assert path.read_bytes() == b"ours"


def test_a_leftover_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    monkeypatch.setattr(system, "lock", lambda file: False)
    part(path).write_bytes(b"left")
    with pytest.raises(OutputError, match=r"\.a\.part is another writer's, or was; remove it if none") as caught:
        AtomicFile(path, 1)
    assert caught.value.path == str(path)
    assert part(path).read_bytes() == b"left"
    part(path).unlink()
    finish(AtomicFile(path, 4), b"ours")
    assert path.read_bytes() == b"ours"


def test_a_forked_child_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AtomicFile(tmp_path / "a", 1)
    mine = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: mine + 1)
    file._sibling.remove()
    assert os.listdir(tmp_path) == [".a.part"]
    monkeypatch.undo()
    file.discard()
    assert os.listdir(tmp_path) == []


def test_what_took_the_name_of_a_discarded_file_stays(tmp_path: Path) -> None:
    file = AtomicFile(tmp_path / "a", 1)
    (tmp_path / "new").write_bytes(b"theirs")
    os.replace(tmp_path / "new", part(tmp_path / "a"))
    file.discard()
    assert part(tmp_path / "a").read_bytes() == b"theirs"


def test_a_published_name_that_is_there_by_now(tmp_path: Path) -> None:
    file = AtomicFile(tmp_path / "a", 1, overwrite=False)
    (tmp_path / "a").symlink_to(tmp_path / "nowhere")  # a name is enough
    with pytest.raises(OutputError, match="exists already"):
        file.publish()
    file.discard()
    assert os.listdir(tmp_path) == ["a"]


def test_what_is_flushed_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 KiB and more at once, after they were written."""
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(system, "begin_flush", lambda fd, offset, size: begun.append((offset, size)))
    file = AtomicFile(tmp_path / "a", 1 << 20)
    for size, offset in ((1 << 18, 8), ((1 << 18) - 1, 0), (1 << 19, 1 << 19)):
        file.write_at(bytes(size), offset)
    file.discard()
    assert begun == [(8, 1 << 18), (1 << 19, 1 << 19)]


def test_space_is_asked_for_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "free_space", lambda folder: 100)
    AtomicFile(tmp_path / "a", 100).discard()
    with pytest.raises(OutputError, match=r"No space left on device: needs 101 bytes, 100 free in "):
        AtomicFile(tmp_path / "a", 101)
    assert os.listdir(tmp_path) == []
