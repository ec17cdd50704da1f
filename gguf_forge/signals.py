"""Signals that end a run: at once before there is work, by unwinding during it, not at all once it has ended.

Imports nothing of the package and little else, so that a run can be interrupted from its first moments on.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

_WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up", "SIGBREAK": "interrupted"}
#: Signals that ask a process to end, with the word for it. A terminal that is closed sends SIGHUP; Windows has none,
#: but SIGBREAK, for Ctrl-Break and a console that is closed.
ENDING = {getattr(signal, name): word for name, word in _WORDS.items() if hasattr(signal, name)}


class Ended(KeyboardInterrupt):
    """One of the signals of ENDING, unwinding the stack."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        self.word = ENDING[signal.Signals(number)]
        self.exit_code = 128 + number
        super().__init__(self.word)


def leave_at_once() -> None:
    """Lets the signals end the process in one line: for a start that has made nothing yet."""
    _handle(_leave)


def unwinding(work: Callable[[], int]) -> int:
    """The exit code of `work`, in which the signals raise Ended. Afterwards they are ignored: the end is near."""
    try:
        _handle(_unwind)
        return work()
    except Ended as end:  # before or after the care that work takes itself
        return end.exit_code
    finally:
        _handle(signal.SIG_IGN)


def _handle(handler: Any) -> None:
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell that started us in the background
            signal.signal(number, handler)


def _unwind(number: int, frame: FrameType | None) -> None:
    raise Ended(number)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, f"gguf-forge: {ENDING[signal.Signals(number)]}\n".encode())
    os._exit(128 + number)
