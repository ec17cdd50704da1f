"""The program as a whole: version, help, how runs end, what starting up costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_forge import cli
from gguf_forge.cli.terminal import count, plain_json, size
from gguf_forge.errors import CheckpointError, ForgeError, printable
from gguf_forge.format.values import string, u32
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.signals import Ended
from gguf_forge.types import TENSOR_TYPES
from tests.cli.conftest import Forge
from tests.conftest import PLATFORM


def test_version_is_that_of_the_package(forge: Forge) -> None:
    ended = forge("--version")
    assert (ended.code, ended.out) == (0, f"gguf-forge {version('gguf-forge')}\n")


def test_help_lists_every_command(forge: Forge) -> None:
    out = forge("--help").out
    assert [name for name in cli.COMMANDS if f"  {name} " not in out] == []


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["inspect"],
        ["inspect", "a", "b"],
        ["inspect", "--nonsense", "a"],
        ["convert", "a", "--tensor-type", "attn_v"],
        ["convert", "a", "--tensor-type", "attn_(v=Q8_0"],
        ["quantize", "a", "Q4_0", "--tensor-type", "attn_v=Q9"],
    ],
)
def test_wrong_usage_is_exit_2(forge: Forge, words: list[str]) -> None:
    ended = forge(*words)
    assert (ended.code, ended.out) == (2, "")
    assert "Usage: gguf-forge" in ended.err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (CheckpointError("no config.json\x07 here"), 1, "gguf-forge: no config.json\\x07 here\n"),
        (FileNotFoundError(2, "No such file", "a\nb"), 1, "gguf-forge: a\\nb: No such file\n"),
        (MemoryError("needs 3 GB"), 1, "gguf-forge: out of memory: needs 3 GB\n"),
        (KeyboardInterrupt(), 130, "gguf-forge: interrupted\n"),
        (Ended(signal.SIGTERM), 143, "gguf-forge: terminated\n"),
    ],
)
def test_how_a_run_ends(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("gguf_forge.format.reader.open", fail)
    ended = forge("inspect", "x.gguf")
    assert (ended.code, ended.out, ended.err.lstrip("\n")) == (code, "", line)


RUN = "import sys; from gguf_forge.__main__ import run; sys.argv = ['gguf-forge', 'types']; sys.exit(run())"


@pytest.mark.skipif(PLATFORM == "win32", reason="no signal reaches a single process")
@pytest.mark.parametrize(
    ("number", "word"), [("SIGINT", "interrupted"), ("SIGTERM", "terminated"), ("SIGHUP", "hung up")]
)
def test_a_signal_while_starting_up(number: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text(f"import os, signal\nos.kill(os.getpid(), signal.{number})\nwhile True: pass")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-c", RUN], capture_output=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert (ended.returncode, ended.stderr.decode()) == (128 + getattr(signal, number), f"gguf-forge: {word}\n")


def test_a_signal_after_the_end_changes_nothing() -> None:
    late = f"import atexit, os, signal; atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT)); {RUN}"
    ended = subprocess.run([sys.executable, "-c", late], check=False, capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.skipif(PLATFORM == "win32", reason="no signal reaches a single process")
@pytest.mark.parametrize("ignored", [True, False])
def test_what_nohup_ignores_stays_ignored(ignored: bool) -> None:
    code = f"""import os, signal, sys
if {ignored}: signal.signal(signal.SIGHUP, signal.SIG_IGN)
from gguf_forge import signals
signals.leave_at_once()
sys.exit(signals.unwinding(lambda: os.kill(os.getpid(), signal.SIGHUP) or 7))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == (7 if ignored else 129)


def test_a_defect_is_one_line_unless_asked_for_more(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise KeyError("lost")

    monkeypatch.setattr("gguf_forge.format.reader.open", fail)
    ended = forge("inspect", "x.gguf")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert ended.err.startswith("gguf-forge: defect: KeyError: 'lost'")
    monkeypatch.setenv("GGUF_FORGE_DEBUG", "1")
    with pytest.raises(KeyError):
        forge("inspect", "x.gguf")


def test_types_lists_every_type_and_recipe(forge: Forge) -> None:
    found = json.loads(forge("types", "--json").out)
    assert [t["name"] for t in found["types"]] == list(TENSOR_TYPES)
    q4_k = next(t for t in found["types"] if t["name"] == "Q4_K")
    assert (q4_k["block_size"], q4_k["block_bytes"], q4_k["bits_per_weight"]) == (256, 144, 4.5)
    medium = next(r for r in found["recipes"] if r["name"] == "Q4_K_M")
    assert (medium["file_type"], medium["default"], medium["aliases"]) == (15, "Q4_K", ["Q4_K"])
    page = forge("types").out
    assert [name for name in (*TENSOR_TYPES, "Q3_K_M") if name not in page] == []


def test_starting_up_imports_nothing_heavy() -> None:
    code = (
        "import sys; from gguf_forge.cli import main; main(['--help']);"
        "print(sorted({'numpy', 'rich', 'tokenizers', 'torch', 'safetensors', 'cffi'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_runs_as_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "gguf_forge", "nonsense"], capture_output=True, check=False)
    assert done.returncode == 2


def test_a_character_that_the_encoding_lacks_is_escaped(tmp_path: Path) -> None:
    with GGUFWriter(tmp_path / "a.gguf", {"general.name": string("\u0120x")}):
        pass
    command = [sys.executable, "-m", "gguf_forge", "inspect", str(tmp_path / "a.gguf"), "--keys", "*"]
    ended = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert b"\\u0120x" in ended.stdout


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_defect(closed: str) -> None:
    command = f'"{sys.executable}" -m gguf_forge types {closed}'
    assert subprocess.run(command, shell=True, capture_output=True, check=False).returncode == 0


@pytest.fixture
def unread() -> Iterator[int]:
    """The writing end of a pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A file that can be quantized."""
    path = tmp_path / "a.gguf"
    with GGUFWriter(path, {"general.architecture": string("llama"), "llama.block_count": u32(1)}) as writer:
        writer.add_tensor("blk.0.attn_q.weight", np.ones((2, 256), np.float32))
    return path


@pytest.mark.parametrize(
    "words",
    [
        ["types"],
        ["types", "--json"],
        ["--help"],
        ["inspect", "--tensors", "GGUF"],
        ["inspect", "--json", "GGUF"],
        ["roundtrip", "GGUF"],
        ["quantize", "GGUF", "--dry-run", "Q8_0"],
    ],
)
def test_a_reader_that_leaves_early_is_no_failure(words: list[str], unread: int, small: Path) -> None:
    words = [str(small) if word == "GGUF" else word for word in words]
    command = [sys.executable, "-m", "gguf_forge", *words]
    ended = subprocess.run(command, stdout=unread, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "code", "made"),
    [(["quantize", "a.gguf", "b.gguf", "Q8_0"], 0, True), (["inspect", "none"], 1, False), (["none"], 2, False)],
)
def test_work_goes_on_when_nobody_reads_the_remarks(
    words: list[str], code: int, made: bool, unread: int, small: Path
) -> None:
    ended = subprocess.run([sys.executable, "-m", "gguf_forge", *words], stderr=unread, cwd=small.parent, check=False)
    assert (ended.returncode, small.with_name("b.gguf").exists()) == (code, made)


def test_numbers_for_people() -> None:
    assert [size(n) for n in (0, 1023, 1024, 5 << 20, 3 << 40)] == ["0 B", "1023 B", "1.00 KiB", "5.00 MiB", "3.00 TiB"]
    assert [count(n) for n in (7, 6_819_072, 8_030_261_248, 671e9)] == ["7", "6.82 M", "8.03 G", "671 G"]


def test_text_that_could_steer_a_terminal_is_escaped() -> None:
    assert printable("a\x1b[2J\n\x9b\u202e\udc80\ud800é漢") == "a\\x1b[2J\\n\\x9b\\u202e\\x80\\ud800é漢"


def test_json_has_no_numbers_and_no_half_pairs_json_lacks() -> None:
    assert plain_json({"a": [float("inf"), (1.5, float("nan"))]}) == {"a": ["inf", [1.5, "nan"]]}
    assert plain_json({"k\udcff": ["a\n\udce8", "\ud800"]}) == {"k\\xff": ["a\n\\xe8", "\\ud800"]}


def test_an_error_is_one_line_that_can_be_printed() -> None:
    for error in (ForgeError("a\n\udce8"), ForgeError("x", path="a\n\udce8"), ForgeError("x", path=Path("\udce8"))):
        assert "\\xe8" in str(error)
        assert str(error).isprintable()


def test_the_program_is_installed() -> None:
    program = Path(sys.executable).with_name("gguf-forge")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"gguf-forge {version('gguf-forge')}\n"
