"""A folder of files as one checkpoint: which files, in which order, and every way they can contradict each other."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_forge.errors import (
    CheckpointError,
    ForgeError,
    FormatError,
    InputError,
    InvalidError,
    LimitError,
    TruncatedError,
    UnsafeInputError,
)
from gguf_forge.source import open_checkpoint, strict_json
from tests.conftest import descriptors, make_pipe
from tests.source.containers import entry, safetensors_bytes, tensor_pickle, torch_zip

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def shard(folder: Path, name: str, *tensors: str, fill: int = 0) -> Path:
    """A safetensors file of F32 [1] tensors."""
    header = {tensor: entry(shape=[1], offsets=[4 * i, 4 * i + 4]) for i, tensor in enumerate(tensors)}
    path = folder / name
    path.write_bytes(safetensors_bytes(header, np.full(len(tensors), fill, "<f4").tobytes()))
    return path


def index(folder: Path, weight_map: Any, name: str = "model.safetensors.index.json") -> None:
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 8}, "weight_map": weight_map}))


def refused(path: Path, kind: type[ForgeError], *texts: str) -> None:
    with pytest.raises(ForgeError) as caught:
        open_checkpoint(path)
    assert type(caught.value) is kind, caught.value
    for text in texts:
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    shard(tmp_path, ONE, "b", "x.10", "x.2", fill=1)
    shard(tmp_path, TWO, "a", fill=2)
    index(tmp_path, {"a": TWO, "x.2": ONE, "b": ONE, "x.10": ONE})
    return tmp_path


def test_order_is_by_file_then_by_name(sharded: Path) -> None:
    with open_checkpoint(sharded) as checkpoint:
        assert list(checkpoint.tensors) == ["b", "x.10", "x.2", "a"]
        assert [path.name for path in checkpoint.files] == [ONE, TWO]
        assert checkpoint.tensors["a"].read() == [2]
        assert checkpoint.path == sharded
        assert checkpoint.unchanged()


def test_without_index_the_names_of_files_decide(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").unlink()
    (sharded / "adapter_model.safetensors").write_bytes(b"not ours")
    with open_checkpoint(sharded) as checkpoint:
        assert list(checkpoint.tensors) == ["b", "x.10", "x.2", "a"]


def test_one_file_of_a_folder(sharded: Path) -> None:
    (sharded / "config.json").write_text('{"model_type": "llama"}')
    with open_checkpoint(str(sharded / TWO)) as checkpoint:
        assert list(checkpoint.tensors) == ["a"]
        assert checkpoint.config == {"model_type": "llama"}


def test_safetensors_come_before_pickles(sharded: Path) -> None:
    torch_zip(sharded / "pytorch_model.bin", tensor_pickle(), {"data/0": bytes(16)})
    with open_checkpoint(sharded) as checkpoint:
        assert "w" not in checkpoint.tensors


def test_a_variant_counts_only_where_there_is_nothing_else(tmp_path: Path) -> None:
    plain = shard(tmp_path, "model.safetensors", "a", fill=1)
    variant = shard(tmp_path, "model.fp16.safetensors", "a", fill=2)
    with open_checkpoint(tmp_path) as checkpoint:
        assert (checkpoint.files, checkpoint.tensors["a"].read().tolist()) == ((plain,), [1])
        assert checkpoint.notes[0] == "model.fp16.safetensors is left out: a variant of model.safetensors"
    plain.unlink()
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.files == (variant,)


def test_weights_of_another_name_are_said(tmp_path: Path) -> None:
    other = shard(tmp_path, "weights.safetensors", "a")
    refused(tmp_path, CheckpointError, "looked for model*.safetensors", "found weights.safetensors, which must")
    with open_checkpoint(other) as checkpoint:
        assert list(checkpoint.tensors) == ["a"]


def test_sharded_pickles(tmp_path: Path) -> None:
    torch_zip(tmp_path / "pytorch_model-00001-of-00001.bin", tensor_pickle(), {"data/0": bytes(16)})
    index(tmp_path, {"w": "pytorch_model-00001-of-00001.bin"}, "pytorch_model.bin.index.json")
    with open_checkpoint(tmp_path) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
    index(tmp_path, {"v": "pytorch_model-00001-of-00001.bin"}, "pytorch_model.bin.index.json")
    refused(tmp_path, CheckpointError, "'v' of pytorch_model-00001-of-00001.bin")


OUTSIDE = [
    *("/etc/x.safetensors", "../x.safetensors", "a/../../x.safetensors", "a\\..\\b", "..\\x", "\\x", "\\\\host\\x"),
    *("C:x", "C:\\x", "C:/x", "//host/x", "./x.safetensors", ".", "..", "", "x\0.safetensors", "a/b.safetensors"),
    *(
        "~/x/y",
        "file:///etc/x",
        "x.safetensors/",
        " x.safetensors",
        "x.safetensors ",
        "x.",
        "x\n",
        "x\x7f",
        "a|b",
        "con:",
    ),
    *("x.safetensors::$DATA", "%2e%2e/x", "..//x", "x?", "*", "<x>", '"x"', "\t"),
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_leave_the_folder(name: str, sharded: Path) -> None:
    index(sharded, {"a": TWO, "b": name})
    refused(sharded, UnsafeInputError, 'weight_map "b"', "not a plain file name")


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "a/../b.json", "", "a//b.json"])
def test_json_names_that_leave_the_folder(name: str, sharded: Path) -> None:
    with open_checkpoint(sharded) as checkpoint, pytest.raises(UnsafeInputError):
        checkpoint.read_json(name)


def test_links_out_of_the_folder_are_how_caches_work(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    shard(blobs, "3a5f", "a")
    (blobs / "77aa").write_text('{"weight_map": {"a": "model.safetensors"}}')
    (snapshot / "model.safetensors").symlink_to("../../blobs/3a5f")
    (snapshot / "model.safetensors.index.json").symlink_to("../../blobs/77aa")
    with open_checkpoint(snapshot) as checkpoint:
        assert list(checkpoint.tensors) == ["a"]
        assert checkpoint.unchanged()


def test_broken_link(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to("../../blobs/gone")
    refused(tmp_path, InputError, "model.safetensors", os.strerror(errno.ENOENT))


@pytest.mark.parametrize("weight_map", [None, [], {}, "x", 3, {"a": 3}, {"a": None}, {"a": [TWO]}])
def test_malformed_weight_map(weight_map: Any, sharded: Path) -> None:
    index(sharded, weight_map)
    refused(sharded, InvalidError, "weight_map")


def test_index_without_weight_map(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text("{}")
    refused(sharded, InvalidError, "weight_map")
    (sharded / "model.safetensors.index.json").write_text("[]")
    refused(sharded, FormatError, "expected an object")


def test_missing_file(sharded: Path) -> None:
    (sharded / TWO).unlink()
    refused(sharded, CheckpointError, TWO, "not there")
    (sharded / "model.safetensors.index.json").unlink()
    refused(sharded, CheckpointError, TWO, "missing")


def test_missing_tensor_is_named_with_its_file(sharded: Path) -> None:
    index(sharded, {"a": TWO, "c": TWO, "x.2": ONE, "b": ONE, "x.10": ONE})
    refused(sharded, CheckpointError, f"'c' of {TWO}")


def test_extra_tensor_is_named_with_its_file(sharded: Path) -> None:
    index(sharded, {"a": TWO, "x.2": ONE, "x.10": ONE})
    refused(sharded, CheckpointError, f"'b' in {ONE}")


def test_long_lists_are_cut(sharded: Path) -> None:
    index(sharded, {f"t{i:04}": ONE for i in range(1000)})
    refused(sharded, CheckpointError, "1000 tensors", "'t0004'", "and 992 more")


def test_tensor_in_another_file_than_the_index_says_is_noted(sharded: Path) -> None:
    index(sharded, {"a": ONE, "x.2": ONE, "b": TWO, "x.10": ONE})
    with open_checkpoint(sharded) as checkpoint:
        assert [note for note in checkpoint.notes if f"'a' is in {TWO}" in note]


def test_tensor_in_two_files(sharded: Path) -> None:
    shard(sharded, TWO, "a", "b")
    refused(sharded, CheckpointError, 'tensor "b"', ONE, TWO)


def test_shard_cut_after_indexing(sharded: Path) -> None:
    path = sharded / TWO
    path.write_bytes(path.read_bytes()[:-1])
    refused(sharded, TruncatedError, TWO)


@pytest.mark.parametrize("name", [TWO, "model.safetensors.index.json"])
def test_lfs_pointer(name: str, sharded: Path) -> None:
    (sharded / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    refused(sharded, FormatError, name, "git lfs pull")


def test_pipe_does_not_block(tmp_path: Path) -> None:
    make_pipe(tmp_path / "model.safetensors")
    refused(tmp_path, InvalidError, "not a regular file")


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    refused(tmp_path, InvalidError, "not a regular file")


def test_nothing_there(tmp_path: Path) -> None:
    refused(tmp_path, CheckpointError, "model*.safetensors", "pytorch_model*.bin")
    refused(tmp_path / "absent", InputError, "no such file")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    refused(tmp_path / "x.gguf", InvalidError, ".safetensors")


def test_files_are_closed_after_a_failure(sharded: Path) -> None:
    (sharded / TWO).write_bytes(b"")
    before = descriptors()
    for _ in range(5):
        refused(sharded, TruncatedError, TWO)
    assert descriptors() == before


def test_reading_after_close_is_a_mistake(sharded: Path) -> None:
    with open_checkpoint(sharded) as checkpoint:
        tensor = checkpoint.tensors["a"]
    with pytest.raises(ValueError, match="after close"):
        tensor.read()


def test_config(sharded: Path) -> None:
    with open_checkpoint(sharded) as checkpoint:
        assert checkpoint.read_json("generation_config.json") is None
        with pytest.raises(CheckpointError, match=r"no config\.json"):
            _ = checkpoint.config
    text = '{"time_step_limit": [0.0, Infinity], "model_max_length": 1000000000000000019884624838656, "a": {"b": []}}'
    (sharded / "config.json").write_text(text)
    (sharded / "1_Pooling").mkdir()
    (sharded / "1_Pooling" / "config.json").write_text("\ufeff{}", encoding="utf-8")
    with open_checkpoint(sharded) as checkpoint:
        assert checkpoint.config["time_step_limit"] == [0.0, float("inf")]
        assert checkpoint.config["model_max_length"] == 1000000000000000019884624838656
        assert checkpoint.read_json("1_Pooling/config.json") == {}


BAD_JSON: dict[str, tuple[bytes, type[ForgeError]]] = {
    "nan": (b'{"a": NaN}', InvalidError),
    "exponent": (b'{"a": 10e400}', InvalidError),
    "digits": (b'{"a": ' + b"7" * 1001 + b"}", InvalidError),
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", LimitError),
    "deeper-than-limit": (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", LimitError),
    "text": (b'"a"', FormatError),
    "utf-8": (b'{"a": "\xff"}', FormatError),
    "empty": (b"", FormatError),
    "size": (b'{"a": "' + b"x" * 1000 + b'"}', LimitError),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_json_limits(name: str, sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, kind = BAD_JSON[name]
    if name == "size":
        monkeypatch.setattr(strict_json, "MAX_JSON_BYTES", 1000)
    (sharded / "config.json").write_bytes(text)
    with open_checkpoint(sharded) as checkpoint, pytest.raises(ForgeError) as caught:
        _ = checkpoint.config
    assert type(caught.value) is kind
    assert "config.json" in str(caught.value)


def test_json_just_within_the_depth(sharded: Path) -> None:
    (sharded / "config.json").write_bytes(b'{"a":' + b"[" * 63 + b"]" * 63 + b"}")
    with open_checkpoint(sharded) as checkpoint:
        assert "a" in checkpoint.config


def test_remote_code_is_noted_and_ignored(sharded: Path) -> None:
    (sharded / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}, "model_file": "evil.py"}')
    (sharded / "evil.py").write_text("raise SystemExit(9)")
    with open_checkpoint(sharded) as checkpoint:
        assert checkpoint.config["model_file"] == "evil.py"
        noted = [note for note in checkpoint.notes if "config.json" in note]
        assert noted == [
            f"{sharded / 'config.json'}: auto_map names code of the checkpoint, which is never run",
            f"{sharded / 'config.json'}: model_file names code of the checkpoint, which is never run",
        ]


def test_mistrals_own_layout_is_read_when_asked_for(sharded: Path) -> None:
    shard(sharded, "consolidated-00002-of-00002.safetensors", "norm.weight")
    shard(sharded, "consolidated-00001-of-00002.safetensors", "output.weight")
    (sharded / "params.json").write_text('{"dim": 8}')
    with open_checkpoint(sharded, native=True) as checkpoint:
        assert list(checkpoint.tensors) == ["output.weight", "norm.weight"]
        assert checkpoint.config == {"dim": 8}
    with open_checkpoint(sharded) as checkpoint, pytest.raises(CheckpointError, match=r"no config\.json"):
        assert checkpoint.config


def test_a_folder_in_mistrals_own_layout_alone_says_so(tmp_path: Path) -> None:
    shard(tmp_path, "consolidated.safetensors", "norm.weight")
    (tmp_path / "params.json").write_text("{}")
    refused(tmp_path, CheckpointError, "Mistral's own layout", "--mistral-format")
    (tmp_path / "params.json").unlink()
    with open_checkpoint(tmp_path, native=True) as checkpoint, pytest.raises(CheckpointError, match=r"no params\.json"):
        assert checkpoint.config
