"""The general.* keys: what a checkpoint says of itself in its name, its model card and its configuration.

Knows where each fact is written and which source counts first. Must not know tensors, file types or tokenizers.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gguf_forge.convert.naming import NameParts, ParameterCounts, file_stem, split_name, title
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.errors import CheckpointError, InvalidError, RequestError, escaped, is_utf8
from gguf_forge.format import values
from gguf_forge.format.layout import ValueType
from gguf_forge.format.values import Value

_log = logging.getLogger(__name__)

MAX_CARD_BYTES = 1 << 20
"""A longer front matter is not read: PyYAML takes seconds for each megabyte."""

_SAMPLING: tuple[tuple[str, ValueType, tuple[str, ...]], ...] = (
    ("sequence", ValueType.STRING, ("sequence",)),
    ("top_k", ValueType.INT32, ("top_k",)),
    ("top_p", ValueType.FLOAT32, ("top_p",)),
    ("min_p", ValueType.FLOAT32, ("min_p",)),
    ("xtc_probability", ValueType.FLOAT32, ("xtc_probability",)),
    ("xtc_threshold", ValueType.FLOAT32, ("xtc_threshold",)),
    ("temp", ValueType.FLOAT32, ("temperature",)),
    ("penalty_last_n", ValueType.INT32, ("penalty_last_n",)),
    ("penalty_repeat", ValueType.FLOAT32, ("penalty_repeat", "repetition_penalty")),
    ("mirostat", ValueType.INT32, ("mirostat",)),
    ("mirostat_tau", ValueType.FLOAT32, ("mirostat_tau",)),
    ("mirostat_eta", ValueType.FLOAT32, ("mirostat_eta",)),
)
"""general.sampling.NAME, its type, and the keys of generation_config.json, the first present one counts."""

_CARD_FIELDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("name", "name", ("name", "model_name")),
    ("author", "author", ("author", "model_author", "model_creator")),
    ("version", "version", ("version", "model_version")),
    ("organization", "organization", ("organization", "model_organization")),
    ("finetune", "finetune", ("finetune", "model_finetune")),
    ("basename", "basename", ("basename", "model_basename", "model_type")),
    ("description", "description", ("description", "model_description")),
    ("size_label", "size_label", ("size_label", "model_size_label")),
    ("license", "license", ("license",)),
    ("license_name", "license.name", ("license_name",)),
    ("license_link", "license.link", ("license_link",)),
    ("source_url", "source.url", ("url", "model_url")),
    ("source_doi", "source.doi", ("doi", "model_doi")),
    ("source_uuid", "source.uuid", ("uuid", "model_uuid")),
    ("source_repo_url", "source.repo_url", ("repo_url", "model_repo_url")),
)
"""A fact, its key after `general.`, and the keys of the model card that may hold it. In the order of the output."""

_ORIGIN_FIELDS = ("name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url")
_HUB_URL = re.compile(r"https?://huggingface.co/([^/]+/[^/]+)$")
#: Where the Hub's cache keeps a repository: models--ORGANIZATION--NAME/snapshots/COMMIT.
_HUB_CACHE, _HUB_SNAPSHOTS = "models--", "snapshots"
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def general_metadata(
    directory: Path,
    config: Mapping[str, Any],
    *,
    architecture: str,
    counts: ParameterCounts,
    kind: str = "model",
    name: str | None = None,
    note: Callable[[str], None] = _log.warning,
) -> dict[str, Value]:
    """The general.* keys in the reference converter's order, without file_type and quantization_version.

    `config`: config.json as written. `architecture`: GGUF's name. `counts`: of the output's tensors, for the size
    label. `name`: in place of the name found; RequestError where UTF-8 cannot hold it. What is damaged, or no text, is
    left out and noted.
    """
    if name is not None and not is_utf8(name):
        raise RequestError(f"the model's name '{escaped(name)}' is not UTF-8")
    folder = Folder(directory)
    card = read_card(folder, note)
    facts = _facts(directory, config, card, counts, note)
    if name is not None:
        facts["name"] = name
    result = {"general.architecture": values.string(architecture), "general.type": values.string(kind)}
    result.update(_sampling(folder, note))
    for fact, key, _ in _CARD_FIELDS:
        _put(result, f"general.{key}", facts.get(fact), note)
    for key, names in (
        ("base_model", ("base_model", "base_models", "base_model_sources")),
        ("dataset", ("datasets", "dataset", "dataset_sources")),
    ):
        if any(card_key in card for card_key in names):
            result.update(_origins(key, _first_present(card, names), counts.total, note))
    for key, card_keys in (("tags", ("tags", "pipeline_tag")), ("languages", ("languages", "language"))):
        listed = [_text(entry) for card_key in card_keys for entry in _listed(card.get(card_key))]
        listed = [entry for entry in listed if _storable(f"general.{key}", entry, note)]
        if listed:
            result[f"general.{key}"] = values.strings(listed)
    return result


def default_file_name(general: Mapping[str, Value], output_type: str | None) -> str:
    """The reference's name for an output without one, from general.* keys: Base-Size-Finetune-Version-TYPE.gguf.

    Of a vocabulary, which has no type: Base-Finetune-Version-vocab.gguf.
    """

    def text(fact: str) -> str | None:
        value = general.get(f"general.{fact}")
        return None if value is None else str(value.value)

    parts = NameParts(**{fact: text(fact) for fact in asdict(NameParts())})
    if output_type is None:
        return f"{file_stem(replace(parts, size_label=None), None)}-vocab.gguf"
    return f"{file_stem(parts, output_type)}.gguf"


def read_card(folder: Folder, note: Callable[[str], None]) -> dict[str, Any]:
    """The YAML front matter of README.md; empty if there is none, or (noted) if it is damaged."""
    try:
        lines = (folder.text("README.md") or "").splitlines()
    except CheckpointError as error:
        note(f"{error}; the model card is left out")
        return {}
    if not lines or lines[0] != "---":
        return {}
    end = lines.index("---", 1) if "---" in lines[1:] else len(lines)
    text = "\n".join(lines[1:end]) + "\n"
    if len(text) > MAX_CARD_BYTES:
        note(f"README.md: front matter of {len(text)} characters is not read (limit {MAX_CARD_BYTES})")
        return {}
    text = text.replace("- no\n", '- "no"\n').replace("\t", "  ")  # Norwegian is not false
    import yaml  # noqa: PLC0415 - many folders are read without

    try:
        card = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        note(f"README.md: front matter is not YAML: {' '.join(str(error).split())[:120]}")
        return {}
    if not isinstance(card, dict):
        note(f"README.md: front matter is not a mapping but {type(card).__name__}")
        return {}
    return card


def _facts(
    directory: Path,
    config: Mapping[str, Any],
    card: dict[str, Any],
    counts: ParameterCounts,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """The model card's word counts first, then config.json's `_name_or_path`, then the folder's name."""
    facts: dict[str, Any] = {}
    for fact, _, card_keys in _CARD_FIELDS:
        facts[fact] = next((card[key] for key in card_keys if card.get(key) is not None), None)
    if isinstance(facts["license"], list):
        facts["license"] = ",".join(_text(entry) for entry in facts["license"])
    for fact, value in facts.items():
        if isinstance(value, (dict, list)):
            note(f"README.md: {fact} is not a text and is left out")
            facts[fact] = None
    path = config.get("_name_or_path")
    ids = [path] if isinstance(path, str) and path.count("/") <= 1 else []
    for model_id in (*ids, *_folder_ids(directory, note)):
        parts = split_name(model_id, counts.total)
        for fact, found in asdict(parts).items():
            if facts.get(fact) is None and found is not None:
                facts[fact] = title(found) if fact in ("name", "organization") else found
    if facts.get("size_label") is None:
        facts["size_label"] = counts.size_label()
    return facts


def _folder_ids(directory: Path, note: Callable[[str], None]) -> list[str]:
    """What the folder says of the model: its repository's name in the Hub's cache, otherwise its own name.

    Nothing, which is noted, where that is a hash, as of what was copied out of that cache, or no text.
    """
    whole = directory.resolve()
    cache = whole.parent.parent.name
    name = directory.name if directory.name not in ("", "..") else whole.name
    if whole.parent.name == _HUB_SNAPSHOTS and cache.startswith(_HUB_CACHE):
        name = cache.removeprefix(_HUB_CACHE).replace("--", "/", 1)
    wrong = "is not UTF-8" if not is_utf8(name) else "is a hash" if _HASH.fullmatch(name) else None
    if wrong is None:
        return [name]
    note(f"the folder's name, {escaped(name)}, {wrong}: nothing is taken from it; --model-name names the model")
    return []


def _sampling(folder: Folder, note: Callable[[str], None]) -> dict[str, Value]:
    try:
        settings = folder.object("generation_config.json") or {}
    except CheckpointError as error:  # nothing else depends on it
        note(f"{error}; its sampling settings are left out")
        return {}
    result = {}
    for name, kind, keys in _SAMPLING:
        value = _first_present(settings, keys)
        if value is None:
            continue
        if kind is ValueType.INT32 and isinstance(value, float) and value.is_integer():
            value = int(value)
        try:
            result[f"general.sampling.{name}"] = values.scalar(kind, value)
        except InvalidError as error:
            note(f"generation_config.json: {keys[-1]} is left out: {error}")
    return result


def _origins(key: str, entries: Any, total_params: int, note: Callable[[str], None]) -> dict[str, Value]:
    """general.base_model.* or general.dataset.*"""
    found = [_origin(entry, total_params, note) for entry in _listed(entries)]
    result = {f"general.{key}.count": values.u32(len(found))}
    for number, origin in enumerate(found):
        for field in _ORIGIN_FIELDS:
            _put(result, f"general.{key}.{number}.{field}", origin.get(field), note)
    return result


def _origin(entry: Any, total_params: int, note: Callable[[str], None]) -> dict[str, Any]:
    if isinstance(entry, dict):
        return entry
    if not isinstance(entry, str):
        note(f"README.md: {entry!r:.60} names no model and no data set")
        return {}
    is_url = entry.startswith(("http://", "https://", "ssh://"))
    match = _HUB_URL.match(entry) if is_url else None
    if is_url and match is None:
        return {"repo_url": entry}
    parts = split_name(match.group(1) if match else entry, total_params)
    origin = {"name": parts.name, "organization": parts.organization, "version": parts.version}
    result = {field: found if field == "version" else title(found) for field, found in origin.items() if found}
    if is_url:
        result["repo_url"] = entry
    elif parts.organization is not None and parts.name is not None:
        result["repo_url"] = f"https://huggingface.co/{parts.organization}/{parts.name}"
    return result


def _first_present(source: Mapping[str, Any], keys: Iterable[str]) -> Any:
    return next((source[key] for key in keys if key in source), None)


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [value]
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _put(result: dict[str, Value], key: str, value: Any, note: Callable[[str], None]) -> None:
    """Empty texts have no key."""
    if value and _storable(key, _text(value), note):
        result[key] = values.string(_text(value))


def _storable(key: str, text: str, note: Callable[[str], None]) -> bool:
    """Whether UTF-8 can hold a text; noted if not, as of half a surrogate pair, which JSON and YAML can write."""
    if is_utf8(text):
        return True
    note(f"{key} is left out: {escaped(text, 80)} is no text that UTF-8 can hold")
    return False
