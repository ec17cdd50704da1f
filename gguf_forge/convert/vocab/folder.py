"""Reads the small files, JSON and others, that lie beside the weights of a checkpoint.

Knows size limits, encodings and how to name a broken file. Must not know what the files mean.
"""

import json
from pathlib import Path
from typing import Any

from gguf_forge.errors import CheckpointError, LimitError
from gguf_forge.source.input_file import InputFile

MAX_FILE_BYTES = 512 << 20
"""No tokenizer or configuration file is larger than this; Gemma 3's tokenizer.json, a large one, has 33 MB."""


def read_side_file(path: Path) -> bytes:
    """All bytes of a file beside the weights. Raises `LimitError`, `FormatError` and `InputError` as `Folder` does."""
    with InputFile(path) as file:
        if file.size > MAX_FILE_BYTES:
            rule = f"{file.size} bytes, more than the limit of {MAX_FILE_BYTES} for a file beside the weights"
            raise LimitError(rule, path=path)
        file.refuse_lfs_pointer()
        return file.read(0, file.size)


class Folder:
    """A checkpoint directory whose side files are read once and kept.

    Raises `CheckpointError` for text that is not UTF-8 or not JSON, `LimitError` above `MAX_FILE_BYTES`,
    `FormatError` for a Git LFS pointer, `InputError` for what cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parsed: dict[str, Any] = {}

    def has(self, name: str) -> bool:
        """True if `name` is a file in the directory."""
        return (self.path / name).is_file()

    def data(self, name: str) -> bytes | None:
        """The file's bytes, or None if there is no such file."""
        return read_side_file(self.path / name) if self.has(name) else None

    def text(self, name: str) -> str | None:
        """The file's text with its line ends normalised, or None if there is no such file."""
        data = self.data(name)
        if data is None:
            return None
        try:
            return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.path / name}: not UTF-8 at byte {error.start}") from None

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
