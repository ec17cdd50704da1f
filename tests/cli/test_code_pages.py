"""What is shown where the console cannot show everything: pages of Windows, into a file and on a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gguf_forge

MODEL = Path(__file__).resolve().parents[2] / "fixtures" / "models" / "PyLlama-7M"
PAGES = ["cp1252", "cp437", "cp932", "ascii"]
NAME = "Caf\xe9 \u6a21\u578b \U0001f680"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("named") / "model.gguf"
    with gguf_forge.GGUFWriter(path) as out:
        out.add("general.architecture", "llama")
        out.add("general.name", NAME)
        out.add_tensor(f"blk.0.{NAME}.weight", np.ones((8, 32), np.float32))
    return path


def environment(page: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONIOENCODING": page, "PYTHONPATH": path, "TERM": "xterm", "COLUMNS": "160"}


def into_a_file(page: str, *words: str) -> str:
    command = [sys.executable, "-m", "gguf_forge", *words]
    ended = subprocess.run(command, env=environment(page), capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    return ended.stdout.decode(page)


def on_a_terminal(page: str, *words: str) -> str:
    """What a terminal is sent, line ends as elsewhere."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "gguf_forge", *words]
    with subprocess.Popen(command, env=environment(page), stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # nobody is left at the other end
                break
            if not piece:
                break
            shown += piece
        os.close(ours)
    assert process.returncode == 0
    return shown.decode(page).replace("\r\n", "\n")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("show", [into_a_file, on_a_terminal])
def test_tables_look_alike_on_every_page(page: str, show: Callable[..., str]) -> None:
    expected = into_a_file("utf-8", "types")
    assert "\u2500" in expected
    assert plain(show(page, "types")).rstrip() == expected.replace("\u2500", "-").rstrip()


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("show", [into_a_file, on_a_terminal])
def test_what_a_page_lacks_is_an_escape(page: str, show: Callable[..., str], named: Path) -> None:
    name = NAME.encode(page, "backslashreplace").decode(page)
    assert f"{name}, architecture llama" in plain(show(page, "inspect", str(named)))
    assert f"\nblk.0.{name}.weight " in plain(show(page, "inspect", str(named), "--tensors"))


@pytest.mark.parametrize("page", PAGES)
def test_progress_on_a_terminal(page: str, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    shown = on_a_terminal(page, "convert", str(MODEL), "--type", "Q8_0", "-o", str(out))
    assert "PyLlama-7M" in plain(shown)
    assert "----" in plain(shown)
    assert f"{out}: Q8_0" in plain(shown).replace("\n", "")
    assert out.stat().st_size > 1 << 20
