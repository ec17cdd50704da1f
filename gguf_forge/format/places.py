"""Folders that files are made in, and files that they must not replace. Knows paths alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from os.path import samefile
from pathlib import Path

from gguf_forge.errors import OutputError


def make_folder(folder: Path, made: list[Path]) -> None:
    """Makes a folder and those above it where there are none, and adds what it makes to `made`. Raises OutputError."""
    missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
    for path in reversed(missing):
        made.append(path)  # before it is there: nothing that ends the run in between leaves it behind
        try:
            path.mkdir()
        except OSError as error:
            made.pop()
            if not path.is_dir():
                raise OutputError(f"no folder can be made: {error.strerror}", path=path) from error


def remove_folders(made: Sequence[Path]) -> None:
    """Removes folders that `make_folder` made, in which there is nothing."""
    for path in reversed(made):
        with contextlib.suppress(OSError):
            path.rmdir()


def require_other(sources: Iterable[Path], outputs: Sequence[Path]) -> None:
    """OutputError for an output that would replace what is read."""
    existing = [path for path in outputs if path.exists()]
    if not existing:
        return
    for source in sources:
        for path in existing:
            if source.exists() and samefile(source, path):
                raise OutputError(f"{path}: is the input")
