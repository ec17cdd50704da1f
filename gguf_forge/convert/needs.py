"""What a family cannot do without, and what layers of one kind have in common: holes that only a reader would notice.

Knows names of outputs and axes. Must not know single families; what they need is in their tables.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from gguf_forge.convert.arch import BOTH, Arch, Either, Rule
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.patterns import fill, slots_of
from gguf_forge.errors import ConversionError, listed

_MAX_NAMED = 6


def require_needs(arch: Arch, made: Collection[str], rows: Sequence[Rule], facts: Facts) -> None:
    """ConversionError unless the outputs `made` have all that the architecture needs, for each number of an axis.

    The error names what the checkpoint lacks, as the rules write the sources' names.
    """
    sources = {out: _first_source(row) for row in reversed(rows) if row.sources for out in row.out}
    whole = _completed(rows)
    missing: list[str] = []
    for need in arch.needs:
        choices = need.choices if isinstance(need, Either) else ((need,),)
        for places in _places(arch, choices, facts):
            kinds = _missing([[whole(name) for name in choice] for choice in choices], made, places)
            if kinds:
                missing += (
                    " or ".join(repr(fill(sources.get(name, name), {"e": 0, **places})) for name in kind)
                    for kind in kinds
                )
                break
    if missing:
        lacking = listed((f"no {name}" for name in missing), _MAX_NAMED)
        raise ConversionError(f"the checkpoint has {lacking}; is a file missing?")


def require_alike_layers(arch: Arch, made: Collection[str], rows: Iterable[Rule], facts: Facts) -> None:
    """ConversionError for an output that some layers have and others of their kind lack.

    Layers are of one kind where the same choices among the needs hold.
    """
    eithers = [need for need in arch.needs if isinstance(need, Either)]
    rows = tuple(rows)
    whole = _completed(rows)
    for axis in arch.axes:
        numbers = None
        for row in rows:
            if row.when is not None or axis not in slots_of(row.out[0]) or len(slots_of(row.out[0])) > 1:
                continue
            for out in row.out:
                if numbers is None:
                    numbers = arch.axes[axis].numbers(facts)
                    kinds = _kinds(eithers, axis, numbers, made, whole)
                having = {n for n in numbers if fill(out, {axis: n}) in made}
                for kind in kinds if having else ():
                    lacking = kind - having
                    if lacking and kind & having:
                        name = fill(_first_source(row), {axis: min(lacking), "e": 0})
                        raise ConversionError(
                            f"the checkpoint has no {name!r}, though {len(kind & having)} of its {len(kind)} layers of "
                            "that kind have theirs; is a file missing?"
                        )


def _kinds(
    eithers: Iterable[Either], axis: str, numbers: range, made: Collection[str], whole: Callable[[str], str]
) -> list[set[int]]:
    """The numbers of an axis, gathered by which choices hold."""
    chosen = [either.choices for either in eithers if any(axis in slots_of(n) for c in either.choices for n in c)]
    found: dict[tuple[bool, ...], set[int]] = {}
    for number in numbers:
        held = tuple(
            bool(choice) and all(fill(whole(name), {axis: number}) in made for name in choice)
            for choices in chosen
            for choice in choices
        )
        found.setdefault(held, set()).add(number)
    return list(found.values())


def _places(arch: Arch, choices: Sequence[Sequence[str]], facts: Facts) -> Iterator[Mapping[str, int]]:
    axes = slots_of(next((name for choice in choices for name in choice), ""))
    if not axes:
        yield {}
        return
    for number in arch.axes[axes[0]].numbers(facts):
        yield {axes[0]: number}


def _missing(
    choices: Sequence[Sequence[str]], made: Collection[str], places: Mapping[str, int]
) -> list[tuple[str, ...]]:
    """The outputs missing at a place: of the choice that is there for the most part; where none is more so than the
    others, one of each in one tuple.
    """
    lacks = [[name for name in choice if fill(name, places) not in made] for choice in choices]
    there = [len(choice) - len(lack) for choice, lack in zip(choices, lacks, strict=True)]
    whole = any(choice and not lack for choice, lack in zip(choices, lacks, strict=True))
    if whole or (not all(choices) and not any(there)):
        return []
    nearest = [lack for lack, count in zip(lacks, there, strict=True) if lack and count == max(there)]
    return [(name,) for name in nearest[0]] if len(nearest) == 1 else [tuple(lack[0] for lack in nearest)]


def _first_source(row: Rule) -> str:
    if not row.sources:
        return row.out[0]
    source = row.sources[0]
    return source if isinstance(source, str) else source[0]


def _completed(rows: Iterable[Rule]) -> Callable[[str], str]:
    """Names as rules make them: with the ending of a weight where no rule makes them as they stand."""
    outs = {out for row in rows for out in row.out}
    return lambda name: name if name.endswith(BOTH) or name in outs else f"{name}.weight"
