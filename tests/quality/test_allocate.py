"""Types under a number of bytes: never over it, never worse with more of it, and the best there is."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.errors import RequestError
from gguf_forge.quality import allocate as module
from gguf_forge.quality.allocate import Allocation, Item, Option, allocate, allocations, best, smallest

options = st.lists(st.tuples(st.integers(1, 60), st.floats(0, 100, allow_subnormal=False)), min_size=1, max_size=4).map(
    lambda found: tuple(Option(f"T{i}", size, cost) for i, (size, cost) in enumerate(found))
)
problems = st.lists(options, min_size=1, max_size=4).map(
    lambda found: [Item(f"blk.{i}", each) for i, each in enumerate(found)]
)


def cheapest(items: list[Item], budget: int) -> float:
    """By trying all."""
    every = (Allocation(choice) for choice in itertools.product(*(item.options for item in items)))
    return min((one.cost for one in every if one.nbytes <= budget), default=math.inf)


@given(problems, st.integers(0, 300))
def test_no_choice_is_better(items: list[Item], budget: int) -> None:
    if budget < smallest(items).nbytes:
        with pytest.raises(RequestError, match="too few"):
            allocate(items, budget)
        return
    found = allocate(items, budget)
    assert found.nbytes <= budget
    assert all(option in item.options for option, item in zip(found.options, items, strict=True))
    assert found.cost == pytest.approx(cheapest(items, budget), abs=1e-9)


@given(problems, st.lists(st.integers(0, 300), min_size=2, max_size=6), st.integers(2, 9))
def test_a_coarse_grid_stays_within_bounds(items: list[Item], more: list[int], grid: int) -> None:
    budgets = sorted(smallest(items).nbytes + one for one in more)
    exact = module.GRID
    module.GRID = grid
    try:
        found = allocations(items, budgets)
    finally:
        module.GRID = exact
    assert all(one.nbytes <= budget for one, budget in zip(found, budgets, strict=True))
    assert all(a.cost >= b.cost for a, b in itertools.pairwise(found))


@given(problems, st.integers(0, 300))
def test_never_worse_than_the_floor(items: list[Item], more: int) -> None:
    budget = smallest(items).nbytes + more
    for choice in itertools.product(*(item.options for item in items)):
        floor = Allocation(choice)
        if floor.nbytes <= budget:
            assert allocate(items, budget, floor).cost <= floor.cost


def test_with_room_for_all_each_gets_its_best() -> None:
    items = [Item(f"blk.{i}", (Option("Q2_K", 84, 9.0), Option("Q6_K", 210, 1.0 + i))) for i in range(300)]
    assert allocate(items, 10**9) == best(items)
    assert allocate(items, 84 * 300) == smallest(items)
    # One more fits: that which gains the most.
    assert [o.type for o in allocate(items, 84 * 299 + 210).options] == ["Q6_K"] + ["Q2_K"] * 299


@pytest.mark.parametrize("cost", [math.nan, math.inf])
def test_a_cost_that_is_no_number_is_refused(cost: float) -> None:
    with pytest.raises(RequestError, match=r"blk\.0: no type with a finite cost"):
        allocate([Item("blk.0", (Option("Q2_K", 84, cost),))], 100)
