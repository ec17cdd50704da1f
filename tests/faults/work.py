"""Runs a piece of work in a child for each call that it makes to the file system, with a fault in that call.

    python -m tests.faults.work SCENARIO FOLDER WHAT     with the shim preloaded; prints a line of JSON for each case

WHAT: kill, or the name of an error with an 'ever' behind it for one that stays, or `short`. A child starts from a copy
of FOLDER/start; what it leaves is judged here, and only counts leave this process.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.faults.scenarios import SCENARIOS, Scenario

assert sys.platform != "win32"

COUNT, KILL, FAIL, SHORT = range(4)
#: Exit codes of a child: done, an error that the package names, any other exception.
DONE, REFUSED, SURPRISED = 0, 1, 3
#: Calls by which the system confirms that a file is what it is said to be: none may fail in a run that says it is done.
CONFIRMING = {"fsync", "write", "pwrite", "pwrite64", "ftruncate", "ftruncate64", "rename"}
#: What a run says that goes on without its journal, and nothing else does.
GIVEN_UP = "no journal is kept any more"
#: Calls that are not looked at: a run that makes more would not end.
MOST = 2000
#: Seconds until a child that does not end is one that hangs.
PATIENCE = 60


def cases(what: str) -> tuple[int, int, int]:
    """How, error and ever, as the shim takes them."""
    if what == "kill":
        return KILL, 0, 0
    if what.startswith("short"):
        return SHORT, 0, int(what.endswith("ever"))
    return FAIL, getattr(errno, what.removesuffix("ever")), int(what.endswith("ever"))


class Child:
    """One run of a scenario, with a fault in call `at`."""

    def __init__(self, scenario: Scenario, work: Path, at: int, what: str) -> None:
        how, error, ever = (COUNT, 0, 0) if what == "count" else cases(what)
        read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads: they do not take part
            child = os.fork()
        if not child:
            shim = ctypes.CDLL(None)
            signal.alarm(PATIENCE)
            code = SURPRISED
            try:
                shim.arm(at, how, error, ever)
                said = "; ".join(getattr(scenario.run(work), "notes", ()))
                code = DONE
            except scenario.refusals as problem:
                said = f"{type(problem).__name__}: {problem}"
                code = REFUSED
            except BaseException as problem:  # noqa: BLE001 - what it is, is told
                said = f"{type(problem).__name__}: {problem}"
            found = shim.calls(), shim.faults()
            shim.arm(-1, COUNT, 0, 0)
            shim.name.restype = ctypes.c_char_p
            names = [shim.name(i).decode() for i in range(min(found[0], MOST))] if what == "count" else []
            os.write(write, json.dumps([*found, said, names]).encode())
            os._exit(code)
        os.close(write)
        raw = b"".join(iter(lambda: os.read(read, 1 << 16), b""))
        os.close(read)
        status = os.waitpid(child, 0)[1]
        self.code = os.waitstatus_to_exitcode(status)
        self.calls, self.faults, self.said, self.names = json.loads(raw) if raw else (0, 0, "", [])


def every(scenario: Scenario, folder: Path, what: str) -> Iterator[tuple[str, str]]:
    """For each call the name of what came of a fault in it, and what is wrong with that, '' if nothing."""
    work = folder / "work"
    names = fresh(scenario, folder, work, 0, "count").names
    for at in range(min(len(names), MOST)):
        child = fresh(scenario, folder, work, at, what)
        if what != "kill" and not child.faults and child.code == DONE:
            continue  # a call that this fault does not concern
        wrong = scenario.judge(work, child.code, child.said, killed=what == "kill")
        if child.code == DONE and what[:1] == "E" and what != "EINTR" and names[at] in CONFIRMING:
            wrong = wrong or ("" if GIVEN_UP in child.said else "said to be done all the same")
        came = {DONE: "done", REFUSED: "refused", -signal.SIGKILL: "killed"}.get(child.code, "other")
        yield came, wrong and f"{what} in call {at}, {names[at]}: {wrong}"


def fresh(scenario: Scenario, folder: Path, work: Path, at: int, what: str) -> Child:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(folder / "start", work)
    return Child(scenario, work, at, what)


def main() -> None:
    name, folder, *wanted = sys.argv[1:]
    scenario = SCENARIOS[name](Path(folder))
    for what in wanted:
        counts: Counter[str] = Counter()
        problems = []
        for came, wrong in every(scenario, Path(folder), what):
            counts[came] += 1
            problems += [wrong] if wrong else []
        print(json.dumps({"what": what, "counts": counts, "problems": problems}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
