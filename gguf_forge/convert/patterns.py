"""Names of tensors as forms and numbers: "model.layers.3.mlp.experts.7.up_proj" fits a template over {l} and {e}.

Knows text only; must not know rules, architectures or tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NUMBER = re.compile(r"(?<![A-Za-z0-9_])\d+(?![A-Za-z0-9_])")
_SLOT = re.compile(r"\{([a-z]+)\}")

Place = tuple[int, ...]
"""Numbers of axes, in the order of their slots."""


def slots_of(template: str) -> tuple[str, ...]:
    """The axes a template counts over, in order, each once."""
    return tuple(dict.fromkeys(_SLOT.findall(template)))


def fill(template: str, places: Mapping[str, int | None]) -> str:
    """The template with numbers for its slots; a slot without one stays."""

    def number(match: re.Match[str]) -> str:
        found = places.get(match[1])
        return match[0] if found is None else str(found)

    return _SLOT.sub(number, template)


def form_of(name: str) -> str:
    """The name with # for each of its numbers."""
    return NUMBER.sub("#", name)


@dataclass(frozen=True)
class Pattern:
    """A template taken apart: the form of the names that fit, and which of their numbers is which axis's.

    "model.layers.{l}.mlp.experts.{e}.up_proj" has the form "model.layers.#.mlp.experts.#.up_proj".
    """

    form: str
    slots: tuple[str, ...]

    @classmethod
    def of(cls, template: str) -> Pattern:
        """The pattern of a template."""
        slots: list[str] = []

        def slot(match: re.Match[str]) -> str:
            slots.append(match.group())
            return "#"

        return cls(re.sub(_SLOT.pattern + "|" + NUMBER.pattern, slot, template), tuple(slots))

    def match(self, numbers: Place) -> dict[str, int] | None:
        """The axes' numbers in a name of this form; None when a number the template fixes is another."""
        found: dict[str, int] = {}
        for slot, number in zip(self.slots, numbers, strict=True):
            if slot[0] != "{":
                if int(slot) != number:
                    return None
            elif found.setdefault(slot[1:-1], number) != number:
                return None
        return found


class Names:
    """Names by form and numbers, and which of them are used."""

    def __init__(self, names: Iterable[str]) -> None:
        self.forms: dict[str, dict[Place, str]] = {}
        self.used: set[str] = set()
        for name in names:
            numbers = tuple(int(n) for n in NUMBER.findall(name))
            self.forms.setdefault(form_of(name), {})[numbers] = name

    def find(self, template: str, axes: tuple[str, ...]) -> dict[Place, dict[Place, str]]:
        """Names that fit a template: by the numbers of `axes`, then by those of the other slots."""
        pattern = Pattern.of(template)
        others = tuple(slot for slot in slots_of(template) if slot not in axes)
        found: dict[Place, dict[Place, str]] = {}
        for numbers, name in self.forms.get(pattern.form, {}).items():
            where = pattern.match(numbers)
            if where is not None:
                at = tuple(where[axis] for axis in axes if axis in where)
                found.setdefault(at, {})[tuple(where[slot] for slot in others)] = name
        return found
