"""A type for each tensor under a number of bytes: the choice with the smallest total of predicted costs.

A multiple-choice knapsack, solved by dynamic programming over bytes: exact where the bytes, measured in their greatest
common divisor, are at most GRID; else each step up is counted as rounded up to the sum of all / GRID, so that the
result never exceeds the budget and never gets worse with more of it. Knows numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gguf_forge.errors import RequestError

#: Different numbers of bytes that are told apart.
GRID = 1 << 16


@dataclass(frozen=True)
class Option:
    """What a tensor may become: a type's name, its bytes, its predicted cost (any unit, the same for all tensors)."""

    type: str
    nbytes: int
    cost: float


@dataclass(frozen=True)
class Item:
    """A tensor and its options, one at least."""

    name: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Allocation:
    """The option taken of each item, in their order."""

    options: tuple[Option, ...]

    @property
    def nbytes(self) -> int:
        """Bytes together."""
        return sum(option.nbytes for option in self.options)

    @property
    def cost(self) -> float:
        """Predicted costs together."""
        return math.fsum(option.cost for option in self.options)


def smallest(items: Sequence[Item]) -> Allocation:
    """The fewest bytes that the options allow."""
    return Allocation(tuple(min(item.options, key=lambda o: (o.nbytes, o.cost)) for item in items))


def best(items: Sequence[Item]) -> Allocation:
    """The lowest cost that the options allow, whatever the bytes."""
    return Allocation(tuple(min(item.options, key=lambda o: (o.cost, o.nbytes)) for item in items))


def allocate(items: Sequence[Item], budget: int, floor: Allocation | None = None) -> Allocation:
    """The cheapest choice of at most `budget` bytes; `floor`, such as a recipe's, where it fits and costs no more.

    Raises RequestError where even the smallest options need more, and for an item without options or a cost that is not
    a finite number.
    """
    return allocations(items, [budget], floor)[0]


def allocations(items: Sequence[Item], budgets: Sequence[int], floor: Allocation | None = None) -> list[Allocation]:
    """As `allocate` for several budgets, at little more than the price of one."""
    for item in items:
        if not item.options or not all(math.isfinite(o.cost) and o.nbytes >= 0 for o in item.options):
            raise RequestError(f"{item.name}: no type with a finite cost to choose from")
    least = smallest(items)
    short = [budget for budget in budgets if budget < least.nbytes]
    if short:
        raise RequestError(
            f"{short[0]} bytes are too few: the smallest types on offer need {least.nbytes} for what is quantized"
        )
    choices = [_efficient(item.options) for item in items]
    unit = _unit(choices)
    top = max(budgets, default=0) - least.nbytes
    table = _Table(choices, unit, min(top // unit, sum((c[-1].nbytes - c[0].nbytes) // unit + 1 for c in choices)))
    found = [table.choice((budget - least.nbytes) // unit) for budget in budgets]
    if floor is None:
        return found
    return [floor if floor.nbytes <= b and floor.cost <= f.cost else f for b, f in zip(budgets, found, strict=True)]


def _efficient(options: Sequence[Option]) -> list[Option]:
    """By bytes, without those that another beats in both; the first is the smallest."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda o: (o.nbytes, o.cost)):
        if not kept or option.cost < kept[-1].cost:
            kept.append(option)
    return kept


def _unit(choices: Sequence[Sequence[Option]]) -> int:
    """Bytes of one step of the grid. It depends on the options only: so more budget never rounds otherwise."""
    steps = [option.nbytes - options[0].nbytes for options in choices for option in options[1:]]
    common = math.gcd(*steps) or 1
    span = sum(options[-1].nbytes - options[0].nbytes for options in choices)
    return common * max(1, -(-span // (common * GRID)))


class _Table:
    """For each number of units, the best option of each item, given the items before it."""

    def __init__(self, choices: Sequence[Sequence[Option]], unit: int, size: int) -> None:
        self._choices = choices
        self._units = [[-(-(o.nbytes - options[0].nbytes) // unit) for o in options] for options in choices]
        self._taken = np.zeros((len(choices), size + 1), np.uint8 if _most(choices) < 256 else np.uint16)
        self._size = size
        cost = np.zeros(size + 1)
        for taken, options, units in zip(self._taken, choices, self._units, strict=True):
            total = cost + options[0].cost
            for number in range(1, len(options)):
                step = units[number]
                if step > size:
                    break
                with_it = cost[: size + 1 - step] + options[number].cost
                better = with_it < total[step:]
                total[step:][better] = with_it[better]
                taken[step:][better] = number
            cost = total

    def choice(self, units: int) -> Allocation:
        """The cheapest of at most so many units."""
        left, found = min(units, self._size), []
        for taken, options, used in zip(self._taken[::-1], self._choices[::-1], self._units[::-1], strict=True):
            number = int(taken[left])
            found.append(options[number])
            left -= used[number]
        return Allocation(tuple(found[::-1]))


def _most(choices: Sequence[Sequence[Option]]) -> int:
    return max((len(options) for options in choices), default=0)
