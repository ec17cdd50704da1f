"""The merge rules of a byte-pair vocabulary, as GGUF's "left right" strings.

Must not know special tokens or families.
"""

from typing import Any

from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.errors import CheckpointError

_BYTE_LEVEL_SPACE = chr(ord(" ") + 256)
"""The byte-level alphabet's stand-in for a space inside a token."""


def read_merges(folder: Folder) -> list[str]:
    """The merges of tokenizer.json, or of merges.txt where that has none; empty if there are none at all.

    tokenizer.json holds "a b" strings or, since 2024, ["a", "b"] pairs, whose spaces become the byte-level stand-in.
    """
    model = (folder.object("tokenizer.json") or {}).get("model") or {}
    merges = model.get("merges") if isinstance(model, dict) else None
    if isinstance(merges, list) and merges:
        place = f"{folder.path / 'tokenizer.json'}: merges"
        if isinstance(merges[0], str):
            return [_text(merge, place, number) for number, merge in enumerate(merges)]
        return [_pair(merge, place, number) for number, merge in enumerate(merges)]
    return _read_merges_txt(folder)


def _text(merge: Any, place: str, number: int) -> str:
    if not isinstance(merge, str):
        raise CheckpointError(f"{place}[{number}]: expected a string, found {merge!r:.60}")
    return merge


def _pair(merge: Any, place: str, number: int) -> str:
    left, right = merge if isinstance(merge, list) and len(merge) == 2 else (None, None)
    if not isinstance(left, str) or not isinstance(right, str):
        raise CheckpointError(f"{place}[{number}]: expected two strings, found {merge!r:.60}")
    return f"{left.replace(' ', _BYTE_LEVEL_SPACE)} {right.replace(' ', _BYTE_LEVEL_SPACE)}"


def _read_merges_txt(folder: Folder) -> list[str]:
    lines = (folder.text("merges.txt") or "").split("\n")
    if lines[0].strip().startswith("#"):
        lines = lines[1:]
    rules = [line.split() for line in lines]
    return [" ".join(rule) for rule in rules if len(rule) == 2]
