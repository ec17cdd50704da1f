"""What a choice of types costs, in bytes and bits per weight: the rows of a dry run and of the report on fallbacks.

Knows choices, not recipes; renders nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from gguf_forge.errors import escaped
from gguf_forge.quant.recipe import Choice
from gguf_forge.types import TensorType


@dataclass(frozen=True)
class TensorBudget:
    """What one choice costs. `weights` are the tensor's elements; bytes are of its blocks, without alignment.

    wanted_bytes: what the type the recipe wanted would take at its bits per weight, as if its blocks fitted the width.
    """

    choice: Choice
    weights: int
    source_bytes: int
    nbytes: int
    wanted_bytes: int

    @property
    def bpw(self) -> float:
        """Bits per weight; 0 for an empty tensor."""
        return _bpw(self.nbytes, self.weights)

    @property
    def extra_bytes(self) -> int:
        """Bytes more than the recipe wanted; negative where the fallback is smaller."""
        return self.nbytes - self.wanted_bytes


@dataclass(frozen=True)
class Budget:
    """All tensors of an output, with totals. Bytes count tensors only, neither the header nor alignment."""

    rows: tuple[TensorBudget, ...]

    @property
    def weights(self) -> int:
        """Elements of all tensors."""
        return sum(row.weights for row in self.rows)

    @property
    def source_bytes(self) -> int:
        """Bytes in the source's types."""
        return sum(row.source_bytes for row in self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes in the chosen types."""
        return sum(row.nbytes for row in self.rows)

    @property
    def source_bpw(self) -> float:
        """Bits per weight of the source."""
        return _bpw(self.source_bytes, self.weights)

    @property
    def bpw(self) -> float:
        """Bits per weight of the output."""
        return _bpw(self.nbytes, self.weights)

    @property
    def fallbacks(self) -> tuple[TensorBudget, ...]:
        """The tensors that got another type than the recipe wanted."""
        return tuple(row for row in self.rows if row.choice.fell_back)

    @property
    def fallback_bpw(self) -> float:
        """What all fallbacks together add to the output's bits per weight."""
        return _bpw(sum(row.extra_bytes for row in self.fallbacks), self.weights)

    def by_type(self) -> dict[TensorType, tuple[int, int, int]]:
        """For each type in use: tensors, weights, bytes; the largest share first."""
        totals: dict[TensorType, tuple[int, int, int]] = {}
        for row in self.rows:
            tensors, weights, nbytes = totals.get(row.choice.type, (0, 0, 0))
            totals[row.choice.type] = (tensors + 1, weights + row.weights, nbytes + row.nbytes)
        return dict(sorted(totals.items(), key=lambda item: -item[1][2]))

    def fallback_lines(self) -> list[str]:
        """A line for each fallback and one for all: tensor, wanted, got, bytes, effect on bits per weight."""
        lines = [
            f"{escaped(row.choice.name)}: wanted {row.choice.wanted}, got {row.choice.type} ({row.choice.reason}); "
            f"{row.nbytes} bytes, {row.extra_bytes:+d}, {_bpw(row.extra_bytes, self.weights):+.4f} bpw"
            for row in self.fallbacks
        ]
        if lines:
            extra = sum(row.extra_bytes for row in self.fallbacks)
            lines.append(f"{len(lines)} fallbacks: {extra:+d} bytes, {self.fallback_bpw:+.4f} bpw of {self.bpw:.4f}")
        return lines


def budget(choices: Iterable[Choice]) -> Budget:
    """The cost of each choice. Raises InvalidError for a shape whose bytes do not fit in 63 bits."""
    return Budget(tuple(_row(choice) for choice in choices))


def _row(choice: Choice) -> TensorBudget:
    return TensorBudget(
        choice=choice,
        weights=math.prod(choice.shape),
        source_bytes=choice.source.nbytes(choice.shape),
        nbytes=choice.type.nbytes(choice.shape),
        wanted_bytes=-(-math.prod(choice.shape) * choice.wanted.block_bytes // choice.wanted.block_size),
    )


def _bpw(nbytes: int, weights: int) -> float:
    return 8 * nbytes / weights if weights else 0.0
