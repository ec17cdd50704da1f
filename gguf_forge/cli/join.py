"""`gguf-forge join`: parts of a file put together. Parses, calls the package, prints."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gguf_forge.cli.options import OUTPUT, PATH, speaking
from gguf_forge.cli.terminal import Terminal, size


@click.command("join")
@click.argument("output", metavar="OUT.gguf", type=OUTPUT)
@click.argument("parts", metavar="PART...", type=PATH, nargs=-1, required=True)
@click.option("--no-overwrite", is_flag=True, help="Fail where the output exists, instead of replacing it.")
@speaking
def command(output: str, parts: tuple[Path, ...], no_overwrite: bool, quiet: bool, verbose: bool) -> None:
    """Put the parts that `convert --part` or `quantize --part` made together: OUT.gguf, as one run makes it.

    All parts are needed, in any order; they must be of one plan, one source and one version of this program. The file
    appears when every byte was found to be what its part's digest says. The parts stay.
    """
    from gguf_forge.whole.join import join

    terminal = Terminal(quiet, verbose)
    start = time.monotonic()
    with terminal.progress(Path(output).name) as progress:
        made = join(output, parts, overwrite=not no_overwrite, progress=progress)
    seconds = time.monotonic() - start
    text = f"{made.path}: {len(made.tensors)} tensors of {len(parts)} parts, {size(made.nbytes)}, in {seconds:.1f} s"
    terminal.note(text)
