"""`gguf_forge.check`: whether a file is what others expect of it. Opens, asks the rules, gathers; knows none."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from gguf_forge.errors import ForgeError, IncompleteSetError, InvalidError
from gguf_forge.format import reader
from gguf_forge.format.findings import ERROR, Finding
from gguf_forge.format.reader import GGUFFile, Tensor
from gguf_forge.remote.location import Location, located
from gguf_forge.whole.check.data import find_in_data
from gguf_forge.whole.check.report import Report
from gguf_forge.whole.check.rules import found_in
from gguf_forge.whole.check.subject import CHECK_LIMITS, CheckLimits, Subject

#: Told how many bytes of how many have been read.
Progress = Callable[[int, int], None]


def check(
    path: str | os.PathLike[str],
    *,
    data: bool = False,
    limits: CheckLimits = CHECK_LIMITS,
    progress: Progress | None = None,
) -> Report:
    """Checks a GGUF file, or the whole set when `path` is any of its shards, without running anything of it.

        report = gguf_forge.check("model.gguf", data=True)
        report.clean                                         # True if it was read and nothing was found
        for finding in report.findings:                      # .rule .severity .path .offset .field .text
            print(finding)

    Looks at the structure, the names, the metadata and tensors as llama.cpp's loader of the architecture wants them,
    the tokenizer, and chat templates by their syntax tree. `data`: reads all tensors' data, too, and looks for numbers
    that are NaN or infinite, codes without a value, and matrices that are all alike. `limits` bounds what a file may
    declare and how much of it is looked into. `progress` is told how many bytes of how many have been read of the data.

    A file that cannot be read gives a Report with its `error`, which is a ForgeError. A shard whose set is not whole or
    does not fit is checked alone, with a finding. Raises ChangedInputError when the file is changed meanwhile.
    """
    named = located(path)
    with ExitStack() as opened:
        try:
            file, found = _opened(named, limits)
        except ForgeError as error:
            return Report(named, (named,), error=error)
        opened.enter_context(file)
        found += found_in(Subject(file, limits))
        if data:
            found += _data(file, limits, progress)
        return Report(named, tuple(file.paths), tuple(found), data=data)


def _opened(path: Path | Location, limits: CheckLimits) -> tuple[GGUFFile, list[Finding]]:
    """The file with its set, or alone where that is not whole and sound; and what is to be said of it."""
    try:
        return reader.open(path, limits=limits, unknown_types=True), []
    except (IncompleteSetError, InvalidError) as error:
        # Alone it may be sound: then the set is what is wrong.
        alone = reader.open(path, limits=limits, unknown_types=True, alone=True)
        return alone, [Finding("set", error.path or str(path), error.text, error.offset, error.field, ERROR)]


def _data(file: GGUFFile, limits: CheckLimits, progress: Progress | None) -> list[Finding]:
    found: list[Finding] = []
    counts: dict[str, int] = {}
    total = sum(tensor.nbytes for tensor in file.tensors.values())
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    for part in file.parts:
        for info in part.checked.header.infos:
            tensor = file.tensors.get(info.name)
            if not isinstance(tensor, Tensor):
                continue
            for rule, text, severity in find_in_data(tensor, part.checked.header.order, told):
                counts[rule] = counts.get(rule, 0) + 1
                if counts[rule] <= limits.findings:
                    found.append(Finding(rule, str(part.path), text, info.offset, info.field, severity))
    return found


__all__ = ["CheckLimits", "Progress", "Report", "check"]
