"""Sets of shards: open as one model from any of them, and refuse what does not belong together."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from gguf_forge.errors import ForgeError, FormatError, IncompleteSetError, InvalidError, TruncatedError
from gguf_forge.format import reader, values
from gguf_forge.format.findings import findings
from gguf_forge.format.values import Value
from gguf_forge.format.writer import GGUFWriter

COUNT = 3


def name(number: int, count: int = COUNT, prefix: str = "model") -> str:
    return f"{prefix}-{number:05d}-of-{count:05d}.gguf"


def make(
    folder: Path, prefix: str = "model", arch: str = "llama", changes: dict[str, Value] | None = None
) -> list[Path]:
    """A good set of three, two tensors each; `changes` replace split keys in shard 2."""
    paths = [folder / name(i + 1, prefix=prefix) for i in range(COUNT)]
    for i, path in enumerate(paths):
        metadata: dict[str, Value] = {"general.architecture": values.string(arch)} if i == 0 else {}
        split = {"no": values.u16(i), "count": values.u16(COUNT), "tensors.count": values.i32(2 * COUNT)}
        if i == 1:
            split |= {k.replace("_", "."): v for k, v in (changes or {}).items()}
        with GGUFWriter(path, metadata | {f"split.{k}": v for k, v in split.items()}) as out:
            for j in range(2):
                out.add_tensor(f"t{2 * i + j}", np.full((2, 3), 2 * i + j, np.float32))
    return paths


@pytest.mark.parametrize("which", range(COUNT))
def test_opens_as_one_model_from_any_shard(which: int, tmp_path: Path) -> None:
    paths = make(tmp_path)
    with reader.open(paths[which]) as file:
        assert file.path == paths[which]
        assert file.paths == paths
        assert dict(file.metadata) == {"general.architecture": "llama"}
        assert list(file.tensors) == [f"t{i}" for i in range(2 * COUNT)]
        assert file.nbytes == sum(p.stat().st_size for p in paths)
        for i, tensor in enumerate(file.tensors.values()):
            assert tensor.path == paths[i // 2]
            assert (tensor.dequantize() == i).all()
            assert (tensor.read_rows(1, 2).view(np.float32) == i).all()
        assert findings(file) == []


def test_a_set_of_one_is_a_model(tmp_path: Path) -> None:
    path = tmp_path / "alone.gguf"
    with GGUFWriter(path, {"split.count": values.u16(1), "split.no": values.u16(0)}):
        pass
    with reader.open(path) as file:
        assert file.paths == [path]
        assert "split.count" in file.metadata


def test_a_file_that_llama_cpp_merged_is_a_model(tmp_path: Path) -> None:
    path = tmp_path / name(1, 1)
    with GGUFWriter(path, {"split.no": values.u16(0), "split.count": values.u16(0)}):
        pass
    with reader.open(path) as file:
        assert file.paths == [path]


def refused(path: Path, error: type[ForgeError], *words: str) -> None:
    with pytest.raises(error) as caught:
        reader.open(path)
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value)


def test_missing_shards_are_listed(tmp_path: Path) -> None:
    paths = make(tmp_path)
    paths[2].unlink()
    refused(paths[1], IncompleteSetError, "1 of 3 shards are missing", name(3))
    paths[0].unlink()
    refused(paths[1], IncompleteSetError, "2 of 3 shards are missing", name(1), name(3))


def test_a_shard_under_another_name(tmp_path: Path) -> None:
    paths = make(tmp_path)
    other = tmp_path / "x.gguf"
    shutil.copy(paths[1], other)
    refused(other, IncompleteSetError, "shard 2 of 3 must be named like model-00002-of-00003.gguf")
    shutil.copy(paths[1], tmp_path / name(1, prefix="y"))
    refused(tmp_path / name(1, prefix="y"), InvalidError, "the name says shard 1 of 3, the keys say 2 of 3")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"no": values.i16(1)}, ('key "split.no"', "must be UINT16, found INT16")),
        ({"no": values.string("1")}, ("must be UINT16, found STRING",)),
        ({"count": values.i16(3)}, ('key "split.count"', "must be UINT16, found INT16")),
        ({"no": values.u16(7)}, ("7 in a set of 3, the highest is 2",)),
        ({"no": values.u16(0)}, ()),
        ({"count": values.u16(65535)}, ()),
        ({"tensors_count": values.i32(7)}, ("7 tensors declared, the 3 shards hold 6",)),
        ({"tensors_count": values.string("6")}, ("must be an integer, found STRING",)),
    ],
)
@pytest.mark.parametrize("which", range(COUNT))
def test_keys_that_contradict(changes: dict[str, Value], words: tuple[str, ...], which: int, tmp_path: Path) -> None:
    paths = make(tmp_path, changes=changes)
    refused(paths[which], InvalidError, name(2), *words)


def test_a_shard_without_its_number(tmp_path: Path) -> None:
    path = tmp_path / name(1)
    with GGUFWriter(path, {"split.count": values.u16(3)}):
        pass
    refused(path, InvalidError, "split.count is 3, but there is no split.no")


def test_a_whole_model_among_the_shards(tmp_path: Path) -> None:
    paths = make(tmp_path)
    with GGUFWriter(paths[1]) as out:
        out.add_tensor("t9", np.zeros(3, np.float32))
    refused(paths[0], InvalidError, name(2), "found None")


def test_shards_of_two_models(tmp_path: Path) -> None:
    paths = make(tmp_path)
    (tmp_path / "other").mkdir()
    other = make(tmp_path / "other", arch="gpt2")
    for path in (paths[2], other[2]):
        assert path.exists()
    with GGUFWriter(paths[1], _split(1) | {"general.architecture": values.string("gpt2")}) as out:
        out.add_tensor("t2", np.zeros(3, np.float32))
    refused(paths[0], InvalidError, name(2), "'gpt2', but 'llama'", "shards of two models")
    with GGUFWriter(paths[1], _split(1)) as out:
        out.add_tensor("t0", np.zeros(3, np.float32))
    refused(paths[0], InvalidError, name(2), 'tensor "t0"', f"also in {name(1)}")
    with GGUFWriter(paths[1], _split(1)) as out:
        out.add_tensor("t2", np.zeros(3, np.float32))
    refused(paths[0], InvalidError, "6 tensors declared, the 3 shards hold 5")
    with GGUFWriter(paths[1], _split(1), endian="big"):
        pass
    refused(paths[0], InvalidError, "byte order differs")


def _split(index: int) -> dict[str, Value]:
    return {"split.no": values.u16(index), "split.count": values.u16(COUNT)}


def test_a_cut_shard(tmp_path: Path) -> None:
    paths = make(tmp_path)
    paths[2].write_bytes(paths[2].read_bytes()[:-40])
    refused(paths[0], TruncatedError, name(3), 'tensor "t5"')
    paths[2].write_bytes(b"")
    refused(paths[0], FormatError, name(3), "empty file")
