"""The program `gguf-forge`, also as `python -m gguf_forge`: a process from its first signal to its exit code."""

import gc
import sys

from gguf_forge import signals


def run() -> int:
    """Runs the command line of this process; returns the exit code."""
    signals.leave_at_once()
    # What is made while starting stays: looking for garbage after each 700 objects takes a tenth of a start.
    gc.set_threshold(50_000, 20, 100)
    from gguf_forge.cli import main  # noqa: PLC0415 - what takes time comes when signals are cared for

    return signals.unwinding(main)


if __name__ == "__main__":
    sys.exit(run())
