"""What the rules of `check` read: an open file as a model, its keys by name, and where each stands.

Knows how keys are found, and which files hold a model. Must not know rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gguf_forge.format.layout import LIMITS, SPLIT_NO, Limits, ValueType
from gguf_forge.format.reader import GGUFFile
from gguf_forge.format.values import Value
from gguf_forge.whole.check.required import ABSOLUTE

#: Values of general.type, and architectures, of files that hold something else than a model that llama.cpp runs.
OTHER_KINDS = {"adapter", "imatrix", "mmproj"}
OTHER_ARCHITECTURES = {"clip", "controlvector"}
#: Keys by which older importance matrices are known.
IMATRIX = "imatrix.datasets"


@dataclass(frozen=True)
class CheckLimits(Limits):
    """Bounds on what a file may declare, and on what `check` does with it; each adjustable."""

    findings: int = 100  # of one rule that are reported, of each file
    template_bytes: int = 1 << 17  # of a chat template whose tree is walked; the longest known has 17 KB
    layers: int = 512  # llama.cpp's bound
    experts: int = 1024  # llama.cpp's bound


CHECK_LIMITS = CheckLimits()


@dataclass(frozen=True)
class Place:
    """Where something stands: the file, the offset in it, and the key or tensor."""

    path: str
    offset: int | None = None
    field: str | None = None


#: What a rule yields: what was found, where, and how bad it is where not all that the rule finds is alike.
Found = Iterator[tuple[str, Place] | tuple[str, Place, str]]


class Values(Mapping[str, Value]):
    """A file's metadata as values with their types."""

    def __init__(self, file: GGUFFile) -> None:
        self._metadata = file.metadata

    def __getitem__(self, key: str) -> Value:
        return self._metadata.value(key)

    def __contains__(self, key: object) -> bool:
        return key in self._metadata

    def __iter__(self) -> Iterator[str]:
        return iter(self._metadata)

    def __len__(self) -> int:
        return len(self._metadata)


@dataclass
class Subject:
    """A file under check. `arch`: what it says its architecture is, if it is a text."""

    file: GGUFFile
    limits: CheckLimits = CHECK_LIMITS
    values: Values = field(init=False)
    arch: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.values = Values(self.file)
        self.arch = self.text("general.architecture")
        self.shapes = {tensor.name: tensor.shape for tensor in self.file.listing()}

    @property
    def is_model(self) -> bool:
        """Whether the file holds, or is the first of those that hold, a model that llama.cpp runs by itself."""
        if self.text("general.type") in OTHER_KINDS or self.arch in OTHER_ARCHITECTURES or IMATRIX in self.values:
            return False
        return not (len(self.file.parts) == 1 and self.number(SPLIT_NO))

    @property
    def is_whole(self) -> bool:
        """Whether all the model's tensors are there: not in a vocabulary alone, or a shard without the others."""
        return self.is_model and bool(self.shapes) and (len(self.file.parts) > 1 or SPLIT_NO not in self.values)

    def key(self, suffix: str) -> str:
        """A key of the architecture."""
        return suffix if suffix in ABSOLUTE else f"{self.arch}.{suffix}"

    def text(self, key: str) -> str | None:
        """The text of a key, or None."""
        if key not in self.values or self.file.metadata.type_of(key) is not ValueType.STRING:
            return None
        return str(self.values[key].value)

    def number(self, key: str) -> int | None:
        """The whole number of a key, or None."""
        value = self.single(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def single(self, key: str) -> Any:
        """The value of a key that is no array; None for one, and where there is none."""
        if key not in self.values or self.file.metadata.type_of(key) is ValueType.ARRAY:
            return None
        return self.values[key].value

    def element(self, key: str) -> ValueType | None:
        """The element type of an array, or None."""
        return self.file.metadata.element_type_of(key) if key in self.values else None

    def layers(self, suffix: str, count: int) -> list[int] | None:
        """A number for each of `count` layers: of an array, or the one for all; None where it is neither."""
        key = self.key(suffix)
        if self.element(key) in (ValueType.UINT32, ValueType.INT32):
            held: np.ndarray[Any, Any] = self.values[key].value
            return held.tolist() if len(held) == count else None
        single = self.number(key)
        return None if single is None else [single] * count

    def at(self, key: str | None = None) -> Place:
        """Where a key stands, or, without one, the file."""
        part = self.file.parts[0]
        entry = None if key is None else part.entries.get(key)
        if entry is None:
            return Place(str(part.path))
        return Place(str(part.path), entry.offset, entry.field)

    def at_tensor(self, name: str) -> Place:
        """Where a tensor's record stands."""
        for part in self.file.parts:
            for info in part.checked.header.infos:
                if info.name == name:
                    return Place(str(part.path), info.offset, info.field)
        return self.at()


__all__ = ["CHECK_LIMITS", "LIMITS", "CheckLimits", "Found", "Place", "Subject", "Values"]
