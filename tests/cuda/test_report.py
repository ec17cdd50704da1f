"""`make test-cuda`: on a GPU where there is one, and rehearsed on an emulated one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gguf_forge.cuda import device as devices
from gguf_forge.cuda import driver as drivers
from gguf_forge.cuda.driver import CudaError
from tests.cuda import __main__ as command
from tests.cuda import host
from tests.cuda.conftest import SLOW
from tests.cuda.stub import Stub


def run(monkeypatch: pytest.MonkeyPatch, table: Path, *more: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tests.cuda", "--small", "--table", str(table), *more])
    return command.main()


@pytest.mark.gpu
def test_on_a_gpu(tmp_path: Path) -> None:
    """Little data, in a process of its own."""
    try:
        drivers.driver()
    except CudaError as error:
        pytest.skip(str(error))
    given = [sys.executable, "-m", "tests.cuda", "--small", "--only-bits", "--table", str(tmp_path / "t.md")]
    done = subprocess.run(given, cwd=host.ROOT, capture_output=True, text=True, check=False)
    if "test-cuda: skipped" in done.stdout:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout


def test_without_one_it_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GGUF_FORGE_CUDA", str(tmp_path / "none.so"))
    drivers.driver.cache_clear()
    assert run(monkeypatch, tmp_path / "t.md") == 0
    assert capsys.readouterr().out.startswith("test-cuda: skipped: GGUF_FORGE_CUDA: cannot be loaded")
    assert not (tmp_path / "t.md").exists()


def test_rehearsed(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All stages; where a kernel writes one other byte, the table and the exit status tell."""
    if not os.environ.get("CUDA_HOST"):
        pytest.skip(SLOW)
    monkeypatch.setenv("GGUF_FORGE_CUDA", str(stub.path))
    monkeypatch.setenv("GGUF_FORGE_KERNELS", str(stub.kernels))
    drivers.driver.cache_clear()
    devices._device.cache_clear()
    stub.reset(emulated=True)
    assert run(monkeypatch, tmp_path / "t.md") == 0
    page = (tmp_path / "t.md").read_text()
    assert page in capsys.readouterr().out
    for what in ("| Q4_K |", "| IQ2_XXS |", "MXFP4, float16", "the same file", "cupy: ", "compute-sanitizer: "):
        assert what in page
    stub.reset()  # kernels that do nothing
    assert run(monkeypatch, tmp_path / "t.md", "--only-bits") == 1
    wrong = capsys.readouterr().out.splitlines()[-1]
    assert wrong.startswith("test-cuda: DIFFERENT: ")
    assert "Q4_K float32" in wrong
    assert "IQ2_XXS blocks with" in wrong
    drivers.driver.cache_clear()
    devices._device.cache_clear()
