"""What holds for every test."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.oracle import JUDGE, OLDER, Oracle

# A shell starts background jobs with interrupts ignored, nohup with SIGHUP, and children inherit that: tests that send
# these signals would wait.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# Nothing here is judged by time, how slow a machine or a sanitizer may be. CI draws the same examples every time.
settings.register_profile(
    "forge", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("forge")


def undecodable(folder: Path, name: bytes) -> Path:
    """A path whose name is bytes that are no text; skips the test where the file system takes none."""
    path = folder / os.fsdecode(name)
    try:
        path.touch()
    except OSError as error:
        pytest.skip(f"names here are text: {error.strerror}")
    path.unlink()
    return path


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    return Oracle(JUDGE)


@pytest.fixture(scope="session")
def older() -> Oracle:
    return Oracle(OLDER)
