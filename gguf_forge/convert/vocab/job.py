"""What a family's vocabulary is composed of: loaders and steps, and the job they are given.

Knows in which order parts run and how their keys are put together. Must not know any file or any family.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.errors import ConversionError
from gguf_forge.format.values import Value

Note = Callable[[str], None]
"""Is told each thing left out or doubtful, in a sentence."""

warn: Note = logging.getLogger(__name__).warning

Keys = dict[str, Value]
"""tokenizer.* keys in the order they are written."""

Changes = Mapping[str, Value | None]
"""Keys a step adds or replaces; None takes a key away."""


@dataclass(frozen=True)
class VocabJob:
    """What a part of a vocabulary may ask.

    `folder` holds the tokenizer's files (read once, kept); `config` the model's hyperparameters, text_config merged
    in; `pre` the user's tokenizer.ggml.pre, in place of recognising it; `architecture` is general.architecture;
    `native` says that the folder is in Mistral's own format, `community_template` that templates others made may stand
    in for missing ones; `target` is the folder of the model this one drafts for, with the parts of its family; `keys`
    is what the parts before wrote; `last` gathers keys that are written after all parts where none has written them.
    """

    folder: Folder
    config: Mapping[str, Any]
    pre: str | None = None
    note: Note = warn
    architecture: str = ""
    native: bool = False
    community_template: bool = True
    target: tuple[Folder, tuple[Part, ...]] | None = None
    keys: Mapping[str, Value] = field(default_factory=dict)
    last: Keys = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """Where the tokenizer's files lie."""
        return self.folder.path

    @property
    def settings(self) -> dict[str, Any]:
        """tokenizer_config.json, empty if there is none. Shared: do not change it."""
        return self.folder.object("tokenizer_config.json") or {}

    def count(self, *names: str) -> int | None:
        """The first of `names` the config holds. Raises `ConversionError` if it is not a whole number."""
        name = next((name for name in names if self.config.get(name) is not None), None)
        if name is None:
            return None
        size = self.config[name]
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ConversionError(f"{self.directory / 'config.json'}: {name} {size!r:.40} is not a whole number")
        return size

    def but(self, **changes: Any) -> VocabJob:
        """The same job with fields replaced; hyperparameters too, as `but(config={**job.config, ...})`."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Loader:
    """Makes the vocabulary, or gives None if its files are not there: the first of a family's that does, counts."""

    make: Callable[[VocabJob], Changes | None]

    def __call__(self, job: VocabJob) -> Changes | None:
        """The vocabulary's keys."""
        return self.make(job)

    def __repr__(self) -> str:
        return f"<loader {self.make.__name__}>"


@dataclass(frozen=True)
class Step:
    """Adds, replaces or (with None) takes away keys at its place, before or after the vocabulary is made."""

    change: Callable[[VocabJob], Changes | None]

    def __call__(self, job: VocabJob) -> Changes | None:
        """The keys it changes."""
        return self.change(job)

    def __repr__(self) -> str:
        return f"<step {self.change.__name__}>"


Part = Loader | Step


def loader(make: Callable[[VocabJob], Changes | None]) -> Loader:
    """Marks a function as one that makes a vocabulary, or gives None if its files are not there."""
    return Loader(make)


def step(change: Callable[[VocabJob], Changes | None]) -> Step:
    """Marks a function as one that adds to the keys, or replaces some: of a job's `keys`, or before there are any."""
    return Step(change)


def together(*parts: Part) -> Loader:
    """A loader made of parts: its steps count only where one of its loaders finds its files."""

    def all_together(job: VocabJob) -> Changes | None:
        keys = compose(job, parts)
        return None if keys is None else {**{key: None for key in job.keys if key not in keys}, **keys}

    return Loader(all_together)


def when(holds: Callable[[VocabJob], bool], *parts: Part) -> Loader:
    """As `together`, for vocabularies of which `holds(job)` is true."""
    whole = together(*parts)

    def under_condition(job: VocabJob) -> Changes | None:
        return whole(job) if holds(job) else None

    return Loader(under_condition)


def compose(job: VocabJob, parts: Sequence[Part]) -> Keys | None:
    """The keys of all parts together, or None if no loader among them finds its files.

    A key a later part writes again keeps its place and changes its value.
    """
    keys: Keys = dict(job.keys)
    loaded = False
    for part in parts:
        if isinstance(part, Loader) and loaded:
            continue
        found: Changes | None = part(job.but(keys=keys))
        loaded = loaded or (isinstance(part, Loader) and found is not None)
        for key, value in (found or {}).items():
            if value is None:
                keys.pop(key, None)
            else:
                keys[key] = value
    return keys if loaded else None
