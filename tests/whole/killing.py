"""Work that is killed before each of the calls it makes to the system, and what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gguf_forge import system
from tests.conftest import PLATFORM

needs_fork = pytest.mark.skipif(PLATFORM == "win32", reason="processes do not fork")

CALLS = ("create", "open_itself", "lock", "reserve", "write_at", "flush", "replace", "flush_entry", "read_at")
#: Runs work in a child for each call it makes, which dies before that; what it leaves is kept for the test to look at.
_KILLED = """
import os, shutil, sys
from pathlib import Path
from gguf_forge import Edits, edit_file, merge_files, split_file, system
import tests.convert.resuming # takes longer than most work: here, not in each child
start, work, states = map(Path, sys.argv[1:4])
for step in range(1000):
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(start, work)
    child = os.fork()
    if not child:
        left = step
        def dying(real):
            def call(*given, **named):
                global left
                left -= 1
                if left == -1:
                    os._exit(9)
                return real(*given, **named)
            return call
        for call in sys.argv[5:]:
            setattr(system, call, dying(getattr(system, call)))
        exec(sys.argv[4])
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    work.rename(states / str(step))
    if status == 0:
        break
    assert status == 9, status
"""


def killed(start: Path, work: str, tmp_path: Path) -> list[Path]:
    """The folders left when `work` is killed before its first call, its second, and so on; the last is not killed."""
    states = tmp_path / "states"
    states.mkdir()
    words = [sys.executable, "-c", _KILLED, str(start), str(tmp_path / "work"), str(states), work, *CALLS]
    subprocess.run(words, check=True)
    return [states / str(step) for step in range(len(os.listdir(states)))]


class Failing:
    """A call to the system that raises an error at the n-th time it is made, counted from 0."""

    def __init__(self, call: str, error: BaseException, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
        before = getattr(system, call)
        self._real: Callable[..., Any] = before._real if isinstance(before, Failing) else before
        self._error, self._left = error, at
        monkeypatch.setattr(system, call, self)

    def __call__(self, *given: Any) -> Any:
        self._left -= 1
        if self._left == -1:
            raise self._error
        return self._real(*given)

    @property
    def came(self) -> bool:
        """Whether it was raised."""
        return self._left < 0
