"""Sets that `convert` and `quantize` write: gguf-py's shards, the source's own, and the same weights as in one file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from gguf_forge import Splitting, merge_files, quantize_file, split_file
from gguf_forge.errors import OutputError, RequestError
from gguf_forge.format.layout import ValueType
from tests.cli.conftest import Forge
from tests.whole.conftest import MODEL
from tests.whole.test_split import names


def written_by_gguf_py(source: Path, path: Path, **options: Any) -> list[Path]:
    """The file as gguf-py's writer, which convert_hf_to_gguf.py uses, writes it with these options."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama", **options)
    with gguf_forge.open(source) as file:
        for key in file.metadata:
            value = file.metadata.value(key)
            if key == "general.architecture":
                continue
            plain = value.value.tolist() if isinstance(value.value, np.ndarray) else value.value
            element = None if value.element is None else gguf.GGUFValueType(int(value.element))
            writer.add_key_value(key, plain, gguf.GGUFValueType(int(value.type)), element)
        for tensor in file.tensors.values():
            dtype = np.float16 if tensor.type.name == "F16" else np.float32
            writer.add_tensor(tensor.name, tensor.data.view(dtype).reshape(tensor.shape))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    writer.close()
    return sorted(path.parent.iterdir())


@pytest.mark.peer
@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("--split-max-size 2M", {"split_max_size": 2_000_000}),
        ("--split-max-size 1000000", {"split_max_size": 1_000_000}),
        ("--split-max-tensors 10", {"split_max_tensors": 10}),
        ("--split-max-tensors 10 --split-max-size 1M", {"split_max_tensors": 10, "split_max_size": 1_000_000}),
        ("--split-max-tensors 20 --no-tensor-first-split", {"split_max_tensors": 20, "small_first_shard": True}),
        ("--split-max-size 1G", {"split_max_size": 10**9}),
    ],
)
def test_shards_are_those_of_the_converter(
    words: str, options: dict[str, Any], f16: Path, tmp_path: Path, forge: Forge
) -> None:
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
    theirs = written_by_gguf_py(f16, tmp_path / "theirs" / "m.gguf", **options)
    assert forge("convert", MODEL, "--type", "f16", "-o", tmp_path / "ours" / "m.gguf", *words.split()).code == 0
    assert names(tmp_path / "ours") == [path.name for path in theirs]
    for path in theirs:
        assert (tmp_path / "ours" / path.name).read_bytes() == path.read_bytes(), path.name


def test_several_types_from_one_reading(f16: Path, q4: Path, tmp_path: Path, forge: Forge) -> None:
    words = ("convert", MODEL, "--type", "f16,Q4_K_M", "-o", tmp_path / "{ftype}.gguf", "--split-max-size", "2MiB")
    planned = forge(*words, "--dry-run")
    assert " and so on, 7 shards: F16, 13.10 MiB" in planned.out
    assert names(tmp_path) == []
    made = forge(*words)
    assert f"{tmp_path}/f16-00001-of-00007.gguf and so on, 7 shards: F16, 13.10 MiB" in made.err
    for name, whole in (("f16", f16), ("q4_k_m", q4)):
        first = next(tmp_path.glob(f"{name}-00001-*"))
        assert merge_files(first, tmp_path / "merged.gguf").path.read_bytes() == whole.read_bytes()
    again = forge(*words)
    assert (again.code, again.err.count("\n")) == (1, 1)
    assert "exists already, and a set is not replaced in one step" in again.err


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("which", [0, -1])
def test_shards_of_the_source_are_kept(first: bool, which: int, tmp_path: Path, forge: Forge) -> None:
    source = tmp_path / "f32.gguf"
    gguf_forge.convert_checkpoint(MODEL, source, "f32")
    made = split_file(source, tmp_path / "in", max_tensors=20, tensors_in_first=first)
    (tmp_path / "out").mkdir()
    ended = forge("quantize", made[which].path, tmp_path / "out" / "q.gguf", "Q4_0", "--keep-split")
    assert ended.code == 0
    paths = sorted((tmp_path / "out").iterdir())
    assert [p.name for p in paths] == [f"q-{i + 1:05}-of-{len(made):05}.gguf" for i in range(len(made))]
    for shard, path in zip(made, paths, strict=True):
        with gguf_forge.format.reader.open(path, alone=True) as file:
            assert [*file.tensors] == shard.tensors
            keys = ["split.no", "split.count", "split.tensors.count"]
            assert [*file.metadata][-3:] == keys
            assert [file.metadata.type_of(key) for key in keys] == [
                ValueType.UINT16, ValueType.UINT16, ValueType.INT32,
            ]  # fmt: skip
    quantize_file(source, tmp_path / "whole.gguf", "Q4_0")
    with gguf_forge.open(paths[0]) as found, gguf_forge.open(tmp_path / "whole.gguf") as whole:
        assert dict(found.metadata).keys() == dict(whole.metadata).keys()
        assert {*found.tensors} == {*whole.tensors}
        for name, tensor in whole.tensors.items():
            assert found.tensors[name].type is tensor.type
            assert np.array_equal(found.tensors[name].data, tensor.data)


def test_a_whole_file_stays_whole(f16: Path, tmp_path: Path) -> None:
    for splitting in (Splitting(keep=True), Splitting(max_tensors=1000), Splitting(max_size=10**12)):
        planned = quantize_file(f16, tmp_path / "q.gguf", "Q4_0", splitting=splitting)
        assert (planned.path, planned.shards) == (tmp_path / "q.gguf", ())
        assert planned.nbytes == (tmp_path / "q.gguf").stat().st_size


def test_what_contradicts_itself(f16: Path, forge: Forge) -> None:
    contradictions: list[dict[str, Any]] = [{"max_size": 0}, {"max_tensors": 0}, {"keep": True, "max_size": 5}]
    for given in contradictions:
        with pytest.raises(RequestError):
            Splitting(**given)
    assert forge("quantize", f16, "x.gguf", "Q4_0", "--keep-split", "--split-max-tensors", 5).code == 2


def test_a_conversion_that_fails_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    for call in ("flush", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(gguf_forge.system, call, fail)
            with pytest.raises(OutputError):
                gguf_forge.convert_checkpoint(MODEL, tmp_path, "Q4_0", splitting=Splitting(max_tensors=20))
        assert os.listdir(tmp_path) == []


def test_a_set_that_is_read_is_not_written(tmp_path: Path, f16: Path) -> None:
    made = split_file(f16, tmp_path / "x", max_tensors=20)
    before = [shard.path.read_bytes() for shard in made]
    with pytest.raises(OutputError, match="exists already"):
        quantize_file(made[0].path, tmp_path / "x.gguf", "Q4_0", splitting=Splitting(keep=True))
    assert [shard.path.read_bytes() for shard in made] == before
    assert json.dumps(names(tmp_path)).count("part") == 0
