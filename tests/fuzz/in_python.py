"""One row of targets.py under atheris: `python -m tests.fuzz.in_python TARGET [libFuzzer's arguments]`."""

from __future__ import annotations

import sys
import tempfile
import tracemalloc
from pathlib import Path

import atheris

#: Modules that the readers only import, and whose code is not looked into: to change it takes seconds.
ROOT = Path(__file__).resolve().parents[2]
USED = {"finished", "identity", "resume"}
LEFT_OUT = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "gguf_forge" / "convert").rglob("*.py")
    if path.stem not in {*USED, "__init__"}
]

with atheris.instrument_imports(include=["gguf_forge"], exclude=LEFT_OUT):
    from tests.fuzz.targets import MEMORY_BASE, MEMORY_FACTOR, TARGETS, attempt

#: Of so many inputs one is looked at for the memory it takes, which is slow.
WEIGHED = 64


def main() -> None:
    """Runs until libFuzzer's bounds are reached; the first find ends it, as libFuzzer does."""
    target = TARGETS[sys.argv.pop(1)]
    memory = Path("/dev/shm")
    runs = 0
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:

        def one(data: bytes) -> None:
            nonlocal runs
            runs += 1
            if runs % WEIGHED:
                attempt(target, data, Path(folder))
                return
            tracemalloc.start()
            try:
                attempt(target, data, Path(folder))
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            bound = MEMORY_BASE + MEMORY_FACTOR * len(data)
            assert peak <= bound, f"{peak} bytes of memory for an input of {len(data)}, at most {bound} are allowed"

        atheris.Setup(sys.argv, one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
