"""Every measurement in one run: `python -m tests.bench [SECTION...]` prints tables; all make docs/benchmarks.md."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

from gguf_forge._native import isa_names
from tests.bench.report import Report, machine

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = ("memory", "starting", "opening", "codecs", "fits", "conversion", "mixtures", "imports")


def main(wanted: list[str]) -> None:
    report = Report()
    report.say("# Benchmarks\n")
    report.say(f"Made by `make bench` on {machine()}; instruction sets: {', '.join(isa_names())}.")
    folder = ROOT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for name in wanted or SECTIONS:
            place = folder if name in ("conversion", "mixtures", "imports") else Path(scratch)
            importlib.import_module(f"tests.bench.{name}").bench(report, place)
    if not wanted:
        report.write(ROOT / "docs" / "benchmarks.md")


main(sys.argv[1:])
