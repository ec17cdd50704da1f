"""A split, a merge and an edit that are killed before each of their calls: no half of anything under a name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gguf_forge import Edits, edit_file, merge_files, split_file
from gguf_forge.errors import ForgeError
from gguf_forge.format import reader
from tests.whole.killing import killed, needs_fork
from tests.whole.test_split import small

pytestmark = needs_fork

@pytest.fixture
def start(tmp_path: Path) -> Path:
    folder = tmp_path / "start"
    folder.mkdir()
    small(folder / "a.gguf")
    return folder


def parts_only(folder: Path, *others: str) -> bool:
    return all(name in others or (name.startswith(".") and name.endswith(".part")) for name in os.listdir(folder))


def test_a_split(start: Path, tmp_path: Path) -> None:
    whole = (start / "a.gguf").read_bytes()
    names = [f"x-{i:05}-of-00003.gguf" for i in (1, 2, 3)]
    folders = killed(start, "split_file(work / 'a.gguf', work / 'x', max_tensors=2)", tmp_path)
    counts = []
    for folder in folders:
        assert (folder / "a.gguf").read_bytes() == whole
        assert parts_only(folder, "a.gguf", *names)
        there = [name for name in names if (folder / name).exists()]
        counts.append(len(there))
        assert there == names[3 - len(there) :]  # the first is the last to come
        if len(there) == 3:
            assert merge_files(folder / names[2], folder / "b.gguf").path.read_bytes() == whole
        else:
            for name in there:
                with pytest.raises(ForgeError, match="shards are missing"):
                    reader.open(folder / name)
            for name in there:
                (folder / name).unlink()
            split_file(folder / "a.gguf", folder / "x", max_tensors=2)  # takes over what the killed one left
            assert sorted(os.listdir(folder)) == ["a.gguf", *names]
    assert set(counts) == {0, 1, 2, 3}


def test_a_set_that_replaces_another(start: Path, tmp_path: Path) -> None:
    small(start / "b.gguf", other=1)
    whole = {name: (start / name).read_bytes() for name in ("a.gguf", "b.gguf")}
    old = split_file(start / "b.gguf", start / "x", max_tensors=2)
    folders = killed(start, "split_file(work / 'a.gguf', work / 'x', max_tensors=2, overwrite=True)", tmp_path)
    seen = []
    for folder in folders:
        if not (folder / old[0].path.name).exists():  # no mixture of both opens
            with pytest.raises(ForgeError, match=r"1 of 3 shards are missing: x-00001-of-00003\.gguf"):
                reader.open(folder / old[1].path.name)
            seen.append("none")
            continue
        merged = merge_files(folder / old[1].path.name, folder / "m.gguf").path.read_bytes()
        seen.append({whole["a.gguf"]: "new", whole["b.gguf"]: "old"}[merged])
    assert list(dict.fromkeys(seen)) == ["old", "none", "new"]


def test_a_merge_that_removes_the_shards(start: Path, tmp_path: Path) -> None:
    whole = (start / "a.gguf").read_bytes()
    made = split_file(start / "a.gguf", start / "x", max_tensors=2)
    (start / "a.gguf").write_bytes(b"the old file")
    names = [shard.path.name for shard in made]
    work = "merge_files(work / 'x-00002-of-00003.gguf', work / 'a.gguf', delete=True)"
    seen = set()
    for folder in killed(start, work, tmp_path):
        found = (folder / "a.gguf").read_bytes()
        assert found in (b"the old file", whole)
        seen.add(found == whole)
        assert parts_only(folder, "a.gguf", *names)
        if found != whole:
            assert merge_files(folder / names[0], folder / "again.gguf").path.read_bytes() == whole
    assert seen == {True, False}


def test_an_edit_that_writes_the_file_anew(start: Path, tmp_path: Path) -> None:
    old = (start / "a.gguf").read_bytes()
    edits = Edits(set={"long": "x" * 500})
    edit_file(start / "a.gguf", tmp_path / "new.gguf", edits)
    new = (tmp_path / "new.gguf").read_bytes()
    seen = set()
    for folder in killed(start, "edit_file(work / 'a.gguf', edits=Edits(set={'long': 'x' * 500}))", tmp_path):
        found = (folder / "a.gguf").read_bytes()
        assert found in (old, new)
        seen.add(found == new)
        assert parts_only(folder, "a.gguf")
    assert seen == {True, False}
