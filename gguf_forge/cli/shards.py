"""What commands that write shards share: sizes as llama-gguf-split takes them, and how shards are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gguf_forge.cli.choosing import read_size
from gguf_forge.cli.options import Parsed
from gguf_forge.cli.tables import Table
from gguf_forge.cli.terminal import Terminal, size

if TYPE_CHECKING:
    from gguf_forge.whole.split import Shard


def _decimal_size(word: str) -> int:
    """Bytes: K, M and G are powers of a thousand, as in llama.cpp's programs; Ki, MiB and so on of 1024."""
    return read_size(f"{word}B" if word[-1:].upper() in ("K", "M", "G", "T") else word)


#: A bound on a shard's size.
SHARD_SIZE = Parsed("size", _decimal_size)


def plain(shard: Shard) -> dict[str, Any]:
    """A shard as JSON has it."""
    return {"path": str(shard.path), "bytes": shard.nbytes, "tensors": list(shard.tensors)}


def table(terminal: Terminal, shards: Sequence[Shard]) -> None:
    """The shards on stdout."""
    shown = Table("file", ">tensors", ">size", ">bytes", spare=("size",))
    for shard in shards:
        shown.add(shard.path, len(shard.tensors), size(shard.nbytes), shard.nbytes)
    terminal.show(shown)
