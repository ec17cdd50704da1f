"""Copies that share a file system's extents: what is shared, what is copied, and that nobody can tell by the bytes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import gguf_forge
from gguf_forge import Edits, edit_file, merge_files, split_file, system, values
from gguf_forge.system import EXTENT

Call = tuple[int, int, int]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The places and lengths that are shared, on a file system that can: this one copies."""
    calls: list[Call] = []

    def share(source: int, offset: int, target: int, at: int, count: int) -> bool:
        calls.append((offset, at, count))
        with open(os.dup(source), "rb") as held, open(os.dup(target), "r+b") as out:
            held.seek(offset)
            out.seek(at)
            out.write(held.read(count))
        return True

    monkeypatch.setattr(system, "share_extents", share)
    return calls


def model(path: Path, room: int = 0) -> Path:
    """Three tensors of 100,000 bytes and one of 32."""
    rng = np.random.default_rng(1)
    with gguf_forge.GGUFWriter(path, {"general.architecture": "llama", "name": "x" * 50}) as out:
        for n, count in enumerate((25_000, 8, 25_000, 25_000)):
            out.add_tensor(f"t{n}", rng.normal(size=count).astype(np.float32))
    if room:
        edit_file(path, edits=Edits(slack=room))
    return path


def test_data_that_lie_alike_are_shared_but_for_their_ends(tmp_path: Path, shared: list[Call]) -> None:
    path = model(tmp_path / "a.gguf", 10_000)
    shared.clear()
    long = Edits(set={"name": values.string("y" * 20_000)}, slack=20_000)
    done = edit_file(path, tmp_path / "b.gguf", long)
    assert len(shared) == 3
    for offset, at, count in shared:
        assert [offset % EXTENT, at % EXTENT, count % EXTENT] == [0, 0, 0]
    assert sum(count for _, _, count in shared) >= 300_000 - 3 * 2 * EXTENT
    with gguf_forge.open(path) as old, gguf_forge.open(tmp_path / "b.gguf") as new:
        for name, tensor in old.tensors.items():
            assert np.array_equal(new.tensors[name].data, tensor.data)
        assert (new.tensors["t0"].offset - old.tensors["t0"].offset) % EXTENT == 0
        assert new.metadata.count_of("gguf_forge.slack") in range(20_000, 20_000 + EXTENT)
    assert done.nbytes == (tmp_path / "b.gguf").stat().st_size


def test_bytes_do_not_tell_what_was_shared(
    tmp_path: Path, shared: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = model(tmp_path / "a.gguf", 5000)
    edits = Edits(set={"name": values.string("z" * 9000)})
    edit_file(path, tmp_path / "b.gguf", edits)
    assert shared
    monkeypatch.setattr(system, "share_extents", lambda *_: False)
    edit_file(path, tmp_path / "c.gguf", edits)
    assert (tmp_path / "b.gguf").read_bytes() == (tmp_path / "c.gguf").read_bytes()


def test_data_that_lie_otherwise_are_copied(tmp_path: Path, shared: list[Call]) -> None:
    path = model(tmp_path / "a.gguf")
    edit_file(path, tmp_path / "b.gguf", Edits(set={"name": values.string("x" * 82)}))
    edit_file(path, tmp_path / "c.gguf", Edits(endian="big"))
    assert shared == []
    made = split_file(path, tmp_path / "s", max_tensors=2)
    merge_files(made[0].path, tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == path.read_bytes()


def test_what_goes_wrong_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model(tmp_path / "a.gguf", 5000)

    def full(*_: int) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(system, "share_extents", full)
    with pytest.raises(gguf_forge.OutputError, match="No space"):
        edit_file(path, tmp_path / "b.gguf", Edits(set={"name": values.string("z" * 9000)}))
    assert sorted(os.listdir(tmp_path)) == ["a.gguf"]


def test_asking_for_the_room_that_is_there_changes_nothing(tmp_path: Path) -> None:
    path = model(tmp_path / "a.gguf", 5000)
    assert edit_file(path, edits=Edits(slack=5000)).in_place


def test_extents_of_this_file_system(tmp_path: Path) -> None:
    """On a file system that shares extents: `SHARING=/folder/on/btrfs pytest tests/whole/test_sharing.py`."""
    folder = Path(os.environ.get("SHARING", tmp_path))
    one, two = folder / "sharing-one", folder / "sharing-two"
    try:
        one.write_bytes(os.urandom(2 * EXTENT))
        two.write_bytes(bytes(3 * EXTENT))
        with one.open("rb") as source, two.open("r+b") as target:
            if not system.share_extents(source.fileno(), 0, target.fileno(), EXTENT, 2 * EXTENT):
                pytest.skip(f"the file system of {folder} shares no extents")
        assert two.read_bytes() == bytes(EXTENT) + one.read_bytes()
    finally:
        for path in (one, two):
            path.unlink(missing_ok=True)
