"""Which types a model gets under a size, a memory or a quality that is asked for, and what can be had for what.

Puts together plans of files (convert), what each type costs (errors_of_types, sensitivity, roles) and the choice among
them (allocate). Costs are predicted divergences: mean Kullback-Leibler divergence from the model as it was, in nats.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gguf_forge.convert.files import Planned
from gguf_forge.errors import RecipeError, RequestError
from gguf_forge.format.validate import align
from gguf_forge.quality.allocate import Allocation, Item, Option, allocations, smallest
from gguf_forge.quality.errors_of_types import candidates
from gguf_forge.quality.memory import Cache, Use, cache
from gguf_forge.quant.overrides import Override
from gguf_forge.quant.recipe import Choice
from gguf_forge.types import TensorType, tensor_type

#: A dry run with a recipe.
Plan = Callable[[str], Planned]
#: The cost of each of some types for a tensor, by its name and shape.
Costs = Callable[[str, Sequence[int], Sequence[TensorType]], Mapping[str, float]]

#: The recipes whose sizes are looked at; the choice is never worse than the best of them that fits.
RECIPES = ("Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_XS", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0")
#: The recipe that says what is quantized at all.
PROBE = "Q4_K_M"
#: Divergence that a word allows.
QUALITIES = {"max": 0.002, "balanced": 0.01, "small": 0.05}
#: Sizes tried between the smallest and the largest when a quality is asked for.
STEPS = 256
#: What the width of a tensor forces, or a user names, is no choice.
GIVEN = ("given", "output type given", "token embedding type given")


@dataclass(frozen=True)
class Row:
    """What a size buys. name: the recipe of that size. nbytes: of the file. expected: the recipe's predicted
    divergence, None where one of its types was not judged; chosen: that of the best choice within the same bytes.
    """

    name: str
    nbytes: int
    bpw: float
    expected: float | None
    chosen: float
    allocation: Allocation


@dataclass(frozen=True)
class Choices:
    """A model's tensors that can get one type or another. beside: bytes of a file without them, fixed: of the other
    tensors; weights: of all tensors. recipes: bytes of a file with each, and its types among the options.
    """

    items: tuple[Item, ...]
    beside: int
    fixed: int
    weights: int
    metadata: Mapping[str, Any]
    recipes: Mapping[str, tuple[int, Allocation | None]]
    vocabulary_and_rows: int

    def under(self, nbytes: int) -> Allocation:
        """The best for files of at most so many bytes. RequestError where none is so small."""
        return self._many([nbytes])[0]

    def for_quality(self, word: str) -> Allocation:
        """The smallest that keeps the divergence which a word of QUALITIES allows; else the best there is."""
        low = self.beside + smallest(self.items).nbytes
        high = self.beside + sum(max(o.nbytes for o in item.options) for item in self.items)
        sizes = [low + (high - low) * i // STEPS for i in range(STEPS + 1)]
        found = self._many(sizes)
        return next((one for one in found if one.cost <= QUALITIES[word]), found[-1])

    def rows(self) -> list[Row]:
        """What each recipe's size buys, the smallest first; sizes below what the types on offer need are left out."""
        least = self.beside + smallest(self.items).nbytes
        sizes = {name: size for name, (size, _) in self.recipes.items() if size >= least}
        found = self._many(list(sizes.values()))
        rows = [
            Row(name, size, self._bpw(size), known.cost if known else None, one.cost, one)
            for (name, size), one in zip(sizes.items(), found, strict=True)
            for known in [self.recipes[name][1]]
        ]
        return sorted(rows, key=lambda row: row.nbytes)

    def bytes_of(self, allocation: Allocation) -> int:
        """Of the file."""
        return self.beside + allocation.nbytes

    def bytes_for_bpw(self, bpw: float) -> int:
        """Of a file whose tensors take so many bits a weight."""
        return int(bpw * self.weights / 8) + self.beside - self.fixed

    def recipe(self, allocation: Allocation) -> str:
        """The recipe of the nearest size, whose name the file carries."""
        size = self.bytes_of(allocation)
        return min(self.recipes, key=lambda name: abs(self.recipes[name][0] - size))

    def overrides(self, allocation: Allocation) -> tuple[Override, ...]:
        """The choice as types named for tensors."""
        return tuple(
            Override(re.compile(f"^{re.escape(item.name)}$"), tensor_type(option.type))
            for item, option in zip(self.items, allocation.options, strict=True)
        )

    def working(self, use: Use) -> int:
        """An estimate of llama.cpp's working memory, in bytes: logits and two rows of each token computed at a time."""
        return min(use.batch, use.cells) * 4 * self.vocabulary_and_rows

    def memory(self, nbytes: int, use: Use) -> int:
        """Bytes to run a file of `nbytes`: the weights and what is kept of a context, exactly, and `working`."""
        return nbytes + self.cache(use).nbytes + self.working(use)

    def cache(self, use: Use) -> Cache:
        """What is kept of a context."""
        return cache(self.metadata, use)

    def _many(self, sizes: Sequence[int]) -> list[Allocation]:
        floors = [one for _, one in self.recipes.values() if one is not None]
        found = allocations(self.items, [size - self.beside for size in sizes])
        return [
            min([one, *(f for f in floors if f.nbytes <= size - self.beside)], key=lambda a: (a.cost, a.nbytes))
            for size, one in zip(sizes, found, strict=True)
        ]

    def _bpw(self, size: int) -> float:
        return 8 * (size - self.beside + self.fixed) / self.weights if self.weights else 0.0


def choices(plan: Plan, costs: Costs, weighted: Callable[[str], bool] = lambda name: False) -> Choices:
    """The tensors of a model with every type they can get. weighted: whether a tensor's importances are known.

    Raises RequestError where there is nothing to choose, and what planning and judging raise.
    """
    planned = plan(PROBE)
    free = [c for c in planned.choices if _free(c)]
    if not free:
        raise RequestError("no tensor of this model would be quantized, so there is nothing to choose")
    items = tuple(_item(choice, costs, weighted, _alignment(planned)) for choice in free)
    names = {item.name for item in items}
    extents = planned.file.tensors
    beside = planned.file.size - sum(align(extents[name].nbytes, _alignment(planned)) for name in names)
    fixed = sum(extent.nbytes for name, extent in extents.items() if name not in names)
    weights = sum(math.prod(choice.shape) for choice in planned.choices)
    found = {}
    for name in RECIPES:
        try:
            one = planned if name == PROBE else plan(name)
        except RecipeError:  # a width for which this recipe has no type
            continue
        found[name] = (one.file.size, _as_allocation(one, items))
    widest = max((c.shape for c in planned.choices if c.name in ("output.weight", "token_embd.weight")), default=(0, 0))
    return Choices(items, beside, fixed, weights, planned.metadata, found, widest[0] + 2 * widest[-1])


def layers_of(metadata: Mapping[str, Any]) -> int:
    """Layers, as the metadata says; 0 where it does not."""
    arch = _plain(metadata.get("general.architecture"))
    count = _plain(metadata.get(f"{arch}.block_count"))
    return int(count) if isinstance(count, int) else 0


def _free(choice: Choice) -> bool:
    return choice.type.quantized and choice.type is not choice.source and not choice.reason.startswith(GIVEN)


def _item(choice: Choice, costs: Costs, weighted: Callable[[str], bool], alignment: int) -> Item:
    kinds = candidates(choice.shape[-1], weighted=weighted(choice.name))
    kinds += [] if choice.type in kinds else [choice.type]
    found = costs(choice.name, choice.shape, kinds)
    sizes = [align(kind.nbytes(choice.shape), alignment) for kind in kinds]
    return Item(choice.name, tuple(Option(k.name, n, found[k.name]) for k, n in zip(kinds, sizes, strict=True)))


def _as_allocation(planned: Planned, items: Sequence[Item]) -> Allocation | None:
    """A recipe's types among the options; None where it has another."""
    kinds = {choice.name: choice.type.name for choice in planned.choices}
    taken = [next((o for o in item.options if o.type == kinds[item.name]), None) for item in items]
    return None if None in taken else Allocation(tuple(o for o in taken if o is not None))


def _alignment(planned: Planned) -> int:
    return int(_plain(planned.metadata.get("general.alignment")) or 32)


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)
