"""Files quantized with a calibration: which tensors are fitted to it, what the file records, what stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import gguf_forge
from gguf_forge.convert.files import convert_checkpoint, quantize_file
from gguf_forge.convert.job import Quantization
from gguf_forge.quant.calibration import SIDE, Calibration, Moments, calibration_metadata, calibration_tensors
from gguf_forge.quant.imatrix import Entry, Imatrix, save_imatrix
from tests.cli.conftest import Forge

MODEL = Path(__file__).parents[2] / "fixtures" / "models" / "Micro-Mixtral-4x100K"
SHARED = ("blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight")
EXPERTS = "blk.1.ffn_gate_exps.weight"
UNSEEN = 2  # an expert that no token reached


def inputs(width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((6, width)) * np.exp(rng.standard_normal(width))
    x: np.ndarray = rng.standard_normal((2000, 6)) @ mixed + 0.1 * rng.standard_normal((2000, width))
    return x


def tiles(x: np.ndarray) -> np.ndarray:
    """The upper triangle of X'X in tiles of 16 x 16, as the file holds it."""
    sums, count = x.T @ x, x.shape[1] // SIDE
    parts = [
        sums[i * SIDE : (i + 1) * SIDE, j * SIDE : (j + 1) * SIDE].reshape(-1)
        for i in range(count)
        for j in range(i, count)
    ]
    return np.array(parts, np.float32)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "micro.gguf"
    x = inputs(32, 0)
    of_experts = [inputs(32, seed) * (seed != 1 + UNSEEN) for seed in range(1, 5)]
    moments = [
        Moments(SHARED, [32], np.array([2000]), tiles(x)[None]),
        Moments(
            [EXPERTS],
            [32],
            np.array([0 if e == UNSEEN else 2000 for e in range(4)]),
            np.stack([tiles(e) for e in of_experts]),
        ),
    ]
    squares = {name: Entry((x**2).sum(0, keepdims=True).astype(np.float32), np.array([2000])) for name in SHARED}
    squares[EXPERTS] = Entry(
        np.stack([(e**2).sum(0) for e in of_experts]).astype(np.float32), moments[1].tokens.astype(np.int64)
    )
    facts = {"tokens": gguf_forge.values.u64(2000)}
    matrix = Imatrix(str(path), squares, ("text",), 8, 256, legacy=False)
    save_imatrix(
        matrix, path, metadata=calibration_metadata(moments, facts), tensors=calibration_tensors(moments)
    )  # fmt: skip
    return path


def blocks(path: Path) -> dict[str, bytes]:
    with gguf_forge.open(path) as file:
        return {name: tensor.data.tobytes() for name, tensor in file.tensors.items()}


def converted(path: Path, kind: str, **how: object) -> Path:
    convert_checkpoint(MODEL, path, kind, quantization=Quantization(**how))  # type: ignore[arg-type]
    return path


def test_what_the_calibration_knows_is_fitted_and_nothing_else(calibration: Path, tmp_path: Path) -> None:
    plain = blocks(converted(tmp_path / "plain.gguf", "Q4_0", imatrix=calibration))
    with Calibration.open(calibration) as opened:
        fitted = converted(tmp_path / "fitted.gguf", "Q4_0", calibration=opened)
        reference = converted(tmp_path / "ref.gguf", "Q4_0", calibration=opened, effort="ref")
        digest = opened.sha256
    assert blocks(reference) == plain
    found = blocks(fitted)
    changed = {name for name in plain if found[name] != plain[name]}
    assert changed == {*SHARED, EXPERTS, "token_embd.weight"}
    size = len(plain[EXPERTS]) // 4
    same = [found[EXPERTS][e * size :][:size] == plain[EXPERTS][e * size :][:size] for e in range(4)]
    assert same == [e == UNSEEN for e in range(4)]
    with gguf_forge.open(fitted) as file:
        assert file.metadata["quantize.forge.effort"] == "high"
        assert file.metadata["quantize.forge.calibration.sha256"] == digest
        assert file.metadata["quantize.forge.calibration.tokens"] == 2000
    with gguf_forge.open(reference) as file:
        assert not [key for key in file.metadata if key.startswith("quantize.forge")]


def test_without_a_calibration_only_embeddings_are_fitted(tmp_path: Path) -> None:
    plain = blocks(converted(tmp_path / "plain.gguf", "Q4_0"))
    found = blocks(converted(tmp_path / "high.gguf", "Q4_0", effort="high"))
    assert {name for name in plain if found[name] != plain[name]} == {"token_embd.weight"}


def test_where_nothing_is_fitted_nothing_is_recorded_and_a_line_says_so(
    calibration: Path, forge: Forge, tmp_path: Path
) -> None:
    f32, out = tmp_path / "f32.gguf", tmp_path / "out.gguf"
    assert forge("convert", MODEL, "--type", "f32", "-o", f32).code == 0
    asked: dict[tuple[object, ...], str] = {
        (
            "convert",
            MODEL,
            "--type",
            "f16",
            "-o",
            out,
            "--calibration",
            calibration,
        ): "f16: the calibration has no effect",
        ("convert", MODEL, "--type", "q8_0", "-o", out, "--effort", "high"): "q8_0: the effort has no effect",
        ("quantize", f32, out, "F16", "--calibration", calibration): "F16: the calibration has no effect",
        ("quantize", f32, out, "COPY", "--calibration", calibration): "COPY: the calibration has no effect",
    }
    for words, said in asked.items():
        run = forge(*words)
        assert (run.code, run.err.count(said)) == (0, 1), run.err
        with gguf_forge.open(out) as file:
            assert not [key for key in file.metadata if key.startswith("quantize.forge")]


def test_threads_and_the_way_there_do_not_show(calibration: Path, tmp_path: Path) -> None:
    convert_checkpoint(MODEL, tmp_path / "f32.gguf", "f32")
    with Calibration.open(calibration) as opened:
        how = Quantization(calibration=opened)
        made = []
        for threads in (1, 3):
            out = tmp_path / f"{threads}.gguf"
            quantize_file(tmp_path / "f32.gguf", out, "Q4_0", quantization=how, threads=threads)
            made.append(blocks(out))
        direct = blocks(converted(tmp_path / "direct.gguf", "Q4_0", calibration=opened))
    assert made[0] == made[1] == direct


def test_commands_take_a_calibration(forge: Forge, calibration: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    assert forge("convert", MODEL, "--type", "Q4_0", "--calibration", calibration, "--outfile", out, "-q").code == 0
    with Calibration.open(calibration) as opened:
        assert blocks(out) == blocks(converted(tmp_path / "python.gguf", "Q4_0", calibration=opened))
    done = forge("roundtrip", MODEL, "--types", "Q4_0", "--calibration", calibration, "--json", "-q")
    assert done.code == 0
    rows = {row["tensor"]: row for row in json.loads(done.out)["tensors"]}
    for name in (*SHARED, EXPERTS):
        assert 0 < rows[name]["output_error"] < rows[name]["output_error_plain"] < 1
    assert rows["output.weight"]["output_error"] is None
    done = forge(
        "roundtrip", out, "--source", MODEL, "--calibration", calibration, "--tensors", SHARED[0], "--json", "-q"
    )
    found = json.loads(done.out)["tensors"][0]
    for figure in ("output_error", "output_error_plain"):
        assert found[figure] == pytest.approx(rows[SHARED[0]][figure], rel=1e-5)


def test_an_importance_matrix_is_no_calibration(forge: Forge, tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    save_imatrix(Imatrix(str(path), {"a.weight": Entry(np.ones((1, 32), np.float32), np.array([1]))}, (), 1, 256), path)
    done = forge("convert", MODEL, "--type", "Q4_0", "--calibration", path, "--outfile", tmp_path / "out.gguf")
    assert done.code == 1
    assert "calibration" in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "out.gguf").exists()
