"""`gguf-forge split`: a file into a set of shards. Parses, calls the package, prints."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gguf_forge.cli import shards
from gguf_forge.cli.options import PATH, PREFIX, speaking
from gguf_forge.cli.terminal import Terminal, size


@click.command("split")
@click.argument("source", metavar="IN.gguf", type=PATH)
@click.argument("words", metavar="[PREFIX]", type=PREFIX, required=False)
@click.option("-o", "--output", type=PREFIX, help="What shards' names begin with, or a folder. [default: IN's name]")
@click.option(
    "--max-size", "--split-max-size", type=shards.SHARD_SIZE, metavar="SIZE",
    help="Tensors in a shard take this at most: 2G, 500M (thousands), 2GiB. A larger tensor is alone in its own.",
)
@click.option(
    "--max-tensors", "--split-max-tensors", type=click.IntRange(min=1),
    help="Tensors in a shard. [default: 128, where no size is given]",
)
@click.option("--no-tensor-first-split", is_flag=True, help="No tensors in the first shard, which has the metadata.")
@click.option("--overwrite", is_flag=True, help="Replace shards that are there; their set is gone from then on.")
@click.option("--dry-run", is_flag=True, help="Print the shards, no more.")
@click.option("--json", "as_json", is_flag=True, help="Print the shards as one JSON document.")
@speaking
def command(
    source: Path, words: str | None, output: str | None, max_size: int | None, max_tensors: int | None,
    no_tensor_first_split: bool, overwrite: bool, dry_run: bool, as_json: bool, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Split IN.gguf into shards PREFIX-00001-of-0000N.gguf, as llama-gguf-split does.

    Tensors stay whole and as they are; of a set (IN.gguf is any shard) others are made. The shards appear together,
    once all are on disk. `merge` gives the file back, byte for byte.
    """
    from gguf_forge.whole.split import split_file

    if words is not None and output is not None:
        raise click.UsageError(f"one output at a time, found {words} and {output}")
    terminal = Terminal(quiet, verbose)
    start = time.monotonic()
    with terminal.progress(source.name) as progress:
        made = split_file(
            source,
            words or output,
            max_size=max_size,
            max_tensors=max_tensors,
            tensors_in_first=not no_tensor_first_split,
            dry_run=dry_run,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        terminal.json([shards.plain(shard) for shard in made])
    elif dry_run:
        shards.table(terminal, made)
    if not dry_run:
        total = size(sum(shard.nbytes for shard in made))
        seconds = time.monotonic() - start
        terminal.note(f"{made[0].path} and so on: {len(made)} shards, {total}, in {seconds:.1f} s")
        for shard in made:
            terminal.detail(f"{shard.path}: {len(shard.tensors)} tensors, {size(shard.nbytes)}")
