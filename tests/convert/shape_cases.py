"""Headers that llama.cpp loads (kept ones are made by `make_shape_cases`), how they are changed, and files of them."""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_forge.format import values
from gguf_forge.format.layout import ValueType
from gguf_forge.format.plan import Declared, plan_file
from gguf_forge.format.values import Value
from gguf_forge.types import tensor_type

Keys = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class ShapeCase:
    """Keys and tensors (contiguous axis last) of a file that llama.cpp loads, and the changed shapes of one tensor with
    which it does so too.
    """

    arch: str
    keys: Keys
    tensors: dict[str, tuple[int, ...]]
    taken: list[tuple[str, tuple[int, ...]]]


def load(path: Path) -> list[ShapeCase]:
    """The cases of a packed file."""
    return [
        ShapeCase(
            case["arch"],
            case["keys"],
            {name: tuple(shape) for name, shape in case["tensors"].items()},
            [(name, tuple(shape)) for name, shape in case["taken"]],
        )
        for case in json.loads(lzma.decompress(path.read_bytes()))
    ]


def values_of(keys: Keys) -> dict[str, Value]:
    """Keys as a file holds them: numbers as UINT32, floats as FLOAT32."""
    return {key: _value(key, value) for key, value in keys.items()}


def _value(key: str, value: Any) -> Value:
    if isinstance(value, list):
        kind = next(kind for python, kind in _ELEMENTS if isinstance(value[0], python))
        if ".ple." in key:
            kind = ValueType.UINT32 if key.endswith("layers") else ValueType.UINT64
        return values.array(ValueType.INT32 if key.endswith("sections") else kind, value)
    return values.scalar(next(kind for python, kind in _ELEMENTS if isinstance(value, python)), value)


_ELEMENTS = ((bool, ValueType.BOOL), (int, ValueType.UINT32), (float, ValueType.FLOAT32), (str, ValueType.STRING))


def write(path: Path, metadata: Mapping[str, Value], tensors: Shapes) -> None:
    """A file of these tensors, F32, whose data is a hole."""
    declared = [Declared(name, shape, tensor_type("F32")) for name, shape in tensors.items()]
    plan = plan_file(metadata, declared)
    with path.open("wb") as out:
        out.write(plan.header)
        out.truncate(plan.size)


def cuts(tensors: Shapes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The first tensor of each kind, with one axis one longer or shorter."""
    seen: set[str] = set()
    for name, shape in tensors.items():
        kind = re.sub(r"\d+", "", name)
        if kind in seen:
            continue
        seen.add(kind)
        for axis, length in enumerate(shape):
            for other in (length - 1, length + 1):
                if other:
                    yield name, (*shape[:axis], other, *shape[axis + 1 :])
