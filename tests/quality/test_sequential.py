"""Weights fitted layer after layer: corrected as the inputs call for, and better than each layer by itself."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import gguf_forge
from gguf_forge.convert.job import Quantization
from gguf_forge.errors import RequestError
from gguf_forge.quality.calibrate import CalibrationRun, calibrate
from gguf_forge.quality.evaluate import EvaluationTask, evaluate
from gguf_forge.quality.lockstep import Lockstep, Meeting, Pair, Parted, Stream
from gguf_forge.quality.sequential import RESIDUAL, Sequential, _Inputs, relative
from gguf_forge.quality.session import Model, cut_windows, read_texts
from gguf_forge.quant.calibration import Calibration
from gguf_forge.quant.fit import Layout, Metric
from gguf_forge.types import tensor_type
from tests.cli.conftest import Forge
from tests.quality.conftest import FIXTURES, TEXT, needs_library

Floats = NDArray[np.float32]
EVERY = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")


def streams(tokens: int = 4000, width: int = 64) -> tuple[Floats, Floats]:
    """Inputs of a model and of a changed one."""
    rng = np.random.default_rng(5)
    mixing = rng.standard_normal((width, width)) * np.exp(rng.standard_normal(width))
    first = rng.standard_normal((tokens, width)) @ mixing
    second = first @ (np.eye(width) + 0.05 * rng.standard_normal((width, width))) + 0.1 * rng.standard_normal(width)
    return first.astype(np.float32), second.astype(np.float32)


def pair(first: Floats, second: Floats, residuals: tuple[Floats, Floats] | None = None) -> Pair:
    return Pair("w", (first, second), residuals, 0)


def apart(one: Floats, other: Floats) -> float:
    return float(np.square(one - other, dtype=np.float64).sum())


def test_a_corrected_matrix_gives_of_the_changed_inputs_what_it_gave_of_the_others() -> None:
    first, second = streams()
    weights = np.random.default_rng(6).standard_normal((16, 64)).astype(np.float32)
    made = _Inputs.of(first, second, None).corrected(weights, pair(first, second))
    wanted = first @ weights.T
    best = np.linalg.lstsq(second, wanted, rcond=None)[0]
    least, now, before = (apart(second @ w, wanted) for w in (best, made.T, weights.T))
    assert least <= now < before / 20


def test_where_few_tokens_reach_a_product_nothing_is_corrected_and_known_moments_weigh() -> None:
    """The difference of a sample tells of the sample: the moments of all tokens are the calibration's."""
    first, second = streams(40)
    known = second.T @ second / np.float32(20)
    weights = np.random.default_rng(6).standard_normal((16, 64)).astype(np.float32)
    inputs, residuals = _Inputs.of(first, second, [(0, known)]), (first[:, :16], second[:, :16])
    np.testing.assert_array_equal(inputs.corrected(weights, pair(first, second, residuals)), weights)
    kind = tensor_type("Q4_0")
    blocks, _ = inputs.metric(Layout.of(kind)).encode(weights, kind)
    np.testing.assert_array_equal(blocks, Metric(64, [(0, known)], Layout.of(kind)).encode(weights, kind)[0])


def test_a_token_that_is_large_in_the_residual_stream_counts_no_more_than_others() -> None:
    """Some models have such tokens at the beginning of each text: their errors are large, and do not matter."""
    rng = np.random.default_rng(7)
    first, second = streams()
    weights = rng.standard_normal((16, 64)).astype(np.float32)
    residual = rng.standard_normal((len(first), 16)).astype(np.float32)
    apart_by = 0.01 * rng.standard_normal(residual.shape).astype(np.float32)
    usual = pair(first, second, (residual, residual + apart_by))
    large = np.ones((len(first), 1), np.float32)
    large[::256] = 1000
    sunk = pair(first * large, second * large, (residual * large, (residual + apart_by) * large))
    made = []
    for one in (usual, sunk):
        weighed = relative(one, weights)
        made.append(_Inputs.of(*weighed.inputs, None).corrected(weights, weighed))
    others = np.arange(len(first)) % 256 != 0
    wanted = residual + first @ weights.T
    errors = [apart((residual + apart_by + second @ w.T)[others], wanted[others]) for w in made]
    assert errors[1] < 1.05 * errors[0]


def test_equal_inputs_correct_nothing() -> None:
    first, _ = streams()
    weights = np.random.default_rng(6).standard_normal((16, 64)).astype(np.float32)
    assert np.array_equal(_Inputs.of(first, first, None).corrected(weights, pair(first, first)), weights)


def test_half_of_what_the_residual_stream_lost_is_made_up_for() -> None:
    first, _ = streams()
    rng = np.random.default_rng(7)
    weights, lost = (rng.standard_normal((16, 64)).astype(np.float32) for _ in range(2))
    residual = rng.standard_normal((len(first), 16)).astype(np.float32)
    residuals = residual + first @ lost.T, residual
    made = _Inputs.of(first, first, None).corrected(weights, pair(first, first, residuals))
    wanted = first @ (weights + np.float32(RESIDUAL) * lost).T
    assert apart(first @ made.T, wanted) < 0.01 * apart(first @ weights.T, wanted)


def test_whoever_waits_is_told_that_the_other_has_gone() -> None:
    meeting, seen = Meeting(), []

    def offers() -> None:
        try:
            meeting.offer(1)
            meeting.offer(2)
        except Parted:
            seen.append("parted")

    thread = threading.Thread(target=offers)
    thread.start()
    assert meeting.take() == 1
    meeting.finish()
    assert meeting.take() == 2
    meeting.part()
    thread.join(10)
    assert seen == ["parted"]


@needs_library
def test_what_products_are_added_to_is_found(dense: Path) -> None:
    names: list[str] = []
    with Model(dense) as model:
        windows = cut_windows(model, model.tokenize(read_texts([TEXT])), 32, 2)

        def visit(number: int, tensor: object) -> None:
            names.append(model.library.name_of(tensor))

        with closing(Stream(model, windows, visit)) as stream:
            added_to = stream.survey()
            stream.evaluate_all()
    found = {names[a]: names[b] for a, b in added_to.items()}
    layers = range(1, 5)
    assert found.items() >= {f"ffn_out-{i}": f"ffn_inp-{i}" for i in layers}.items()
    assert found.items() >= {f"attn_out-{i}": f"l_out-{i - 1}" for i in layers}.items()


@needs_library
def test_the_copies_meet_once_before_each_product_and_see_the_same(dense: Path) -> None:
    seen: list[str] = []
    with Model(dense) as one, Model(dense, writable=True) as other:
        windows = cut_windows(one, one.tokenize(read_texts([TEXT])), 32, 3)

        def met(found: Pair) -> None:
            seen.append(found.weight)
            assert found.inputs[0].shape == found.inputs[1].shape == (96, 768 if "down" in found.weight else 256)
            assert np.array_equal(*found.inputs)

        Lockstep((one, other), windows, wants=lambda name: True, meet=lambda name: None, pair=met).run()
    kinds = [name.split(".")[2] for name in seen if name.startswith("blk.3.")]
    assert sorted(kinds) == sorted(kind for kind in EVERY if "norm" not in kind)
    assert seen[-1] == "output.weight"
    assert len(seen) == len(set(seen)) == 6 * 7 + 1


@needs_library
@pytest.mark.parametrize("raises", [RequestError("enough"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_what_is_raised_at_a_product_ends_both_copies(dense: Path, raises: BaseException) -> None:
    with Model(dense) as one, Model(dense, writable=True) as other:
        windows = cut_windows(one, one.tokenize(read_texts([TEXT])), 32, 2)

        def met(found: Pair) -> None:
            if found.weight == "blk.1.ffn_up.weight":
                raise raises

        lockstep = Lockstep((one, other), windows, wants=lambda name: True, meet=lambda name: None, pair=met)
        with pytest.raises(type(raises)):
            lockstep.run()
    assert not any(thread.name == "first-copy" for thread in threading.enumerate())


@pytest.fixture(scope="module")
def calibration(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "cal.gguf"
    calibrate(dense, path, CalibrationRun([TEXT], context=128, chunks=8))
    return path


@pytest.mark.long
@needs_library
def test_answers_are_nearer_than_with_each_layer_fitted_by_itself(
    dense: Path, calibration: Path, forge: Forge, tmp_path: Path
) -> None:
    made = [tmp_path / f"{effort}.gguf" for effort in ("high", "max")]
    for path in made:
        run = forge("quantize", dense, path, "Q2_K", "--calibration", calibration, "--effort", path.stem, "-q")
        assert (run.code, run.err) == (0, "")
    judged = evaluate(made, EvaluationTask([TEXT], context=128, chunks=8), against=dense).models
    high, most = (verdict.beside.kl.value for verdict in judged if verdict.beside is not None)
    assert most < 0.85 * high
    with gguf_forge.open(made[1]) as file, gguf_forge.open(made[0]) as other:
        assert file.metadata["quantize.forge.effort"] == "max"
        assert {n: t.type for n, t in file.tensors.items()} == {n: t.type for n, t in other.tensors.items()}


@needs_library
def test_experts_are_fitted_as_otherwise_and_a_checkpoint_is_run_as_it_is(
    routed: Path, forge: Forge, tmp_path: Path
) -> None:
    source, cal = FIXTURES / "models" / "Micro-Mixtral-4x100K", tmp_path / "cal.gguf"
    calibrate(routed, cal, CalibrationRun([TEXT], context=32, chunks=8))
    made = {effort: tmp_path / f"{effort}.gguf" for effort in ("high", "max")}
    for effort, path in made.items():
        run = forge("convert", source, "-o", path, "--type", "Q4_0", "--calibration", cal, "--effort", effort, "-q")
        assert (run.code, run.err) == (0, "")
    with gguf_forge.open(made["high"]) as one, gguf_forge.open(made["max"]) as other:
        changed = {
            name for name, tensor in one.tensors.items() if not np.array_equal(tensor.data, other.tensors[name].data)
        }
    assert {"blk.0.attn_output.weight", "blk.1.attn_q.weight"} <= changed
    assert not any("exps" in name or name == "token_embd.weight" for name in changed)


@needs_library
def test_a_number_that_is_none_is_named(dense: Path, calibration: Path, forge: Forge, tmp_path: Path) -> None:
    broken, out = tmp_path / "broken.gguf", tmp_path / "out.gguf"
    raw = bytearray(dense.read_bytes())
    with gguf_forge.open(dense) as file:
        at = file.tensors["blk.0.attn_output.weight"].offset
    raw[at : at + 2] = b"\x00\x7c"
    broken.write_bytes(raw)
    run = forge("quantize", broken, out, "Q4_K_S", "--calibration", calibration, "--effort", "max", "-q")
    assert run.code == 1
    assert "blk.0.attn_output.weight" in run.err
    assert not out.exists()


@pytest.mark.long
@needs_library
def test_a_row_that_cannot_be_fitted_is_encoded_as_ggml_does(
    dense: Path, calibration: Path, forge: Forge, tmp_path: Path
) -> None:
    """Of four bits and a half float nothing is left of such numbers, and that is said; FP4 has them."""
    large, name = tmp_path / "large.gguf", "output.weight"
    gguf_forge.quantize_file(dense, large, "F32")
    with gguf_forge.open(large) as file:
        at, width = file.tensors[name].offset, file.tensors[name].shape[-1]
    raw = bytearray(large.read_bytes())
    raw[at : at + 4 * width] = np.full(width, 3e9, np.float32).tobytes()
    large.write_bytes(raw)
    asked = ("--calibration", calibration, "--effort", "max", "-q")
    run = forge("quantize", large, tmp_path / "no.gguf", "Q4_0", *asked)
    assert (run.code, f'"{name}"' in run.err) == (1, True)
    run = forge("quantize", large, tmp_path / "out.gguf", "Q4_0", "--tensor-type", "^output=mxfp4", *asked)
    assert (run.code, run.err) == (0, "")
    with gguf_forge.open(tmp_path / "out.gguf") as file:
        np.testing.assert_allclose(file.tensors[name].dequantize()[0], 3e9, rtol=0.2)


def test_it_needs_a_calibration_with_its_text(forge: Forge, dense: Path, tmp_path: Path) -> None:
    run = forge("quantize", dense, tmp_path / "o.gguf", "Q4_K_S", "--effort", "max")
    assert (run.code, "needs a calibration" in run.err) == (2, True)
    with pytest.raises(RequestError, match="needs a calibration"):
        gguf_forge.quantize_file(dense, tmp_path / "o.gguf", "Q4_0", quantization=Quantization(effort="max"))
    assert [*tmp_path.iterdir()] == []


@needs_library
def test_a_longer_text_than_fits_is_cut(calibration: Path, dense: Path) -> None:
    with Calibration.open(calibration) as opened, gguf_forge.open(dense) as file:
        windows = opened.windows()
        assert windows is not None
        views = [*gguf_forge.convert.model.gguf_model(file).views]
        for budget, count in ((1 << 30, 8), (64 << 20, 6), (1 << 20, 1)):
            assert len(Sequential(dense, budget=budget)._that_fits(windows, views, file.metadata)) == count
