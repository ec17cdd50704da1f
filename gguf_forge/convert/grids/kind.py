"""What a grid to look for is. Knows rows of numbers; must not know which grids there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from gguf_forge.convert.view import Array, Stored, View
from gguf_forge.types import TensorType

Runs = Callable[[], Iterator[tuple[int, Array]]]
"""All rows of a tensor, run after run: the number of the first, and their values, float32."""
Rows = Callable[[int, int], Array]
Parts = Callable[[int], Rows]


class Kind(Protocol):
    """A grid to look for: in words, and the type that holds it."""

    @property
    def text(self) -> str:
        """What the grid is."""

    @property
    def type(self) -> str:
        """The type of GGUF that holds it, where rows are long enough."""

    @property
    def whole(self) -> bool:
        """Whether readers must multiply by a scale of the whole tensor, or of each matrix of a stack."""

    def fits(self, width: int) -> bool:
        """Whether rows of this width may lie on it."""

    def may(self, rows: Array, source: TensorType) -> bool:
        """Whether rows, float32 values of a type, may lie on it: a cheap look that says no to none that do."""

    def read(self, rows: Array, source: TensorType, start: int = 0) -> tuple[Array, ...] | None:
        """The parts of the stored form of rows, of a tensor's row `start` on; None where they do not lie on it."""

    def settled(self, runs: Runs, source: TensorType, height: int) -> Kind | None:
        """The grid on which all rows lie, what they share found; `height` rows make one matrix of a stack."""

    def stored(self, view: View, parts: Parts) -> Stored:
        """The stored form of a view: `parts(i)` reads part i of its rows."""


def all_lie(kind: Kind, runs: Runs, source: TensorType) -> bool:
    """Whether all rows lie on a grid of which nothing is to be found out first."""
    return all(np.isfinite(rows).all() and kind.read(rows, source, start) is not None for start, rows in runs())
