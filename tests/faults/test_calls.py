"""Every call to the file system in turn: killed before it, or failing, once and for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.conftest import Tell
from tests.faults.scenarios import SCENARIOS

#: An interrupted call is made again by Python, for ever: that one comes once.
ERRORS = ("EIO", "EIOever", "ENOSPC", "ENOSPCever", "EDQUOT", "EDQUOTever", "EINTR", "short", "shortever")
FAULTS = {"killed before it": ("kill",), "fails": ERRORS}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("work", SCENARIOS)
def test_each_call(work: str, fault: str, shim: Path, tmp_path: Path, tell: Tell) -> None:
    words = [sys.executable, "-m", "tests.faults.work", work, str(tmp_path), *FAULTS[fault]]
    done = subprocess.run(words, env={**os.environ, "LD_PRELOAD": str(shim)}, stdout=subprocess.PIPE, check=True)
    counts: Counter[str] = Counter()
    problems: list[str] = []
    for line in done.stdout.splitlines():
        found = json.loads(line)
        counts.update(found["counts"])
        problems += found["problems"]
    assert sum(counts.values()) >= 20
    tell(work, f"each call {fault}", counts, problems)
