"""How long it takes to start: processor time and wall time of small commands, each a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import gguf_forge
from tests.bench.report import Report

if sys.platform != "win32":
    import resource

REPEATS = 15


def bench(report: Report, folder: Path) -> None:
    path = folder / "small.gguf"
    with gguf_forge.GGUFWriter(path, {"general.architecture": "llama"}):
        pass
    report.section(
        "Starting",
        f"Median of {REPEATS} processes in milliseconds: user and system time of the processor, and wall time.",
    )
    report.table("command", ">processor, ms", ">wall, ms")
    commands: dict[str, list[str | os.PathLike[str]]] = {
        "`python -c pass`": ["-c", "pass"],
        "`import numpy`": ["-c", "import numpy"],
        "`import gguf_forge`": ["-c", "import gguf_forge"],
        "`gguf-forge --help`": ["-m", "gguf_forge", "--help"],
        "`gguf-forge convert --help`": ["-m", "gguf_forge", "convert", "--help"],
        "`gguf-forge inspect small.gguf`": ["-m", "gguf_forge", "inspect", path],
    }
    for name, words in commands.items():
        times = [timed([sys.executable, *words]) for _ in range(REPEATS)]
        processor, wall = median(one for one, _ in times), median(one for _, one in times)
        report.row(name, f"{1e3 * processor:.0f}", f"{1e3 * wall:.0f}")


def timed(words: list[str | os.PathLike[str]]) -> tuple[float, float]:
    """Seconds of the processor and on the wall that a process takes."""
    before, start = _spent(), time.perf_counter()
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    wall = time.perf_counter() - start
    return _spent() - before, wall


def _spent() -> float:
    """Seconds of the processor that child processes have taken so far; NaN on Windows, which does not count them."""
    if sys.platform == "win32":
        return float("nan")
    else:  # noqa: RET505 - for mypy, what follows a return on one system is unreachable on it
        found = resource.getrusage(resource.RUSAGE_CHILDREN)
        return found.ru_utime + found.ru_stime
