"""`gguf-forge inspect`: what is shown, the JSON document, and files that are not fit to be shown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import gguf_forge
from gguf_forge.format.values import infer
from tests.cli.conftest import Forge
from tests.format.notation import STR, h, kv, pad, s, ti


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    with gguf_forge.GGUFWriter(path) as writer:
        writer.add("general.architecture", "llama")
        writer.add("general.name", "Tiny\x1b[2J name")
        writer.add("general.file_type", 1)
        writer.add("llama.context_length", 512)
        writer.add("llama.rope.freq_base", float("nan"))
        writer.add("tokenizer.ggml.model", "llama")
        writer.add("tokenizer.ggml.tokens", [f"token{i}" for i in range(300)])
        writer.add("tokenizer.chat_template", "{{ x }}\n")
        writer.add_tensor("token_embd.weight", np.zeros((300, 64), dtype=np.float16))
        writer.add_tensor("output_norm.weight", np.ones(64, dtype=np.float32))
    return path


def test_page_names_model_size_types_and_tokenizer(forge: Forge, file: Path) -> None:
    page = forge("inspect", file).out
    for word in ("architecture llama", "19.3 K in 2 tensors", "16.05 bits per weight", "context", "512", "300 tokens"):
        assert word in page
    assert [line.split()[:2] for line in page.splitlines()[-2:]] == [["F16", "1"], ["F32", "1"]]


def test_control_characters_of_the_file_do_not_reach_the_terminal(forge: Forge, file: Path) -> None:
    for options in ([], ["--keys", "*"], ["--tensors"], ["--json"]):
        assert "\x1b" not in forge("inspect", file, *options).out
    assert "Tiny\\x1b[2J name" in forge("inspect", file).out


def test_keys_are_chosen_by_glob_and_long_arrays_cut(forge: Forge, file: Path) -> None:
    shown = forge("inspect", file, "--keys", "tokenizer.ggml.*").out
    assert "string[300]" in shown
    assert "token5'" in shown
    assert "token6'" not in shown
    assert "general.name" not in shown


@pytest.mark.parametrize("options", [["--keys", "general.nope*"], ["--keys", "general.nope*", "--json"]])
def test_a_glob_that_no_key_matches_is_exit_1(forge: Forge, file: Path, options: list[str]) -> None:
    ended = forge("inspect", file, *options)
    assert (ended.code, ended.out, ended.err) == (1, "", f"gguf-forge: {file}: no key matches 'general.nope*'\n")


def test_a_float32_has_no_more_digits_than_it_needs(forge: Forge, tmp_path: Path) -> None:
    with gguf_forge.GGUFWriter(tmp_path / "a.gguf", {"llama.attention.layer_norm_rms_epsilon": 1e-5}):
        pass
    assert forge("inspect", tmp_path / "a.gguf", "--keys", "*").out.splitlines()[-1].split()[1:] == ["float32", "1e-05"]


def test_an_importance_matrix_shows_what_it_was_made_of(forge: Forge) -> None:
    path = Path(__file__).resolve().parents[2] / "fixtures" / "models" / "PyLlama-7M" / "imatrix.gguf"
    matrix = gguf_forge.load_imatrix(path)
    page = forge("inspect", path).out
    assert f"{len(matrix.entries)} entries, {matrix.chunks} chunks of {matrix.chunk_size} tokens" in page
    assert all(dataset in page for dataset in matrix.datasets)
    assert [word for word in ("bits per weight", "chat template") if word in page] == []
    found = json.loads(forge("inspect", path, "--json").out)["imatrix"]
    assert found == {
        "entries": len(matrix.entries),
        "chunks": matrix.chunks,
        "chunk_size": matrix.chunk_size,
        "datasets": list(matrix.datasets),
    }


def test_tensors_are_listed_with_shape_in_numpy_order(forge: Forge, file: Path) -> None:
    line = next(line for line in forge("inspect", file, "--tensors").out.splitlines() if "token_embd" in line)
    assert line.split()[:5] == ["token_embd.weight", "F16", "300", "x", "64"]


def test_json_is_complete_and_its_shape_stays(forge: Forge, file: Path) -> None:
    found = json.loads(forge("inspect", file, "--json").out)
    assert list(found) == ["file", "model", "tokenizer", "types", "imatrix", "metadata", "tensors"]
    assert found["imatrix"] is None
    assert found["file"] == {
        "path": str(file),
        "files": [str(file)],
        "bytes": file.stat().st_size,
        "version": 3,
        "endian": "little",
        "alignment": 32,
        "keys": 8,
        "tensors": 2,
    }
    assert found["model"]["parameters"] == 300 * 64 + 64
    assert found["model"]["recipe"] == "F16"
    assert found["tokenizer"]["tokens"] == 300
    assert found["types"][0] == {"type": "F16", "tensors": 1, "parameters": 19200, "bytes": 38400}
    by_key = {entry["key"]: entry for entry in found["metadata"]}
    assert by_key["tokenizer.ggml.tokens"] == {
        "key": "tokenizer.ggml.tokens",
        "type": "ARRAY",
        "element": "STRING",
        "length": 300,
        "value": [f"token{i}" for i in range(300)],
    }
    assert by_key["llama.rope.freq_base"]["value"] == "nan"
    assert by_key["general.file_type"]["type"] == infer(1).type.name
    assert found["tensors"][1]["name"] == "output_norm.weight"
    assert set(found["tensors"][1]) == {"name", "type", "shape", "bytes", "offset", "file"}


def test_json_metadata_is_narrowed_by_keys(forge: Forge, file: Path) -> None:
    found = json.loads(forge("inspect", file, "--json", "--keys", "general.*").out)
    keys = [entry["key"] for entry in found["metadata"]]
    assert keys == ["general.architecture", "general.name", "general.file_type"]


@pytest.mark.parametrize(
    "content", [b"", b"GGU", b"<!DOCTYPE html>", b"GGUF" + bytes(60), b"GGUF\3\0\0\0" + b"\xff" * 16]
)
def test_what_is_no_gguf_file_is_one_line_and_exit_1(forge: Forge, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad\x1b.gguf"
    path.write_bytes(content)
    ended = forge("inspect", path)
    assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert ended.err.startswith("gguf-forge: ")
    assert "\x1b" not in ended.err


def test_a_shard_without_its_set_is_shown_alone(forge: Forge, tmp_path: Path) -> None:
    path = tmp_path / "m-00002-of-00003.gguf"
    split = {"split.no": np.uint16(1), "split.count": np.uint16(3), "split.tensors.count": np.int32(9)}
    with gguf_forge.GGUFWriter(path, split) as writer:
        writer.add_tensor("blk.1.attn_q.weight", np.ones((4, 64), dtype=np.float16))
    ended = forge("inspect", path, "--tensors")
    assert (ended.code, "2 of 3 shards are missing" in ended.err, "shown alone" in ended.err) == (0, True, True)
    assert ended.out.splitlines()[-1].split()[:5] == ["blk.1.attn_q.weight", "F16", "4", "x", "64"]
    assert "split.count" in forge("inspect", path, "--keys", "split.*").out
    with pytest.raises(gguf_forge.IncompleteSetError, match="shards are missing"):
        gguf_forge.open(path)


def test_a_missing_file_is_said_with_its_name(forge: Forge, tmp_path: Path) -> None:
    ended = forge("inspect", tmp_path / "none.gguf")
    assert ended.code == 1
    assert re.search(r"none\.gguf: (No such file or directory|The system cannot find the file specified)", ended.err)


def shard(path: Path) -> Path:
    split = {"split.no": np.uint16(1), "split.count": np.uint16(3), "general.name": "Second"}
    with gguf_forge.GGUFWriter(path, split) as writer:
        writer.add_tensor("t", np.ones((4, 64), dtype=np.float16))
    return path


@pytest.mark.parametrize("name", ["renamed.gguf", "9f2b" * 16, "m-00001-of-00003.gguf", "m-00002-of-00004.gguf"])
def test_a_shard_under_another_name_is_shown_alone(forge: Forge, tmp_path: Path, name: str) -> None:
    ended = forge("inspect", shard(tmp_path / name))
    assert (ended.code, ended.err.count("\n"), "shown alone" in ended.err) == (0, 1, True)
    assert "Second" in ended.out


def test_a_shard_of_a_set_that_does_not_fit_is_shown_alone(forge: Forge, tmp_path: Path) -> None:
    path = shard(tmp_path / "m-00002-of-00003.gguf")
    for number in (1, 3):
        (tmp_path / f"m-0000{number}-of-00003.gguf").write_bytes(b"GGUF")
    ended = forge("inspect", path)
    assert (ended.code, "m-00001-of-00003.gguf" in ended.err, "shown alone" in ended.err) == (0, True, True)
    assert "Second" in ended.out


def test_a_set_in_the_hubs_cache_is_a_set_by_its_links_and_one_shard_by_its_blob(forge: Forge, tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    for number in range(3):
        blob = tmp_path / "blobs" / (f"{number}f2b" * 16)
        with gguf_forge.GGUFWriter(blob, {"split.no": np.uint16(number), "split.count": np.uint16(3)}) as writer:
            writer.add_tensor(f"t{number}", np.ones(8, dtype=np.float32))
        (tmp_path / f"m-0000{number + 1}-of-00003.gguf").symlink_to(blob)
    ended = forge("inspect", tmp_path / "m-00002-of-00003.gguf")
    assert (ended.code, ended.err, "in 3 tensors" in ended.out) == (0, "", True)
    alone = forge("inspect", tmp_path / "blobs" / ("1f2b" * 16), "--tensors")
    assert (alone.code, alone.out.split("\n")[2].split()[0]) == (0, "t1")


def test_types_of_other_programs_are_shown_by_number_and_whose_they_probably_are(forge: Forge, tmp_path: Path) -> None:
    path = tmp_path / "ik.gguf"
    records = ti("a", [256]) + ti("b", [256, 2], 156, 1024) + ti("c", [256], 340, 2048) + ti("d", [256], 999, 3072)
    path.write_bytes(pad(h(4, 1) + kv("general.name", STR, s("Mine")) + records) + bytes(4096))
    page = forge("inspect", path)
    assert (page.code, page.err) == (0, "")
    assert "156, probably IQ3_KS of ik_llama.cpp; 340, probably IQ5_K_R4 of ik_llama.cpp; 999" in page.out
    assert "Mine" in page.out
    assert "1.28 K in 4 tensors" in page.out
    assert "bits per weight" not in page.out
    assert [line.split()[:4] for line in page.out.splitlines()[-4:]][1] == ["156", "1", "512", "?"]
    lines = forge("inspect", path, "--tensors").out.splitlines()[2:]
    assert [line.split()[:2] for line in lines] == [["a", "F32"], ["b", "156"], ["c", "340"], ["d", "999"]]
    assert lines[1].endswith("IQ3_KS of ik_llama.cpp")
    found = json.loads(forge("inspect", path, "--json").out)
    assert (found["model"]["parameters"], found["file"]["tensors"]) == (1280, 4)
    assert (found["model"]["tensor_bytes"], found["model"]["bits_per_weight"]) == (None, None)
    assert found["types"][1] == {
        "type": "156", "tensors": 1, "parameters": 512, "bytes": None, "probably": "IQ3_KS of ik_llama.cpp"
    }  # fmt: skip
    assert [(t["type"], t["shape"], t["bytes"]) for t in found["tensors"]] == [
        ("F32", [256], 1024), ("156", [2, 256], None), ("340", [256], None), ("999", [256], None)
    ]  # fmt: skip
    for words in (["quantize", path, tmp_path / "out.gguf", "COPY"], ["roundtrip", path]):
        ended = forge(*words)
        assert (ended.code, "probably IQ3_KS of ik_llama.cpp" in ended.err) == (1, True)
