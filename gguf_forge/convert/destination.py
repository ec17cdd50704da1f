"""Where output files go: their names, and what they must not replace. Knows paths, no model and no type."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from gguf_forge.convert.general import default_file_name
from gguf_forge.convert.job import Job
from gguf_forge.convert.naming import fill_file_name
from gguf_forge.errors import OutputError


def output_paths(output: str | os.PathLike[str] | None, folder: Path, jobs: Sequence[Job]) -> list[Path]:
    """Where each file goes. OutputError when two would have one name."""
    paths = []
    for job in jobs:
        if output is None or os.path.isdir(output):
            paths.append(Path(folder if output is None else output) / default_file_name(job.metadata, job.type))
        else:
            given = Path(output)
            paths.append(given.with_name(fill_file_name(given.name, job.type)))
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise OutputError(f"{path}: two types would go into one file; name a folder, or put {{ftype}} in the name")
    return paths


def require_other(sources: Iterable[Path], outputs: Sequence[Path]) -> None:
    """OutputError for an output that would replace what is read."""
    existing = [path for path in outputs if path.exists()]
    if not existing:
        return
    for source in sources:
        for path in existing:
            if source.exists() and os.path.samefile(source, path):
                raise OutputError(f"{path}: is the input")
