"""What the writer and the readers promise on Windows, where files are shared only as far as all who open them agree.

Runs on Windows, and where Windows is imitated: test_elsewhere.py starts it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from gguf_forge import signals, system
from gguf_forge.errors import InvalidError, OutputError
from gguf_forge.format.atomic import AtomicFile
from gguf_forge.source.input_file import InputFile
from tests.cli.conftest import Forge, forge
from tests.conftest import PLATFORM

if PLATFORM != "win32":
    pytest.skip("of Windows only", allow_module_level=True)

MODEL = Path(__file__).resolve().parents[2] / "fixtures" / "models" / "PyLlama-7M"
OLD = b"the old file"
IN_USE = "is open in another program, which does not let it be replaced"
IMITATED: Any = getattr(sys.modules.get("tests.system.as_windows"), "KERNEL", None)
imitated = pytest.mark.skipif(IMITATED is None, reason="needs a Windows that does as it is told")
__all__ = ["forge"]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(OLD)
    return path


@pytest.fixture
def hold() -> Iterator[Callable[[Path], int]]:
    """Opens a file as another program does; gives the descriptor. Such programs let nobody replace what they read."""
    held: list[int] = []

    def opened(path: Path) -> int:
        held.append(os.open(path, os.O_RDONLY) if IMITATED is None else IMITATED.hold(path))
        return held[-1]

    yield opened
    for fd in held:
        with contextlib.suppress(OSError):  # a test may have closed it
            os.close(fd)


def build(path: Path, data: bytes = b"new") -> None:
    out = AtomicFile(path, len(data))
    try:
        out.write_at(data, 0)
        out.seal()
        out.publish()
    finally:
        out.discard()


def assert_left(target: Path, data: bytes) -> None:
    assert target.read_bytes() == data
    assert os.listdir(target.parent) == [target.name]


def test_a_reader_of_ours_lets_a_file_be_replaced_and_keeps_the_old_one(target: Path) -> None:
    with InputFile(target) as reader:
        build(target)
        assert reader.read(0, len(OLD)) == OLD
        assert not reader.unchanged()
    assert_left(target, b"new")


def test_a_mapped_file_is_replaced_or_the_error_says_why_not(tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    with gguf_forge.GGUFWriter(target) as out:
        out.add_tensor("w", np.ones(32, np.float32))
    before, refused = target.read_bytes(), ""
    with gguf_forge.open(target) as file:
        data = file.tensors["w"].data
        try:
            build(target)
        except OutputError as error:
            refused = error.text
        assert data.view(np.float32).sum() == 32
        del data
    assert refused == IN_USE or (IMITATED is None and not refused)
    assert_left(target, before if refused else b"new")


def test_another_program_in_the_way_is_said_before_the_work(target: Path, hold: Callable[[Path], int]) -> None:
    hold(target)
    with pytest.raises(OutputError, match=IN_USE):
        AtomicFile(target, 1 << 20)
    assert_left(target, OLD)


def test_another_program_that_comes_meanwhile(target: Path, hold: Callable[[Path], int]) -> None:
    out = AtomicFile(target, 3)
    out.seal()
    hold(target)
    with pytest.raises(OutputError, match=IN_USE):
        out.publish()
    out.discard()
    assert_left(target, OLD)


def test_a_virus_scanner_is_waited_for(target: Path, hold: Callable[[Path], int]) -> None:
    out = AtomicFile(target, 3)
    out.write_at(b"new", 0)
    fd = hold(target)
    end = threading.Timer(0.2, os.close, [fd])
    end.start()
    out.publish()
    end.join()
    assert_left(target, b"new")


@imitated
def test_older_systems_replace_what_is_not_open(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IMITATED, "old", True)
    build(target)
    assert_left(target, b"new")
    with InputFile(target), pytest.raises(OutputError, match=IN_USE):
        build(target)
    assert_left(target, b"new")


def test_a_second_writer_is_refused_from_the_first_moment(target: Path) -> None:
    out = AtomicFile(target, 3)
    with pytest.raises(OutputError, match="another writer is making this file"):
        AtomicFile(target, 3)
    out.discard()
    assert_left(target, OLD)


def test_what_a_killed_writer_left_is_taken_over(target: Path) -> None:
    (target.parent / ".model.gguf.part").write_bytes(b"x" * 100_000)
    build(target)
    assert_left(target, b"new")


def test_a_leftover_that_somebody_reads_is_not(target: Path, hold: Callable[[Path], int]) -> None:
    part = target.parent / ".model.gguf.part"
    part.write_bytes(OLD)
    hold(part)
    with pytest.raises(OutputError):
        build(target)
    assert (target.read_bytes(), part.read_bytes()) == (OLD, OLD)


def test_a_read_only_file_is_not_replaced(target: Path) -> None:
    target.chmod(0o444)
    with pytest.raises(OutputError, match="is read-only"):
        build(target)
    target.chmod(0o666)
    assert_left(target, OLD)


def test_space_is_reserved_without_writing_it(target: Path) -> None:
    before = system.free_space(target.parent)
    start = time.monotonic()
    out = AtomicFile(target, min(1 << 36, before // 2))
    assert time.monotonic() - start < 10
    out.discard()
    if IMITATED is not None:
        assert any(kind == 6 for _, kind in IMITATED.calls)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CON", "device"),
        ("aux.gguf", "device"),
        ("model:q4.gguf", "cannot hold :"),
        ("what?.gguf", "cannot hold ?"),
        ("end.", "end in"),
    ],
)
def test_names_that_windows_makes_something_else_of(name: str, text: str, forge: Forge, tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    with gguf_forge.GGUFWriter(source) as out:
        out.add("general.architecture", "llama")
        out.add_tensor("w", np.ones(32, np.float32))
    ended = forge("quantize", source, tmp_path / name, "COPY")
    assert ended.code == 1
    assert text in ended.err
    assert ended.err.count("\n") == 1
    assert os.listdir(tmp_path) == ["source.gguf"]


@pytest.mark.parametrize("name", [r"..\..\up", "C:elsewhere", "a|b"])
def test_a_models_name_that_leads_elsewhere(name: str, forge: Forge, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(MODEL, folder)
    (folder / "README.md").write_text(f"---\nmodel_basename: '{name}'\n---\n", encoding="utf-8")
    ended = forge("convert", folder, "--type", "Q8_0", "-o", tmp_path)
    assert (ended.code, os.listdir(tmp_path)) == (1, ["checkpoint"])
    assert "the output must be named: a file's name cannot hold" in ended.err


def test_devices_and_folders_are_no_inputs(tmp_path: Path) -> None:
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(InvalidError, match="not a regular file"):
            gguf_forge.open(path)
        with pytest.raises(InvalidError, match="not a regular file"):
            InputFile(path)


def test_the_signals_of_windows_end_a_run() -> None:
    ending = {signal.Signals(number).name: word for number, word in signals.ENDING.items()}
    expected = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGBREAK": "interrupted"}
    if IMITATED is not None:
        expected["SIGUSR1"] = expected.pop("SIGBREAK")  # as which it appears
    assert ending == expected


def test_a_signal_is_handled_while_threads_are_waited_for() -> None:
    number = signal.Signals["SIGINT" if IMITATED is None else "SIGUSR1"]
    came: list[int] = []
    old = signal.signal(number, lambda *_: came.append(1))
    go_on = threading.Event()

    def work() -> None:
        signal.raise_signal(number) if IMITATED is None else os.kill(os.getpid(), number)
        while not came and not go_on.wait(0.01):
            pass

    thread = threading.Thread(target=work)
    limit = threading.Timer(30, go_on.set)
    limit.start()
    try:
        thread.start()
        system.join([thread])
        assert came
        assert not go_on.is_set()
    finally:
        limit.cancel()
        signal.signal(number, old)
