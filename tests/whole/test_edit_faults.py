"""An edit in place that is killed, fails or loses its writes: a file that opens is the old one or the new one."""

from __future__ import annotations

import errno
import os
from itertools import count, product
from pathlib import Path

import pytest

from gguf_forge import Edits, edit_file, system
from gguf_forge.errors import ChangedInputError, ForgeError, FormatError, InvalidError, OutputError
from gguf_forge.format import reader
from gguf_forge.format.layout import EDITING, MAGIC
from gguf_forge.whole import inplace
from gguf_forge.whole.inplace import journal_path, pending, recover, replace_header
from tests.cli.conftest import Forge
from tests.conftest import PLATFORM
from tests.whole.killing import Failing, killed, needs_fork
from tests.whole.test_edit import make

CALLS = ["create", "open_itself", "lock", "reserve", "write_at", "flush", "replace", "read_at"]
EDITS = Edits(set={"name": "new" * 20})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path / "a.gguf", {"name": "old" * 20})


def edited(path: Path) -> bytes:
    """What the edit makes of the file."""
    copy = path.with_name("copy.gguf")
    copy.write_bytes(path.read_bytes())
    assert edit_file(copy, edits=EDITS).in_place
    raw = copy.read_bytes()
    copy.unlink()
    return raw


@needs_fork
def test_killed_before_every_call(path: Path, tmp_path: Path) -> None:
    old, new = path.read_bytes(), edited(path)
    start = tmp_path / "start"
    start.mkdir()
    path.rename(start / "a.gguf")
    outcomes = []
    work = "edit_file(work / 'a.gguf', edits=Edits(set={'name': 'new' * 20}))"
    for folder in killed(start, work, tmp_path):
        found = folder / "a.gguf"
        raw = found.read_bytes()
        assert {*os.listdir(folder)} <= {"a.gguf", ".a.gguf.edit", "..a.gguf.edit.part"}
        outcomes.append("old" if raw == old else "new" if raw == new else "closed")
        if outcomes[-1] == "closed":
            with pytest.raises(FormatError, match="gguf-forge edit --recover finishes it"):
                reader.open(found)
            assert pending(found)
        if pending(found):
            with pytest.raises(ForgeError, match="edit --recover"):
                edit_file(found, edits=EDITS)
            assert recover(found)
        else:
            assert not recover(found)
            assert found.read_bytes() == raw
            edit_file(found, edits=EDITS)  # takes over what is left of a journal that was not whole
        assert found.read_bytes() == new
        assert os.listdir(folder) == ["a.gguf"]
    assert list(dict.fromkeys(outcomes)) == ["old", "closed", "new"]
    assert outcomes.count("closed") >= 4


def test_writes_that_a_power_loss_takes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of writes that no flush followed any may be lost, or cut; what a flush followed is there."""
    old, new = path.read_bytes(), edited(path)
    calls: list[tuple[int, bytes] | None] = []
    write_at, flush = system.write_at, system.flush

    def record(fd: int, view: memoryview, offset: int) -> int:
        done = write_at(fd, view, offset)
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            calls.append((offset, bytes(view[:done])))
        return done

    def flushed(fd: int) -> None:
        flush(fd)
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            calls.append(None)

    monkeypatch.setattr(system, "write_at", record)
    monkeypatch.setattr(system, "flush", flushed)
    edit_file(path, edits=EDITS)
    assert sum(call is None for call in calls) == 3
    seen = set()
    for cut in range(len(calls) + 1):
        durable = bytearray(old)
        waiting: list[tuple[int, bytes]] = []
        for call in calls[:cut]:
            if call is None:
                for offset, data in waiting:
                    durable[offset : offset + len(data)] = data
                waiting = []
            else:
                waiting.append(call)
        for shares in product((0.0, 0.3, 0.9, 1.0), repeat=len(waiting)):
            state = bytearray(durable)
            for (offset, data), share in zip(waiting, shares, strict=True):
                kept = data[: int(len(data) * share)]
                state[offset : offset + len(kept)] = kept
            if state.startswith(MAGIC):
                assert bytes(state) in (old, new)
            seen.add("closed" if not state.startswith(MAGIC) else "old" if bytes(state) == old else "new")
    assert seen == {"old", "closed", "new"}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_fault_once_leaves_the_old_file(
    call: str, error: BaseException, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = path.read_bytes(), edited(path)
    for failing in count():
        failed = Failing(call, error, failing, monkeypatch)
        try:
            edit_file(path, edits=EDITS)
        except (ForgeError, KeyboardInterrupt):
            assert path.read_bytes() == old
            assert os.listdir(path.parent) == ["a.gguf"]
        else:
            assert not failed.came
            assert path.read_bytes() == new
            break


def test_a_fault_for_ever_is_said_and_can_be_mended(path: Path, monkeypatch: pytest.MonkeyPatch, forge: Forge) -> None:
    old, new = path.read_bytes(), edited(path)
    real = system.write_at
    calls = 0

    def fail(fd: int, view: memoryview, offset: int) -> int:
        nonlocal calls
        calls += os.path.samestat(os.fstat(fd), os.stat(path))
        if calls > 1:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, view, offset)

    monkeypatch.setattr(system, "write_at", fail)
    with pytest.raises(OutputError, match="Input/output error: the edit was cut off, gguf-forge edit --recover"):
        edit_file(path, edits=EDITS)
    assert path.read_bytes() == EDITING + old[4:]
    with pytest.raises(OutputError, match="Input/output error"):
        recover(path)
    monkeypatch.undo()
    ended = forge("inspect", path)
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "edit --recover" in ended.err
    assert "the edit is finished" in forge("edit", path, "--recover").err
    assert path.read_bytes() == new
    assert os.listdir(path.parent) == ["a.gguf"]


def test_short_writes_are_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = edited(path)
    real = system.write_at
    monkeypatch.setattr(system, "write_at", lambda fd, view, offset: real(fd, view[:7], offset))
    edit_file(path, edits=EDITS)
    assert path.read_bytes() == new


def test_journals_of_other_files_are_not_carried_out(path: Path, tmp_path: Path) -> None:
    raw = path.read_bytes()
    journal = journal_path(path)
    for junk in (b"", b"x" * 500, inplace._JOURNAL.pack(inplace._NAME, 0, 0, 1 << 60, 1 << 60, b"") + b"GGUF"):
        journal.write_bytes(junk)
        with pytest.raises(InvalidError, match="is no journal of an edit, or damaged"):
            recover(path)
    journal.unlink()
    inplace._write_journal(journal, raw, os.stat(path))
    (tmp_path / "new").write_bytes(raw)
    os.replace(tmp_path / "new", path)
    with pytest.raises(InvalidError, match="the journal of another file"):
        recover(path)
    assert path.read_bytes() == raw
    path.write_bytes(EDITING + raw[4:])  # a copy of a file whose edit was cut off, with its journal
    assert recover(path)
    assert path.read_bytes() == raw


def test_a_file_that_changed_or_is_being_written(path: Path) -> None:
    raw = path.read_bytes()
    with reader.open(path) as file:
        identity = file.parts[0].identity
    os.utime(path, ns=(1, 1))
    with pytest.raises(ChangedInputError):
        replace_header(path, raw[:64], identity)
    if PLATFORM != "win32":
        with system.open_itself(path) as other:
            system.lock(other)
            with pytest.raises(OutputError, match="another program is writing it"):
                edit_file(path, edits=EDITS)
    assert path.read_bytes() == raw
    assert os.listdir(path.parent) == ["a.gguf"]
