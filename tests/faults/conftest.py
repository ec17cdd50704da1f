"""When the suite runs, what it needs, and the table that it ends with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PLATFORM

HERE = Path(__file__).resolve().parent
#: Where the table goes, besides the terminal.
TABLE = HERE.parents[1] / "build" / "faults.md"
COLUMNS = ("work", "fault", "tried", "done", "refused", "killed", "wrong")

#: What cannot even be imported where processes do not fork.
collect_ignore = ["test_races.py"] if PLATFORM == "win32" else []

Tell = Callable[[str, str, Mapping[str, int], list[str]], None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this is skipped where nobody asked for it: it takes minutes."""
    reason = None if "FAULTS" in os.environ else "`make faults` runs it"
    if PLATFORM != "linux":
        reason = "faults are put before the C library of Linux"
    for item in items:
        if HERE in item.path.parents and reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that is preloaded."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    words: list[str | Path] = [compiler, "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-o", library]
    words += [HERE / "shim.c", "-ldl"]
    subprocess.run(words, check=True)
    return library


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Adds a line to the table, and fails the test where something is wrong."""

    def line(work: str, fault: str, counts: Mapping[str, int], problems: list[str]) -> None:
        record_property("faults", json.dumps([work, fault, dict(counts), len(problems)]))
        assert problems == []

    return line


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table: what was tried, and what came of it."""
    reports = [one for key in ("passed", "failed") for one in terminalreporter.stats.get(key, [])]
    told = [json.loads(text) for one in reports for name, text in one.user_properties if name == "faults"]
    if not told:
        return
    rows = []
    for work, fault, counts, wrong in sorted(told, key=lambda one: (one[0], one[1])):
        tried = sum(counts.values())
        rows.append([work, fault, *(str(n) for n in (tried, *(counts.get(c, 0) for c in COLUMNS[3:6]), wrong))])
    sums = [str(sum(int(row[i]) for row in rows)) for i in range(2, len(COLUMNS))]
    lines = [_line(COLUMNS), _line(["---", "---", *["---:"] * 5]), *map(_line, rows), _line(["all", "", *sums])]
    terminalreporter.section("faults")
    for text in lines:
        terminalreporter.write_line(text)
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"
