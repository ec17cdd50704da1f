"""What runs before gathered, to go on with it: importance matrices and calibrations added up.

Knows what may be added to what; must not know how a model is run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gguf_forge.errors import RequestError, escaped
from gguf_forge.quant.calibration import PREFIX, Calibration, Moments, Tokens
from gguf_forge.quant.imatrix import Entry, Imatrix

StrPath = str | os.PathLike[str]
Facts = dict[str, int | str]
#: Facts that are the same in calibrations that are added up, and what they are called.
SAME = {"model.sha256": "another model", "context": "windows of another size", "block": "blocks of another width"}


@dataclass(eq=False)
class Gathered:
    """Calibrations, added up. moments: by the weight that gives them their name; windows: of all, (windows, context).

    facts: those of SAME; texts: the hashes of what was read.
    """

    imatrix: Imatrix = field(default_factory=lambda: Imatrix("", {}))
    moments: dict[str, Moments] = field(default_factory=dict)
    windows: Tokens | None = None
    facts: Facts = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    @property
    def entries(self) -> dict[str, Entry]:
        """Sums of squares of all weights, also of those that the importance matrix leaves out."""
        found: dict[str, Entry] = {}
        for moments in self.moments.values():
            squares = moments.squares()
            found |= {name: Entry(squares, moments.tokens) for name in moments.weights}
        return {**found, **self.imatrix.entries}


def gathered(paths: Sequence[StrPath], output: str) -> Gathered:
    """Reads calibrations and adds them up. Raises what `Calibration.open` does, and RequestError for such as do not fit
    each other: of other models, contexts, blocks or widths, or without their text.
    """
    found, parts = Gathered(), []
    for path in paths:
        with Calibration.open(path) as calibration:
            _join(found, calibration)
            parts.append(calibration.imatrix)
    if parts:
        found.imatrix = merged_imatrix(parts, output)
    return found


def _join(found: Gathered, calibration: Calibration) -> None:
    facts = {key: calibration.metadata.get(PREFIX + key, 0) for key in SAME}
    require_same(found.facts or facts, facts, calibration.path)
    windows = calibration.windows()
    if windows is None or windows.shape[1] != facts["context"]:
        raise RequestError("cannot be added to: it does not have the text it was made of", path=calibration.path)
    found.facts = facts
    found.windows = windows if found.windows is None else np.concatenate([found.windows, windows])
    text = str(calibration.metadata.get(PREFIX + "text.sha256", ""))
    found.texts += [one for one in text.split(",") if one and one not in found.texts]
    for new in calibration.stored():
        name = new.weights[0]
        old = found.moments.setdefault(name, new)
        if old is new:
            continue
        if (
            list(old.weights) != list(new.weights)
            or list(old.sizes) != list(new.sizes)
            or len(old.tokens) != len(new.tokens)
        ):
            text = "its inputs have other widths, or other weights share them, than in the file before"
            raise RequestError(text, path=calibration.path, field=f'covariance "{escaped(name)}"')
        np.add(old.tiles, new.tiles, out=old.tiles)  # in place: they are large
        found.moments[name] = Moments(old.weights, old.sizes, old.tokens + new.tokens, old.tiles)


def _form(moments: Moments) -> tuple[list[str], list[int], int]:
    return list(moments.weights), list(moments.sizes), len(moments.tokens)


def require_same(known: Facts, new: Facts, path: StrPath) -> None:
    """Refuses, in one line, what cannot be added to what is known."""
    for key, other in SAME.items():
        if key in known and known[key] != new[key]:
            raise RequestError(f"cannot be added up: {other}: {known[key]} and {new[key]}", path=path)


def merged_imatrix(parts: Sequence[Imatrix], path: str) -> Imatrix:
    """Several matrices added up, entry by entry, as llama-imatrix does with --in-file.

    Raises RequestError where entries of one name have other widths, or numbers of experts, or the forms are mixed.
    """
    if len({part.legacy for part in parts}) > 1:
        raise RequestError("matrices of the .dat form, which have lost their counts, are not added to others")
    entries: dict[str, Entry] = {}
    for part in parts:
        for name, entry in part.entries.items():
            old = entries.get(name)
            if old is None:
                entries[name] = entry
            elif old.sums.shape != entry.sums.shape:
                text = f"{entry.sums.shape} values, but {old.sums.shape} in the matrices before"
                raise RequestError(text, path=part.path, field=f'entry "{name}"')
            else:
                entries[name] = Entry(old.sums + entry.sums, old.counts + entry.counts)
    sizes = [part.chunk_size for part in parts if part.chunk_size]
    size = sizes[0] if sizes else 0
    most = max((int(entry.counts.max()) for entry in entries.values()), default=0)
    datasets = tuple(name for part in parts for name in part.datasets)
    chunks = (most + size // 2) // size if size else sum(part.chunks for part in parts)
    return Imatrix(path, entries, datasets, chunks, size, legacy=bool(parts) and parts[0].legacy)
