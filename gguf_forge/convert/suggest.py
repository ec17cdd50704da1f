"""What to say of a checkpoint whose class no family serves: which architecture comes nearest, and what it would leave.
Or where the text model is.

Tries every architecture's rules on the names of tensors; reads no weights. Must not know single families.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gguf_forge.convert.arch import Arch
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.patterns import Names, Pattern, form_of
from gguf_forge.convert.plan import rename
from gguf_forge.convert.registry import architecture_name, architectures, elsewhere, likeness, nearest
from gguf_forge.errors import ConversionError, escaped, listed
from gguf_forge.source.packed import AnyTensor

#: A guess that uses less than this part of a checkpoint's kinds of tensors is none.
_WORTH_NAMING = 0.5
_MAX_NAMED = 3
GUIDE = "docs/families.md"


@dataclass(frozen=True)
class Guess:
    """An architecture tried on a checkpoint: the kinds of tensors (names with # for numbers) its rules use, and those
    they would leave; `known` is the part of its configuration keys that the checkpoint's configuration has.
    """

    arch: Arch
    used: tuple[str, ...]
    left: tuple[str, ...]
    known: float

    @property
    def fit(self) -> tuple[float, float]:
        """How well it fits: the part of the kinds it uses, then the configuration."""
        return len(self.used) / max(1, len(self.used) + len(self.left)), self.known


def guesses(tensors: Mapping[str, AnyTensor], facts: Facts) -> list[Guess]:
    """Every architecture tried, the best first."""
    found = (_tried(arch, tensors, facts) for arch in architectures())
    return sorted((guess for guess in found if guess is not None), key=lambda guess: guess.fit, reverse=True)


def unknown_class(config: Mapping[str, Any], tensors: Mapping[str, AnyTensor], facts: Facts) -> ConversionError:
    """The error for a class that no family serves: the nearest architecture, what it would leave, and what to do."""
    name = architecture_name(config)
    said = f"architecture {escaped(name, 80)!r} is not supported"
    # One that serves this class, but not such a configuration, is no guess.
    tried = [guess for guess in guesses(tensors, facts) if name not in guess.arch.hf]
    if not tried or tried[0].fit[0] < _WORTH_NAMING:
        near = nearest(name)
        return ConversionError(said + (f"; the nearest supported one is {near}" if near else ""))
    best = _best_of_name(name, tried)
    whole = len(best.used) + len(best.left)
    left = f", and leave {listed(best.left, _MAX_NAMED)}" if best.left else ""
    return ConversionError(
        f"{said}; nearest is {best.arch.name} ({best.arch.hf[0]}): its rules use {len(best.used)} of the {whole} kinds "
        f"of tensors{left}. --arch {best.arch.hf[0]} tries it (--allow-unused REGEX leaves tensors out); whether "
        f"llama.cpp then computes what the model does, only its authors can say; {GUIDE} shows how to write a family"
    )


def refuse_without_text(config: Mapping[str, Any], tensors: Iterable[str]) -> None:
    """ConversionError for a checkpoint of a class that has no text model, which says where that one is."""
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    found = next((one for one in elsewhere() if one.hf == name), None)
    if found is None or any(re.search(found.text, tensor) for tensor in tensors):
        return
    places = [_at(config, path) for path in found.named_by]
    where = next((place for place in places if isinstance(place, str) and place), None)
    instead = "the repository of its text model" if where is None else repr(escaped(where, 80))
    raise ConversionError(f"{found.hf} holds {found.held} and no text model: convert {instead} instead")


def _at(part: Any, path: Iterable[str]) -> Any:
    """The value at a path of keys; None where there is none."""
    for key in path:
        part = part.get(key) if isinstance(part, Mapping) else None
    return part


def _best_of_name(name: str, tried: Sequence[Guess]) -> Guess:
    """Of the guesses that fit equally well, the one with the most similar class name."""
    equal = [guess for guess in tried if guess.fit[0] == tried[0].fit[0]]
    return max(equal, key=lambda guess: max(likeness(name, known) for known in guess.arch.hf))


def _tried(arch: Arch, tensors: Mapping[str, AnyTensor], facts: Facts) -> Guess | None:
    try:
        stored, _ = rename(arch, tensors, facts)
    except (ConversionError, KeyError, TypeError, ValueError, AttributeError):
        return None  # its names depend on a configuration this is not
    forms = Names(stored).forms
    templates = {Pattern.of(template).form for template in _templates(arch)}
    used = tuple(form for form in forms if form in templates)
    left = tuple(form_of(next(iter(forms[form].values()))) for form in forms if form not in templates)
    keys = {key for row in arch.hparams for key in row.names}
    return Guess(arch, used, left, sum(key in facts.config for key in keys) / max(1, len(keys)))


def _templates(arch: Arch) -> Iterator[str]:
    for rule in arch.tensors:
        for row in rule.expanded():
            for source in row.sources:
                yield from (source,) if isinstance(source, str) else source
