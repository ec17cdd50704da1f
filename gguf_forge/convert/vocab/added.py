"""Added tokens as the checkpoint's files list them: ids, texts, flags, checked once.

Knows the files that list or name them, and which of them counts where they contradict each other. Must not know what
a flag leads to.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.errors import CheckpointError

Entry = dict[str, Any] | str
"""One token: its text, or an object with `content` and flags."""

_JSON, CONFIG_FILE, ADDED_FILE = "tokenizer.json", "tokenizer_config.json", "added_tokens.json"
_MAP = "special_tokens_map.json"


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


@dataclass(frozen=True)
class Listed:
    """What the files make of one added token. `special`: it is no text; None where no file says.

    `files` are those that list it, first the one whose text counts.
    """

    text: str
    special: bool | None
    files: tuple[str, ...]


def listed_tokens(folder: Folder, followed: Sequence[str], note: Callable[[str], None]) -> dict[int, Listed]:
    """The added tokens of all files by id.

    tokenizer.json decides which text an id has, and which id a text, as it does for the Hub's library (transformers);
    then tokenizer_config.json, then added_tokens.json. Whether a token is special is said by the last of the files
    `followed` that lists it, or else by tokenizer.json; added_tokens.json has no flags. `note` is called with each
    contradiction.
    """
    sources: dict[str, list[tuple[int, Entry]]] = {
        _JSON: json_entries(folder),
        CONFIG_FILE: list((config_entries(folder) or {}).items()),
        ADDED_FILE: [(number, text) for number, text in file_entries(folder)],
    }
    found: dict[int, Listed] = {}
    ids: dict[str, int] = {}
    flags: dict[int, dict[str, bool]] = {}
    for file, entries in sources.items():
        for number, entry in entries:
            text = text_of(entry) or ""
            known = found.get(number)
            if known is not None and known.text != text:
                note(f"token {number} is {known.text!r} in {known.files[0]}, {text!r} in {file}: the former is written")
            elif ids.setdefault(text, number) != number:
                first = found[ids[text]].files[0]
                note(f"token {text!r} has id {ids[text]} in {first}, {number} in {file}: the former is written")
            else:
                found[number] = Listed(text, None, (*(known.files if known else ()), file))
                if isinstance(entry, dict):
                    flags.setdefault(number, {})[file] = is_special(entry)
    for number, said in flags.items():
        found[number] = replace(found[number], special=_flag(found[number].text, said, followed, note))
    return found


def _flag(text: str, flags: Mapping[str, bool], followed: Sequence[str], note: Callable[[str], None]) -> bool:
    """Whether a token is special, of which each of some files says so or not."""
    chosen = next((file for file in reversed(followed) if file in flags), _JSON)
    if len(set(flags.values())) > 1:
        yes, no = (next(file for file, flag in flags.items() if flag is wanted) for wanted in (True, False))
        note(f"token {text!r} is special in {yes}, not in {no}: {chosen} is followed")
    return flags[chosen]


def named_special(folder: Folder, note: Callable[[str], None]) -> dict[str, str]:
    """Texts the files name as special tokens without an id, and the place that names each.

    tokenizer_config.json (bos_token and so on, additional_special_tokens, extra_special_tokens), and for folders
    whose tokenizer_config.json has no added_tokens_decoder also special_tokens_map.json, as for the Hub's library.
    `note` is called where the two give a role to different tokens.
    """
    settings, older = folder.object(CONFIG_FILE) or {}, folder.object(_MAP) or {}
    for key in settings.keys() & older.keys():
        one, other = text_of(settings[key]), text_of(older[key])
        if key.endswith("_token") and one is not None and other is not None and one != other:
            note(f"{key} is {one!r} in {CONFIG_FILE}, {other!r} in {_MAP}: the former is written")
    files = {CONFIG_FILE: settings} if config_entries(folder) is not None else {CONFIG_FILE: settings, _MAP: older}
    found: dict[str, str] = {}
    for file, data in files.items():
        for key, value in data.items():
            for entry in _named_by(key, value):
                text = text_of(entry)
                if text:
                    found.setdefault(text, f"{file}: {key}")
    return found


def _named_by(key: str, value: Any) -> list[Any]:
    if key.endswith("_token"):
        return [] if key.startswith("add_") else [value]  # add_bos_token and the like are flags
    if key not in ("additional_special_tokens", "extra_special_tokens"):
        return []
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
