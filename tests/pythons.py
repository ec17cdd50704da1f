"""The suite on every Python this machine has, from wheels: `python -m tests.pythons [pytest arguments]`.

The stable-ABI wheel is built once, by the Python that runs this, and each Python with a global lock takes that one; a
free-threaded Python builds its own. The tests run in a copy of the tree without the package, so that what they test is
what the wheel installed. PYTHONS names further interpreters, as PATH does folders. Everything goes to build/pythons.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "pythons"
#: Versions that are to work; "t": free-threaded.
WANTED = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15", "3.14t", "3.15t")
#: Where tools put interpreters that are not on PATH: pyenv, uv, the manylinux images.
HOMES = ("~/.pyenv/versions", "~/.local/share/uv/python", "/opt/python")
#: What the copies of the tree leave out.
MADE = ("build", "out", ".git", ".venv", "*.so", "__pycache__", "*.egg-info", ".*_cache")
#: A test of llama.cpp running finished files, in which Python has no part.
LEFT_OUT = "tests/cli/test_generation.py"
_ASK = (
    "import json, platform, sys, sysconfig; "
    "t = 't' if sysconfig.get_config_var('Py_GIL_DISABLED') else ''; "
    "print(json.dumps(['%d.%d' % sys.version_info[:2] + t, platform.python_version() + t]))"
)


@dataclass(frozen=True)
class Python:
    """An interpreter: "3.14t", its whole version, and the program."""

    name: str
    version: str
    program: Path


class StepError(Exception):
    """A step before the tests failed; the text is its last line."""


def candidates() -> Iterator[Path]:
    """Programs that may be interpreters, those named first."""
    yield from (Path(name) for name in os.environ.get("PYTHONS", "").split(os.pathsep) if name)
    yield Path(sys.executable)
    for name in WANTED:
        yield from (Path(folder, f"python{name}") for folder in os.get_exec_path())
    for home in HOMES:
        programs = sorted(Path(home).expanduser().glob("*/bin/python3*"))
        yield from (program for program in programs if re.fullmatch(r"python3(\.\d+t?)?", program.name))


def found() -> dict[str, Python]:
    """One interpreter for each version there is."""
    pythons: dict[str, Python] = {}
    for program in candidates():
        if program.is_file() and os.access(program, os.X_OK):
            asked = subprocess.run([program, "-I", "-c", _ASK], capture_output=True, text=True, check=False)
            if asked.returncode == 0:  # a shim of a version that is not chosen ends with an error
                name, version = json.loads(asked.stdout)
                pythons.setdefault(name, Python(name, version, program))
    return pythons


def step(*words: str | Path) -> None:
    """Runs a program. Raises StepError with its last line if it fails."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise StepError(f"{Path(words[0]).name} {words[1]} {words[2]}: {lines[-1] if lines else 'no word'}")


def wheel(python: Python) -> Path:
    """The wheel for a Python, built from a copy of the tree."""
    folder = PLACE / "wheels" / (python.name if python.name.endswith("t") else "abi3")
    if not folder.exists():
        program = python.program if python.name.endswith("t") else Path(sys.executable)
        source = PLACE / "source"
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*MADE))
        step(program, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source)
    return next(folder.glob("*.whl"))


def tried(python: Python, arguments: list[str]) -> str:
    """Installs the wheel for a Python in an environment of its own and runs the suite; how that ended."""
    place = PLACE / python.name
    program = place / "bin" / "python"
    built = wheel(python)
    step(python.program, "-m", "venv", "--clear", place)
    step(program, "-m", "pip", "install", "-q", "--prefer-binary", f"gguf-forge[test] @ {built.as_uri()}")
    words = ["-m", "pytest", "-q", "-m", "not zoo and not runtime", "-p", "no:cacheprovider", "--ignore", LEFT_OUT]
    with (PLACE / f"{python.name}.log").open("wb") as log:
        subprocess.run(
            [program, *words, *arguments],
            cwd=PLACE / "suite",
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},  # the wheel, not the tree
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    lines = (PLACE / f"{python.name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1].strip("= ") if lines else "no word"


def main(arguments: list[str]) -> int:
    """Runs the suite on each Python, prints a line for each, and returns 1 if one failed."""
    shutil.rmtree(PLACE, ignore_errors=True)
    shutil.copytree(ROOT, PLACE / "suite", ignore=shutil.ignore_patterns(*MADE, "gguf_forge", "converters"))
    pythons = found()
    failed = []
    for name in WANTED:
        if name not in pythons:
            say(f"{name:6} not here: no program python{name} on PATH, in PYTHONS or in {', '.join(HOMES)}")
            continue
        try:
            ended = tried(pythons[name], arguments)
        except StepError as error:
            ended = f"not tried: {error}"
        if not re.match(r"\d+ passed", ended):  # failures and errors come before
            failed.append(name)
        say(f"{name:6} {pythons[name].version:9} {ended}")
    if failed:
        say(f"failed: {', '.join(failed)}; see {PLACE}/*.log")
    return 1 if failed else 0


def say(line: str) -> None:
    """A line of the table."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
