"""tiktoken's file format, lines of a token in base64 and its rank, and how a token follows from those of lower rank.

Must not know special tokens or patterns.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

from gguf_forge.convert.vocab.folder import read_side_file
from gguf_forge.errors import CheckpointError
from gguf_forge.source.input_file import InputFile

Ranks = dict[bytes, int]
"""The rank, which is the id, of each token's bytes."""

_LONGEST_LINE = 1 << 12


def is_ranks(path: Path) -> bool:
    """True if a file's first line is base64 and a number. `FormatError` for a Git LFS pointer in its place."""
    with InputFile(path) as file:
        file.refuse_lfs_pointer()
        words = file.read(0, min(file.size, _LONGEST_LINE)).partition(b"\n")[0].split()
    if len(words) != 2 or not words[1].isdigit():
        return False
    try:
        return bool(base64.b64decode(words[0], validate=True))
    except binascii.Error:
        return False


def read_ranks(path: Path) -> Ranks:
    """All "base64 rank" lines of a file, in its order. CheckpointError for a line that is none, or a rank twice."""
    ranks: Ranks = {}
    for number, line in enumerate(read_side_file(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise CheckpointError(f"{path}: line {number} is not base64 and a rank: {line[:60]!r}") from None
    if len(set(ranks.values())) != len(ranks):
        raise CheckpointError(f"{path}: two tokens have one rank")
    return ranks


def split(ranks: Mapping[bytes, int], token: bytes) -> list[bytes]:
    """The parts a token's bytes are merged to by all merges of lower rank: two, in a file that tiktoken could train."""
    parts = [token[i : i + 1] for i in range(len(token))]
    limit = ranks[token]
    while True:
        pairs = [(ranks.get(parts[i] + parts[i + 1], limit), i) for i in range(len(parts) - 1)]
        rank, at = min(pairs, default=(limit, 0))
        if rank >= limit:
            return parts
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
