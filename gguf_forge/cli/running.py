"""Options of the commands that run a model on a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gguf_forge.cli.options import PATH, Command
from gguf_forge.system import processors

if TYPE_CHECKING:
    from gguf_forge.cli.terminal import Terminal
    from gguf_forge.quality.calibrate import CalibrationRun
    from gguf_forge.quant.imatrix import Imatrix

POSITIVE = click.IntRange(min=1)


def running(command: Command) -> Command:
    """Adds what says how a text goes through a model, under the names that llama.cpp's tools have for it."""
    for option in reversed(
        (
            click.option("-f", "--text", "--file", "texts", type=PATH, multiple=True, help="A text; repeatable."),
            click.option("-c", "--context", "--ctx-size", type=POSITIVE, default=512, show_default=True,
                         help="Tokens of a window; each is read from its beginning."),
            click.option("--chunks", type=POSITIVE, help="Windows that are read at most.  [default: all]"),
            click.option("--chunk", "--from-chunk", "skip", type=click.IntRange(min=0), default=0,
                         help="Windows that are passed over first."),
            click.option("--parse-special", "special", is_flag=True,
                         help="Names of special tokens in the text are these tokens."),
            click.option("-t", "--threads", type=POSITIVE, default=processors, show_default="all cores",
                         help="Threads that compute."),
            click.option("-ngl", "--gpu-layers", type=int, default=0, show_default=True,
                         help="Layers that a GPU computes, -1 for all, if the library can."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def run_of(options: dict[str, Any], *, output: bool = False) -> CalibrationRun:
    """From the options of `running`."""
    from gguf_forge.quality.calibrate import CalibrationRun

    return CalibrationRun(**options, output=output)


def require_input(source: Path | None, texts: Sequence[Path], merge: Sequence[Path]) -> None:
    """Raises click.UsageError for a model without a text, and for neither a model nor files to add up."""
    if source is not None and not texts:
        raise click.UsageError("no text given: --text FILE")
    if source is None and not merge:
        raise click.UsageError("neither MODEL nor --in-file is given")


def remark_on_experts(terminal: Terminal, imatrix: Imatrix) -> None:
    """Says how many experts saw no token, and how few the least visited saw; in detail, what each saw."""
    for name, entry in imatrix.entries.items():
        if len(entry.counts) > 1:
            least, unseen = int(entry.counts.min()), entry.unseen
            say = terminal.note if unseen else terminal.detail
            say(f"{name}: {unseen} of {len(entry.counts)} experts saw no token; the fewest: {least}")
            terminal.detail(f"{name}: tokens of each expert: {' '.join(map(str, entry.counts))}")


def title(source: Path | None) -> str:
    """What a progress bar is called."""
    return source.name if source is not None else "text"
