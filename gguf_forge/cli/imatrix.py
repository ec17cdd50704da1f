"""`gguf-forge imatrix`: an importance matrix of a model and a text. Parses, calls the package, prints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from gguf_forge.cli.options import OUTPUT, PATH, speaking
from gguf_forge.cli.running import remark_on_experts, require_input, run_of, running, title
from gguf_forge.cli.terminal import Terminal


@click.command("imatrix")
@click.argument("source", metavar="[MODEL]", type=PATH, required=False)
@click.option("-o", "--output", type=OUTPUT, required=True, help="The matrix that is made.")
@running
@click.option("--in-file", "merge", type=PATH, multiple=True, help="A matrix that is added; repeatable.")
@click.option("--resume", is_flag=True, help="Keep what the output has of the same text, and go on after it.")
@click.option("--save-frequency", type=click.IntRange(min=0), default=0, help="Write the output each N windows, too.")
@click.option("--output-format", type=click.Choice(["gguf", "dat"]), help="[default: by the output's name]")
@click.option("--process-output", is_flag=True, help="The output matrix, too.")
@speaking
def command(
    source: Path | None, output: str, merge: tuple[Path, ...], resume: bool, save_frequency: int,
    output_format: str | None, process_output: bool, quiet: bool, verbose: bool, **options: Any,
) -> None:  # fmt: skip
    """Compute the importance matrix of MODEL (a GGUF file, or a checkpoint's folder) on a text, as llama-imatrix does.

    Without MODEL, the matrices of --in-file are added up. Running a model needs gguf-forge[run].
    """
    from gguf_forge.quality.calibrate import make_imatrix

    require_input(source, options["texts"], merge)
    terminal = Terminal(quiet, verbose)
    start = time.monotonic()
    with terminal.progress(title(source), "windows") as progress:
        done = make_imatrix(
            source,
            output,
            run_of(options, output=process_output),
            merge=merge,
            resume=resume,
            save_every=save_frequency,
            legacy=output_format == "dat" or (output_format is None and output.endswith(".dat")),
            told=progress,
        )
    remark_on_experts(terminal, done.imatrix)
    terminal.note(
        f"{output}: {len(done.imatrix.entries)} entries, {done.imatrix.chunks} chunks;"
        f" {done.tokens} tokens in {time.monotonic() - start:.1f} s"
    )
