"""A checkpoint to Q4_K_M: wall time and peak memory, ours in one step against the reference's two.

The reference's programs are named by the environment: REF_CONVERTER (convert_hf_to_gguf.py), REF_PYTHON (an interpreter
that has what it needs), LLAMA_QUANTIZE (the program). BENCH_MEGABYTES sets the size of the checkpoint.
"""

from __future__ import annotations

import filecmp
import os
import sys
import time
from pathlib import Path

from tests.bench.make_checkpoint import make
from tests.bench.report import Report, Run, run

THREADS = str(min(2, os.cpu_count() or 1))
CHUNK = 8 << 20


def bench(report: Report, folder: Path) -> None:
    megabytes = float(os.environ.get("BENCH_MEGABYTES", "560"))
    checkpoint = make(folder / "Bench-Llama", int(megabytes * 1e6))
    weights = sum(p.stat().st_size for p in checkpoint.glob("*.safetensors"))
    report.section(
        "Conversion to Q4_K_M",
        f"A random Llama of {weights / 1e9:.2f} GB (BF16 safetensors), {THREADS} threads, files in the page cache. "
        "Memory is the largest resident set of any of the processes.",
    )
    ours, theirs = folder / "ours.gguf", folder / "theirs.gguf"
    warm(checkpoint)
    forge: list[str | Path] = [sys.executable, "-m", "gguf_forge", "convert", checkpoint]
    forge += ["--threads", THREADS, "-q", "-o"]
    one = run([*forge, ours, "--type", "Q4_K_M"])
    plain = run([*forge, folder / "plain.gguf", "--type", "F16"])
    both = reference(checkpoint, folder, theirs)
    same = "yes" if both and filecmp.cmp(ours, theirs, shallow=False) else "no" if both else ""
    report.table("step", ">seconds", ">peak MB", ">times faster", "same file")
    report.row("gguf-forge convert, F16", f"{plain.seconds:.2f}", f"{plain.megabytes:.0f}", "", "")
    total = sum(step.seconds for step in both)
    report.row(
        "gguf-forge convert, Q4_K_M", f"{one.seconds:.2f}", f"{one.megabytes:.0f}",
        f"{total / one.seconds:.1f}" if both else "", same,
    )  # fmt: skip
    for name, step in zip(("convert_hf_to_gguf.py", "llama-quantize Q4_K_M"), both, strict=False):
        report.row(name, f"{step.seconds:.2f}", f"{step.megabytes:.0f}", "", "")
    if both:
        report.row("both reference steps", f"{total:.2f}", f"{max(s.megabytes for s in both):.0f}", "1.0", "")
    moved = copy_bytes(checkpoint, ours.stat().st_size, folder / "copy")
    report.row("reading the weights, writing as many bytes as the result has", f"{moved:.2f}", "", "", "")
    if not both:
        report.say("\nThe reference was not run: set REF_CONVERTER, REF_PYTHON and LLAMA_QUANTIZE.")
    for path in (ours, theirs, folder / "plain.gguf", folder / "copy", folder / "middle.gguf"):
        path.unlink(missing_ok=True)


def reference(checkpoint: Path, folder: Path, target: Path) -> list[Run]:
    """The two steps, or nothing when the environment does not name the programs."""
    names = [os.environ.get(name) for name in ("REF_CONVERTER", "REF_PYTHON", "LLAMA_QUANTIZE")]
    converter, python, quantizer = names
    if not (converter and python and quantizer):
        return []
    middle = folder / "middle.gguf"
    path = str(Path(converter).parent / "gguf-py")
    first = run([python, converter, checkpoint, "--outfile", middle, "--outtype", "bf16"], PYTHONPATH=path)
    return [first, run([quantizer, middle, target, "Q4_K_M", THREADS])]


def warm(checkpoint: Path) -> None:
    for path in checkpoint.glob("*.safetensors"):
        with path.open("rb") as file:
            while file.read(CHUNK):
                pass


def copy_bytes(checkpoint: Path, nbytes: int, target: Path) -> float:
    """Seconds to read all weights and to write and sync `nbytes`."""
    start = time.perf_counter()
    warm(checkpoint)
    with target.open("wb") as file:
        for at in range(0, nbytes, CHUNK):
            file.write(bytes(min(CHUNK, nbytes - at)))
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - start
