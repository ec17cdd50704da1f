"""`gguf-forge verify`: whether a file is what its source leads to. Parses, asks the package, prints.

Exit codes: 0 verified, 1 not (or bad input, one line on stderr).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gguf_forge.cli.options import PATH
from gguf_forge.cli.tables import Table
from gguf_forge.cli.terminal import Terminal
from gguf_forge.errors import printable
from gguf_forge.system import processors

if TYPE_CHECKING:
    from gguf_forge.whole.verify import Verification


@click.command("verify")
@click.argument("file", type=PATH)
@click.option("--against", type=PATH, required=True, metavar="SOURCE", help="A checkpoint's folder, or a GGUF file.")
@click.option("--imatrix", type=PATH, help="The importance matrix that the file was made with.")
@click.option("--mtp", is_flag=True, help="The file holds only the layers that predict further tokens.")
@click.option("--no-mtp", is_flag=True, help="The file was made without the layers that predict further tokens.")
@click.option("--mistral-format", is_flag=True, help="The folder is in Mistral's own layout (params.json).")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("-t", "--threads", type=click.IntRange(min=1), default=processors, show_default="all cores")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no notes.")
def command(
    file: Path, against: Path, imatrix: Path | None, mtp: bool, no_mtp: bool, mistral_format: bool, tensors: bool,
    threads: int, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Verify that .gguf FILE holds what SOURCE leads to, whoever made it: every tensor, the metadata, the tokenizer.

    Plain numbers must be equal. Blocks are compared with what the encoder makes, without the importance matrix and with
    it, and else judged by their error. Exits with 0 where nothing but warnings was found, else with 1.
    """
    from gguf_forge.convert.facts import Options
    from gguf_forge.whole.verify import verify

    if mtp and no_mtp:
        raise click.UsageError("--mtp and --no-mtp exclude each other")
    options = Options(mtp="only" if mtp else "drop" if no_mtp else "keep", mistral_format=mistral_format)
    terminal = Terminal(quiet)
    with terminal.progress(file.name) as progress:
        found = verify(file, against, imatrix=imatrix, options=options, threads=threads, progress=progress)
    for note in found.notes:
        terminal.note(f"{file}: {note}")
    if as_json:
        terminal.json(found.document())
    else:
        if tensors:
            terminal.show(_tensors(found), "")
        terminal.show(*_lines(found))
    if not found.verified:
        click.get_current_context().exit(1)


def _tensors(found: Verification) -> Table:
    shown = Table("tensor", "type", "status", ">equal blocks", ">error", ">usual", spare=("usual", "error", "type"))
    for one in found.tensors:
        some = "all" if one.blocks == one.equal_blocks else f"{one.equal_blocks} of {one.blocks}"
        errors = (f"{one.error:.3%}", f"{one.usual:.3%}") if one.usual or one.error else ("", "")
        shown.add(one.tensor, one.type, one.reason or one.status, some if one.blocks else "", *errors)
    return shown


def _lines(found: Verification) -> list[str]:
    lines = [f"{finding.severity}: {finding} [{finding.rule}]" for finding in found.findings]
    counts = ", ".join(f"{count} {status}" for status, count in Counter(t.status for t in found.tensors).items())
    verdict = "verified" if found.verified else "not what the source leads to"
    return [*lines, f"{printable(str(found.path))}: {verdict} ({counts or 'no tensors'})"]
