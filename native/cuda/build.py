"""Compiles the kernels by nvcc, which needs no GPU: build.py FOLDER [architecture ...].

FOLDER gets a .fatbin for each .cu file, with machine code for every architecture and PTX for those to come;
kernels.json: how each kernel is started and what it takes; and sources: a hash of what they were made of. The same is
printed as a table: registers and stack of a thread, what it spills, shared memory of a CTA, and how many of the
threads that an SM can hold run at the launch said.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
#: Exact results, as device.h says. Warnings are errors; unused words of the vocabulary are none.
FLAGS = ["-O3", "-std=c++17", "--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false"]
FLAGS += ["-Werror", "all-warnings", "-Xptxas", "-v"]
#: The oldest architecture's instructions, which a driver compiles for GPUs that are newer than all below.
PTX = 75
#: The file that has the hash.
SOURCES = "sources"


@dataclass(frozen=True)
class Limits:
    """What an SM holds: threads, CTAs, bytes of shared memory (each CTA's, and 1024 of its own where newer)."""

    threads: int
    ctas: int
    shared: int
    own: int
    registers: int = 65536


ARCHITECTURES = {
    75: Limits(1024, 16, 64 << 10, 0),
    80: Limits(2048, 32, 164 << 10, 1024),
    86: Limits(1536, 16, 100 << 10, 1024),
    89: Limits(1536, 24, 100 << 10, 1024),
    90: Limits(2048, 32, 228 << 10, 1024),
    100: Limits(2048, 32, 228 << 10, 1024),
    120: Limits(1536, 24, 100 << 10, 1024),
}

ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<sm>\d+)a?'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?:[^\n]*?(?P<shared>\d+) bytes smem)?",
    re.DOTALL,
)
CONSTANT = re.compile(r"^ +(FORGE_\w+) = (\d+)", re.MULTILINE)
PRODUCT = re.compile(r"^MATVEC\((\w+), ", re.MULTILINE)
ENCODER = re.compile(r"^ENCODER\((\w+), +\w+, +(\d+), +(\d+), +(-1|LATTICE_\w+), +(\w+)\)", re.MULTILINE)


def launches() -> dict[str, dict[str, Any]]:
    """How each kernel is started, by its name or, of those that end with _, the beginning of it."""
    constants = {name: int(value) for name, value in CONSTANT.findall((HERE / "launch.h").read_text(encoding="utf-8"))}
    found: dict[str, dict[str, Any]] = {
        "forge_decode_": {"threads": constants["FORGE_DECODE_THREADS"], "elements": constants["FORGE_DECODE_TILE"]},
        "forge_row_": {"threads": constants["FORGE_ROW_THREADS"], "rows": constants["FORGE_ROW_THREADS"]},
    }
    listed = (HERE / "launch.def").read_text(encoding="utf-8")
    for name in PRODUCT.findall(listed):
        for numbers in ("f32_1", "f32_4", "f16_1", "f16_4"):
            launch = {"threads": constants["FORGE_MATVEC_THREADS"], "rows": constants["FORGE_MATVEC_ROWS"]}
            found[f"forge_matvec_{name}_{numbers}"] = launch
    for name, threads, blocks, lattice, beside in ENCODER.findall(listed):
        found[f"forge_encode_{name}"] = {
            "threads": int(threads),
            "blocks": int(blocks),
            "lattice": None if lattice == "-1" else lattice,
            "mean_squares": beside == "ROW_SQUARES",
        }
    return found


def sources() -> str:
    """A hash of all that kernels are made of: the C and CUDA of native/, and this file."""
    parts = [p for p in HERE.parent.rglob("*") if p.suffix in {".h", ".def", ".cu"}]
    parts = sorted([*parts, HERE / "build.py"], key=lambda p: p.relative_to(HERE.parent).as_posix())
    read = [p.read_bytes().replace(b"\r\n", b"\n") for p in parts]
    return hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in read)).hexdigest()


def occupancy(limits: Limits, threads: int, registers: int, shared: int) -> float:
    """The part of an SM's threads that run: registers go by 8 a thread and 256 a warp, shared memory by 128 bytes."""
    warps = -(-threads // 32)
    by_registers = limits.registers // (-(-registers // 8) * 8 * 32) // warps
    by_shared = limits.shared // max(-(-(shared + limits.own) // 128) * 128, 1)
    return min(by_registers, by_shared, limits.ctas, limits.threads // threads) * threads / limits.threads


def compile_kernels(source: Path, to: Path, architectures: list[int]) -> str:
    """Writes a .fatbin and returns what ptxas says. Raises SystemExit with nvcc's words."""
    codes = [f"-gencode=arch=compute_{sm},code=sm_{sm}" for sm in architectures]
    command = ["nvcc", *FLAGS, *codes, f"-gencode=arch=compute_{PTX},code=compute_{PTX}", "-fatbin", str(source)]
    run = subprocess.run([*command, "-o", str(to)], capture_output=True, text=True, check=False)  # noqa: S603
    if run.returncode:
        raise SystemExit(f"{source.name}: {run.stdout}{run.stderr}")
    return run.stdout + run.stderr


def main(folder: Path, architectures: list[int]) -> None:
    """Compiles, writes kernels.json and prints the table."""
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(HERE.glob("*.cu"))
    with ThreadPoolExecutor() as pool:
        said = list(pool.map(lambda s: compile_kernels(s, folder / f"{s.stem}.fatbin", architectures), files))
    started = launches()
    kernels: dict[str, dict[str, Any]] = {}
    for source, text in zip(files, said, strict=True):
        for found in ENTRY.finditer(text):
            name, sm = found["name"], int(found["sm"])
            launch = started.get(name) or next(how for start, how in started.items() if name.startswith(start))
            kernel = kernels.setdefault(name, {"module": f"{source.stem}.fatbin", "launch": launch, "resources": {}})
            shared, registers = int(found["shared"] or 0), int(found["registers"])
            share = occupancy(ARCHITECTURES[sm], launch["threads"], registers, shared)
            kernel["resources"][sm] = {
                "registers": registers,
                "stack": int(found["stack"]),
                "spilled": int(found["stores"]) + int(found["loads"]),
                "shared": shared,
                "occupancy": round(share, 3),
            }
    (folder / "kernels.json").write_text(json.dumps(kernels, indent=1) + "\n", encoding="utf-8")
    (folder / SOURCES).write_text(sources() + "\n", encoding="utf-8")
    print(f"{'kernel':32} threads  registers, stack, spilled, shared: occupancy, for each architecture")
    for name, kernel in sorted(kernels.items()):
        each = [
            f"sm_{sm} {r['registers']}, {r['stack']}, {r['spilled']}, {r['shared']}: {r['occupancy']:.0%}"
            for sm, r in sorted(kernel["resources"].items())
        ]
        print(f"{name:32} {kernel['launch']['threads']:7}  {'  '.join(each)}")
    for made in sorted(folder.glob("*.fatbin")):
        print(f"{made.name}: {made.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(sm) for sm in sys.argv[2:]] or list(ARCHITECTURES))
