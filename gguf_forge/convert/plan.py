"""The pull planner: which outputs a checkpoint has, in which order, and what each is made of.

Every rule of an architecture is tried on every layer where all its sources exist. Works on headers alone: names,
shapes and types. Must not know single families, recipes, or files.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gguf_forge.convert.arch import Arch, Rule
from gguf_forge.convert.config import block_count, first_of
from gguf_forge.convert.needs import require_needs
from gguf_forge.convert.ops import BF16, F16, F32, Array, Facts, View
from gguf_forge.errors import ConversionError, listed
from gguf_forge.source.tensor import SourceTensor

#: The tensors of one output are named by this; its position among all outputs comes from where they stand.
SUFFIXES = (".weight", ".bias")
_NUMBER = re.compile(r"(?<![A-Za-z0-9_])\d+(?![A-Za-z0-9_])")
_MAX_NAMED = 6


@dataclass(frozen=True)
class Outputs:
    """What a checkpoint becomes: output views in the order of the file, and the tensors left out on purpose."""

    views: tuple[View, ...]
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class _Pattern:
    """A source template: the form of the names that fit, and which of their numbers is the layer or the expert.

    "model.layers.{l}.mlp.experts.{e}.up_proj.weight" has the form "model.layers.#.mlp.experts.#.up_proj.weight".
    """

    form: str
    slots: tuple[str, ...]

    @classmethod
    def of(cls, template: str) -> _Pattern:
        slots: list[str] = []

        def slot(match: re.Match[str]) -> str:
            slots.append(match.group())
            return "#"

        return cls(re.sub(r"\{[le]\}|" + _NUMBER.pattern, slot, template), tuple(slots))

    def match(self, numbers: tuple[int, ...]) -> tuple[int | None, int | None] | None:
        """(layer, expert) of a name of this form; None when a number the template fixes is another."""
        layer = expert = None
        for slot, number in zip(self.slots, numbers, strict=True):
            if slot == "{l}":
                layer = number
            elif slot == "{e}":
                expert = number
            elif int(slot) != number:
                return None
        return layer, expert


_Layer = int | None


class _Names:
    """The source tensors by form and numbers, and which of them rules have used."""

    def __init__(self, names: Iterable[str]) -> None:
        self.forms: dict[str, dict[tuple[int, ...], str]] = {}
        self.used: set[str] = set()
        for name in names:
            numbers = tuple(int(n) for n in _NUMBER.findall(name))
            self.forms.setdefault(_NUMBER.sub("#", name), {})[numbers] = name

    def find(self, template: str) -> dict[_Layer, dict[int | None, str]]:
        """Names that fit a template, by layer and expert."""
        pattern = _Pattern.of(template)
        found: dict[_Layer, dict[int | None, str]] = {}
        for numbers, name in self.forms.get(pattern.form, {}).items():
            where = pattern.match(numbers)
            if where is not None:
                found.setdefault(where[0], {})[where[1]] = name
        return found


@dataclass(frozen=True)
class _Emission:
    """An output in the making: where the last of its sources stands, then which rule, decide its place."""

    position: int
    order: int
    layer: int
    name: str
    rule: Rule
    sources: tuple[str, ...]

    @property
    def key(self) -> tuple[int, int, int]:
        return self.position, self.layer, self.order


def plan_outputs(arch: Arch, tensors: Mapping[str, SourceTensor], facts: Facts) -> Outputs:
    """The outputs of a checkpoint under an architecture's rules, in the reference's order.

    `tensors` are the checkpoint's, in its order. Raises ConversionError for a tensor that no rule uses and no pattern
    drops, for a layer that lacks a tensor its siblings have, for what the architecture needs and no layer has, and for
    shapes a verb cannot take.
    """
    stored, dropped = _renamed(arch, tensors)
    names = _Names(stored)
    positions = {name: i for i, name in enumerate(stored)}
    layers = block_count(facts.config)
    experts = first_of(facts.config, *arch.experts)
    emissions: list[_Emission] = []
    rows = _expanded(r for r in arch.tensors if r.when is None or r.when(facts))
    for order, row in enumerate(rows):
        if not row.sources:
            emissions.append(_Emission(-1, order, -1, row.out, row, ()))
            continue
        found = _applications(row, names, layers, experts)
        if row.every:
            _require_every(row, found, layers)
        for layer, sources in found.items():
            names.used.update(sources)
            position = max(positions[s] for s in sources)
            at = -1 if layer is None else layer
            emissions.append(_Emission(position, order, at, row.out.replace("{l}", str(layer)), row, sources))
    _require_used(arch, names, stored, layers)
    made = {e.name for e in emissions}
    require_needs(arch.needs, made, layers, {r.out: r.sources[0] for r in reversed(rows) if r.sources})
    views = _views(_ordered(emissions), {n: tensors[s] for n, s in stored.items()}, facts)
    return Outputs(tuple(views), dropped)


def _renamed(arch: Arch, tensors: Mapping[str, SourceTensor]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Names as the rules write them, to stored names; and what is dropped."""
    drops = [re.compile(p) for p in arch.drop]
    renames = [(re.compile(p), r) for p, r in arch.renames]
    stored: dict[str, str] = {}
    dropped = []
    for name in tensors:
        new = name
        for pattern, replacement in renames:
            new = pattern.sub(replacement, new)
        if any(d.search(name) or d.search(new) for d in drops):
            dropped.append(name)
        elif new in stored:
            raise ConversionError(f"tensors {stored[new]!r} and {name!r} both stand for {new!r}")
        else:
            stored[new] = name
    return stored, tuple(dropped)


def _expanded(rows: Iterable[Rule]) -> list[Rule]:
    """The rules with every name complete: a rule without endings becomes one for weights and one for biases."""
    found = []
    for row in rows:
        if row.out.endswith(SUFFIXES):
            found.append(row)
            continue
        for suffix in SUFFIXES:
            found.append(replace(row, out=row.out + suffix, sources=tuple(s + suffix for s in row.sources)))
    return found


def _applications(row: Rule, names: _Names, layers: int, experts: Any) -> dict[_Layer, tuple[str, ...]]:
    """The layers (None: the model as a whole) to which a rule applies, with its sources there."""
    per_source = [names.find(s) for s in row.sources]
    common = [layer for layer in per_source[0] if all(layer in found for found in per_source[1:])]
    result: dict[_Layer, tuple[str, ...]] = {}
    for layer in common:
        if layer is not None and layer >= layers:
            continue
        sources: list[str] = []
        for template, found in zip(row.sources, per_source, strict=True):
            sources += _expert_names(row, template, layer, found[layer], experts)
        result[layer] = tuple(sources)
    return result


def _expert_names(row: Rule, template: str, layer: _Layer, found: Mapping[int | None, str], experts: Any) -> list[str]:
    if "{e}" not in template:
        return list(found.values())
    if not isinstance(experts, int) or isinstance(experts, bool):
        raise ConversionError(f"config.json does not say how many experts there are (found {experts!r})")
    count = experts
    missing = [e for e in range(count) if e not in found]
    extra = [e for e in found if e is not None and e >= count]
    if missing or extra:
        which = f"expert {missing[0]} is missing" if missing else f"expert {extra[0]} is beyond the {count} declared"
        raise ConversionError(f"{row.out.replace('{l}', str(layer))}: {which} ({template.replace('{l}', str(layer))})")
    return [found[e] for e in range(count)]


def _require_every(row: Rule, found: Mapping[_Layer, Any], layers: int) -> None:
    if not found or None in found or len(found) == layers:
        return
    missing = next(i for i in range(layers) if i not in found)
    source = row.sources[0].replace("{l}", str(missing))
    raise ConversionError(
        f"the checkpoint has no {source!r}, though {len(found)} of its {layers} layers have theirs; is a file missing?"
    )


def _require_used(arch: Arch, names: _Names, stored: Mapping[str, str], layers: int) -> None:
    left = [n for n in stored if n not in names.used]
    if not left:
        return
    patterns = [_Pattern.of(s) for row in _expanded(arch.tensors) for s in row.sources]
    beyond = [stored[name] for name in left if _beyond(name, patterns, layers)]
    if beyond:
        raise ConversionError(
            f"config.json says that layers go from 0 to {layers - 1}, but the checkpoint has more: {listed(beyond, 3)}"
        )
    forms = {_Pattern.of(s).form: s for row in _expanded(arch.tensors) for s in row.sources}
    parts = []
    for name in left[:_MAX_NAMED]:
        near = difflib.get_close_matches(_NUMBER.sub("#", name), forms, n=1, cutoff=0.0)
        parts.append(f"{stored[name]!r} (nearest rule: {forms[near[0]]})" if near else repr(stored[name]))
    more = f" and {len(left) - _MAX_NAMED} more" if len(left) > _MAX_NAMED else ""
    raise ConversionError(
        f"no rule of {arch.name} ({layers} layers) uses {len(left)} of {len(stored)} tensors: {', '.join(parts)}{more}"
    )


def _beyond(name: str, patterns: Iterable[_Pattern], layers: int) -> bool:
    """Whether a rule would use this tensor if there were more layers."""
    form, numbers = _NUMBER.sub("#", name), tuple(int(n) for n in _NUMBER.findall(name))
    places = [pattern.match(numbers) for pattern in patterns if pattern.form == form]
    return any(place is not None and place[0] is not None and place[0] >= layers for place in places)


def _ordered(emissions: Sequence[_Emission]) -> list[_Emission]:
    """In the reference's order; the outputs of a group wait for the last of all their sources."""
    last: dict[tuple[int, str], int] = {}
    for e in emissions:
        if e.rule.group:
            key = (e.layer, e.rule.group)
            last[key] = max(last.get(key, -1), e.position)
    placed = [replace(e, position=last.get((e.layer, e.rule.group), e.position)) for e in emissions]
    placed.sort(key=lambda e: e.key)
    seen: dict[str, Rule] = {}
    for e in placed:
        if e.name in seen:
            raise ConversionError(f"{e.name} is made twice: from {seen[e.name].sources[0]} and {e.rule.sources[0]}")
        seen[e.name] = e.rule
    return placed


def _views(emissions: Iterable[_Emission], tensors: Mapping[str, SourceTensor], facts: Facts) -> list[View]:
    views = []
    for e in emissions:
        made = e.rule.verb.view([source_view(tensors[s]) for s in e.sources], facts)
        if made is not None:
            views.append(replace(made, name=e.name))
    return views


def source_view(tensor: SourceTensor) -> View:
    """A checkpoint's tensor as rows of F32, F16 or BF16; other element types become F32, as in the reference."""
    shape = tuple(tensor.shape)
    kind = tensor.type
    result = kind if kind in (F32, F16, BF16) else F32
    flat = tensor
    if len(shape) > 2 and tensor.strides is None:
        flat = replace(tensor, shape=(int(np.prod(shape[:-1])), shape[-1]))

    def rows(start: int, stop: int) -> Array:
        data = _flat_rows(flat, start, stop)
        return data if kind is result else data.astype(np.float32)

    return View(tensor.name, shape, result, rows)


def _flat_rows(tensor: SourceTensor, start: int, stop: int) -> Array:
    shape = tuple(tensor.shape)
    if len(shape) < 2:
        return tensor.read().reshape(1, -1)[start:stop]
    inner = int(np.prod(shape[1:-1]))
    if inner == 1:
        return tensor.rows(start, stop).reshape(stop - start, shape[-1])
    low, high = start // inner, -(-stop // inner)
    block = tensor.rows(low, high).reshape(-1, shape[-1])
    return np.ascontiguousarray(block[start - low * inner : stop - low * inner])
