"""What holds for every test."""

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from gguf_forge import system
from tests.oracle import JUDGE, OLDER, Oracle

# A shell starts background jobs with interrupts ignored, nohup with SIGHUP, and children inherit that: tests that send
# these signals would wait.
for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

#: The system that the package takes this one for; tests/system imitates others.
PLATFORM: str = vars(system)["sys"].platform

# Nothing here is judged by time, how slow a machine or a sanitizer may be. CI draws the same examples every time.
settings.register_profile(
    "forge", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("forge")


def undecodable(folder: Path, name: bytes) -> Path:
    """A path whose name is bytes that need be no text; skips the test where the file system takes none."""
    path = folder / os.fsdecode(name)
    try:
        path.touch()
    except OSError as error:
        pytest.skip(f"names here are text: {error.strerror}")
    path.unlink()
    return path


def make_pipe(path: Path) -> None:
    """Makes a named pipe; skips the test where there are none among files."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes among files")
    os.mkfifo(path)


def interrupter() -> Callable[[], object]:
    """What sends an interrupt to the main thread, from any; skips the test where nothing does."""
    if not hasattr(signal, "pthread_kill"):
        pytest.skip("no signals between threads")
    main = threading.main_thread().ident or 0
    return partial(signal.pthread_kill, main, signal.SIGINT)


def descriptors() -> int:
    """How many files this process has open; skips the test where that is not to be seen."""
    if not os.path.isdir("/dev/fd"):
        pytest.skip("no folder of open files")
    return len(os.listdir("/dev/fd"))


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    return Oracle(JUDGE)


@pytest.fixture(scope="session")
def older() -> Oracle:
    return Oracle(OLDER)
