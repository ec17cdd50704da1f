"""Where output files of models go: their names and folders. Knows paths, no model and no type."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from gguf_forge.convert.general import default_file_name
from gguf_forge.convert.job import Job
from gguf_forge.convert.naming import fill_file_name
from gguf_forge.errors import OutputError, RequestError
from gguf_forge.format.atomic import names_folder
from gguf_forge.system import path_key, refused_name

_PLACEHOLDER = re.compile(r"\{\w+\}")


def output_paths(output: str | os.PathLike[str] | None, folder: Path, jobs: Mapping[str, Job]) -> list[Path]:
    """Where the file of each job goes; `jobs` by the names of their types as asked for.

    RequestError when two would be one file, also by way of symlinks, which are followed, and for a placeholder in the
    output's name that is none. OutputError when the model's name makes none for a file.
    """
    paths = []
    taken: dict[str, str] = {}
    for name, job in jobs.items():
        if output is None or os.path.isdir(output):
            path = Path(folder if output is None else output) / _default_name(job)
        else:
            path = Path(output).with_name(_filled(Path(output).name, job.type))
            path = path / _default_name(job) if names_folder(output) else path
        other = taken.setdefault(path_key(path), name)
        if other != name:
            alike = other.lower() == name.lower()
            how = "make them in two runs" if alike else "name a folder, or put {ftype} in the name"
            raise RequestError(f"{path}: {other} and {name} would be one file; {how}")
        paths.append(path)
    return paths


def quantized_path(output: str | os.PathLike[str], job: Job) -> Path:
    """Where a quantized file goes: `output`, or if that is a folder, under llama-quantize's default name in it."""
    in_folder = os.path.isdir(output) or names_folder(output)
    return Path(output) / f"ggml-model-{job.type}.gguf" if in_folder else Path(output)


def _default_name(job: Job) -> str:
    """After the model, whose name may be anything: on Windows also a path that leads elsewhere."""
    name = default_file_name(job.metadata, job.type if job.choices else None)
    refused = refused_name(name)
    if refused:
        raise OutputError(f"the model's name makes no file name, so that the output must be named: {refused}")
    return name


def _filled(template: str, kind: str) -> str:
    name = fill_file_name(template, kind)
    unknown = _PLACEHOLDER.search(name)
    if unknown is not None:
        raise RequestError(f"{template}: {unknown[0]} stands for nothing; {{ftype}} and {{FTYPE}} stand for the type")
    return name
