"""`gguf-forge calibrate`: what a model computes with, for quantizing against it. Parses, calls the package, prints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from gguf_forge.cli.options import OUTPUT, PATH, Parsed, speaking
from gguf_forge.cli.running import remark_on_experts, require_input, run_of, running, title
from gguf_forge.cli.terminal import Terminal, size

#: Powers of 1024 by the letter that stands for them.
UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def bytes_of(word: str) -> int:
    """A number of bytes, as 4GiB, 500M or 1e9 says it. Raises RequestError."""
    from gguf_forge.errors import RequestError

    text = word.strip().upper().removesuffix("B").removesuffix("I")
    unit = text[-1:] if text[-1:] in UNITS else ""
    try:
        found = int(float(text.removesuffix(unit)) * 1024 ** UNITS[unit])
    except (ValueError, OverflowError):
        found = 0
    if found < 1:
        raise RequestError(f"no number of bytes: {word}")
    return found


@click.command("calibrate")
@click.argument("source", metavar="[MODEL]", type=PATH, required=False)
@click.option("-o", "--output", type=OUTPUT, required=True, help="The file that is made.")
@running
@click.option(
    "--memory", type=Parsed("size", bytes_of), default=4 << 30, show_default="4GiB",
    help="What the covariances may take, in memory as in the file; wide ones are cut into blocks to fit.",
)  # fmt: skip
@click.option("--in-file", "merge", type=PATH, multiple=True, help="A calibration that is added; repeatable.")
@click.option("--resume", is_flag=True, help="Keep what the output has of the same text, and go on after it.")
@click.option("--save-frequency", type=click.IntRange(min=0), default=0, help="Write the output each N windows, too.")
@click.option("--process-output", is_flag=True, help="The output matrix in the importance matrix, too.")
@speaking
def command(
    source: Path | None, output: str, memory: int, merge: tuple[Path, ...], resume: bool, save_frequency: int,
    process_output: bool, quiet: bool, verbose: bool, **options: Any,
) -> None:  # fmt: skip
    """Run a text through MODEL (a GGUF file, or a checkpoint's folder) and record the inputs of each matrix.

    The result is an importance matrix as `imatrix` makes it, and the covariance of each distinct input. Without MODEL,
    the calibrations of --in-file are added up. Running a model needs gguf-forge[run].
    """
    from gguf_forge.quality.calibrate import calibrate

    require_input(source, options["texts"], merge)
    terminal = Terminal(quiet, verbose)
    start = time.monotonic()
    with terminal.progress(title(source), "windows") as progress:
        done = calibrate(
            source,
            output,
            run_of(options, output=process_output),
            budget=memory,
            merge=merge,
            resume=resume,
            save_every=save_frequency,
            told=progress,
        )
    remark_on_experts(terminal, done.imatrix)
    if done.block is not None:
        terminal.note(f"covariances are kept in blocks of at most {done.block} columns, to fit {size(memory)}")
    terminal.note(
        f"{output}: {done.inputs} covariances, {size(done.moments)};"
        f" {done.tokens} tokens in {time.monotonic() - start:.1f} s"
    )
