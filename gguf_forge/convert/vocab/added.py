"""Added tokens as the checkpoint's files list them: ids, texts, flags, checked once.

Knows the three files that list them. Must not know which list counts, or what a flag leads to.
"""

from pathlib import Path
from typing import Any

from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.errors import CheckpointError

Entry = dict[str, Any] | str
"""One token: its text, or an object with `content` and flags."""


def config_entries(folder: Folder) -> dict[int, Entry] | None:
    """added_tokens_decoder of tokenizer_config.json by id, in the order written, or None if it has none."""
    place = folder.path / "tokenizer_config.json"
    listed = (folder.object("tokenizer_config.json") or {}).get("added_tokens_decoder")
    if listed is None:
        return None
    if not isinstance(listed, dict):
        raise CheckpointError(f"{place}: added_tokens_decoder is not an object")
    return {_token_id(key, place): _entry(entry, place) for key, entry in listed.items()}


def json_entries(folder: Folder) -> list[tuple[int, Entry]]:
    """added_tokens of tokenizer.json, in the order written."""
    place = folder.path / "tokenizer.json"
    listed = (folder.object("tokenizer.json") or {}).get("added_tokens") or []
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise CheckpointError(f"{place}: added_tokens is not a list of objects")
    return [(_token_id(entry.get("id"), place), _entry(entry, place)) for entry in listed]


def file_entries(folder: Folder) -> list[tuple[int, str]]:
    """added_tokens.json, in the order written."""
    place = folder.path / "added_tokens.json"
    return [(_token_id(number, place), text) for text, number in (folder.object("added_tokens.json") or {}).items()]


def text_of(entry: Any) -> str | None:
    """The text of an entry, or of a role's value in tokenizer_config.json; None for anything else."""
    content = entry.get("content") if isinstance(entry, dict) else entry
    return content if isinstance(content, str) else None


def is_special(entry: Entry) -> bool:
    """True if the entry says so itself."""
    return isinstance(entry, dict) and bool(entry.get("special"))


def _entry(entry: Any, place: Path) -> Entry:
    if text_of(entry) is None:
        raise CheckpointError(f"{place}: an added token without content: {entry!r:.80}")
    checked: Entry = entry
    return checked


def _token_id(value: Any, place: Path) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if number < 0 or isinstance(value, (bool, float)):
        raise CheckpointError(f"{place}: {value!r:.40} is not a token id")
    return number
