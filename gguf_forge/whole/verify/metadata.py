"""Whether a file's metadata are those that a source leads to. Knows keys and values, no tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gguf_forge.errors import escaped
from gguf_forge.format.findings import ERROR, WARNING
from gguf_forge.format.layout import ValueType
from gguf_forge.format.values import Value

#: Keys that say how a file was made and what it is called, not what it computes.
ASIDE = ("general.", "quantize.", "split.")
ARCHITECTURE = "general.architecture"
TEMPLATE = "tokenizer.chat_template"

#: What is found: the rule, how bad it is, the key, the text.
Said = tuple[str, str, str, str]


def differing(expected: Mapping[str, Value], found: Mapping[str, Value], arch: str) -> Iterator[Said]:
    """Keys whose values differ, that are missing, and those of the architecture that the source does not lead to."""
    for key, value in expected.items():
        if key.startswith(ASIDE) and key != ARCHITECTURE:
            continue
        rule = "template" if key.startswith(TEMPLATE) else "key"
        if key not in found:
            yield rule, ERROR if rule == "template" else WARNING, key, f"missing; the source has {_shown(value)}"
        elif not alike(value, found[key]):
            yield rule, ERROR, key, _difference(value, found[key])
    for key in found:
        if key not in expected and key.startswith((f"{arch}.", TEMPLATE)):
            yield "key", WARNING, key, f"{_shown(found[key])}, of which the source says nothing"


def alike(one: Value, other: Value) -> bool:
    """Whether two values are the same to a reader: one number for all layers, or that number for each, is."""
    if one == other:
        return True
    texts = (ValueType.STRING, ValueType.ARRAY)
    if one.element in texts or other.element in texts or ValueType.STRING in (one.type, other.type):
        return False
    a, b = (np.atleast_1d(np.asarray(value.value)) for value in (one, other))
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        return False
    return bool(np.all(a == b))


def _difference(expected: Value, found: Value) -> str:
    if expected.element is None or found.element is None:
        return f"{_shown(found)}, the source leads to {_shown(expected)}"
    if len(expected.value) != len(found.value):
        return f"{len(found.value)} values, the source leads to {len(expected.value)}"
    pairs = [*zip(_plain(found), _plain(expected), strict=True)]
    places = [i for i, (a, b) in enumerate(pairs) if a != b]
    if not places:
        return f"of type {found.element.name}, the source leads to {expected.element.name}"
    a, b = map(_text, pairs[places[0]])
    return f"{len(places)} of {len(pairs)} values differ; number {places[0]} is {a}, the source leads to {b}"


def _plain(value: Value) -> list[Any]:
    return value.value.tolist() if isinstance(value.value, np.ndarray) else list(value.value)


def _shown(value: Value) -> str:
    return f"{len(value.value)} values" if value.element is not None else _text(value.value)


def _text(value: Any) -> str:
    return f'"{escaped(value, 60)}"' if isinstance(value, str) else escaped(str(value), 60)
