"""Runs that are cut off, and go on: the same bytes as of one run, whatever cut it off and wherever."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from gguf_forge import Splitting, convert_checkpoint
from gguf_forge.convert import files, identity, resume, run
from gguf_forge.convert.model import Model, gguf_model
from gguf_forge.errors import ChangedInputError, InvalidError, OutputError, RequestError
from gguf_forge.format.journal import Journal, read_journal
from tests.cli.conftest import Forge, forge
from tests.cli.test_fitted import MODEL as MICRO
from tests.cli.test_fitted import calibration
from tests.convert import resuming
from tests.convert.power_loss import PowerLoss
from tests.convert.resuming import JOURNAL, PART, CutOffError, cut_off, eagerly, f32, quantize, rows_kept, whole
from tests.whole.conftest import MODEL
from tests.whole.killing import Failing, killed, needs_fork

__all__ = ["calibration", "eagerly", "f32", "forge", "whole"]  # fixtures

#: What another process needs to work as `resuming.eager` has it.
WORK = "from tests.convert.resuming import eager, quantize; eager(); "


@pytest.mark.long
@needs_fork
def test_killed_before_every_call(f32: Path, whole: bytes, tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    (start / "a.gguf").write_bytes(b"the old file")
    work = f"{WORK}quantize({str(f32)!r}, work / 'a.gguf')"
    kept = []
    folders = killed(start, work, tmp_path)
    assert len(folders) > 100
    for folder in folders:
        found = folder / "a.gguf"
        assert found.read_bytes() in (b"the old file", whole)
        assert {*os.listdir(folder)} <= {"a.gguf", PART, JOURNAL, f".{JOURNAL}.part"}
        if found.read_bytes() == whole and PART not in os.listdir(folder):
            kept.append(-1)
        elif (folder / JOURNAL).exists() and (folder / PART).exists():
            noted = read_journal(folder / JOURNAL)
            planned = quantize(f32, found, resume=True)
            assert noted is not None
            assert rows_kept(planned)[0] == sum(b - a for _, record in noted.records for _, a, b, *_ in record["done"])
            kept.append(rows_kept(planned)[0])
        else:
            assert any("no run was cut off" in note for note in quantize(f32, found, resume=True).notes)
            kept.append(0)
        assert found.read_bytes() == whole
        assert {*os.listdir(folder)} <= {"a.gguf", f".{JOURNAL}.part", *([JOURNAL] if kept[-1] < 0 else [])}
    assert kept[:5] == [0] * 5
    assert kept[-1] == -1
    middle = [n for n in kept if n >= 0]
    assert middle == sorted(middle)
    assert len({*middle}) > 20


@needs_fork
@pytest.mark.parametrize("more", ["resume=True", "resume=True, splitting=Splitting(max_tensors=5)"])
def test_killed_again_and_again(more: str, f32: Path, tmp_path: Path) -> None:
    """A run that is killed after a few calls more each time gets done in the end."""
    how = {"splitting": Splitting(max_tensors=5)} if "splitting" in more else {}
    (tmp_path / "one").mkdir()
    quantize(f32, tmp_path / "one" / "a.gguf", **how)
    wanted = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    out = tmp_path / "out"
    out.mkdir()
    script = (
        "import os, sys; from gguf_forge import Splitting, system; " + WORK + "n = int(sys.argv[1])\n"
        "def dying(real):\n"
        "    def call(*given):\n"
        "        global n\n"
        "        n -= 1\n"
        "        if n < 0: os._exit(9)\n"
        "        return real(*given)\n"
        "    return call\n"
        "for name in ('write_at', 'flush', 'replace'): setattr(system, name, dying(getattr(system, name)))\n"
        f"quantize({str(f32)!r}, {str(out / 'a.gguf')!r}, {more})\n"
    )
    tries = 1
    while subprocess.run([sys.executable, "-c", script, "45"], check=False).returncode:
        tries += 1
    assert 2 < tries < 40
    assert {path.name: path.read_bytes() for path in out.iterdir()} == wanted


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_process_that_is_killed(share: float, tmp_path: Path) -> None:
    """A real conversion in two threads, whose journal is kept by a third, and a real signal."""
    (plan,) = convert_checkpoint(MODEL, tmp_path / "whole.gguf", "Q4_K_M")
    script = (
        "import os, signal, sys, time\n"
        "from gguf_forge import convert_checkpoint\n"
        "from gguf_forge.convert import resume, run\n"
        "resume.INTERVAL, run.RUN_ELEMENTS = 0.001, 1 << 16\n"
        "journal = os.path.join(os.path.dirname(sys.argv[2]), sys.argv[4])\n"
        "def noted(): return os.path.exists(journal) and b'\"done\"' in open(journal, 'rb').read()\n"
        "def tell(done, total):\n"
        "    time.sleep(0.002)\n"
        "    if done > float(sys.argv[3]) * total:\n"
        "        while not noted(): time.sleep(0.001)\n"  # however slow the disk is
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert_checkpoint(sys.argv[1], sys.argv[2], 'Q4_K_M', threads=2, progress=tell)\n"
    )
    words = [sys.executable, "-c", script, str(MODEL), str(tmp_path / "a.gguf"), str(share), JOURNAL]
    assert subprocess.run(words, check=False).returncode == -9
    assert {*os.listdir(tmp_path)} == {"whole.gguf", PART, JOURNAL}
    (again,) = convert_checkpoint(MODEL, tmp_path / "a.gguf", "Q4_K_M", resume=True)
    kept, total = rows_kept(again)
    assert 0 < kept < total
    assert (tmp_path / "a.gguf").read_bytes() == plan.path.read_bytes()
    assert {*os.listdir(tmp_path)} == {"whole.gguf", "a.gguf"}


@pytest.mark.usefixtures("eager")
@pytest.mark.skipif(os.name == "nt", reason="files have numbers of another kind")
def test_a_power_loss_after_every_call(
    f32: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with monkeypatch.context() as patch:
        loss = PowerLoss(patch)
        quantize(f32, out / "a.gguf")
    rng = np.random.default_rng(0)
    went_on = 0
    for count in range(1, len(loss.events) + 1):
        (out / "a.gguf").unlink()
        for name, data in loss.after(count, rng).items():
            (out / name).write_bytes(data)
        if (out / "a.gguf").exists():
            assert (out / "a.gguf").read_bytes() == whole
        planned = quantize(f32, out / "a.gguf", resume=True)
        went_on += any("goes on" in note for note in planned.notes)
        assert not any("not what the journal says" in note for note in planned.notes)
        assert (out / "a.gguf").read_bytes() == whole
        assert {*os.listdir(out)} <= {"a.gguf", f".{JOURNAL}.part"}
    assert went_on > 100


@pytest.mark.usefixtures("eager")
def test_bytes_that_are_not_what_the_journal_says_are_made_again(f32: Path, whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    cut_off(f32, path)
    part = tmp_path / PART
    raw = bytearray(part.read_bytes())
    raw[4096:8192] = bytes(4096)
    raw[-64:] = b"x" * 64
    part.write_bytes(raw)
    planned = quantize(f32, path, resume=True)
    assert path.read_bytes() == whole
    assert any(re.search(r"[1-9]\d* pieces are not what the journal says, and made again", n) for n in planned.notes)
    cut_off(f32, path)
    part.write_bytes(part.read_bytes()[:5000])  # cut
    assert rows_kept(quantize(f32, path, resume=True))[0] == 0
    assert path.read_bytes() == whole
    cut_off(f32, path)
    part.unlink()
    quantize(f32, path, resume=True)
    assert path.read_bytes() == whole
    assert sorted(os.listdir(tmp_path)) == ["a.gguf", "source", "whole.gguf"]


@pytest.mark.usefixtures("eager")
def test_without_resume_all_is_made_anew(f32: Path, whole: bytes, tmp_path: Path) -> None:
    cut_off(f32, tmp_path / "a.gguf")
    assert not any("goes on" in note for note in quantize(f32, tmp_path / "a.gguf").notes)
    assert (tmp_path / "a.gguf").read_bytes() == whole
    assert sorted(os.listdir(tmp_path)) == ["a.gguf", "source", "whole.gguf"]


def test_a_short_run_that_fails_leaves_nothing(f32: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise CutOffError

    with pytest.raises(CutOffError):
        quantize(f32, tmp_path / "a.gguf", progress=stop)
    assert os.listdir(tmp_path) == ["source"]


def test_an_interrupt_is_told_what_is_kept(
    forge: Forge, f32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eager: None
) -> None:
    failing = Failing("write_at", KeyboardInterrupt(), 20, monkeypatch)
    ended = forge("quantize", f32, tmp_path / "a.gguf", "Q4_0", "--threads", 1)
    assert failing.came
    assert (ended.code, ended.err) == (
        130, "gguf-forge: interrupted; what is finished of a.gguf is kept: --resume goes on with it\n",
    )  # fmt: skip
    monkeypatch.undo()
    ended = forge("quantize", f32, tmp_path / "a.gguf", "Q4_0", "--resume")
    assert ended.code == 0
    assert "a.gguf: goes on, " in ended.err
    assert sorted(os.listdir(tmp_path)) == ["a.gguf", "source"]


@pytest.mark.usefixtures("eager")
def test_a_source_that_changed_is_refused_by_name(f32: Path, whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    cut_off(f32, path)
    raw, times = f32.read_bytes(), f32.stat()
    left = {name: (tmp_path / name).read_bytes() for name in (PART, JOURNAL)}
    for changed, said in (
        (raw + bytes(32), "f32.gguf has another size"),
        (raw, "f32.gguf has another time of change"),
        (raw[:-1] + b"\1", "f32.gguf has another content"),
    ):
        f32.write_bytes(changed)
        with pytest.raises(InvalidError, match=rf"{JOURNAL}: is of another source: .*{said}.* \(without --resume"):
            quantize(f32, path, resume=True)
        assert {name: (tmp_path / name).read_bytes() for name in left} == left
    f32.write_bytes(raw)
    os.utime(f32, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert rows_kept(quantize(f32, path, resume=True))[0] > 0
    assert path.read_bytes() == whole


@pytest.mark.usefixtures("eager")
def test_a_source_that_changes_meanwhile_leaves_nothing(f32: Path, tmp_path: Path) -> None:
    def change(done: int, total: int) -> None:
        if done > 0.6 * total:
            os.utime(f32)

    with pytest.raises(ChangedInputError):
        quantize(f32, tmp_path / "a.gguf", progress=change)
    assert os.listdir(tmp_path) == ["source"]


def with_others(model: Model) -> Model:
    """The model with two tensors of one shape in each other's place."""
    views = {view.name: view for view in model.views}
    one, two = "blk.0.attn_q.weight", "blk.1.attn_q.weight"
    views[one], views[two] = replace(views[two], name=one), replace(views[one], name=two)
    return replace(model, views=[*views.values()])


@pytest.mark.usefixtures("eager")
def test_another_plan_or_encoder_is_refused_by_name(
    f32: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.gguf"
    entry = {"in_sum2": np.ones((1, 64), np.float32), "counts": np.ones((1, 1), np.float32)}
    with gguf_forge.GGUFWriter(tmp_path / "imatrix.gguf", {"general.type": "imatrix"}) as out:
        out.add("imatrix.datasets", ["text"])
        out.add("imatrix.chunk_count", 1)
        out.add("imatrix.chunk_size", 64)
        for suffix, array in entry.items():
            out.add_tensor(f"blk.0.attn_q.weight.{suffix}", array)
    matrix = gguf_forge.load_imatrix(tmp_path / "imatrix.gguf")
    cut_off(f32, path)
    for options, said in (
        ({"type": "Q5_0"}, "another plan: header"),
        ({"metadata": {"general.name": "Other"}}, "another plan: header"),
        ({"quantization": gguf_forge.Quantization(pure=True, prefer="small")}, "another plan: .*codes"),
        ({"quantization": gguf_forge.Quantization(imatrix=matrix)}, "another plan: .*importance"),
    ):
        with pytest.raises(InvalidError, match=said):
            quantize(f32, path, resume=True, **options)
    with monkeypatch.context() as patch:  # whatever a user may ask for that changes rows, and no header
        patch.setattr(files, "gguf_model", lambda file: with_others(gguf_model(file)))
        with pytest.raises(InvalidError, match=r"another plan: rows \(without"):
            quantize(f32, path, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(identity, "encoder_version", lambda: "9.9")
        with pytest.raises(InvalidError, match=r"another encoder: version 0[.\d]+, not 9\.9"):
            quantize(f32, path, resume=True)
    quantize(f32, path, resume=True)
    assert path.read_bytes() == whole


@pytest.mark.usefixtures("eager")
def test_two_at_once(f32: Path, whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    cut_off(f32, path)
    at_work, go_on = threading.Event(), threading.Event()

    def wait(done: int, total: int) -> None:
        at_work.set()
        go_on.wait(60)

    first = threading.Thread(target=quantize, args=(f32, path), kwargs={"resume": True, "progress": wait})
    first.start()
    at_work.wait(60)
    for again in (True, False):
        with pytest.raises(OutputError, match="another writer is making this file"):
            quantize(f32, path, resume=again)
    go_on.set()
    first.join()
    assert path.read_bytes() == whole
    assert sorted(os.listdir(tmp_path)) == ["a.gguf", "source", "whole.gguf"]


def test_a_journal_that_cannot_be_written_is_given_up(
    f32: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eager: None
) -> None:
    for call in ("begin", "add"):
        with monkeypatch.context() as patch:

            def fail(*_: Any) -> None:
                raise OutputError("No space left on device")

            patch.setattr(Journal, call, fail)
            planned = quantize(f32, tmp_path / "a.gguf")
        said = "no journal is kept any more, the file is made all the same: No space left on device"
        assert planned.notes[-1] == said
        assert (tmp_path / "a.gguf").read_bytes() == whole
        assert sorted(os.listdir(tmp_path)) == ["a.gguf", "source", "whole.gguf"]


def test_a_flush_that_fails_ends_the_run(f32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the thread that keeps the journal: the file is never said to be whole."""
    monkeypatch.setattr(resume, "INTERVAL", 0.001)
    ends = []
    for at in range(7):  # of the file, the new journal, their folder, the file, the journal, ...
        (tmp_path / "a.gguf").unlink(missing_ok=True)
        failing = Failing("flush", OSError(5, "Input/output error"), at, monkeypatch)
        try:
            planned = quantize(f32, tmp_path / "a.gguf", progress=lambda done, total: time.sleep(0.01))
        except OutputError as error:
            ends.append(error.text)
            left = {"source", PART, JOURNAL}
        else:
            ends.append(planned.notes[-1])
            left = {"source", "a.gguf"}
        assert {*os.listdir(tmp_path)} <= left
        assert failing.came
    said = "no journal is kept any more, the file is made all the same: "
    assert [end.removeprefix(said).rpartition(": ")[2] for end in ends] == ["Input/output error"] * 7
    assert [end.startswith(said) for end in ends] == [False, True, True, False, True, False, True]


@pytest.mark.usefixtures("eager")
def test_several_types_of_one_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RUN_ELEMENTS", 1 << 18)
    types = "f16,Q4_K_M,Q8_0"
    made = convert_checkpoint(MODEL, tmp_path / "{ftype}.gguf", types)
    wanted = {plan.path.name: sha256(plan.path.read_bytes()).hexdigest() for plan in made}
    for plan in made:
        plan.path.unlink()

    def stop(done: int, total: int) -> None:
        if done > 0.5 * total:
            raise CutOffError

    with pytest.raises(CutOffError):
        convert_checkpoint(MODEL, tmp_path / "{ftype}.gguf", types, progress=stop, threads=1)
    again = convert_checkpoint(MODEL, tmp_path / "{ftype}.gguf", types, resume=True)
    assert [sum("goes on" in note for note in plan.notes) for plan in again] == [1, 1, 1]
    assert {p.name: sha256(p.read_bytes()).hexdigest() for p in tmp_path.iterdir()} == wanted


def test_rows_that_are_fitted_to_a_calibration(
    calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fitted in other runs of rows, gone on with, and in parts: the same bytes."""
    output = tmp_path / "a.gguf"
    with gguf_forge.Calibration.open(calibration) as opened:
        how = gguf_forge.Quantization(calibration=opened)
        (plan,) = convert_checkpoint(MICRO, tmp_path / "whole.gguf", "Q4_0", quantization=how)
        assert plan.metadata["quantize.forge.effort"].value == "high"
        monkeypatch.setattr(files, "saving", resuming.at_once)
        monkeypatch.setattr(run, "RUN_ELEMENTS", 1000)

        def stop(done: int, total: int) -> None:
            if done > 0.6 * total:
                raise CutOffError

        with pytest.raises(CutOffError):
            convert_checkpoint(MICRO, output, "Q4_0", quantization=how, threads=1, progress=stop)
        with pytest.raises(InvalidError, match=r"another plan: .*importance"):
            convert_checkpoint(MICRO, output, "Q4_0", resume=True)
        (again,) = convert_checkpoint(MICRO, output, "Q4_0", quantization=how, resume=True)
        assert rows_kept(again)[0] > 0
        assert output.read_bytes() == plan.path.read_bytes()
        parts = [
            convert_checkpoint(MICRO, output, "Q4_0", quantization=how, part=(i, 5))[0].path for i in range(1, 6)
        ]
    gguf_forge.join(output, parts)
    assert output.read_bytes() == plan.path.read_bytes()


@pytest.mark.usefixtures("eager")
def test_what_was_found_in_rows_is_not_forgotten(f32: Path, tmp_path: Path) -> None:
    broken = np.zeros((64, 64), np.float32)
    broken[3, 5] = np.nan
    source = resuming.source(tmp_path / "source", arrays={"blk.0.attn_q.weight": broken})
    how = gguf_forge.Quantization(allow_nonfinite=True)
    options: dict[str, Any] = {"type": "F16", "quantization": how}
    said = quantize(source, tmp_path / "whole.gguf", **options).notes
    cut_off(source, tmp_path / "a.gguf", **options)
    again = quantize(source, tmp_path / "a.gguf", resume=True, **options)
    assert again.notes[-1] == said[-1] == "blk.0.attn_q.weight: NaN at row 3, column 5"
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


@pytest.mark.usefixtures("eager")
def test_a_set_is_gone_on_with(f32: Path, tmp_path: Path) -> None:
    cut: dict[str, Any] = {"splitting": Splitting(max_tensors=7)}
    wanted = [s.path.read_bytes() for s in quantize(f32, tmp_path / "whole.gguf", **cut).shards]

    def stop(done: int, total: int) -> None:
        if done > 0.6 * total:
            raise CutOffError

    with pytest.raises(CutOffError):
        quantize(f32, tmp_path / "a.gguf", progress=stop, **cut)
    left = sorted(name for name in os.listdir(tmp_path) if name.startswith("."))
    assert left == [".a-00001-of-00003.gguf.journal", *(f".a-{i:05}-of-00003.gguf.part" for i in (1, 2, 3))]
    again = quantize(f32, tmp_path / "a.gguf", resume=True, **cut)
    assert rows_kept(again)[0] > 0
    assert [shard.path.read_bytes() for shard in again.shards] == wanted


def test_effort_max_is_not_resumed(f32: Path, tmp_path: Path) -> None:
    calibration: Any = object()
    how = gguf_forge.Quantization(calibration=calibration, effort="max", sequential=gguf_forge.Sequential(f32))
    made: Any = type("Outputs", (), {"resume": True, "part": None, "splitting": None, "stream": None})()
    with pytest.raises(RequestError, match="effort max cannot be resumed: what it makes of a layer depends on"):
        files._require_cuttable(made, how.sequential)
