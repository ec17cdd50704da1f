"""Products of large matrices with one vector and with a few: bytes a second, and whether float64 agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gguf_forge
from gguf_forge.types import TensorType
from tests.cuda.card import Card, product_types

Items = dict[str, Callable[[], dict[str, Any]]]
#: Rows that differ; a matrix repeats them.
BASE = 256


def items(_: str, card: Card) -> Items:
    """Every type by every shape of matrix."""
    card.warm()
    found: Items = {}
    matrices = Matrices(card)
    for shape in card.sizes.shapes:
        for t in product_types(card):
            for dtype in ("float32", "float16"):
                for vectors in (1, 4):
                    name = f"{t} {shape[0]}x{shape[1]} {dtype} {vectors}"
                    found[name] = partial(matrices.run, t, shape, dtype, vectors)
    return found


def _turn(turns: Iterator[Callable[[], None]]) -> None:
    next(turns)()


class Exact:
    """The weights of some rows in float64, and what may become of their products in float32."""

    def __init__(self, weights: NDArray[np.float32]) -> None:
        self.weights = weights.astype(np.float64)
        self.reach = np.abs(self.weights)
        self.reach = self.reach + 2 * self.reach.max(axis=1, keepdims=True)

    def near(self, made: NDArray[np.float32], x: NDArray[Any]) -> bool:
        """Whether products (vectors, rows) are within what cuda.matvec promises, down to the smallest normal float.

        In roundings of 2^-24 of the sum of magnitudes. Matrix units add up eight products and what was there before, of
        which nothing stays below 2^-24 of the largest, and cut off: ten for eight products, 40 for 32 weights. Of y
        times x and of the sum of x, before one is taken from the other, that is seven times the largest weight, of
        which the magnitudes have two or more: 160 of those. Then sums of 32 are added up along a quarter of a row in
        float32. Without matrix units it is less: lanes add up 1/32 of the terms, and 5 sums.
        """
        wide, rows, width = x.astype(np.float64), made.shape[1], self.weights.shape[1]
        bound = (width / 32 + 160) * 2.0**-24 * (np.abs(wide) @ self.reach[:rows].T) + np.finfo(np.float32).tiny
        return bool((np.abs(made - wide @ self.weights[:rows].T) <= bound).all())


class Matrices:
    """Matrices of a type and shape, as many as take turns; made anew for another one."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.made: tuple[TensorType, tuple[int, int, int]] | None = None

    def _make(self, kind: TensorType, shape: tuple[int, int, int]) -> None:
        if self.made == (kind, shape):
            return
        self.made, self.there = None, []
        rows, width, count = shape
        blocks = gguf_forge.quantize(self.card.values(min(BASE, rows), width), kind)
        self.exact, nbytes = Exact(gguf_forge.dequantize(blocks, kind)), rows * blocks.shape[1]
        for _ in range(count):
            matrix = self.card.memory(nbytes)
            self.card.send(blocks, matrix.address)
            self.card.repeat(matrix.address, blocks.nbytes, nbytes)
            self.there.append(matrix)
        self.made = (kind, shape)

    def run(self, kind: TensorType, shape: tuple[int, int, int], dtype: str, vectors: int) -> dict[str, Any]:
        """Thousand million bytes a second, read and written, and whether all rows are right, twice."""
        self._make(kind, shape)
        card, (rows, width, _) = self.card, shape
        x = card.rng.standard_normal((5, width), np.float32).astype(dtype)
        self.x, self.y = card.placed(x), card.memory(4 * 5 * rows)
        starts = [self._start(kind, dtype, (rows, width, vectors), matrix.address) for matrix in self.there]
        turns = cycle(starts)
        seconds = card.seconds(partial(_turn, turns))
        right = same = True
        several = {1: (1,), 4: (4, 3, 5)}[vectors]
        for few, count in [(rows, vectors), *((rows - 3, n) for n in several)]:
            start = self._start(kind, dtype, (few, width, count), self.there[0].address)
            results = []
            for _ in range(2):
                card.poison(self.y.address, self.y.size)
                start()
                results.append(card.fetch(self.y.address, 4 * count * few))
            same &= bool((results[0] == results[1]).all())
            found = results[0].view(np.float32).reshape(count, few)
            right &= self.exact.near(found[:, :BASE], x[:count])
            bits = found.view(np.uint32)  # rows are repeated, and so are their products
            right &= bool((bits == bits[:, np.arange(few) % BASE]).all())
        moved = self.there[0].size + x[:vectors].nbytes + 4 * vectors * rows
        about: dict[str, Any] = {"type": kind.name, "shape": f"{rows} x {width}", "dtype": dtype, "vectors": vectors}
        again = {} if same else {"again": "another"}
        about |= {"rate": moved / seconds / 1e9, "microseconds": 1e6 * seconds}
        return {**about, "equal": right and same, "right": right, **again}

    def _start(self, kind: TensorType, dtype: str, shape: tuple[int, int, int], matrix: int) -> Callable[[], None]:
        return self.card.product(kind, dtype, shape, (matrix, self.x.address, self.y.address))
