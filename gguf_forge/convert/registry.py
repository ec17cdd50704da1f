"""Which architecture serves a checkpoint. Finds the family files; must not know what is in them.

A family file is a module of `gguf_forge.converters` with `ARCHS`, or `ELSEWHERE`. Several may serve one class name,
each for some configurations.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType, ModuleType
from typing import Any

from gguf_forge.convert.arch import Arch, Elsewhere
from gguf_forge.convert.config import text_part
from gguf_forge.convert.params import NATIVE_CLASS, is_params
from gguf_forge.errors import ConversionError, escaped

CONVERTERS = "gguf_forge.converters"
#: How alike names of families must be for one to be a suggestion: Qwen4 and Qwen3 are, Foo and Qwen2 are not.
_ALIKE = 0.6
#: The class of a text model, by the model type of its part, where a model in parts names a class for the whole alone:
#: as transformers' AutoModelForCausalLM has them.
TEXT_CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "cohere": "CohereForCausalLM",
        "cohere2": "Cohere2ForCausalLM",
        "gemma3_text": "Gemma3ForCausalLM",
        "glm4": "Glm4ForCausalLM",
        "granite": "GraniteForCausalLM",
        "llama": "LlamaForCausalLM",
        "mistral": "MistralForCausalLM",
        "phi3": "Phi3ForCausalLM",
        "qwen2": "Qwen2ForCausalLM",
        "qwen3": "Qwen3ForCausalLM",
        "qwen3_moe": "Qwen3MoeForCausalLM",
        "smollm3": "SmolLM3ForCausalLM",
    }
)



@lru_cache(maxsize=1)
def _families() -> tuple[ModuleType, ...]:
    package = importlib.import_module(CONVERTERS)
    names = sorted(found.name for found in pkgutil.iter_modules(package.__path__))
    return tuple(importlib.import_module(f"{CONVERTERS}.{name}") for name in names)


@lru_cache(maxsize=1)
def architectures() -> tuple[Arch, ...]:
    """Every architecture, family by family."""
    return tuple(arch for family in _families() for arch in getattr(family, "ARCHS", ()))


@lru_cache(maxsize=1)
def elsewhere() -> tuple[Elsewhere, ...]:
    """Every class whose checkpoints have no text model of their own."""
    return tuple(one for family in _families() for one in getattr(family, "ELSEWHERE", ()))


@lru_cache(maxsize=1)
def _by_class() -> Mapping[str, tuple[Arch, ...]]:
    """The architectures that serve a class name, those with a condition first; at most one has none."""
    found: dict[str, list[Arch]] = {}
    for arch in architectures():
        for name in arch.hf:
            found.setdefault(name, []).append(arch)
    for name, archs in found.items():
        archs.sort(key=lambda arch: arch.when is None)
        plain = [arch.name for arch in archs if arch.when is None]
        if len(plain) > 1:
            raise ConversionError(f"{name} is claimed by {' and '.join(plain)}")
    return MappingProxyType({name: tuple(archs) for name, archs in found.items()})


@lru_cache(maxsize=1)
def _named_whole() -> frozenset[str]:
    """The classes of models in parts that count more than the class of their text model's part."""
    return frozenset(name for arch in architectures() for name in arch.whole)


def class_names() -> tuple[str, ...]:
    """Every class name of config.json's `architectures` that is served."""
    return tuple(_by_class())


def _first_class(config: Mapping[str, Any]) -> str | None:
    named = config.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else None


def architecture_name(config: Mapping[str, Any]) -> str:
    """The class name a configuration gives for its text model, or the one that its model type implies.

    ConversionError when it gives none.
    """
    own = NATIVE_CLASS if is_params(config) else _first_class(config)
    part = None if own in _named_whole() else text_part(config)
    name = (part and _first_class(part)) or own
    if part and name not in _by_class():
        name = TEXT_CLASSES.get(str(part.get("model_type")), name)
    if name:
        return name
    raise ConversionError("config.json names no architecture (its `architectures` is missing or empty)")


def find(config: Mapping[str, Any], *, draft: bool = False) -> Arch | None:
    """The architecture for a configuration: of those that serve its class, the first whose condition holds.

    `draft`: that of the draft model which the checkpoint holds beside its own. ConversionError if there is none.
    """
    name = architecture_name(config)
    if draft:
        beside = next((arch for arch in architectures() if name in arch.beside), None)
        if beside is None:
            raise ConversionError(f"no checkpoint of {escaped(name, 80)} holds a draft model")
        return beside
    served = _by_class().get(name, ())
    return next((arch for arch in served if arch.when is None or arch.when(config)), None)


def select(config: Mapping[str, Any], *, draft: bool = False) -> Arch:
    """As `find`. ConversionError naming the nearest known class when there is none."""
    found = find(config, draft=draft)
    if found is not None:
        return found
    name = architecture_name(config)
    near = nearest(name)
    hint = f"; the nearest supported one is {near}" if near else ""
    raise ConversionError(f"architecture {escaped(name, 80)!r} is not supported{hint}")


def named(name: str) -> Arch:
    """The architecture of a class name, or of a name in GGUF; of several, the one without a condition, that is known by
    config.json alone, or whose class bears the name. ConversionError for an unknown or ambiguous name.
    """
    served = _by_class().get(name) or tuple(arch for arch in architectures() if arch.name == name)
    served = tuple(arch for arch in served if arch.when is None) or served
    served = tuple(arch for arch in served if arch.configure is None) or served
    served = tuple(arch for arch in served if arch.hf[0].lower().startswith(name.lower())) or served
    if len(served) == 1:
        return served[0]
    if served:
        classes = ", ".join(sorted(arch.hf[0] for arch in served))
        raise ConversionError(f"{escaped(name, 80)} may be several architectures; name one of the classes {classes}")
    near = difflib.get_close_matches(name, [*class_names(), *(arch.name for arch in architectures())], n=1)
    hint = f"; the nearest is {near[0]}" if near else ""
    raise ConversionError(f"no architecture is called {escaped(name, 80)!r}{hint}")


def nearest(name: str) -> str | None:
    """The supported class name most like this one; None if none is."""
    found = max(class_names(), key=lambda known: likeness(name, known))
    return found if likeness(name, found)[0] >= _ALIKE else None


def likeness(name: str, known: str) -> tuple[float, float]:
    """How alike two class names are, from 0 to 1: first by the family's name, then by the whole."""
    pairs = ((_family(name), _family(known)), (name, known))
    first, second = (difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio() for a, b in pairs)
    return first, second


def _family(name: str) -> str:
    return re.split(r"For[A-Z]|LMHead|Text|Model", name)[0]
