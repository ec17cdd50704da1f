"""Fuzzing guided by coverage: `python -m tests.fuzz [TARGET...]`, all targets unless some are named.

SECONDS: of each target (default: 180 for all of them together); RUNS: executions of each target, instead; 0 goes
through the corpora once. SEED: a number that the search's chances come of, so that it goes the same way again. AT_ONCE:
so many targets run beside each other (default 1). FUZZ: the folder that corpora grow in (default build/fuzz); what is
found goes to FUZZ/finds, and the command ends with 1. The C core is compiled by clang with its fuzzer's runtime and
sanitizers, once; PLAIN=1 compiles it without sanitizers, which goes some five times as fast: for long searches, of
which the sanitizers are shown the corpus afterwards. Without clang, or without atheris for Python, a line says what is
left out.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz import seeds
from tests.fuzz.targets import TARGETS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PLACE = Path(os.environ.get("FUZZ") or ROOT / "build" / "fuzz").resolve()
#: What reads types, rows and widths that an input names: what it compares numbers with guides the search, too.
COMPARING = ("native/core",)
SOURCES = ("tests/fuzz/core", *COMPARING, "native/grid", "native/lattice", "native/strided", "native/isa/scalar")
#: Vectors, whose code the checks of undefined behaviour make many times as large; `make sanitize` has these, too.
VECTORS = ("native/isa/avx2", "native/isa/avx512", "native/isa/neon")
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O1", "-gline-tables-only", "-ffp-contract=off")
COUNTED = "-fsanitize-coverage=inline-8bit-counters,pc-table"


@dataclass(frozen=True)
class Build:
    """How the C targets are compiled: the program's name, flags of COMPARING, other sources, VECTORS, and to link."""

    name: str
    comparing: tuple[str, ...]
    sources: tuple[str, ...]
    vectors: tuple[str, ...]
    link: str

    def flags(self, source: str) -> tuple[str, ...]:
        """Those of one source."""
        kind = self.vectors if source in VECTORS else self.comparing if source in COMPARING else self.sources
        return (*FLAGS, *kind)


_ALL_CHECKS = ("-fsanitize=fuzzer-no-link,address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")
CHECKED = Build(
    "core", _ALL_CHECKS, _ALL_CHECKS, ("-fsanitize=address", COUNTED), "-fsanitize=fuzzer,address,undefined"
)
#: As fast as it can be: only what the search is guided by is counted.
PLAIN = Build("core-plain", ("-fsanitize=fuzzer-no-link",), ("-O2", COUNTED), ("-O2",), "-fsanitize=fuzzer")
#: The targets of core.c, and the longest input of each: a block or two.
IN_C = {
    "decode": 293, "encode_plain": 260, "encode_k": 260, "encode_iq": 260, "convert": 600, "floats8": 400,
    "grid_blocks": 400, "turned": 700, "fields": 256, "moments": 400, "fit": 400, "strided": 16,
}  # fmt: skip
#: Seconds after which an input counts as a hang, and MiB a process may have.
HANG, MEMORY = 20, 2048
SECONDS_OF_ALL = 180


@dataclass(frozen=True)
class Outcome:
    """What libFuzzer says at its end."""

    target: str
    executions: int
    edges: int
    features: int
    rate: int
    found: bool

    def row(self) -> str:
        """A row of the table of docs/reliability.md."""
        finds = "see finds/" if self.found else "0"
        return f"| {self.target} | {self.executions:,} | {self.edges:,} | {self.features:,} | {self.rate:,} | {finds} |"


def lacking() -> tuple[str | None, str | None]:
    """Why targets in C, and in Python, are left out; None where they are not."""
    in_c = None
    clang = shutil.which("clang")
    if clang is None:
        in_c = "no clang"
    else:
        said = subprocess.run([clang, "-print-runtime-dir"], capture_output=True, text=True, check=False).stdout.strip()
        if not list(Path(said).glob("libclang_rt.fuzzer-*")) and not list(Path(said).glob("*/libclang_rt.fuzzer*")):
            in_c = "clang has no libFuzzer (Debian: libclang-rt-*-dev)"
    return in_c, None if find_spec("atheris") else "atheris is not installed (pip install atheris)"


def build(how: Build) -> Path:
    """The program of the C targets; sources that have changed are compiled again. Raises CalledProcessError."""
    folder = PLACE / how.name
    folder.mkdir(parents=True, exist_ok=True)
    native = ROOT / "native"
    headers = hashlib.sha256()
    for path in sorted([*native.rglob("*.h"), *native.rglob("*.def")]):
        headers.update(path.read_bytes())
    objects, running = [], []
    for source in (*SOURCES, *VECTORS):
        made = folder / f"{source.replace('/', '_')}.o"
        words = ["clang", *how.flags(source), "-c", f"{source}.c", "-o", str(made)]
        stamp = headers.copy()
        stamp.update(repr(words).encode() + (ROOT / f"{source}.c").read_bytes())
        objects.append(str(made))
        kept = made.with_suffix(".sha256")
        if not (made.exists() and kept.exists() and kept.read_text(encoding="ascii") == stamp.hexdigest()):
            kept.unlink(missing_ok=True)
            running.append((subprocess.Popen(words, cwd=ROOT), kept, stamp.hexdigest()))
    if running:
        say(f"compiling {how.name}")
    for process, kept, digest in running:
        if not process.wait():
            kept.write_text(digest, encoding="ascii")
    for process, _, _ in running:
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
    program = folder / "program"
    if running or not program.exists():
        subprocess.run(["clang", how.link, *objects, "-lm", "-o", str(program)], check=True)
    return program


def lay_out(target: str, given: Iterable[bytes]) -> Path:
    """The folder of a target's corpus, its seeds in it."""
    folder = PLACE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for data in given:
        path = folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()
        if not path.exists():
            path.write_bytes(data)
    return folder


def fuzz(target: str, words: list[str], most: int, given: Iterable[bytes], bounds: list[str]) -> Outcome:
    """Runs one target; `words` start its program."""
    folder = lay_out(target, given)
    finds = PLACE / "finds" / target
    finds.mkdir(parents=True, exist_ok=True)
    log = PLACE / f"{target}.log"
    command = [
        *words, *bounds, f"-max_len={most}", f"-timeout={HANG}", f"-rss_limit_mb={MEMORY}",
        f"-artifact_prefix={finds}/", "-print_final_stats=1", str(folder),
    ]  # fmt: skip
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1"}
    with log.open("wb") as out:
        ended = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=environment, check=False)
    return outcome(target, log.read_text(encoding="utf-8", errors="replace"), bool(ended.returncode))


def outcome(target: str, log: str, found: bool) -> Outcome:
    """Read from libFuzzer's last lines."""
    last = re.findall(r"cov: (\d+) ft: (\d+)", log)[-1:] or [("0", "0")]
    runs = re.findall(r"number_of_executed_units:\s*(\d+)", log)[-1:] or re.findall(r"^#(\d+)", log, re.M)[-1:] or ["0"]
    rate = re.findall(r"average_exec_per_sec:\s*(\d+)", log)[-1:] or re.findall(r"exec/s: (\d+)", log)[-1:] or ["0"]
    return Outcome(target, int(runs[0]), int(last[0][0]), int(last[0][1]), int(rate[0]), found)


def main(names: list[str]) -> int:
    """Runs targets, prints a row for each, and returns 1 if something was found."""
    unknown = set(names) - {*IN_C, *TARGETS}
    if unknown:
        say(f"no target {', '.join(sorted(unknown))}; there are {', '.join([*IN_C, *TARGETS])}")
        return 2
    chosen = names or [*IN_C, *TARGETS]
    no_c, no_python = lacking()
    for what, why in (("the C core", no_c), ("Python", no_python)):
        if why:
            say(f"{what} is not fuzzed: {why}")
    chosen = [name for name in chosen if not (no_c if name in IN_C else no_python)]
    if not chosen:
        return 0
    runs, seconds = os.environ.get("RUNS"), os.environ.get("SECONDS") or max(1, SECONDS_OF_ALL // len(chosen))
    bounds = [f"-runs={runs}"] if runs else [f"-max_total_time={seconds}"]
    bounds += [f"-seed={os.environ['SEED']}"] if os.environ.get("SEED") else []
    how = PLAIN if os.environ.get("PLAIN") else CHECKED
    program = build(how) if any(name in IN_C for name in chosen) else None
    say("| target | executions | edges | features | a second | finds |\n|:-|-:|-:|-:|-:|-:|")

    def one(name: str) -> Outcome:
        if name in IN_C:
            return fuzz(name, [str(program), name], IN_C[name], seeds.blocks(name), bounds)
        words = [sys.executable, "-m", "tests.fuzz.in_python", name]
        return fuzz(name, words, TARGETS[name].most, TARGETS[name].seeds(), bounds)

    found = False
    with ThreadPoolExecutor(int(os.environ.get("AT_ONCE") or 1)) as pool:
        for ended in pool.map(one, chosen):
            found |= ended.found
            say(ended.row())
    if found:
        say(f"found: {PLACE}/finds, and how in {PLACE}/TARGET.log")
    return int(found)


def say(line: str) -> None:
    """A line of the table."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
