"""Sets of shards whose run is cut off while they get their names: gone on with, and never half there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gguf_forge
from gguf_forge import Splitting
from gguf_forge.errors import InvalidError, OutputError
from gguf_forge.format.journal import Journal, read_journal
from tests.convert.resuming import CutOffError, f32, quantize, rows_kept
from tests.whole.killing import Failing, killed, needs_fork

__all__ = ["f32"]  # fixture

CUT: dict[str, Any] = {"splitting": Splitting(max_tensors=7)}
NAMES = [f"a-{i:05}-of-00003.gguf" for i in (1, 2, 3)]
JOURNAL = f".{NAMES[0]}.journal"
WORK = "from gguf_forge import Splitting; from tests.convert.resuming import quantize; "


@pytest.fixture
def wanted(f32: Path, tmp_path: Path) -> list[bytes]:
    """The shards that one run makes."""
    (tmp_path / "whole").mkdir()
    return [shard.path.read_bytes() for shard in quantize(f32, tmp_path / "whole" / "a.gguf", **CUT).shards]


def named(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def cut_off_naming(source: Path, output: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends a run before its `at`-th renaming of a shard, and leaves things as a kill would."""
    with monkeypatch.context() as patch:
        patch.setattr(gguf_forge.format.sets.SetWriter, "take_back", lambda self: None)
        failing = Failing("replace", CutOffError(), at + 1, patch)  # the journal's comes before
        with pytest.raises(CutOffError) as caught:
            quantize(source, output, **CUT)
    assert failing.came
    assert "--resume goes on with it" in caught.value.__notes__[0]


@pytest.mark.long
@needs_fork
def test_killed_before_every_call_while_shards_get_their_names(
    f32: Path, wanted: list[bytes], tmp_path: Path
) -> None:
    """A short run, which keeps a journal only then."""
    start = tmp_path / "start"
    start.mkdir()
    work = f"{WORK}quantize({str(f32)!r}, work / 'a.gguf', splitting=Splitting(max_tensors=7))"
    found = []
    for folder in killed(start, work, tmp_path):
        there = named(folder)
        assert there in [NAMES[i:] for i in range(4)]
        noted = read_journal(folder / JOURNAL)
        if there and len(there) < 3:
            assert noted is not None
            with pytest.raises(gguf_forge.ForgeError):
                gguf_forge.open(folder / there[0])
            with pytest.raises(OutputError, match="exists already") as refused:
                quantize(f32, folder / "a.gguf", **CUT)
            assert "--resume goes on with it" in refused.value.__notes__[0]
            assert named(folder) == there
        if len(there) == 3 and noted is None:
            with pytest.raises(OutputError, match="exists already"):
                quantize(f32, folder / "a.gguf", resume=True, **CUT)
            found.append("named")
        elif len(there) == 3:
            inodes = [(folder / name).stat().st_ino for name in NAMES]
            planned = quantize(f32, folder / "a.gguf", resume=True, **CUT)
            assert planned.notes[-1] == f"{NAMES[0]}: all shards are there already"
            assert [(folder / name).stat().st_ino for name in NAMES] == inodes
            found.append("done")
        else:
            planned = quantize(f32, folder / "a.gguf", resume=True, **CUT)
            if noted is not None:
                kept, total = rows_kept(planned)
                assert kept == total
            found.append(f"{len(there)} named" if noted else "anew")
        assert [(folder / name).read_bytes() for name in NAMES] == wanted
        assert {*os.listdir(folder)} <= {*NAMES, f".{JOURNAL}.part"}
    assert [*dict.fromkeys(found)] == ["anew", "0 named", "1 named", "2 named", "done", "named"]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_name_that_cannot_be_given(
    at: int, f32: Path, wanted: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards lose their names again, and nothing of what is in them."""
    out = tmp_path / "out"
    out.mkdir()
    failing = Failing("replace", OSError(5, "Input/output error"), at + 1, monkeypatch)
    with pytest.raises(OutputError, match="Input/output error"):
        quantize(f32, out / "a.gguf", **CUT)
    assert failing.came
    assert {*os.listdir(out)} == {JOURNAL, *(f".{name}.part" for name in NAMES)}
    planned = quantize(f32, out / "a.gguf", resume=True, **CUT)
    kept, total = rows_kept(planned)
    assert kept == total
    assert [(out / name).read_bytes() for name in NAMES] == wanted
    assert sorted(os.listdir(out)) == NAMES


def spoil(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-64:] = b"x" * 64
    path.write_bytes(raw)


def other_header(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"split.count", b"split.count"[::-1], 1))


def shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("change", [spoil, other_header, shorter])
def test_a_named_shard_that_is_not_as_it_was(
    change: Callable[[Path], None], f32: Path, wanted: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the run wrote is made again; a file that it cannot have written is left alone."""
    out = tmp_path / "out"
    out.mkdir()
    cut_off_naming(f32, out / "a.gguf", 2, monkeypatch)
    assert named(out) == NAMES[1:]
    change(out / NAMES[2])
    before = (out / NAMES[2]).read_bytes()
    if change is spoil:
        planned = quantize(f32, out / "a.gguf", resume=True, **CUT)
        assert any("not what the journal says, and made again" in note for note in planned.notes)
    else:
        with pytest.raises(OutputError, match=f"{NAMES[2]}: exists already"):
            quantize(f32, out / "a.gguf", resume=True, **CUT)
        assert (out / NAMES[2]).read_bytes() == before
        (out / NAMES[2]).unlink()
        quantize(f32, out / "a.gguf", resume=True, **CUT)
    assert [(out / name).read_bytes() for name in NAMES] == wanted


def test_shards_of_another_run_keep_their_names(
    f32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    cut_off_naming(f32, out / "a.gguf", 2, monkeypatch)
    left = {name: (out / name).read_bytes() for name in os.listdir(out)}
    raw = bytearray(f32.read_bytes())
    raw[-1] ^= 1
    f32.write_bytes(raw)
    with pytest.raises(InvalidError, match=r"another source: f32\.gguf has another time of change"):
        quantize(f32, out / "a.gguf", resume=True, **CUT)
    assert {name: (out / name).read_bytes() for name in os.listdir(out)} == left


def test_a_whole_set_that_is_not_what_the_journal_says_is_refused(
    f32: Path, wanted: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "remove", lambda self: self.close())
        quantize(f32, out / "a.gguf", **CUT)
    assert sorted(os.listdir(out)) == [JOURNAL, *NAMES]
    spoil(out / NAMES[1])
    with pytest.raises(OutputError, match=f"{NAMES[0]}: exists already"):
        quantize(f32, out / "a.gguf", resume=True, **CUT)
    (out / NAMES[1]).write_bytes(wanted[1])
    assert quantize(f32, out / "a.gguf", resume=True, **CUT).notes[-1].endswith("all shards are there already")
    assert sorted(os.listdir(out)) == NAMES


def test_a_run_that_gives_names_is_left_alone(
    f32: Path, wanted: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes meanwhile does not take a name from a shard that has just got it."""
    out = tmp_path / "out"
    out.mkdir()
    real, count = gguf_forge.system.replace, 0

    def replace(*given: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:  # of the journal, of two shards
            assert named(out) == NAMES[2:]
            with pytest.raises(OutputError, match="another writer is making this file"):
                quantize(f32, out / "a.gguf", resume=True, **CUT)
            assert named(out) == NAMES[2:]
        real(*given)

    monkeypatch.setattr(gguf_forge.system, "replace", replace)
    quantize(f32, out / "a.gguf", **CUT)
    assert [(out / name).read_bytes() for name in NAMES] == wanted
