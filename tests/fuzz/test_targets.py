"""Each row of the fuzzer over its seeds, among them all that fuzzing found (fixtures/fuzz): a result or a ForgeError.

The fuzzers themselves run by `make fuzz`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fuzz import __main__ as runner
from tests.fuzz import seeds
from tests.fuzz.targets import TARGETS, attempt

SOURCE = (Path(__file__).resolve().parent / "core.c").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    given = list(target.seeds())
    ended = [attempt(target, data, tmp_path) for data in given]
    assert "ok" in ended
    assert max(len(data) for data in given) > 16


def test_what_was_found_is_among_the_seeds() -> None:
    rows = {**{name: list(row.seeds()) for name, row in TARGETS.items()}}
    rows |= {name: list(seeds.blocks(name)) for name in runner.IN_C}
    for path in (seeds.FIXTURES / "fuzz").glob("*/*"):
        assert path.read_bytes() in rows[path.parent.name], path


def test_the_tables_of_c_and_python_agree() -> None:
    table = SOURCE.split("} targets[] = {")[1].split("};")[0]
    assert re.findall(r'\{"(\w+)"', table) == list(runner.IN_C)
    assert not set(runner.IN_C) & set(TARGETS)


def test_what_libfuzzer_says_is_read() -> None:
    log = "#2\tINITED cov: 3 ft: 4 corp: 1\n#99\tDONE   cov: 31 ft: 74 corp: 5/9b exec/s: 33\n"
    log += "stat::number_of_executed_units: 99\nstat::average_exec_per_sec:     33\n"
    assert runner.outcome("a", log, False).row() == "| a | 99 | 31 | 74 | 33 | 0 |"
    assert runner.outcome("a", "#7\tNEW cov: 1 ft: 2 exec/s: 5\nASSERT", True).executions == 7
