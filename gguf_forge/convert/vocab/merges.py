"""The merge rules of a byte-pair vocabulary, as GGUF's "left right" strings or as pairs.

Must not know special tokens or families.
"""

from collections.abc import Iterator
from typing import Any

from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.errors import CheckpointError

_BYTE_LEVEL_SPACE = chr(ord(" ") + 256)
"""The byte-level alphabet's stand-in for a space inside a token."""


def read_merges(folder: Folder) -> list[str]:
    """The merges of tokenizer.json, or of merges.txt where that has none; empty if there are none at all.

    tokenizer.json holds "a b" strings or, since 2024, ["a", "b"] pairs, whose spaces become the byte-level stand-in.
    """
    merges, place = _listed(folder)
    if not merges:
        return _read_merges_txt(folder)
    if isinstance(merges[0], str):
        return [_text(merge, place, number) for number, merge in enumerate(merges)]
    pairs = (_pair(merge, place, number) for number, merge in enumerate(merges))
    return [f"{left.replace(' ', _BYTE_LEVEL_SPACE)} {right.replace(' ', _BYTE_LEVEL_SPACE)}" for left, right in pairs]


def read_pairs(folder: Folder) -> Iterator[tuple[str, str]]:
    """The merges of tokenizer.json, of either form, as they are."""
    merges, place = _listed(folder)
    for number, merge in enumerate(merges):
        yield _pair(merge.split(" ") if isinstance(merge, str) else merge, place, number)


def _listed(folder: Folder) -> tuple[list[Any], str]:
    model = (folder.object("tokenizer.json") or {}).get("model") or {}
    merges = model.get("merges") if isinstance(model, dict) else None
    return merges if isinstance(merges, list) else [], f"{folder.path / 'tokenizer.json'}: merges"


def _text(merge: Any, place: str, number: int) -> str:
    if not isinstance(merge, str):
        raise CheckpointError(f"{place}[{number}]: expected a string, found {merge!r:.60}")
    return merge


def _pair(merge: Any, place: str, number: int) -> tuple[str, str]:
    left, right = merge if isinstance(merge, list) and len(merge) == 2 else (None, None)
    if not isinstance(left, str) or not isinstance(right, str):
        raise CheckpointError(f"{place}[{number}]: expected two strings, found {merge!r:.60}")
    return left, right


def _read_merges_txt(folder: Folder) -> list[str]:
    lines = (folder.text("merges.txt") or "").split("\n")
    if lines[0].strip().startswith("#"):
        lines = lines[1:]
    rules = [line.split() for line in lines]
    return [" ".join(rule) for rule in rules if len(rule) == 2]
