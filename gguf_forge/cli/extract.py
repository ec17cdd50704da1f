"""`gguf-forge extract`: a part of a file as a file of its own. Parses, calls the package, prints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gguf_forge.cli import shards
from gguf_forge.cli.options import PATH, STREAMABLE, destination, speaking
from gguf_forge.cli.terminal import Terminal

if TYPE_CHECKING:
    from gguf_forge.whole.extract import Part


@click.command("extract")
@click.argument("source", metavar="IN.gguf", type=PATH)
@click.option("-o", "--output", type=STREAMABLE, required=True, help="The file that is made, or -.")
@click.option("--mtp", is_flag=True, help="The layers that predict further tokens, with embeddings and output.")
@click.option("--no-mtp", "--no-nextn", is_flag=True, help="All but the layers that predict further tokens.")
@click.option("--vocab-only", is_flag=True, help="Metadata and vocabulary, no tensors.")
@click.option("--no-overwrite", is_flag=True, help="Fail where the output exists, instead of replacing it.")
@click.option("--dry-run", is_flag=True, help="Print what would be made, no more.")
@click.option("--json", "as_json", is_flag=True, help="Print what is made as one JSON document.")
@speaking
def command(
    source: Path, output: str, mtp: bool, no_mtp: bool, vocab_only: bool, no_overwrite: bool, dry_run: bool,
    as_json: bool, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Make a file of a part of IN.gguf (any shard of a set), as convert's options of these names make it.

    `merge --mtp` puts layers that predict further tokens back.
    """
    from gguf_forge.whole.extract import extract_file

    if mtp + no_mtp + vocab_only != 1:
        raise click.UsageError("one of --mtp, --no-mtp and --vocab-only says what is extracted")
    part: Part = "mtp" if mtp else "no-mtp" if no_mtp else "vocab"
    terminal = Terminal(quiet, verbose)
    start = time.monotonic()
    to = destination(output, as_json or dry_run)
    assert to is not None
    with terminal.progress(source.name) as progress:
        made = extract_file(source, to, part, dry_run=dry_run, overwrite=not no_overwrite, progress=progress)
    shards.tell(terminal, made, start, as_json=as_json, dry_run=dry_run)
