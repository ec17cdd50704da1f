"""`gguf-forge merge`: a set of shards into one file. Parses, calls the package, prints."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gguf_forge.cli import shards
from gguf_forge.cli.options import PATH, STREAMABLE, destination, speaking
from gguf_forge.cli.terminal import Terminal


@click.command("merge")
@click.argument("source", metavar="SHARD.gguf", type=PATH)
@click.argument("words", metavar="[OUT.gguf]", type=STREAMABLE, required=False)
@click.option("-o", "--output", type=STREAMABLE, help="The file that is made, its folder, or -. [default: the set's]")
@click.option("--mtp", type=PATH, metavar="MTP.gguf", help="Put these layers, which predict further tokens, back.")
@click.option(
    "--delete-splits", is_flag=True, help="Remove the shards, once the file was read again and holds all of them."
)
@click.option("--no-overwrite", is_flag=True, help="Fail where the output exists, instead of replacing it.")
@click.option("--dry-run", is_flag=True, help="Print what would be made, no more.")
@click.option("--json", "as_json", is_flag=True, help="Print what is made as one JSON document.")
@speaking
def command(
    source: Path, words: str | None, output: str | None, mtp: Path | None, delete_splits: bool,
    no_overwrite: bool, dry_run: bool, as_json: bool, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Merge the set that SHARD.gguf is any shard of into one file.

    Of a set that `split` or llama-gguf-split made it is the file that was split, byte for byte: llama-gguf-split itself
    leaves keys of the set in it. With --mtp, SHARD.gguf is a model, alone or any shard of it, into which a file that
    `extract --mtp` or convert_hf_to_gguf.py --mtp made is put back.
    """
    from gguf_forge.whole.extract import insert_mtp
    from gguf_forge.whole.split import merge_files

    if words is not None and output is not None:
        raise click.UsageError(f"one output at a time, found {words} and {output}")
    terminal = Terminal(quiet, verbose)
    start = time.monotonic()
    to = destination(words or output, as_json or dry_run)
    if mtp is not None and (to is None or delete_splits):
        raise click.UsageError("--mtp makes another file: it needs an output, and removes nothing")
    with terminal.progress(source.name) as progress:
        if mtp is not None and to is not None:
            made = insert_mtp(source, mtp, to, dry_run=dry_run, overwrite=not no_overwrite, progress=progress)
        else:
            made = merge_files(
                source, to, dry_run=dry_run, overwrite=not no_overwrite, delete=delete_splits, progress=progress
            )
    shards.tell(terminal, made, start, as_json=as_json, dry_run=dry_run)
