"""What commands share that write shards, or a file of them: sizes as llama-gguf-split takes them, and what is told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from gguf_forge.cli.choosing import read_size
from gguf_forge.cli.options import Command, Parsed
from gguf_forge.cli.tables import Table
from gguf_forge.cli.terminal import Terminal, size

if TYPE_CHECKING:
    from gguf_forge.convert.splitting import Splitting
    from gguf_forge.format.sets import Shard


def _decimal_size(word: str) -> int:
    """Bytes: K, M and G are powers of a thousand, as in llama.cpp's programs; Ki, MiB and so on of 1024."""
    return read_size(f"{word}B" if word[-1:].upper() in ("K", "M", "G", "T") else word)


#: A bound on a shard's size.
SHARD_SIZE = Parsed("size", _decimal_size)


#: The options of `splitting`, as click gives them.
NAMES = ("split_max_size", "split_max_tensors", "no_tensor_first_split")


def splitting(command: Command) -> Command:
    """Adds the options that have an output written as a set of shards."""
    for option in reversed(
        (
            click.option(
                "--split-max-size", type=SHARD_SIZE, metavar="SIZE",
                help="Write shards with tensors of this size at most: 2G, 500M (thousands), 2GiB.",
            ),
            click.option(
                "--split-max-tensors", type=click.IntRange(min=1), help="Write shards of this many tensors at most."
            ),
            click.option("--no-tensor-first-split", is_flag=True, help="A first shard without tensors."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def taken(options: dict[str, Any], *, keep: bool = False) -> Splitting | None:
    """What the options of `splitting` ask for, taken out of `options`. RequestError for what contradicts itself."""
    from gguf_forge.convert.splitting import Splitting

    max_size, max_tensors, bare = (options.pop(name) for name in NAMES)
    if not (max_size or max_tensors or bare or keep):
        return None
    return Splitting(max_size, max_tensors, not bare, keep)


def plain(shard: Shard) -> dict[str, Any]:
    """A shard as JSON has it."""
    return {"path": str(shard.path), "bytes": shard.nbytes, "tensors": list(shard.tensors)}


def table(terminal: Terminal, shards: Sequence[Shard]) -> None:
    """The shards on stdout."""
    shown = Table("file", ">tensors", ">size", ">bytes", spare=("size",))
    for shard in shards:
        shown.add(shard.path, len(shard.tensors), size(shard.nbytes), shard.nbytes)
    terminal.show(shown)


def tell(terminal: Terminal, made: Shard, start: float, *, as_json: bool, dry_run: bool) -> None:
    """What a command has made, or would make, of one file; `start`: when it began, by time.monotonic."""
    if as_json:
        terminal.json(plain(made))
    elif dry_run:
        table(terminal, [made])
    if not dry_run:
        seconds = time.monotonic() - start
        terminal.note(f"{made.path}: {len(made.tensors)} tensors, {size(made.nbytes)}, in {seconds:.1f} s")
