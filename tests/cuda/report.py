"""What `make test-cuda` does, one part after the other, and where results and the table go.

This process has no device of its own: whatever becomes of a worker and its device, the table is written.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gguf_forge.cuda.driver import CudaError
from tests.cuda import table, toolkit
from tests.cuda.plan import AGAIN, FAILURES, PARTS, Part
from tests.cuda.results import Record, Results
from tests.cuda.watch import Workers
from tests.cuda.worker import STICKY

#: What there is in the folder of outputs at most, each file no larger.
FILES = ("table.md", "results.jsonl", "log.txt", "memcheck.log", "racecheck.log", "unequal.npz")
LARGEST = 15 << 20
#: Seconds that nvcc may take.
COMPILING = 180
#: A file of compute-sanitizer's while it runs.
SAYING = "sanitizer.part"


def run(given: argparse.Namespace) -> int:
    """All parts; 0 where there was a GPU and all is well, or where there is none, which is said."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given.out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (given.out / name).unlink(missing_ok=True)
    report = Report(given)
    try:
        reason = report.all()
    finally:
        report.write()
    if reason:
        (given.out / "table.md").unlink()
        print(f"test-cuda: skipped: {reason}")
        return 0
    print((given.out / "table.md").read_text(encoding="utf-8"))
    bad = table.wrong(report.results.all(), report.parts)
    print(f"test-cuda: {'all bits are equal' if not bad else 'NOT WELL: ' + ', '.join(bad):.1500}")
    return 1 if bad else 0


class Report:
    """One call of the command."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.out, self.end = given, given.out, time.monotonic() + 60 * given.minutes
        self.results, self.log = Results(self.out / "results.jsonl"), self.out / "log.txt"
        self.parts = [part for part in PARTS if (part.quick or not given.quick) and part.name not in given.without]
        more = ["--device", str(given.device), *(["--little"] if given.little else [])]
        self.workers = Workers(self.results, self.log, more, self.end)
        self.workers.patience = given.patience
        self.again = 0

    def all(self) -> str:
        """Does the parts; returns why there is nothing to do them on, or nothing."""
        self.workers.run(PARTS[0])
        device = self._item("device", "device")
        if "absent" in device:
            return str(device["absent"])
        if "capability" not in device or not self._kernels(device):
            return ""
        for part in self.parts[1:]:
            self._part(part)
            self._again(part)
            self.write()
            print(f"test-cuda: {table.of_part(part, self.results.all())}", flush=True)
        return ""

    def write(self) -> None:
        """The table as far as it has come."""
        text = table.page(self.results.all(), self.parts)
        (self.out / "table.md").write_text(text + "\n", encoding="utf-8")
        for name in FILES:
            path = self.out / name
            if path.exists() and path.stat().st_size > LARGEST:
                path.write_bytes(path.read_bytes()[-LARGEST:])

    def _item(self, part: str, item: str) -> Record:
        found = [r for r in self.results.all() if r["part"] == part and r.get("item") == item]
        return found[-1] if found else {}

    def _kernels(self, device: Record) -> bool:
        capability: Any = tuple(device["capability"])
        said: dict[str, Any] = {"date": time.strftime("%Y-%m-%d %H:%M")}
        try:
            said |= toolkit.prepare(capability, self.log, min(COMPILING, max(1.0, self.end - time.monotonic())))
            said["resources"] = toolkit.resources(said["folder"], capability)
        except CudaError as error:
            said["failed"] = str(error)
        self.results.add("kernels", item="kernels", **said)
        print(f"test-cuda: kernels: {said.get('kernels') or said['failed']}", flush=True)
        return "failed" not in said

    def _part(self, part: Part) -> None:
        if time.monotonic() > self.end - part.optional:
            self.results.add(part.name, **({"skipped": "no time was left"} if part.optional else {"cut": "not begun"}))
            return
        if part.under is None:
            self.workers.run(part)
            return
        tool = toolkit.tool("compute-sanitizer")
        if tool is None:
            self.results.add(part.name, missing="there is no compute-sanitizer")
            return
        log = self.out / f"{part.under}.log"
        self.workers.run(part, *self._sanitizer(tool, part.under, log))
        said = [] if not log.exists() else [x for x in log.read_text("utf-8", "replace").splitlines() if "SUMMARY" in x]
        ended = any(r.get("end") for r in self.results.all() if r["part"] == part.name)
        clean = {"memcheck": "ERROR SUMMARY: 0 errors", "racecheck": "RACECHECK SUMMARY: 0 hazards"}[part.under]
        well = ended and bool(said) and all(clean in line for line in said)
        about = "no errors" if well else f"{said or 'no summary'}, {'to the end' if ended else 'not to its end'}"
        if ended or not part.optional:
            self.results.add(part.name, item="summary", equal=well, said=f"{part.under}: {about}")

    def _sanitizer(self, tool: str, under: str, log: Path) -> tuple[Callable[[], list[str]], Callable[[], None]]:
        """What a worker's command begins with, and what is done with what the tool says."""
        saying = self.out / SAYING

        def before() -> list[str]:
            saying.unlink(missing_ok=True)
            return [tool, "--tool", under, "--log-file", str(saying), "--print-limit", "200", "--error-exitcode", "99"]

        def after() -> None:
            if saying.exists():
                with log.open("ab") as to:
                    to.write(saying.read_bytes())
                saying.unlink()

        return before, after

    def _again(self, part: Part) -> None:
        """Items in which a kernel failed, on little data under compute-sanitizer."""
        tool = toolkit.tool("compute-sanitizer")
        lost = [r for r in self.results.all() if r["part"] == part.name and r.get("code") in STICKY and "item" in r]
        for record in lost if tool and part.under is None else ():
            item = small(part.name, record["item"])
            if not item or self.again == FAILURES or time.monotonic() > self.end - AGAIN:
                continue
            self.again += 1
            again = Part(f"again: {item}", AGAIN, AGAIN, under="memcheck", work="touch")
            self.workers.run(again, *self._sanitizer(str(tool), "memcheck", self.out / "memcheck.log"), only=item)


def small(part: str, item: str) -> str:
    """What touches the same kernel on little data."""
    words = item.split()
    match part, words:
        case "bits", ["product", kind, dtype]:
            return f"product {kind} {dtype} 1"
        case "bits", ["decode" | "encode", _, _]:
            return item
        case "decode" | "encode", [_, _]:
            return f"{part} {item}"
        case "products", [kind, _, dtype, vectors]:
            return f"product {kind} {dtype} {vectors}"
    return ""
