"""Reads the small JSON and text files that lie beside the weights of a checkpoint.

Knows size limits, encodings and how to name a broken file. Must not know what the files mean.
"""

import json
from pathlib import Path
from typing import Any

from gguf_forge.errors import CheckpointError, LimitError

MAX_FILE_BYTES = 512 << 20
"""No tokenizer or configuration file is larger than this; Gemma 3's tokenizer.json, a large one, has 33 MB."""


class Folder:
    """A checkpoint directory whose side files are read once and kept.

    Raises `CheckpointError` for text that is not UTF-8 or not JSON, `LimitError` above `MAX_FILE_BYTES`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parsed: dict[str, Any] = {}

    def has(self, name: str) -> bool:
        """True if `name` is a file in the directory."""
        return (self.path / name).is_file()

    def text(self, name: str) -> str | None:
        """The file's text with its line ends normalised, or None if there is no such file."""
        path = self.path / name
        if not path.is_file():
            return None
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise LimitError(f"{path}: {size} bytes, more than the limit of {MAX_FILE_BYTES} for a text file")
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path}: not UTF-8 at byte {error.start}") from None
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None

    def json(self, name: str) -> Any | None:
        """The parsed JSON file, or None if there is no such file. The result is shared: do not change it."""
        if name not in self._parsed:
            text = self.text(name)
            self._parsed[name] = None if text is None else self._parse(name, text)
        return self._parsed[name]

    def object(self, name: str) -> dict[str, Any] | None:
        """The parsed JSON file, which must hold an object, or None if there is no such file."""
        data = self.json(name)
        if data is None and self.has(name):
            raise CheckpointError(f"{self.path / name}: expected a JSON object, found null")
        if data is not None and not isinstance(data, dict):
            raise CheckpointError(f"{self.path / name}: expected a JSON object, found {type(data).__name__}")
        return data

    def _parse(self, name: str, text: str) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise CheckpointError(f"{self.path / name}: not JSON: {error.msg} at {where}") from None
        except RecursionError:
            raise CheckpointError(f"{self.path / name}: JSON nested too deeply") from None
        except ValueError as error:
            raise CheckpointError(f"{self.path / name}: not JSON: {error}") from None
