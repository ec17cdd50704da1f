"""Which architecture serves a checkpoint. Finds the family files; must not know what is in them.

A family file is a module of `gguf_forge.converters` with `ARCHS`. Two that claim one name are an error.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from gguf_forge.convert.arch import Arch
from gguf_forge.errors import ConversionError, escaped

CONVERTERS = "gguf_forge.converters"
#: How alike names of families must be for one to be a suggestion: Qwen4 and Qwen3 are, Foo and Qwen2 are not.
_ALIKE = 0.6


@lru_cache(maxsize=1)
def architectures() -> Mapping[str, Arch]:
    """Every supported class name of config.json's `architectures`, with its architecture."""
    archs: dict[str, Arch] = {}
    package = importlib.import_module(CONVERTERS)
    for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        module = importlib.import_module(f"{CONVERTERS}.{found.name}")
        for arch in getattr(module, "ARCHS", ()):
            for name in arch.hf:
                if name in archs:
                    raise ConversionError(f"{name} is claimed by {archs[name].name} and {arch.name}")
                archs[name] = arch
    return MappingProxyType(archs)


def architecture_name(config: Mapping[str, Any]) -> str:
    """The class name a configuration gives for its text model. ConversionError when it gives none."""
    text = config.get("text_config")
    for part in (text if isinstance(text, Mapping) else {}, config):
        named = part.get("architectures")
        if isinstance(named, list) and named and isinstance(named[0], str):
            return named[0]
    raise ConversionError("config.json names no architecture (its `architectures` is missing or empty)")


def select(config: Mapping[str, Any]) -> Arch:
    """The architecture for a configuration. ConversionError naming the nearest known one when there is none."""
    name = architecture_name(config)
    known = architectures()
    if name in known:
        return known[name]
    near = nearest(name)
    hint = f"; the nearest supported one is {near}" if near else ""
    raise ConversionError(f"architecture {escaped(name, 80)!r} is not supported{hint}")


def nearest(name: str) -> str | None:
    """The supported class name most like this one: first by the family's name, then by the whole; None if none is."""

    def likeness(known: str) -> tuple[float, float]:
        pairs = ((_family(name), _family(known)), (name, known))
        first, second = (difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio() for a, b in pairs)
        return first, second

    found = max(architectures(), key=likeness)
    return found if likeness(found)[0] >= _ALIKE else None


def _family(name: str) -> str:
    return re.split(r"For[A-Z]|LMHead|Text|Model", name)[0]
