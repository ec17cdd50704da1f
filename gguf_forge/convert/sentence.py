"""What sentence-transformers keeps beside a model: the modules that follow it, and how one of them pools.

Knows modules.json and the folders it names, and embedding_config.json, which stands in for them. Must not know
families, nor GGUF's numbers for ways of pooling.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.errors import ConversionError
from gguf_forge.source.checkpoint import check_file_name

MODULES = "modules.json"
#: Where models that are no sentence-transformers' say how they pool, and what they call it.
EMBEDDING = "embedding_config.json"
_NAMES = {"last_token": "lasttoken"}
#: What a GGUF file holds, or whoever runs it does without being told.
KEPT = ("Transformer", "Pooling", "Normalize")
_FLAGS = (
    ("pooling_mode_mean_tokens", "mean"),
    ("pooling_mode_cls_token", "cls"),
    ("pooling_mode_lasttoken", "lasttoken"),
)


def modules(directory: Path) -> list[tuple[str, str]]:
    """Class and path of each module, in order; none when there is no modules.json."""
    folder = Folder(directory)
    listed = folder.json(MODULES)
    if listed is None:
        return []
    if not isinstance(listed, list) or not all(isinstance(m, Mapping) for m in listed):
        raise ConversionError(f"{folder.path / MODULES}: expected a list of objects")
    return [(str(m.get("type", "")).rpartition(".")[2], str(m.get("path", ""))) for m in listed]


def pooling_mode(directory: Path) -> str | None:
    """How the vectors of a text's tokens become one: mean, cls, lasttoken or another word; None when nothing says.

    The pooling of modules.json says so, or where there is none embedding_config.json.

    Raises ConversionError when modules.json names a pooling whose configuration is missing or says nothing.
    """
    folder = Folder(directory)
    path = next((path for kind, path in modules(directory) if kind.endswith("Pooling")), None)
    if path is None:
        said = (folder.object(EMBEDDING) or {}).get("pooling")
        return None if said is None else _NAMES.get(str(said), str(said))
    where = f"{check_file_name(path, directory / MODULES)}/config.json" if path else "config.json"
    config: Mapping[str, Any] | None = folder.object(where)
    if config is None:
        raise ConversionError(f"{directory / where}: missing, though {MODULES} names it as the pooling's")
    mode = next((mode for flag, mode in _FLAGS if config.get(flag)), config.get("pooling_mode"))
    if mode is None:
        named = [k.removeprefix("pooling_mode_") for k in config if k.startswith("pooling_mode_") and config[k]]
        mode = named[0] if named else None
    if not isinstance(mode, str):
        raise ConversionError(f"{directory / where}: names no way of pooling")
    return mode
