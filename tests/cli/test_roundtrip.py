"""`gguf-forge roundtrip`: figures of a model's tensors, and which blocks of a file come from a source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import gguf_forge
from gguf_forge.convert.files import convert_checkpoint
from gguf_forge.format.writer import GGUFWriter
from tests.cli.conftest import Forge

MODEL = Path(__file__).resolve().parents[2] / "fixtures" / "models" / "PyLlama-7M"
IMATRIX = MODEL / "imatrix.gguf"
FIGURES = {"elements", "bytes", "bits_per_weight", "rmse", "relative_rmse", "max_error", "snr_db", "cosine"}


@pytest.fixture(scope="module")
def f32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("f32") / "f32.gguf"
    convert_checkpoint(MODEL, path, "f32")
    return path


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantized") / "q4_k_m.gguf"
    convert_checkpoint(MODEL, path, "Q4_K_M")
    return path


def document(forge: Forge, *words: object) -> dict[str, Any]:
    done = forge("roundtrip", *words, "--json", "-q")
    assert (done.code, done.err) == (0, "")
    found: dict[str, Any] = json.loads(done.out)
    assert list(found) == ["file", "source", "imatrix", "calibration", "tensors", "types"]
    return found


def test_figures_are_those_of_the_function(forge: Forge, f32: Path) -> None:
    found = document(forge, f32, "--types", "q8_0,Q4_K,q8_0", "--tensors", "blk.0.ffn_[ug]*")
    with gguf_forge.open(f32) as model:
        names = [name for name in model.tensors if name.startswith(("blk.0.ffn_up", "blk.0.ffn_gate"))]
        assert [(row["tensor"], row["type"]) for row in found["tensors"]] == [
            (name, kind) for name in names for kind in ("Q8_0", "Q4_K")
        ]
        for row in found["tensors"]:
            expected = gguf_forge.roundtrip(model.tensors[row["tensor"]].dequantize(), row["type"])
            assert row["stored"] == "F32"
            assert row["bits_per_weight"] == expected.bits_per_weight
            assert row["max_error"] == expected.max_error
            assert row["stable"] == expected.stable
            for figure in ("rmse", "relative_rmse", "snr_db", "cosine"):
                assert row[figure] == pytest.approx(getattr(expected, figure), rel=1e-12)


def test_a_checkpoint_goes_by_gguf_names_and_gives_the_same(forge: Forge, f32: Path) -> None:
    words = ("--types", "Q6_K", "--tensors", "blk.[12].attn_*")
    one, other = document(forge, MODEL, *words), document(forge, f32, *words)
    without = [{k: v for k, v in row.items() if k != "stored"} for row in one["tensors"]]
    assert without == [{k: v for k, v in row.items() if k != "stored"} for row in other["tensors"]]
    assert one["types"] == other["types"]
    assert {row["stored"] for row in one["tensors"]} == {"BF16"}


def test_summary_takes_all_tensors_together(forge: Forge) -> None:
    found = document(forge, MODEL, "--types", "Q4_K", "--tensors", "blk.3.*.weight")
    (summary,) = found["types"]
    rows = found["tensors"]
    assert summary["tensors"] == len(rows)
    assert summary["elements"] == sum(row["elements"] for row in rows)
    assert summary["max_error"] == max(row["max_error"] for row in rows)
    squares = sum(row["rmse"] ** 2 * row["elements"] for row in rows)
    assert summary["rmse"] == pytest.approx((squares / summary["elements"]) ** 0.5, rel=1e-12)
    assert summary["stable"] == sum(row["stable"] for row in rows)


def test_an_importance_matrix_changes_the_blocks(forge: Forge) -> None:
    words = (MODEL, "--types", "Q4_K,Q8_0", "--tensors", "blk.1.ffn_down.weight")
    plain, weighted = document(forge, *words), document(forge, *words, "--imatrix", IMATRIX)
    assert plain["tensors"][0]["rmse"] != weighted["tensors"][0]["rmse"]
    assert plain["tensors"][1] == weighted["tensors"][1]


def test_output_is_stable(forge: Forge) -> None:
    words = ("roundtrip", MODEL, "--types", "Q4_K", "--tensors", "blk.0.attn_k*", "--json")
    assert forge(*words, "--threads", 1).out == forge(*words, "--threads", 3).out
    assert set(json.loads(forge(*words).out)["tensors"][0]) == FIGURES | {
        *("tensor", "shape", "stored", "type", "stable", "reproduced", "equal_blocks", "blocks"),
            *("output_error_plain", "output_error"),
    }


def test_a_quantized_file_in_its_own_types(forge: Forge, quantized: Path) -> None:
    found = document(forge, quantized)
    assert {row["type"] for row in found["tensors"]} == {"Q4_K", "Q6_K"}
    assert all(row["stored"] == row["type"] for row in found["tensors"])


@pytest.mark.parametrize("source", ["checkpoint", "f32"])
def test_blocks_come_from_their_source(source: str, forge: Forge, quantized: Path, f32: Path) -> None:
    found = document(forge, quantized, "--source", MODEL if source == "checkpoint" else f32)
    assert len(found["tensors"]) > 40
    assert all(row["reproduced"] for row in found["tensors"])
    assert sum(row["blocks"] for row in found["tensors"]) == sum(row["elements"] for row in found["tensors"]) / 256
    for summary in found["types"]:
        assert summary["reproduced"] == summary["compared"] == summary["tensors"]


def test_a_changed_block_is_counted(forge: Forge, quantized: Path, tmp_path: Path) -> None:
    name = "blk.2.ffn_up.weight"
    path = tmp_path / "changed.gguf"
    shutil.copy(quantized, path)
    with gguf_forge.open(path) as model:
        tensor = model.tensors[name]
        place, block = tensor.offset + 3 * tensor.type.block_bytes + 20, tensor.type
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 0x11]))
    (row,) = document(forge, path, "--source", MODEL, "--tensors", name)["tensors"]
    assert (row["reproduced"], row["equal_blocks"]) == (False, row["blocks"] - 1)
    assert row["type"] == block.name
    page = forge("roundtrip", path, "--source", MODEL, "--tensors", name)
    assert f"{row['equal_blocks']} of {row['blocks']}" in page.out


def test_another_importance_matrix_is_told_apart(forge: Forge, quantized: Path) -> None:
    found = document(forge, quantized, "--source", MODEL, "--imatrix", IMATRIX, "--tensors", "blk.0.ffn_*")
    assert any(row.get("reproduced") is False for row in found["tensors"])


def test_a_file_that_names_its_importance_matrix(forge: Forge, tmp_path: Path) -> None:
    path = tmp_path / "weighted.gguf"
    done = forge("convert", MODEL, "-o", path, "--type", "Q4_K", "--imatrix", IMATRIX)
    assert done.code == 0
    words = ("roundtrip", path, "--source", MODEL, "--tensors", "blk.0.attn_q.weight")
    assert "--imatrix gives that" in forge(*words).err
    assert "all" in forge(*words, "--imatrix", IMATRIX).out
    assert forge(*words, "--imatrix", IMATRIX).err == ""


def test_verbose_tells_of_each_tensor_as_it_comes(forge: Forge, quantized: Path) -> None:
    words = ("roundtrip", MODEL, "--tensors", "blk.0.attn_[qk].weight", "--types", "Q8_0,Q4_K", "--imatrix", IMATRIX)
    assert forge(*words).err == ""
    lines = forge(*words, "-v").err.splitlines()
    assert [line.partition(": ")[2].partition(" as ")[0] for line in lines] == ["128 x 256, BF16"] * 2 + [
        "256 x 256, BF16"
    ] * 2
    assert [line.endswith(" dB with importances") for line in lines] == [False, True, False, True]
    compared = forge("roundtrip", quantized, "--source", MODEL, "--tensors", "output.weight", "-v").err
    assert compared.startswith("output.weight: 4096 x 256, Q6_K as Q6_K: ")


def test_blocks_of_a_big_endian_file_are_those_of_a_little_endian_one(forge: Forge, tmp_path: Path) -> None:
    x = np.random.default_rng(8).standard_normal((3, 64)).astype(np.float32)
    with GGUFWriter(tmp_path / "a.gguf", {"general.architecture": "llama"}) as writer:
        writer.add_tensor("a.weight", gguf_forge.quantize(x, "Q8_0"), "Q8_0")
    gguf_forge.edit_file(tmp_path / "a.gguf", tmp_path / "big.gguf", gguf_forge.Edits(endian="big"))
    words = ("--types", "Q4_0")
    found, expected = (document(forge, tmp_path / name, *words)["tensors"] for name in ("big.gguf", "a.gguf"))
    assert found == expected


def test_plain_tensors_of_a_big_endian_file(forge: Forge, tmp_path: Path) -> None:
    x = np.random.default_rng(8).standard_normal((3, 64)).astype(np.float32)
    path = tmp_path / "big.gguf"
    with GGUFWriter(path, endian="big") as writer:
        writer.add("general.architecture", "llama")
        writer.add_tensor("a.weight", x)
    (row,) = document(forge, path, "--types", "Q8_0")["tensors"]
    assert row["max_error"] == gguf_forge.roundtrip(x, "Q8_0").max_error


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A checkpoint of no known architecture, with a width no K-quant fits."""
    rng = np.random.default_rng(3)
    arrays = {name: rng.standard_normal((4, 96)).astype(np.float16) for name in ("a.weight", "b.weight")}
    save_file({**arrays, "cube": np.ones((2, 3, 64), np.float32), "ids": np.arange(9)}, tmp_path / "model.safetensors")
    return tmp_path


def test_an_unknown_architecture_keeps_its_names(forge: Forge, strange: Path) -> None:
    done = forge("roundtrip", strange, "--types", "Q8_0,Q4_K", "--json")
    assert "keep the checkpoint's names" in done.err
    rows = json.loads(done.out)["tensors"]
    assert [row["tensor"] for row in rows] == ["a.weight"] * 2 + ["b.weight"] * 2 + ["cube"] * 2
    assert rows[1]["skipped"] == "width 96 is not a multiple of 256"
    assert "rmse" not in rows[1]
    assert rows[4]["rmse"] < 1e-3
    summary = json.loads(done.out)["types"]
    assert [(row["type"], row["tensors"], row["skipped"]) for row in summary] == [("Q8_0", 3, 0), ("Q4_K", 0, 3)]
    page = forge("roundtrip", strange, "--types", "Q4_K")
    assert "width 96 is not a multiple of 256" in page.out
    assert [line.split() for line in page.out.splitlines()[-1:]] == [["Q4_K", "0", "3"]]


def test_types_that_lose_nothing(forge: Forge, strange: Path) -> None:
    found = document_with_note(forge, strange, "--types", "f32,F16", "--tensors", "a.weight")
    for row in found["tensors"]:
        assert (row["rmse"], row["snr_db"], row["cosine"], row["stable"]) == (0, "inf", 1, True)


def document_with_note(forge: Forge, *words: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(forge("roundtrip", *words, "--json").out)
    return found


def test_values_that_cannot_be_encoded_are_named(forge: Forge, strange: Path) -> None:
    broken = np.ones((2, 32), np.float32)
    broken[1, 7] = np.nan
    save_file({"w": broken}, strange / "model.safetensors")
    done = forge("roundtrip", strange, "--types", "Q8_0")
    assert done.code == 1
    assert 'tensor "w"' in done.err
    assert "NaN" in done.err
    assert "Traceback" not in done.err


def test_tensors_without_a_pair(forge: Forge, quantized: Path, strange: Path) -> None:
    found = document_with_note(forge, quantized, "--source", strange, "--tensors", "output*.weight")
    assert {row["skipped"] for row in found["tensors"]} == {"not in the source"}


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--types", "Q4_K_M"), 2, "unknown tensor type 'Q4_K_M'"),
        (("--types", "Q8_K"), 2, "Q8_K is not encoded"),
        (("--types", "Q4_K", "--source", MODEL), 2, "cannot be used together"),
        (("--threads", "0"), 2, "--threads"),
        (("--tensors", "nothing.*"), 1, "no tensor matches"),
        (("--imatrix", "absent.gguf"), 1, "absent.gguf"),
        (("--source", "absent.gguf"), 1, "absent.gguf"),
    ],
)
def test_mistakes(words: tuple[object, ...], code: int, text: str, forge: Forge) -> None:
    done = forge("roundtrip", MODEL, *words)
    assert done.code == code
    assert text in done.err
    assert done.out == ""


@pytest.mark.parametrize("data", [b"", b"GGUF", b"GGUF\x03\0\0\0", b"\0" * 64])
def test_files_that_are_none(data: bytes, forge: Forge, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    done = forge("roundtrip", path)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert str(path) in done.err
