"""`make test-cuda`: on a GPU where there is one, and rehearsed on an emulated one, which fails in every way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_forge.cuda import driver as drivers
from gguf_forge.cuda.driver import CudaError
from tests.cuda import __main__ as command
from tests.cuda import host, toolkit
from tests.cuda.conftest import SLOW
from tests.cuda.rehearsal import VARIABLE
from tests.cuda.results import Record, Results
from tests.cuda.stub import Stub

#: Only the part that takes every type both ways on little data.
BITS = ["--little", "--quick", "--without", "copy", "edges"]


@pytest.fixture
def rehearsal(compiled: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment in which workers find the library in the driver's place, and no programs of the toolkit."""
    monkeypatch.setenv("GGUF_FORGE_CUDA", str(compiled.path))
    monkeypatch.setenv("GGUF_FORGE_KERNELS", str(compiled.kernels))
    monkeypatch.setattr(toolkit, "tool", lambda name: shutil.which(name, path=str(tmp_path)))
    return tmp_path / "out"


def rehearse(
    monkeypatch: pytest.MonkeyPatch, out: Path, what: str, *more: str, emulated: bool = True
) -> tuple[int, list[Record]]:
    """The command's status, and its results."""
    if emulated and not os.environ.get("CUDA_HOST"):
        pytest.skip(SLOW)
    if emulated:
        host.library()
    monkeypatch.setenv(VARIABLE, what)
    status = command.main(["--out", str(out), *more])
    return status, Results(out / "results.jsonl").all()


def wrong(records: list[Record]) -> dict[str, Record]:
    return {r["item"]: r for r in records if "item" in r and ("failed" in r or r.get("equal") is False)}


@pytest.mark.gpu
def test_on_a_gpu(tmp_path: Path) -> None:
    """Little data, in a process of its own."""
    try:
        drivers.driver()
    except CudaError as error:
        pytest.skip(str(error))
    given = [sys.executable, "-m", "tests.cuda", "--little", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(given, cwd=host.ROOT, capture_output=True, text=True, check=False)
    if "test-cuda: skipped" in done.stdout:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout


def test_without_one_it_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GGUF_FORGE_CUDA", str(tmp_path / "none.so"))
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    assert command.main(["--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("test-cuda: skipped: GGUF_FORGE_CUDA: cannot be loaded")
    assert not (tmp_path / "out/table.md").exists()


def test_a_device_without_its_driver_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path / "nvidia-smi", "echo 'GPU 0: a card'")
    monkeypatch.setenv("GGUF_FORGE_CUDA", str(tmp_path / "none.so"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert command.main(["--out", str(tmp_path / "out")]) == 1
    assert "nvidia-smi says: GPU 0: a card" in capsys.readouterr().out


def test_rehearsed(
    rehearsal: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All parts, on kernels that are right."""
    status, records = rehearse(monkeypatch, rehearsal, "emulated", "--little")
    assert not wrong(records)
    assert status == 0
    page = (rehearsal / "table.md").read_text()
    assert page in capsys.readouterr().out
    named = ("| Q4_K |", "| IQ2_XXS |", "| MXFP4, 37 x 1024 |", "the same file", "- cupy: ", "no compute-sanitizer")
    for what in named:
        assert what in page
    assert {r["part"] for r in records if r.get("end")} >= {"bits", "edges", "decode", "encode", "products", "large"}


def test_kernels_that_do_nothing_are_told(
    rehearsal: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, records = rehearse(monkeypatch, rehearsal, "nothing", *BITS, emulated=False)
    assert status == 1
    found = wrong(records)
    assert {"decode Q4_K float32", "encode IQ2_XXS with", "product MXFP4 float16"} <= found.keys()
    assert found["decode Q4_K float32"]["again"] == "the same"
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("test-cuda: NOT WELL: bits: decode Q4_K float32")


def test_one_byte_is_told(rehearsal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With where it is, the blocks, and what the core makes of them."""
    parts = ["bits", "edges", "encode", "products", "model", "torch", "cupy", "large"]
    more = ["--little", "--without", *parts]
    status, records = rehearse(monkeypatch, rehearsal, "spoil forge_decode_q4_k_f32", *more)
    assert status == 1
    assert wrong(records).keys() == {"Q4_K float32"}
    told = wrong(records)["Q4_K float32"]
    assert (told["different"], told["first"], told["again"]) == (1, [2], "the same")
    with np.load(rehearsal / "unequal.npz") as kept:
        found = {name.rpartition("/")[2]: kept[name] for name in kept.files}
    apart = np.flatnonzero(found["gpu"].reshape(-1) != found["core"].view(np.uint8).reshape(-1))
    assert apart.tolist() == [9]
    assert (found["core"].view(np.uint32) == found["plain"].view(np.uint32)).all()
    assert found["inputs"].shape == (1, 144)


@pytest.mark.parametrize(
    ("what", "said"),
    [("hang", "hung: nothing for"), ("die", "the worker died (SIGABRT)"), ("lose", "CUDA: a kernel reached")],
)
def test_another_worker_goes_on(what: str, said: str, rehearsal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that never ends, one that takes the process along, and one that loses the device: one item each."""
    more = [*BITS, "--patience", "0.25"]
    status, records = rehearse(monkeypatch, rehearsal, f"{what} forge_decode_q6_k_f16", *more)
    assert status == 1
    assert wrong(records).keys() == {"decode Q6_K float16"}
    assert wrong(records)["decode Q6_K float16"]["failed"].find(said) >= 0
    assert any(r.get("end") for r in records if r["part"] == "bits")


def test_a_worker_that_does_not_start_is_told(rehearsal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is too old for the kernels is no success, though there is a device."""
    status, records = rehearse(monkeypatch, rehearsal, "refuse", *BITS, emulated=False)
    assert status == 1
    assert "too old for these kernels" in wrong(records)["(start)"]["failed"]


def test_no_time_is_told(rehearsal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, records = rehearse(monkeypatch, rehearsal, "nothing", *BITS, "--minutes", "0.0001", emulated=False)
    assert status == 1
    assert (rehearsal / "table.md").exists()
    assert any("cut" in r for r in records)


@pytest.mark.parametrize(
    ("change", "made_of", "said"),
    [
        ({"threads": 32}, None, "not started as the sources say"),
        ({}, "0" * 64, "not made as the sources say"),
        ({}, toolkit.builder()["sources"](), "without machine code for sm_90"),
        ({}, None, "without machine code for sm_90"),
    ],
    ids=["started otherwise", "older", "of another device", "of unknown sources"],
)
def test_kernels_of_other_sources(
    change: dict[str, Any], made_of: str | None, said: str, rehearsal: Path, compiled: Stub,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """Kernels made or started as other sources say are refused; those for other devices are tried, which is said."""
    listed = json.loads((compiled.kernels / "kernels.json").read_text())
    for row in listed.values():
        row["resources"] = {"75": {"registers": 32, "stack": 0, "spilled": 0}}
        row["launch"] = {**row["launch"], **change}
    (tmp_path / "kernels.json").write_text(json.dumps(listed))
    if made_of is not None:
        (tmp_path / "sources").write_text(made_of)
    shutil.copy(compiled.kernels / "all.fatbin", tmp_path)
    monkeypatch.setenv("GGUF_FORGE_KERNELS", str(tmp_path))
    status, records = rehearse(monkeypatch, rehearsal, "nothing", *BITS, emulated=False)
    assert status == 1
    [about] = [r for r in records if r["part"] == "kernels"]
    assert said in str(about.get("failed") or about["kernels"])
    assert ("failed" in about) == ("as the sources say" in said)


@pytest.mark.parametrize(("errors", "end"), [(0, 0), (2, 1)])
def test_what_compute_sanitizer_says_counts(
    errors: int, end: int, rehearsal: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program in its place, which runs the worker and sums up."""
    sanitizer(tmp_path, errors)
    parts = ["copy", "bits", "edges", "decode", "encode", "products", "model", "torch", "cupy", "large", "copy after"]
    more = ["--little", "--without", *parts, "racecheck"]
    status, records = rehearse(monkeypatch, rehearsal, "emulated", *more)
    assert status == end
    assert wrong(records).keys() == ({"summary"} if errors else set())
    assert f"{errors} errors" in (rehearsal / "memcheck.log").read_text()
    assert sum(r["part"] == "memcheck" and "item" in r for r in records) > 190


def test_in_a_folder_where_nothing_is_installed(
    rehearsal: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A checkout and the core alone, its packages from PYTHONPATH; a conversion, too, and nothing from elsewhere."""
    if not os.environ.get("CUDA_HOST"):
        pytest.skip(SLOW)
    host.library()
    listed = subprocess.run(["git", "ls-files"], cwd=host.ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git here")
    bare, needed = tmp_path / "bare", ("gguf_forge/", "converters/", "native/", "tests/", "fixtures/", "pyproject.toml")
    names = [name for name in listed.stdout.splitlines() if name.startswith(needed) and (host.ROOT / name).is_file()]
    cores = [str(p.relative_to(host.ROOT)) for p in (host.ROOT / "gguf_forge").glob("_core*.so")]
    emulated = host.ROOT / "build/cuda-host/emulated.so"
    for name in [*names, *cores, str(emulated.relative_to(host.ROOT))]:
        (bare / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(host.ROOT / name, bare / name)
    (bare / emulated.relative_to(host.ROOT)).touch()
    monkeypatch.setenv("PYTHONPATH", str(Path(np.__file__).parents[1]))
    monkeypatch.setenv(VARIABLE, "emulated")
    more = ["--little", "--out", str(rehearsal), "--without", "bits", "edges", "decode", "encode", "products"]
    line = [sys.executable, "-S", "-m", "tests.cuda", *more]
    done = subprocess.run(line, cwd=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same file" in done.stdout


def test_a_lost_device_is_asked_for_again(rehearsal: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On little data under compute-sanitizer, whose words are kept."""
    sanitizer(tmp_path, 1)
    _, records = rehearse(monkeypatch, rehearsal, "lose forge_encode_q6_k", *BITS)
    again = [r for r in records if r["part"] == "again: encode Q6_K without" and "item" in r]
    assert [r["code"] for r in again] == [700]
    assert (rehearsal / "memcheck.log").read_text().count("ERROR SUMMARY: 1 errors") == 2  # with importances, too


def sanitizer(folder: Path, errors: int) -> None:
    """A program in the place of compute-sanitizer."""
    script = f"""
    while [ "${{1#--}}" != "$1" ]; do [ "$1" = --log-file ] && log=$2; shift 2; done
    "$@"; code=$?; echo "========= ERROR SUMMARY: {errors} errors" > "$log"; exit $code
    """
    program(folder / "compute-sanitizer", script)


def program(path: Path, script: str) -> None:
    """Writes a program for the shell."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
