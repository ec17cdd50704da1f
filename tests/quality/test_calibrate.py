"""Importance matrices equal llama-imatrix's; covariances equal those of the inputs; files are what they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gguf_forge.errors import ForgeError, InputError, RequestError
from gguf_forge.quality.calibrate import CalibrationRun, _survey, calibrate, make_imatrix, widest_block
from gguf_forge.quality.merging import merged_imatrix
from gguf_forge.quality.moments import Collector, Inputs
from gguf_forge.quality.session import Ending, Model, Product, Session, cut_windows, read_texts
from gguf_forge.quant.calibration import Calibration
from gguf_forge.quant.imatrix import load_imatrix, save_imatrix
from tests.cli.conftest import Forge
from tests.quality.conftest import FIXTURES, TEXT, needs_library

GOLDEN = FIXTURES / "quality" / "imatrix-stdlib.gguf"
pytestmark = needs_library


def short(tmp_path: Path, size: int = 9000) -> Path:
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.read_bytes()[:size])
    return path


class SeenError(Exception):
    """All that is judged has been seen; the rest of the model need not be computed."""


@pytest.mark.long
def test_the_first_layer_s_entries_are_those_of_llama_imatrix(dense: Path) -> None:
    # tests/runtime has all of them, and bit for bit, which takes longer
    collector = Collector()

    def observe(product: Product) -> None:
        collector.observe(product)
        if product.weight == "blk.0.ffn_down.weight":
            raise SeenError

    with Model(dense) as model, Session(model, 256, threads=1, observe=observe, wants=collector.wants) as session:
        windows = cut_windows(model, model.tokenize(read_texts([TEXT])), 256)
        for at in range(0, len(windows), 2):  # the tokens that the library computes with at a time
            with pytest.raises(SeenError):
                session.evaluate(windows[at : at + 2])
    golden = {name: entry for name, entry in load_imatrix(GOLDEN).entries.items() if name.startswith("blk.0.")}
    assert sorted(collector.inputs) == sorted(golden)
    for name, entry in golden.items():
        found = collector.inputs[name].entry
        assert np.array_equal(found.counts, entry.counts)
        assert np.allclose(found.sums, entry.sums, rtol=1e-3), name  # tokens came in another order


@pytest.mark.long
def test_a_run_that_goes_on_makes_the_same_file(dense: Path, forge: Forge, tmp_path: Path) -> None:
    text, parts, whole = short(tmp_path), tmp_path / "parts.gguf", tmp_path / "whole.gguf"
    options = ("-f", text, "-c", 64, "--threads", 1, "--save-frequency", 32)
    assert forge("imatrix", dense, "-o", whole, *options, "--chunks", 40).code == 0
    assert forge("imatrix", dense, "-o", parts, *options, "--chunks", 32).code == 0
    assert load_imatrix(parts).chunks == 32
    assert forge("imatrix", dense, "-o", parts, *options, "--chunks", 40, "--resume").code == 0
    assert parts.read_bytes() == whole.read_bytes()
    run = forge("imatrix", dense, "-o", parts, "-f", text, "-c", 32, "--resume")
    assert (run.code, "cannot go on with it" in run.err) == (2, True)


def test_matrices_are_added_up(dense: Path, forge: Forge, tmp_path: Path) -> None:
    text, one, two, both = short(tmp_path), tmp_path / "1.gguf", tmp_path / "2.gguf", tmp_path / "both.gguf"
    make_imatrix(dense, one, CalibrationRun([text], context=64, chunks=4))
    make_imatrix(dense, two, CalibrationRun([text], context=64, chunks=5, skip=4))
    assert forge("imatrix", "--in-file", one, "--in-file", two, "-o", both).code == 0
    a, b, c = load_imatrix(one), load_imatrix(two), load_imatrix(both)
    assert c.chunks == 9
    for name, entry in c.entries.items():
        assert np.array_equal(entry.sums, a.entries[name].sums + b.entries[name].sums)
        assert np.array_equal(entry.counts, a.entries[name].counts + b.entries[name].counts)


def test_texts_are_read_by_turns(dense: Path, tmp_path: Path) -> None:
    text, other = short(tmp_path), tmp_path / "other.txt"
    other.write_text("".join(f"line {i} of a text unlike the other\n" for i in range(400)))
    made = {}
    for name, texts, chunks in (("one", [text], 2), ("two", [other], 2), ("both", [text, other], 4)):
        make_imatrix(dense, tmp_path / name, CalibrationRun(texts, context=64, chunks=chunks))
        made[name] = load_imatrix(tmp_path / name)
    assert made["both"].datasets == (str(text), str(other))
    for name, entry in made["both"].entries.items():
        alone = made["one"].entries[name].sums + made["two"].entries[name].sums
        assert np.allclose(entry.sums, alone, rtol=1e-4), name


def test_the_older_form_is_written_and_not_mixed_with_the_newer(dense: Path, forge: Forge, tmp_path: Path) -> None:
    text, old, new = short(tmp_path), tmp_path / "old.dat", tmp_path / "new.gguf"
    for path in (old, new):
        assert forge("imatrix", dense, "-o", path, "-f", text, "-c", 64, "--chunks", 4).code == 0
    assert load_imatrix(old).legacy
    for name, entry in load_imatrix(new).entries.items():
        assert np.allclose(load_imatrix(old).entries[name].weights(), entry.weights(), rtol=1e-6)
    with pytest.raises(RequestError, match="not added to others"):
        merged_imatrix([load_imatrix(old), load_imatrix(new)], "x")


def test_covariances_are_those_of_the_inputs(dense: Path, tmp_path: Path) -> None:
    text, out = short(tmp_path), tmp_path / "calibration.gguf"
    run = CalibrationRun([text], context=64, chunks=6, threads=2)
    calibrate(dense, out, run)
    seen: dict[str, list[np.ndarray]] = {}

    def observe(product: Product) -> None:
        seen.setdefault(product.weight, []).append(product.inputs().reshape(-1, product.width).astype(np.float64))

    with Model(dense) as model:
        tokens = cut_windows(model, model.tokenize(read_texts([text])), 64, 6)
        with Session(model, 64, threads=2, observe=observe) as session:
            session.evaluate(tokens)
    with Calibration.open(out) as calibration:
        assert set(calibration.names) == set(seen)
        assert "output.weight" not in calibration.imatrix.entries
        for name, rows in seen.items():
            x = np.concatenate(rows)
            found = calibration.covariance(name)
            assert found is not None
            assert (found.width, found.tokens, len(found.blocks)) == (x.shape[1], 384, 1)
            assert calibration.tokens(name) == 384
            exact = x.T @ x / len(x)
            scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
            assert np.abs((found.blocks[0][1] - exact) / scale).max() < 1e-5, name
        q, k, up = (calibration.covariance(f"blk.1.{name}.weight") for name in ("attn_q", "attn_k", "ffn_up"))
        assert q is not None
        assert k is not None
        assert up is not None
        assert q.shared_key == k.shared_key != up.shared_key
        assert calibration.metadata["forge.calibration.tokens"] == 384
        windows = calibration.windows()
        assert windows is not None
        assert np.array_equal(windows, tokens)


@pytest.mark.long
def test_a_calibration_that_goes_on_is_the_same_file(dense: Path, forge: Forge, tmp_path: Path) -> None:
    text, parts, whole = short(tmp_path), tmp_path / "parts.gguf", tmp_path / "whole.gguf"
    options = ("-f", text, "-c", 64, "--threads", 1, "--process-output")
    assert forge("calibrate", dense, "-o", whole, *options, "--chunks", 40).code == 0
    assert forge("calibrate", dense, "-o", parts, *options, "--chunks", 32, "--save-frequency", 32).code == 0
    assert forge("calibrate", dense, "-o", parts, *options, "--chunks", 40, "--resume").code == 0
    assert parts.read_bytes() == whole.read_bytes()
    assert forge("calibrate", dense, "-o", parts, *options, "--chunks", 40, "--resume").code == 0  # nothing is left
    assert parts.read_bytes() == whole.read_bytes()
    other = tmp_path / "other.txt"
    other.write_bytes(TEXT.read_bytes()[9000:18000])
    for words in (("-f", other, "-c", 64), ("-f", text, "-c", 32), ("-f", text, "-c", 64, "--chunks", 3)):
        run = forge("calibrate", dense, "-o", parts, *words, "--resume")
        assert (run.code, "cannot go on with it: it is of 40 windows" in run.err) == (2, True)


def test_calibrations_are_added_up(dense: Path, forge: Forge, tmp_path: Path) -> None:
    text = short(tmp_path)
    one, two, both, added = (tmp_path / f"{name}.gguf" for name in ("1", "2", "both", "added"))
    options = ("-f", text, "-c", 64)
    assert forge("calibrate", dense, "-o", one, *options, "--chunks", 4).code == 0
    assert forge("calibrate", dense, "-o", two, *options, "--chunk", 4, "--chunks", 5).code == 0
    assert forge("calibrate", "--in-file", one, "--in-file", two, "-o", both).code == 0
    assert forge("calibrate", dense, "-o", added, *options, "--chunk", 4, "--chunks", 5, "--in-file", one).code == 0
    with Calibration.open(one) as a, Calibration.open(two) as b:
        for path in (both, added):
            with Calibration.open(path) as c:
                windows = [calibration.windows() for calibration in (a, b, c)]
                assert np.array_equal(np.concatenate(windows[:2]), windows[2])  # type: ignore[arg-type]
                assert (c.imatrix.chunks, c.metadata["forge.calibration.tokens"]) == (9, 9 * 64)
                for name in c.names:
                    assert c.tokens(name) == 9 * 64
                    x, y, z = (calibration.covariance(name) for calibration in (a, b, c))
                    assert x is not None
                    assert y is not None
                    assert z is not None
                    mean = (x.blocks[0][1] * x.tokens + y.blocks[0][1] * y.tokens) / (x.tokens + y.tokens)
                    assert np.allclose(z.blocks[0][1], mean, rtol=1e-4, atol=1e-5 * np.abs(mean).max())
                for name, entry in c.imatrix.entries.items():
                    sums = a.imatrix.entries[name].sums + b.imatrix.entries[name].sums
                    assert np.allclose(entry.sums, sums, rtol=1e-4)


def test_calibrations_that_do_not_fit_are_one_line(dense: Path, routed: Path, forge: Forge, tmp_path: Path) -> None:
    text, one, out = short(tmp_path), tmp_path / "1.gguf", tmp_path / "out.gguf"
    assert forge("calibrate", dense, "-o", one, "-f", text, "-c", 64, "--chunks", 4).code == 0
    others: dict[str, tuple[Path, list[str]]] = {
        "of another size": (dense, ["-c", "32"]),
        "another model": (routed, ["-c", "64"]),
        "of another width": (dense, ["-c", "64", "--memory", "5M"]),
    }
    for said, (model, words) in others.items():
        two = tmp_path / f"{said}.gguf"
        assert forge("calibrate", model, "-o", two, "-f", text, "--chunks", 4, *words).code == 0
        for rest in (("--in-file", two, "--in-file", one), (dense, "-f", text, "-c", 64, "--in-file", two)):
            if rest[0] is dense and said == "of another width":
                continue  # the model's are then gathered in such blocks, too
            run = forge("calibrate", *rest, "-o", out)
            assert (run.code, said in run.err, out.exists()) == (2, True, False), run.err
    run = forge("calibrate", dense, "-f", text, "-c", 64, "--in-file", one, "--resume", "-o", out)
    assert (run.code, "not both" in run.err) == (2, True)


def test_the_output_matrix_is_not_computed_for_its_input(dense: Path, tmp_path: Path) -> None:
    with Model(dense) as model:
        windows = cut_windows(model, model.tokenize(read_texts([short(tmp_path)])), 64, 2)
        _, ending = _survey(model, windows, CalibrationRun([], context=64, threads=1))
        assert ending == Ending("result_norm", "output.weight")
        logits: list[np.ndarray] = []
        collectors = [Collector(output=True), Collector(output=True)]
        for collector, end in zip(collectors, (None, ending), strict=True):
            with Session(model, 64, threads=1, observe=collector.observe, wants=collector.wants, ending=end) as session:
                found = session.evaluate(windows)
                assert found is not None
                logits.append(found.copy())
    assert not np.allclose(logits[0], logits[1])  # nobody made them the second time
    whole, short_of_it = collectors
    assert whole.inputs.keys() == short_of_it.inputs.keys()
    for name, inputs in whole.inputs.items():
        assert np.array_equal(inputs.squares, short_of_it.inputs[name].squares)


def test_a_budget_cuts_wide_inputs_into_blocks(dense: Path, forge: Forge, tmp_path: Path) -> None:
    text, whole, cut = short(tmp_path), tmp_path / "whole.gguf", tmp_path / "cut.gguf"
    for path, memory in ((whole, "1G"), (cut, "5M")):
        run = forge("calibrate", dense, "-o", path, "-f", text, "-c", 64, "--chunks", 4, "--memory", memory)
        assert run.code == 0, run.err
    assert "blocks of at most 256 columns" in run.err
    assert cut.stat().st_size < 5 << 20 < whole.stat().st_size
    with Calibration.open(whole) as full, Calibration.open(cut) as blocks:
        one, other = full.covariance("blk.0.ffn_down.weight"), blocks.covariance("blk.0.ffn_down.weight")
        assert one is not None
        assert other is not None
        assert [(start, len(block)) for start, block in other.blocks] == [(0, 256), (256, 256), (512, 256)]
        for start, block in other.blocks:
            assert np.array_equal(block, one.blocks[0][1][start : start + 256, start : start + 256])


def test_experts_have_covariances_of_their_own(routed: Path, forge: Forge, tmp_path: Path) -> None:
    text, out = short(tmp_path), tmp_path / "calibration.gguf"
    run = forge("calibrate", routed, "-o", out, "-f", text, "-c", 32, "--chunks", 8, "--verbose")
    assert run.code == 0, run.err
    assert "blk.0.ffn_gate_exps.weight: 0 of 4 experts saw no token; the fewest: " in run.err
    with Calibration.open(out) as calibration:
        name = "blk.0.ffn_down_exps.weight"
        entry = calibration.imatrix.entries[name]
        tokens = [calibration.tokens(name, expert) for expert in range(4)]
        assert tokens == entry.counts.tolist()
        assert sum(tokens) == 2 * 8 * 32  # each token goes through two
        keys = set()
        for expert in range(4):
            found = calibration.covariance(name, expert)
            assert found is not None
            squares = np.diagonal(found.blocks[0][1]) * tokens[expert]
            assert np.allclose(squares, entry.sums[expert], rtol=1e-4)
            keys.add(found.shared_key)
        assert len(keys) == 4
        with pytest.raises(ForgeError, match="no matrix 4"):
            calibration.covariance(name, 4)


def test_a_checkpoint_is_converted_on_the_way(forge: Forge, tmp_path: Path) -> None:
    out = tmp_path / "imatrix.gguf"
    source = FIXTURES / "models" / "PyLlama-7M"
    assert forge("imatrix", source, "-o", out, "-f", short(tmp_path), "-c", 64, "--chunks", 2).code == 0
    assert load_imatrix(out).entries.keys() == load_imatrix(GOLDEN).entries.keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["imatrix.gguf", "text.txt"]


def test_what_cannot_be_run_is_one_line_and_no_file(dense: Path, forge: Forge, tmp_path: Path) -> None:
    out, text = tmp_path / "x.gguf", short(tmp_path, 200)
    cases = {
        ("calibrate", dense, "-f", text): "two windows of 512 are the least",
        ("calibrate", dense, "-f", tmp_path / "none"): "none: No such file",
        ("calibrate", tmp_path / "none", "-f", text): "none: no such file",
        ("calibrate", dense, "-f", text, "-c", 16, "--memory", 1000): "second moments of 25 inputs take",
        ("imatrix", dense, "-f", TEXT, "-c", 256, "--chunk", 139): "no window is left",
        ("imatrix", dense): "no text given",
        ("calibrate", dense, "-f", text, "--memory", "much"): "no number of bytes",
    }
    for words, said in cases.items():
        run = forge(*words, "-o", out)
        assert run.code in (1, 2), words
        assert said in run.err
        assert not out.exists()
    with pytest.raises(InputError):
        make_imatrix(tmp_path / "none", out, CalibrationRun([text]))


def test_the_widest_blocks_that_fit_are_chosen() -> None:
    inputs = [Inputs([str(w)], np.zeros((1, w), np.float32), np.zeros(1, np.int64), False) for w in (4096, 14336)]
    whole = sum(w // 16 * (w // 16 + 1) // 2 * 1024 for w in (4096, 14336))
    assert widest_block(inputs, whole) is None
    assert widest_block(inputs, whole - 1) == 8192
    assert widest_block(inputs, 40 << 20) == 1024


def test_a_matrix_of_another_shape_is_not_added(dense: Path, tmp_path: Path) -> None:
    text, other = short(tmp_path), tmp_path / "other.gguf"
    golden = load_imatrix(GOLDEN)
    name = "blk.0.attn_q.weight"
    wrong = golden.entries["blk.0.ffn_down.weight"]
    save_imatrix(type(golden)("x", {name: wrong}, ("x",), 139, 256), other)
    with pytest.raises(RequestError, match=name):
        make_imatrix(dense, tmp_path / "out.gguf", CalibrationRun([text], context=256, chunks=2), merge=[other])
    with pytest.raises(RequestError, match=name):
        make_imatrix(None, tmp_path / "out.gguf", CalibrationRun([]), merge=[GOLDEN, other])
