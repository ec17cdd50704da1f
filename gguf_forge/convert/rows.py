"""Movements of rows that several families share, as verbs. Each is a sentence over row numbers (see `ops.Rows`).

Must not know single families.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Rows
from gguf_forge.convert.view import Numbers
from gguf_forge.errors import ConversionError


def grouped(rows: Numbers, groups: int, parts: int = 1) -> Numbers:
    """The last axis as (groups, rows of a group). ConversionError unless it is whole groups of whole parts."""
    count = rows.shape[-1]
    if groups <= 0 or count % (groups * parts):
        what = f" of {parts} parts" if parts > 1 else ""
        raise ConversionError(f"{count} rows cannot be divided into {groups} heads{what}")
    return rows.reshape(*rows.shape[:-1], groups, count // groups)


def interleave_halves(heads: Callable[[Facts], int]) -> Rows:
    """Rotary halves interleaved: in each head, row j of half i goes to row 2 j + i.

    (head, half, pair) -> (head, pair, half)
    """

    def take(rows: Numbers, facts: Facts) -> Numbers:
        by_head = grouped(rows, heads(facts), 2)
        halves = by_head.reshape(*by_head.shape[:-1], 2, -1)
        return halves.swapaxes(-1, -2).reshape(rows.shape)

    return Rows(take)


def number_of(*keys: str) -> Callable[[Facts], int]:
    """The number that the first of these configuration keys gives."""
    return lambda facts: facts.number(*keys)


def equal_parts(count: int) -> Rows:
    """As many equal parts, one below the other in each matrix: gate and up of a fused projection."""

    def take(rows: Numbers, facts: Facts) -> tuple[Numbers, ...]:
        return tuple(np.split(rows, count, axis=-1))

    return Rows(take)


def every(count: int) -> Rows:
    """As many parts, of which each has every `count`-th row: gate and up stored in turns."""
    return Rows(lambda rows, _: tuple(rows[..., i::count] for i in range(count)))


def parts_of(sizes: Callable[[Facts], Sequence[int]]) -> Rows:
    """Parts of these heights, one below the other, which must be all rows."""

    def take(rows: Numbers, facts: Facts) -> tuple[Numbers, ...]:
        heights = [*sizes(facts)]
        if sum(heights) != rows.shape[-1]:
            raise ConversionError(f"{rows.shape[-1]} rows are not parts of {' + '.join(map(str, heights))}")
        return tuple(np.split(rows, np.cumsum(heights)[:-1], axis=-1))

    return Rows(take)


def parts_of_heads(heads: Callable[[Facts], int], sizes: Callable[[Facts], Sequence[int]]) -> Rows:
    """Parts of these heights within each head (queries, keys and values of one head together), gathered over heads."""

    def take(rows: Numbers, facts: Facts) -> tuple[Numbers, ...]:
        by_head = grouped(rows, heads(facts))
        heights = [*sizes(facts)]
        if sum(heights) != by_head.shape[-1]:
            raise ConversionError(f"heads of {by_head.shape[-1]} rows are not {' + '.join(map(str, heights))}")
        found = np.split(by_head, np.cumsum(heights)[:-1], axis=-1)
        return tuple(part.reshape(*part.shape[:-2], -1) for part in found)

    return Rows(take)


def first_rows(limit: Callable[[Facts], int]) -> Rows:
    """No more than the first rows: an embedding padded beyond its vocabulary."""
    return Rows(lambda rows, facts: rows[: limit(facts)])


def rows_from(start: Callable[[Facts], int]) -> Rows:
    """All rows from one on: positions whose first ones stand for padding."""
    return Rows(lambda rows, facts: rows[start(facts) :])


def picked_rows(pick: Callable[[Facts], Sequence[int]]) -> Rows:
    """Single rows by number, in the order given: a classifier out of a vocabulary."""

    def take(rows: Numbers, facts: Facts) -> Numbers:
        picked = np.asarray(pick(facts))
        outside = picked[(picked < 0) | (picked >= rows.shape[0])]
        if outside.size:
            raise ConversionError(f"there is no row {int(outside[0])}: it has {rows.shape[0]}")
        found: Numbers = rows[picked]
        return found

    return Rows(take)
