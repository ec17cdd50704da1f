"""How fast one thread fills and copies memory: the ceilings that the other figures are to be seen against."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tests.bench.report import Report, seconds

LARGE, SMALL = 1 << 29, 1 << 18


def bench(report: Report, folder: Path) -> None:
    report.section("Memory", "One thread, thousand million bytes a second: bytes written (fill), bytes copied (copy).")
    report.table("buffer", ">fill", ">copy")
    for name, nbytes in (("512 MiB", LARGE), ("256 KiB (in cache)", SMALL)):
        source, target = np.ones(nbytes, np.uint8), np.empty(nbytes, np.uint8)
        repeat = max(1, (1 << 26) // nbytes)

        fill = partial(times, repeat, partial(target.fill, 7))
        copy = partial(times, repeat, partial(np.copyto, target, source))
        rates = [nbytes * repeat / seconds(call) / 1e9 for call in (fill, copy)]
        report.row(name, *(f"{rate:.1f}" for rate in rates))


def times(repeat: int, call: Callable[[], object]) -> None:
    for _ in range(repeat):
        call()
