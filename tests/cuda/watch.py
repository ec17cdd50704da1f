"""Workers and who watches them: each is a process with a group of its own, which is killed when it takes too long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.cuda.checkout import ROOT
from tests.cuda.plan import LOSSES, START, Part
from tests.cuda.results import Results

#: What a worker ends with when the device is lost to it, which it has told of.
LOST = 17
POLL = 0.02
#: Seconds that a worker which is done may take to end.
GRACE = 15.0
#: What is said of a worker that was killed because its part had no time left.
TIME = "the time was up"
#: The name of what a worker does before its first item.
BEFORE = "(start)"


class Workers:
    """Runs the parts of one call. given: arguments of every worker; end: when, by time.monotonic(), all is over."""

    def __init__(self, results: Results, log: Path, given: list[str], end: float) -> None:
        self.results, self.log, self.given, self.end = results, log, given, end
        self.patience = 1.0  # a rehearsal shortens what an item may take

    def command(self, part: Part, *more: str) -> list[str]:
        """A worker's command line."""
        named = ["--part", part.name, "--results", str(self.results.path)]
        return [sys.executable, "-m", "tests.cuda.worker", part.worker, *named, *self.given, *more]

    def run(
        self, part: Part, before: Callable[[], list[str]] = list, after: Callable[[], object] = list, only: str = ""
    ) -> None:
        """All items of a part, by as many workers as that takes; what hung, died or was cut is written.

        before: gives what a worker's command begins with, each time; after: called when it is over; only: an item.
        """
        began = time.monotonic()
        end = min(self.end, began + part.limit)
        for _ in range(LOSSES):
            told, item = self._watch([*before(), *self.command(part, *(["--only", only] if only else []))], part, end)
            after()
            if told in {"ended", TIME}:
                break
            if told != "lost":
                self.results.add(part.name, item=item, failed=told)
            if only or item == BEFORE:  # the next would not get further
                break
        if told != "ended":
            self.results.add(part.name, cut=f"{told}, after {time.monotonic() - began:.0f} s")
        self.results.add(part.name, seconds=round(time.monotonic() - began, 2))

    def _watch(self, command: list[str], part: Part, end: float) -> tuple[str, str]:
        """Runs a worker; returns what came of it and the item that it was at: "ended", "cut", "lost", or a reason."""
        self.results.new()
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            worker = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            return self._until_done(worker, part, end)
        finally:
            kill(worker)

    def _until_done(self, worker: subprocess.Popen[bytes], part: Part, end: float) -> tuple[str, str]:
        item, ended, last = BEFORE, False, time.monotonic()
        limits = {True: max(START, part.item), False: part.item * self.patience}
        while True:
            code = worker.poll()
            for record in self.results.new():
                last = time.monotonic()
                item = record.get("begin", item)
                ended |= "end" in record
            now = time.monotonic()
            if ended and (code is not None or now > min(last + GRACE, end)):  # a worker that is done need not end well
                return "ended", item
            if code == LOST:
                return "lost", item
            if code is not None:
                return f"the worker died ({_meaning(code)})", item
            if now > end:
                return TIME, item
            if now > last + limits[item == BEFORE]:
                return f"hung: nothing for {limits[item == BEFORE]:.0f} s, killed", item
            time.sleep(POLL)


def kill(worker: subprocess.Popen[bytes]) -> None:
    """Ends a worker and what it started."""
    group = getattr(os, "killpg", None)
    with suppress(ProcessLookupError, PermissionError):
        if group is None:
            worker.kill()
        else:
            group(worker.pid, 9)
    with suppress(subprocess.TimeoutExpired):  # one that waits for the driver may not go
        worker.wait(5)


def _meaning(code: int) -> str:
    if code >= 0:
        return f"status {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
