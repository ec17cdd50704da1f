"""The pull planner: which outputs a checkpoint has, in which order, and what each is made of.

Every rule of an architecture is tried on every number of its axes where all its sources exist. Works on headers alone:
names, shapes and types. Must not know single families, recipes, or files.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from gguf_forge.convert.arch import AS_READ, BIAS, Arch, Axis, Drop, Rule, Source
from gguf_forge.convert.facts import LOOK_BYTES, Facts, Header
from gguf_forge.convert.fuse import Fusion, fused
from gguf_forge.convert.needs import require_alike_layers, require_needs
from gguf_forge.convert.ops import FLOATS, Concat, Copy, Rows, Stack
from gguf_forge.convert.origin import float_rows, source_view
from gguf_forge.convert.patterns import Names, Pattern, Place, fill, form_of, slots_of
from gguf_forge.convert.view import Array, View
from gguf_forge.errors import ConversionError, listed
from gguf_forge.source.packed import AnyTensor, PackedTensor

#: Why weights whose groups lie apart have no stored form where they are put together with others.
APART = "groups are made of inputs that do not lie together (act-order), and its rule puts it together with others"
#: Names of another checkpoint's tensors, as rules write them, begin with this.
TARGET = "target:"
_MAX_NAMED = 6


@dataclass(frozen=True)
class Emission:
    """Outputs of one rule at one place: where the last of its sources stands, then which rule, decide their order.

    `sources` are names as the rules write them.
    """

    position: int
    order: int
    layer: int | None
    names: tuple[str, ...]
    rule: Rule
    sources: tuple[str, ...]

    @property
    def key(self) -> tuple[int, int, int]:
        """What orders emissions."""
        return self.position, -1 if self.layer is None else self.layer, self.order


@dataclass(frozen=True)
class Packing:
    """How an output's sources were quantized, and why its rows are no longer so stored, if they are not.

    `largest()`: of rows not so stored a number that none of their weights exceeds in magnitude.
    """

    method: str
    why: str = ""
    largest: Callable[[], float] = lambda: float("inf")


@dataclass(frozen=True)
class Outputs:
    """What a checkpoint becomes: output views in the order of the file, and the tensors left out on purpose.

    `facts` are those planned with, `types` the outputs' types where a rule gives them (see `Rule.type`), `unused` the
    stored names of tensors that were allowed to be left, `emissions` what made the views, `fusions` what was then put
    together, `packed` tells of the outputs made of weights that another tool quantized.
    """

    views: tuple[View, ...]
    dropped: tuple[str, ...]
    facts: Facts
    types: Mapping[str, str | bool] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    emissions: tuple[Emission, ...] = ()
    fusions: tuple[Fusion, ...] = ()
    packed: Mapping[str, Packing] = field(default_factory=dict)


def plan_outputs(
    arch: Arch,
    tensors: Mapping[str, AnyTensor],
    facts: Facts,
    *,
    allow_unused: Sequence[str] = (),
) -> Outputs:
    """The outputs of a checkpoint under an architecture's rules, in the reference's order.

    `tensors` are the checkpoint's, in its order (those of a draft's target model under `TARGET`). `facts` need no
    headers: they are filled in. Tensors that no rule uses and a regular expression of `allow_unused` fits are left.
    Raises ConversionError for others that no rule uses and no pattern drops, for a layer that lacks a tensor its
    siblings have, for what the architecture needs and the checkpoint lacks, and for shapes a verb cannot take.
    """
    stored, dropped = rename(arch, tensors, facts)
    facts = with_headers(arch, stored, tensors, facts)
    names = Names(stored)
    names.used.update(_looked_at(arch, names))
    rows = applied_rows(arch, facts)
    emissions = _emissions(arch, rows, names, {name: i for i, name in enumerate(stored)}, facts)
    unused = _require_used(arch, names, stored, facts, allow_unused)
    made = {name for e in emissions for name in e.names}
    require_needs(arch, made, rows, facts)
    require_alike_layers(arch, made, rows, facts)
    ordered = _ordered(emissions)
    by_rule_name = {n: tensors[s] for n, s in stored.items()}
    views, types = _views(ordered, by_rule_name, facts)
    packed = _packed(ordered, by_rule_name, {view.name: view for view in views})
    alone = {e.names[0] for e in ordered if len(e.names) == 1}
    views, fusions = fused(views, alone, arch.name, facts)
    for fusion in fusions:
        kinds = {types.get(part.name, False) for part in fusion.parts}
        types[fusion.name] = kinds.pop() if len(kinds) == 1 else False
        one = next((packed.pop(part.name) for part in fusion.parts if part.name in packed), None)
        if one is not None:
            packed[fusion.name] = one
    return Outputs(tuple(views), dropped, facts, types, tuple(unused), tuple(ordered), tuple(fusions), packed)


def rename(arch: Arch, tensors: Mapping[str, AnyTensor], facts: Facts) -> tuple[dict[str, str], tuple[str, ...]]:
    """Names as the rules write them, to stored names; and the stored names of what is dropped.

    What decides about a name finds the headers in the facts under the names as stored.
    """
    facts = replace(facts, headers={n: Header(t.dtype, tuple(t.shape)) for n, t in tensors.items()})
    drops = [d if isinstance(d, Drop) else Drop(d, lambda _match, _facts: True) for d in arch.drop]
    searches = [(re.compile(d.pattern), d.when) for d in drops]
    renames = [(re.compile(p), r) for p, r in arch.renames]

    def is_dropped(name: str) -> bool:
        found = ((pattern.search(name), when) for pattern, when in searches)
        return any(match is not None and when(match, facts) for match, when in found)

    stored: dict[str, str] = {}
    dropped = []
    for name in tensors:
        new = name
        for pattern, replacement in renames:
            new = pattern.sub(
                replacement if isinstance(replacement, str) else lambda m, r=replacement: r(m, facts),
                new,
            )
        if name.startswith(TARGET):
            stored.setdefault(new, name)
        elif is_dropped(name) or (new != name and is_dropped(new)):
            dropped.append(name)
        elif new in stored:
            raise ConversionError(f"tensors {stored[new]!r} and {name!r} both stand for {new!r}")
        else:
            stored[new] = name
    return stored, tuple(dropped)


def with_headers(arch: Arch, stored: Mapping[str, str], tensors: Mapping[str, AnyTensor], facts: Facts) -> Facts:
    """The facts with the headers of the renamed tensors, and a look at the small ones the architecture declares."""
    patterns = [Pattern.of(look) for look in arch.looks]

    def look(name: str) -> Array:
        numbers = Names([name]).forms[form_of(name)]
        if not any(p.form == form_of(name) and p.match(n) is not None for p in patterns for n in numbers):
            raise ConversionError(f"{arch.name} does not declare that it looks at {name!r}")
        tensor = tensors[stored[name]]
        if tensor.nbytes > LOOK_BYTES:
            raise ConversionError(f"{name!r} has {tensor.nbytes} bytes, and only small tensors are looked at")
        return np.asarray(tensor.read(), np.int64) if tensor.type.name.startswith("I") else float_rows(tensor)

    headers = {name: _header(tensors[s]) for name, s in stored.items()}
    return replace(facts, headers=headers, look=look)


def _header(tensor: AnyTensor) -> Header:
    place = (id(tensor.file), tensor.offset) if tensor.file else None
    return Header(tensor.dtype, tuple(tensor.shape), place)


def _looked_at(arch: Arch, names: Names) -> list[str]:
    """Names of the tensors whose values become metadata."""
    found = (names.find(look, ()) for look in arch.looks)
    return [name for places in found for at in places.values() for name in at.values()]


def applied_rows(arch: Arch, facts: Facts) -> list[Rule]:
    """The rules with every name complete, without those whose condition fails for the whole model."""
    return [
        row
        for rule in arch.tensors
        if rule.when is None or slots_of(rule.out[0]) or rule.when(facts)
        for row in rule.expanded()
    ]


def _emissions(
    arch: Arch, rows: Sequence[Rule], names: Names, positions: Mapping[str, int], facts: Facts
) -> list[Emission]:
    found = []
    for order, row in enumerate(rows):
        axes = slots_of(row.out[0])
        for place, sources in _applications(arch, row, axes, names, facts):
            layer = place[0] if place else None
            if row.when is not None and axes and not row.when(facts.at(layer)):
                continue
            names.used.update(sources)
            position = max((positions[s] for s in sources), default=-1)
            if row.first:
                position = position - len(positions) if row.first == AS_READ else -1 - row.first
            elif row.last:
                position = len(positions)
            where = dict(zip(axes, place, strict=True))
            outs = tuple(fill(out, where) for out in row.out)
            found.append(Emission(position, order, layer, outs, row, sources))
    return found


def _applications(
    arch: Arch, row: Rule, axes: tuple[str, ...], names: Names, facts: Facts
) -> Iterable[tuple[Place, tuple[str, ...]]]:
    """The places at which a rule applies, with its sources there."""
    spans = {axis: _axis(arch, axis, row).numbers(facts) for axis in axes}
    if not row.sources:
        yield from (((number,), ()) for number in spans[axes[0]]) if axes else (((), ()),)
        return
    found = [_alternatives(source, axes, names) for source in row.sources]
    for place in found[0]:
        inside = all(number in spans[axis] for axis, number in zip(axes, place, strict=True))
        if inside and all(place in others for others in found[1:]):
            sources: list[str] = []
            for here in found:
                template, at = here[place]
                sources += _gathered(arch, row, template, dict(zip(axes, place, strict=True)), at, facts)
            yield place, tuple(sources)


def _alternatives(source: Source, axes: tuple[str, ...], names: Names) -> dict[Place, tuple[str, Mapping[Place, str]]]:
    """By place: the template that fits there, and the names by the numbers of its other axes."""
    found: dict[Place, tuple[str, Mapping[Place, str]]] = {}
    for template in (source,) if isinstance(source, str) else source:
        for place, at in names.find(template, axes).items():
            found.setdefault(place, (template, at))
    return found


def _axis(arch: Arch, axis: str, row: Rule) -> Axis:
    if axis not in arch.axes:
        raise ConversionError(f"{arch.name}: {row.row} counts over {{{axis}}}, which is no axis of the architecture")
    return arch.axes[axis]


def _gathered(
    arch: Arch, row: Rule, template: str, where: Mapping[str, int], at: Mapping[Place, str], facts: Facts
) -> list[str]:
    """The names at one place, in the order of the axes that only sources have; all their numbers must be there."""
    slots = tuple(slot for slot in slots_of(template) if slot not in where)
    if not slots:
        return list(at.values())
    if len(slots) > 1:
        raise ConversionError(f"{row.row}: {template} gathers over more than one axis")
    layer = next(iter(where.values()), None)
    wanted = _axis(arch, slots[0], row).numbers(facts.at(layer))
    missing = [n for n in wanted if (n,) not in at]
    extra = [place[0] for place in at if place[0] not in wanted]
    if missing or extra:
        what = "expert" if slots[0] == "e" else f"{{{slots[0]}}}"
        which = (
            f"{what} {missing[0]} is missing" if missing else f"{what} {extra[0]} is beyond the {len(wanted)} declared"
        )
        raise ConversionError(f"{fill(row.out[0], where)}: {which} ({fill(template, where)})")
    return [at[(n,)] for n in wanted]


def _require_used(
    arch: Arch, names: Names, stored: Mapping[str, str], facts: Facts, allowed: Sequence[str]
) -> list[str]:
    """The stored names of tensors that were allowed to be left. ConversionError for others."""
    left = [n for n in stored if n not in names.used and not n.startswith(TARGET)]
    patterns = [re.compile(pattern) for pattern in allowed]
    unused = [n for n in left if any(p.search(n) or p.search(stored[n]) for p in patterns)]
    left = [n for n in left if n not in set(unused)]
    if not left:
        return [stored[n] for n in unused]
    templates = [name for rule in arch.tensors for row in rule.expanded() for name in row.names]
    beyond = _beyond(arch, left, templates, facts)
    if beyond:
        axis, last, which = beyond
        raise ConversionError(
            f"config.json says that {axis} go from 0 to {last}, but the checkpoint has more: "
            f"{listed((stored[n] for n in which), 3)}"
        )
    forms = {form_of(re.sub(r"\{[a-z]+\}", "0", t)): t for t in templates}
    shown = [repr(stored[name]) for name in left]
    for i, name in enumerate(left[:_MAX_NAMED]):
        near = difflib.get_close_matches(form_of(name), forms, n=1, cutoff=0.0)
        shown[i] += f" (nearest rule: {forms[near[0]]})" if near else ""
    layers = f" ({len(arch.axes['l'].numbers(facts))} layers)" if "l" in arch.axes else ""
    raise ConversionError(
        f"no rule of {arch.name}{layers} uses {len(left)} of {len(stored)} tensors: {listed(shown, _MAX_NAMED)}"
    )


def _beyond(
    arch: Arch, left: Sequence[str], templates: Iterable[str], facts: Facts
) -> tuple[str, int, list[str]] | None:
    """Tensors that rules would use if an axis had more numbers: what it counts, its last number, and which."""
    spans: dict[str, range] = {}
    patterns: dict[str, list[Pattern]] = {}
    for template in templates:
        pattern = Pattern.of(template)
        patterns.setdefault(pattern.form, []).append(pattern)
    for name in left:
        for form, by_numbers in Names([name]).forms.items():
            for pattern in patterns.get(form, ()):
                for axis, number in (pattern.match(next(iter(by_numbers))) or {}).items():
                    span = spans.setdefault(axis, arch.axes[axis].numbers(facts)) if axis != "e" else range(1 << 30)
                    if number not in span and number >= span.stop:
                        which = [n for n in left if form_of(n) == form]
                        return {"l": "layers"}.get(axis, f"{{{axis}}}"), span.stop - 1, which
    return None


def _ordered(emissions: Sequence[Emission]) -> list[Emission]:
    """In the reference's order; the outputs of a group wait for the last of all their sources."""
    last: dict[tuple[int | None, str], int] = {}
    for e in emissions:
        if e.rule.group:
            key = (e.layer, e.rule.group)
            last[key] = max(last.get(key, -1), e.position)
    placed = [replace(e, position=last.get((e.layer, e.rule.group), e.position)) for e in emissions]
    placed.sort(key=lambda e: e.key)
    seen: dict[str, Emission] = {}
    for e in placed:
        for name in e.names:
            if name in seen:
                first = (seen[name].sources or ("the configuration",))[0]
                second = (e.sources or ("the configuration",))[0]
                raise ConversionError(f"{name} is made twice: from {first} and {second}")
            seen[name] = e
    return placed


def _views(
    emissions: Iterable[Emission], tensors: Mapping[str, AnyTensor], facts: Facts
) -> tuple[list[View], dict[str, str | bool]]:
    views: list[View] = []
    types: dict[str, str | bool] = {}
    for e in emissions:
        sources = sources_of(e, tensors)
        made = e.rule.verb.views(sources, facts.at(e.layer))
        kind = e.rule.type(sources) if callable(e.rule.type) else e.rule.type
        if not made and len(e.names) == 1:
            continue
        if len(made) != len(e.names):
            raise ConversionError(f"{e.rule.row}: {len(e.names)} outputs, but its verb makes {len(made)}")
        for name, view in zip(e.names, made, strict=True):
            if view.type not in FLOATS and not view.type.quantized and kind != view.type.name:
                raise ConversionError(
                    f"{e.sources[0]!r} has whole numbers ({view.type}), and the rule for {name} does not say what "
                    "becomes of them"
                )
            views.append(replace(view, name=name))
            if kind:
                types[name] = kind
    return views, types


def _packed(
    emissions: Iterable[Emission], tensors: Mapping[str, AnyTensor], views: Mapping[str, View]
) -> dict[str, Packing]:
    """Of the outputs made of weights that another tool quantized: how, and what took their stored form away."""
    found = {}
    for e in emissions:
        sources = [t for t in (tensors[s] for s in e.sources) if isinstance(t, PackedTensor)]
        for name in e.names if sources else ():
            if name in views:
                lost = next((t.why for t in sources if t.grid is None and t.blocks is None), "")
                lost = lost or (APART if any(t.order is not None for t in sources) else "")
                what = lost or f"its rule calculates with the values, or puts unlike weights together ({e.rule.row})"
                moved = isinstance(e.rule.verb, (Copy, Rows, Stack, Concat))
                most = partial(_largest, sources) if moved and len(sources) == len(e.sources) else _unknown
                form = views[name].stored
                found[name] = Packing(sources[0].method, "" if form and not form.floats else what, most)
    return found


def _largest(sources: Sequence[PackedTensor]) -> float:
    return max(source.largest() for source in sources)


def _unknown() -> float:
    return float("inf")


def sources_of(emission: Emission, tensors: Mapping[str, AnyTensor]) -> list[View]:
    """The source views of an emission, by the rules' names; elements of biases are marked as rows."""
    bias = emission.names[0].endswith(BIAS)
    return [source_view(tensors[s], vector=bias) for s in emission.sources]
