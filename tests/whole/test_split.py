"""Splitting and merging: llama-gguf-split's shards to the byte, the file back from them, no set that is half there."""

from __future__ import annotations

import errno
import json
import os
import struct
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import gguf_forge
from gguf_forge import merge_files, split_file, system
from gguf_forge.errors import ChangedInputError, ForgeError, IncompleteSetError, InvalidError, OutputError, RequestError
from gguf_forge.format import reader, values
from gguf_forge.format.plan import Declared
from gguf_forge.format.shards import SPLIT_TOOL_KEYS, cut, shard_keys
from gguf_forge.format.values import Value
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.whole import copying, split
from tests.cli.conftest import Forge
from tests.format import strategies
from tests.format.test_roundtrip import write
from tests.whole.conftest import FIXTURES
from tests.whole.killing import Failing

GOLDEN = json.loads((FIXTURES / "tools" / "split.json").read_text())
OLD = b"the old file"


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def small(path: Path, tensors: int = 6, **metadata: Any) -> Path:
    """A file of some tensors of 24 bytes, which take 32 each."""
    with GGUFWriter(path, {"general.architecture": "llama", **metadata}) as out:
        for i in range(tensors):
            out.add_tensor(f"t{i}", np.full((2, 3), i, np.float32))
    return path


@pytest.mark.parametrize("options", GOLDEN["splits"])
def test_shards_are_those_of_the_reference(options: str, q4: Path, tmp_path: Path, forge: Forge) -> None:
    assert digest(q4) == GOLDEN["source"]["sha256"]
    ended = forge("split", *options.split(), q4, tmp_path / "out")
    assert (ended.code, ended.out) == (0, "")
    paths = sorted(tmp_path.iterdir())
    found = [{"name": p.name, "bytes": p.stat().st_size, "sha256": digest(p)} for p in paths]
    assert found == GOLDEN["splits"][options]
    with gguf_forge.open(paths[-1]) as file:
        assert len(file.paths) == len(found)
    assert forge("merge", paths[-1], tmp_path / "back.gguf").code == 0
    assert digest(tmp_path / "back.gguf") == GOLDEN["source"]["sha256"]


def test_what_the_reference_merges_splits_and_merges_as_the_original(q4: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged.gguf"
    with gguf_forge.open(q4) as file:
        metadata = {key: file.metadata.value(key) for key in file.metadata}
        with GGUFWriter(merged, metadata | shard_keys(0, 0, len(file.tensors), SPLIT_TOOL_KEYS)) as out:
            for name, tensor in file.tensors.items():
                out.add_tensor(name, tensor.data, tensor.type)
    assert digest(merged) == GOLDEN["merge"]["sha256"]
    made = split_file(merged, tmp_path / "out", max_tensors=10)
    assert [digest(shard.path) for shard in made] == [s["sha256"] for s in GOLDEN["splits"]["--split-max-tensors 10"]]
    assert digest(merge_files(made[2].path, tmp_path / "back.gguf").path) == GOLDEN["source"]["sha256"]


@settings(max_examples=100)
@given(
    metadata=strategies.METADATA,
    tensors=strategies.tensors(),
    endian=st.sampled_from(["little", "big"]),
    alignment=st.sampled_from([8, 32, 64, 4096]),
    max_size=st.none() | st.integers(1, 4000),
    max_tensors=st.none() | st.integers(1, 4),
    tensors_in_first=st.booleans(),
)
def test_merge_undoes_split(
    tmp_path_factory: pytest.TempPathFactory,
    metadata: dict[str, Value],
    tensors: list[tuple[Declared, NDArray[np.uint8]]],
    endian: str,
    alignment: int,
    max_size: int | None,
    max_tensors: int | None,
    tensors_in_first: bool,
) -> None:
    folder = tmp_path_factory.mktemp("merge", numbered=True)
    path = folder / "one.gguf"
    write(path, metadata, tensors, endian, alignment)
    made = split_file(path, folder / "x", max_size=max_size, max_tensors=max_tensors, tensors_in_first=tensors_in_first)
    assert [name for shard in made for name in shard.tensors] == [d.name for d, _ in tensors]
    for shard in made:
        assert shard.path.stat().st_size == shard.nbytes
        with reader.open(shard.path, alone=True) as file:
            assert (file.endian, file.alignment) == (endian, alignment)
            assert file.metadata["split.tensors.count"] == len(tensors)
    back = merge_files(made[-1].path, folder / "back.gguf").path
    assert back.read_bytes() == path.read_bytes()
    again = split_file(made[0].path, folder / "again", max_tensors=2)
    assert merge_files(again[0].path, back).path.read_bytes() == path.read_bytes()


def test_values_that_no_number_gives_stay_as_they_are(tmp_path: Path) -> None:
    path = small(tmp_path / "a.gguf", b=values.boolean(True), f=values.f32(0), d=values.f64(0),
                 a=values.array(gguf_forge.ValueType.BOOL, [True, False]))  # fmt: skip
    raw = path.read_bytes()
    odd_ones = {b"b": b"\x02", b"f": struct.pack("<I", 0x7F800001), b"d": b"\1" * 6 + b"\xf0\x7f"}
    for key, odd in odd_ones.items():
        at = raw.index(struct.pack("<Q", 1) + key) + 9 + 4
        raw = raw[:at] + odd + raw[at + len(odd) :]
    at = raw.index(struct.pack("<Q", 1) + b"a") + 9 + 4 + 12
    path.write_bytes(raw[:at] + b"\7\xff" + raw[at + 2 :])
    made = split_file(path, tmp_path / "x", max_tensors=2)
    assert merge_files(made[0].path, tmp_path / "back.gguf").path.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("max_size", "max_tensors", "first", "expected"),
    [
        (None, 3, True, [3, 3, 2]),
        (None, 3, False, [0, 3, 3, 2]),
        (100, None, True, [2, 1, 1, 4]),  # 40 40 | 40 | 1000 | 10 10 10 10
        (1, None, True, [1] * 8),
        (1, None, False, [0] + [1] * 8),
        (10**9, None, True, [8]),
        (100, 2, True, [2, 1, 1, 2, 2]),
        (None, 99, False, [0, 8]),
    ],
)
def test_where_a_model_is_cut(max_size: int | None, max_tensors: int | None, first: bool, expected: list[int]) -> None:
    sizes = [40, 40, 40, 1000, 10, 10, 10, 10]
    assert [len(part) for part in cut(sizes, max_size, max_tensors, first)] == expected


@pytest.mark.parametrize("first", [True, False])
def test_a_file_without_tensors_is_one_shard(first: bool, tmp_path: Path) -> None:
    made = split_file(small(tmp_path / "a.gguf", 0), tmp_path / "x", tensors_in_first=first)
    assert [shard.path.name for shard in made] == ["x-00001-of-00001.gguf"]
    assert merge_files(made[0].path).path.read_bytes() == (tmp_path / "a.gguf").read_bytes()
    assert (tmp_path / "x.gguf").exists()


def test_without_limits_a_shard_has_128_tensors(tmp_path: Path) -> None:
    path = small(tmp_path / "a.gguf", 300)
    assert [len(shard.tensors) for shard in split_file(path, dry_run=True)] == [128, 128, 44]
    assert names(tmp_path) == ["a.gguf"]


@pytest.mark.parametrize("given", [None, "", "new/", "x.gguf"])
def test_where_shards_go(given: str | None, tmp_path: Path) -> None:
    path = small(tmp_path / "a.gguf")
    made = split_file(path, None if given is None else f"{tmp_path}/{given}", max_tensors=3)
    prefix = {None: "a", "": "a", "new/": "new/a", "x.gguf": "x.gguf"}[given]
    assert [s.path for s in made] == [tmp_path / f"{prefix}-0000{i}-of-00002.gguf" for i in (1, 2)]
    merged = merge_files(made[1].path, f"{tmp_path}/back/")
    assert merged.path.read_bytes() == path.read_bytes()


def test_what_is_asked_for_in_vain(tmp_path: Path) -> None:
    path = small(tmp_path / "a.gguf")
    for max_size, max_tensors in ((0, None), (None, -1)):
        with pytest.raises(RequestError, match="at least 1"):
            split_file(path, tmp_path / "x", max_size=max_size, max_tensors=max_tensors)
    with pytest.raises(InvalidError, match="no shard of a set"):
        merge_files(path, tmp_path / "b.gguf")
    made = split_file(path, tmp_path / "x", max_tensors=3)
    with pytest.raises(OutputError, match="is the input"):
        merge_files(made[0].path, made[1].path)
    made[1].path.unlink()
    with pytest.raises(IncompleteSetError, match="1 of 2 shards are missing"):
        merge_files(made[0].path, tmp_path / "b.gguf")
    assert names(tmp_path) == ["a.gguf", "x-00001-of-00002.gguf"]


@pytest.mark.long
def test_more_shards_than_can_be_numbered_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with GGUFWriter(path) as out:
        for i in range(65536):
            out.declare(f"t{i}", (0,), "F32")
    with pytest.raises(gguf_forge.LimitError, match="65536 shards, at most 65535"):
        split_file(path, tmp_path / "x", max_tensors=1)
    assert names(tmp_path) == ["a.gguf"]


def test_an_old_set_is_replaced_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small(tmp_path / "a.gguf")
    old = split_file(small(tmp_path / "old.gguf", other=1), tmp_path / "x", max_tensors=3)
    before = [shard.path.read_bytes() for shard in old]
    with pytest.raises(OutputError, match=r"x-00001-of-00002.gguf: exists already"):
        split_file(path, tmp_path / "x", max_tensors=3)
    assert [shard.path.read_bytes() for shard in old] == before
    seen = []
    real = GGUFWriter.publish

    def publish(writer: GGUFWriter) -> None:
        seen.append(old[0].path.exists())
        real(writer)

    monkeypatch.setattr(GGUFWriter, "publish", publish)
    split_file(path, tmp_path / "x", max_tensors=3, overwrite=True)
    assert seen == [False, False]
    assert merge_files(old[0].path, tmp_path / "b.gguf").path.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("call", ["create", "reserve", "write_at", "flush", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_whatever_call_fails_there_is_no_shard(
    call: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small(tmp_path / "a.gguf")
    for failing in count():
        failed = Failing(call, error, failing, monkeypatch)
        try:
            made = split_file(path, tmp_path / "x", max_tensors=2)
        except (ForgeError, KeyboardInterrupt):
            assert names(tmp_path) == ["a.gguf"]
        else:
            assert not failed.came
            monkeypatch.undo()
            assert failing >= len(made) == 3
            break


def test_a_failed_merge_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = split_file(small(tmp_path / "a.gguf"), tmp_path / "x", max_tensors=3)
    old = tmp_path / "old.gguf"
    old.write_bytes(OLD)
    before = names(tmp_path)
    with pytest.raises(OutputError, match="exists already"):
        merge_files(made[0].path, old, overwrite=False)
    for call in ("write_at", "flush", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(system, call, lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
            with pytest.raises(OutputError, match="Input/output error"):
                merge_files(made[0].path, old, delete=True)
        assert (old.read_bytes(), names(tmp_path)) == (OLD, before)


@pytest.mark.parametrize("shorter", [True, False])
def test_an_input_that_changes_meanwhile(shorter: bool, tmp_path: Path) -> None:
    path = small(tmp_path / "a.gguf")

    def change(done: int, total: int) -> None:
        if shorter:
            os.truncate(path, total)
        else:
            os.utime(path, ns=(1, 1))

    with pytest.raises(ChangedInputError):
        split_file(path, tmp_path / "x", max_tensors=3, progress=change)
    assert names(tmp_path) == ["a.gguf"]


def test_shards_are_removed_only_after_the_file_was_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small(tmp_path / "a.gguf")
    made = split_file(path, tmp_path / "x", max_tensors=3)
    before = names(tmp_path)
    with monkeypatch.context() as patch:
        real = copying.copy_tensors

        def wrong(tensors: Any, sink: Any, progress: Any = None) -> None:
            real(tensors, sink, progress)
            sink._file.write_at(b"\xff", next(iter(sink.plan().tensors.values())).offset + 5)

        patch.setattr(split, "copy_tensors", wrong)
        with pytest.raises(OutputError, match=r'b.gguf: tensor "t0": read back, byte 5 differs; the shards stay'):
            merge_files(made[0].path, tmp_path / "b.gguf", delete=True)
    assert names(tmp_path) == sorted([*before, "b.gguf"])
    merge_files(made[0].path, tmp_path / "b.gguf", delete=True)
    assert names(tmp_path) == ["a.gguf", "b.gguf"]
    assert (tmp_path / "b.gguf").read_bytes() == path.read_bytes()


def test_tensors_are_copied_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.gguf"
    data = np.arange(100_003, dtype=np.float32)
    with GGUFWriter(path) as out:
        out.add_tensor("long row", data)
        out.add_tensor("scalar", np.float32(1))
    monkeypatch.setattr(copying, "PIECE", 1000)
    told: list[tuple[int, int]] = []
    made = split_file(path, tmp_path / "x", max_tensors=1, progress=lambda *given: told.append(given))
    assert merge_files(made[0].path, tmp_path / "b.gguf").path.read_bytes() == path.read_bytes()
    assert [done for done, _ in told] == [*range(1000, data.nbytes, 1000), data.nbytes, data.nbytes + 4]


def test_the_command_line(q4: Path, tmp_path: Path, forge: Forge) -> None:
    planned = forge("split", q4, "-o", tmp_path / "x", "--max-size", "1MiB", "--dry-run", "--json")
    made = forge("split", q4, "-o", tmp_path / "x", "--max-size", "1MiB", "--json", "-q")
    assert (planned.code, made.code, made.err) == (0, 0, "")
    shards = json.loads(made.out)
    assert shards == json.loads(planned.out)
    assert [Path(s["path"]).stat().st_size for s in shards] == [s["bytes"] for s in shards]
    assert sum(len(s["tensors"]) for s in shards) == 57
    shown = forge("merge", shards[0]["path"], "-o", f"{tmp_path}/m/", "--dry-run")
    assert shown.code == 0
    assert f"{tmp_path}/m/x.gguf" in shown.out
    assert not (tmp_path / "m").exists()
    done = forge("merge", shards[0]["path"], "-o", f"{tmp_path}/m/", "--delete-splits", "--json")
    assert json.loads(done.out)["bytes"] == q4.stat().st_size
    assert f"{tmp_path}/m/x.gguf: 57 tensors, 4.13 MiB" in done.err
    assert names(tmp_path) == ["m"]
    for words in (["split", q4, "a", "-o", "b"], ["merge", q4, "a", "-o", "b"], ["split", q4, "--max-size", "1X"]):
        assert forge(*words).code == 2
    refused = forge("merge", q4)
    assert (refused.code, refused.err.count("\n")) == (1, 1)
