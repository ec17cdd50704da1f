"""Where figures go: Markdown tables, on the screen as they come and into a file at the end. Also how a run is timed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median


@dataclass
class Report:
    """Collects lines and prints each as it comes."""

    lines: list[str] = field(default_factory=list)

    def say(self, line: str = "") -> None:
        print(line, flush=True)
        self.lines.append(line)

    def section(self, title: str, text: str = "") -> None:
        self.say(f"\n## {title}\n")
        if text:
            self.say(f"{text}\n")

    def table(self, *columns: str) -> None:
        """Starts a table; a column whose name starts with ">" is aligned to the right."""
        self.row(*(name.removeprefix(">") for name in columns))
        self.row(*("---:" if name.startswith(">") else "---" for name in columns))

    def row(self, *cells: object) -> None:
        self.say(f"| {' | '.join(str(cell) for cell in cells)} |")

    def write(self, path: Path) -> None:
        path.write_text("\n".join(self.lines).strip() + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Run:
    """Of one process: wall time in seconds, largest resident memory in MB (10^6 bytes)."""

    seconds: float
    megabytes: float


def seconds(call: Callable[[], object], *, least: float = 0.2, most: int = 9) -> float:
    """Median time of a call, after one call to warm up; repeated until `least` seconds are spent or `most` times."""
    call()
    times: list[float] = []
    while len(times) < most and (sum(times) < least or len(times) < 3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


#: Runs a program and writes wall seconds, peak kilobytes and exit status. A process of its own, because a program's
#: peak counts from the memory of the process that started it.
_MEASURE = """
import os, sys, time
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
with open(sys.argv[1], "w") as file:
    print(time.perf_counter() - start, usage.ru_maxrss, os.waitstatus_to_exitcode(status), file=file)
"""


def run(command: Sequence[str | os.PathLike[str]], **environment: str) -> Run:
    """Runs a program to its end. Raises RuntimeError with its last words when it fails."""
    with tempfile.NamedTemporaryFile("r", encoding="ascii") as result:
        words = [sys.executable, "-I", "-S", "-c", _MEASURE, result.name, *map(str, command)]
        # A program that is installed has been compiled: what forbids to keep that would have it compiled each time.
        outside = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(words, capture_output=True, check=True, env={**outside, **environment})
        elapsed, peak, status = result.read().split()
    if status != "0":
        raise RuntimeError(f"{command[0]} ended with {status}: {done.stderr.decode(errors='replace')[-500:]}")
    return Run(float(elapsed), float(peak) * (1 if sys.platform == "darwin" else 1024) / 1e6)


def machine() -> str:
    """The processor and how many of its cores this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, Python {platform.python_version()}"
