"""A small model whose conversion is cut off: in runs of few rows, each of which is noted in the journal at once."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import gguf_forge
from gguf_forge.convert import files, run
from gguf_forge.convert.finished import Piece
from gguf_forge.convert.resume import Resumable
from tests.whole.small import write

#: The type that the model is made in.
KIND = "Q4_0"
PART, JOURNAL = ".a.gguf.part", ".a.gguf.journal"


def source(folder: Path, **keys: Any) -> Path:
    """A model in F32 to be quantized."""
    return write(folder / "f32.gguf", **keys)


def quantize(source: Path, output: Path, **options: Any) -> gguf_forge.Planned:
    """Quantizes it in one thread, so that calls come in one order."""
    return gguf_forge.quantize_file(source, output, options.pop("type", KIND), **{"threads": 1, **options})


@contextmanager
def at_once(saved: Sequence[Resumable], verify: Callable[[], None]) -> Iterator[None]:
    """In the place of `saving`: everything that is finished is saved at once, by who finished it."""

    def saver(file: Resumable) -> Callable[[Piece], None]:
        log = file.target.log
        assert log is not None
        add, lock = log.add, threading.Lock()

        def save(piece: Piece) -> None:
            with lock:
                add(piece)
                verify()
                file.save()

        return save

    for file in saved:
        file.target.log.add = saver(file)  # type: ignore[union-attr, method-assign]
    yield


def eager() -> None:
    """Has this process save at once, and work in runs of few rows."""
    vars(files)["saving"] = at_once
    run.RUN_ELEMENTS = 4096


@pytest.fixture(name="eager")
def eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "saving", at_once)
    monkeypatch.setattr(run, "RUN_ELEMENTS", 4096)


@pytest.fixture
def f32(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return source(folder)


@pytest.fixture
def whole(f32: Path, tmp_path: Path) -> bytes:
    """What one run makes."""
    return quantize(f32, tmp_path / "whole.gguf").path.read_bytes()


class CutOffError(Exception):
    """Ends a run where a test wants it to end; no error that the package knows."""


def cut_off(source: Path, output: Path, share: float = 0.6, **options: Any) -> None:
    """Has a run end when it has done this share of its work; what it leaves can be gone on from."""

    def stop(done: int, total: int) -> None:
        if done > share * total:
            raise CutOffError

    with pytest.raises(CutOffError):
        quantize(source, output, progress=stop, **options)
    assert sorted(p.name for p in output.parent.iterdir() if p.name.startswith(".")) == [JOURNAL, PART]


def rows_kept(planned: gguf_forge.Planned) -> tuple[int, int]:
    """How many rows were there already, as the run says, and how many it has."""
    found = [re.search(r"goes on, (\d+) of (\d+) rows are there", note) for note in planned.notes]
    ((kept, total),) = [(int(m[1]), int(m[2])) for m in found if m]
    return kept, total
