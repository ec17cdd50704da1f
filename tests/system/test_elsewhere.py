"""The writer, the reader and the command line on systems that are not here, as far as they can be imitated."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PLATFORM

ROOT = Path(__file__).resolve().parents[2]
BOTH = ["system/test_system.py", "format/test_write_faults.py", "format/test_reader.py", "convert/test_run.py"]
MORE = ["format/test_shards.py", "source/test_checkpoint.py", "cli/test_outputs.py"]
#: What is run on each, and the least number of tests that must have passed.
RUNS = {
    "macos": (["system/test_on_macos.py", *BOTH], 110),
    "windows": (["system/test_on_windows.py", *BOTH, *MORE], 200),
}


@pytest.mark.long
@pytest.mark.skipif(PLATFORM != "linux", reason="imitated under Linux only")
@pytest.mark.parametrize("system", RUNS)
def test_as_on(system: str, tmp_path: Path) -> None:
    files, least = RUNS[system]
    command = [sys.executable, "-m", "pytest", "-q", "-p", f"tests.system.as_{system}", "-p", "no:cacheprovider"]
    command += ["--basetemp", str(tmp_path / "tests"), "-k", "not every_bytecode"]
    command += [f"tests/{file}" for file in files]
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    ended = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-1000:]
    passed = re.search(r"(\d+) passed", ended.stdout)
    assert passed is not None
    assert int(passed[1]) >= least
