"""Sums over the inputs of each matrix, gathered while a model runs: squares, and products of each two.

Squares are added one by one in float32, token after token, as llama-imatrix adds them: the same numbers. Products go
through the core, panel by panel, over threads. Inputs that several matrices share are gathered once. Knows products of
`session`; must not know files or how a model is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gguf_forge import _native
from gguf_forge.errors import InvalidError, RequestError, escaped
from gguf_forge.quality.session import Floats, Product
from gguf_forge.quant.calibration import SIDE, Moments, triangle
from gguf_forge.quant.imatrix import Entry

#: llama-imatrix passes over products with fewer inputs: those of single tokens.
FEWEST_ROWS = 16
#: Tokens whose products are summed before they are added to the matrix.
PANEL = 192
#: Blocks of this many columns are a whole number of every type's blocks.
UNIT = 256


@dataclass(eq=False)
class Inputs:
    """What was gathered of one input. squares: float32 (matrices, width); tokens: int64 (matrices,).

    weights: whose input it is; the first saw it first. count: what llama-imatrix counts, one number for a dense weight.
    sizes: widths of the blocks whose products are gathered, or none; tiles: float32 (matrices, tiles, 256).
    """

    weights: list[str]
    squares: Floats
    tokens: NDArray[np.int64]
    routed: bool
    sizes: Sequence[int] = ()
    tiles: Floats = field(default_factory=lambda: np.empty(0, np.float32))

    @property
    def entry(self) -> Entry:
        """As an importance matrix has it: a dense weight's matrices are one row with one count."""
        if self.routed:
            return Entry(self.squares, self.tokens)
        return Entry(self.squares.reshape(1, -1), self.tokens[:1])

    @property
    def moments(self) -> Moments:
        """As a calibration file has it."""
        return Moments(self.weights, self.sizes, self.tokens, self.tiles)


class Collector:
    """Gathers inputs of the products it is shown: `Session(model, context, observe=c.observe, wants=c.wants)`.

    output: those of the output matrix too. threads: for products; 0: only squares are gathered. block: the widest block
    of products that is kept; wider inputs are cut into equal ones (None: never). before: entries to which squares are
    added, as llama-imatrix goes on with those of a file. known: moments to whose tiles products are added, by the
    weight that gives them their name; `before` has the entries of all their weights.
    """

    def __init__(
        self, *, output: bool = False, threads: int = 0, block: int | None = None, before: Mapping[str, Entry] = {},
        known: Mapping[str, Moments] = {},
    ) -> None:  # fmt: skip
        self.inputs: dict[str, Inputs] = {}
        self._before, self._known = before, known
        self._output, self._threads, self._block = output, threads, block
        self._pool = ThreadPoolExecutor(threads) if threads else None
        self._leaders: dict[tuple[int, int], str] = {}
        self._seen: set[str] = set()

    def wants(self, weight: str, rows: int) -> bool:
        """Whether the inputs of a weight are gathered, `rows` at a time."""
        return rows >= FEWEST_ROWS and (weight.startswith("blk.") or (self._output and is_output(weight)))

    def observe(self, product: Product) -> None:
        """Adds the inputs of a product."""
        name = product.weight
        if name in self._seen:  # the next batch: addresses mean other inputs
            self._seen.clear()
            self._leaders.clear()
        self._seen.add(name)
        key = product.source
        mine = self.inputs.get(name)
        leader = self._leaders.setdefault(key, name)
        if mine is None and leader != name and self._alike(leader, product):
            self.inputs[name] = mine = self.inputs[leader]
            mine.weights.append(name)
        if mine is not None and leader != name and self.inputs[leader] is mine:
            return
        if mine is None:
            mine = self._new(product)
        elif len(mine.weights) > 1 and mine.weights[0] != name:
            mine = self._parted(name, product)
        add = self._routed if product.routed else self._dense
        add(mine, product)

    @property
    def distinct(self) -> list[Inputs]:
        """Each input once, in the order in which they came."""
        return list({id(inputs): inputs for inputs in self.inputs.values()}.values())

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _alike(self, leader: str, product: Product) -> bool:
        """Whether the product's weight can share what is gathered of the leader's input."""
        inputs = self.inputs[leader]
        if inputs.squares.shape != (product.matrices, product.width) or inputs.routed != product.routed:
            return False
        one, other = self._before.get(leader), self._before.get(product.weight)
        if one is None or other is None:
            return one is other
        return np.array_equal(one.sums, other.sums) and np.array_equal(one.counts, other.counts)

    def _new(self, product: Product) -> Inputs:
        shape = (product.matrices, product.width)
        made = Inputs([product.weight], np.zeros(shape, np.float32), np.zeros(shape[0], np.int64), product.routed)
        old = self._before.get(product.weight)
        if old is not None:
            if old.sums.size != made.squares.size or len(old.counts) not in (1, shape[0]):
                text = f"{old.sums.size} values in the matrix to go on with, but the model's is {shape}"
                raise RequestError(text, field=_field(product.weight))
            made.squares += old.sums.reshape(shape)
            made.tokens += old.counts
        if self._pool is not None:
            known = self._known.get(product.weight)
            made.sizes = block_sizes(product.width, self._block) if known is None else known.sizes
            tiles = (shape[0], sum(map(triangle, made.sizes)), SIDE * SIDE)
            if known is not None and (known.tiles.shape != tiles or sum(known.sizes) != product.width):
                text = f"moments {known.tiles.shape} to go on with, but the model's are {tiles}"
                raise RequestError(text, field=_field(product.weight))
            made.tiles = np.zeros(tiles, np.float32) if known is None else known.tiles
        self.inputs[product.weight] = made
        return made

    def _parted(self, name: str, product: Product) -> Inputs:
        """A weight whose input is not its leader's any more goes on by itself, from nothing."""
        self.inputs[name].weights.remove(name)
        return self._new(product)

    def _dense(self, inputs: Inputs, product: Product) -> None:
        data = product.inputs()
        outer, inner = product.stack
        for i3 in range(data.shape[0]):
            for i2 in range(data.shape[1]):
                self._add(inputs, (i3 % outer) * inner + i2 % inner, data[i3, i2])

    def _routed(self, inputs: Inputs, product: Product) -> None:
        data, experts = product.inputs()[0], product.experts()
        slots = np.arange(experts.shape[1]) % data.shape[1]
        routes = experts.T  # llama-imatrix goes slot by slot
        if int(routes.min()) < 0 or int(routes.max()) >= len(inputs.tokens):
            raise InvalidError(f"expert {int(routes.max())} of {len(inputs.tokens)}", field=_field(product.weight))
        for expert in np.unique(routes):
            slot, token = np.nonzero(routes == expert)
            self._add(inputs, int(expert), data[token, slots[slot]])

    def _add(self, inputs: Inputs, matrix: int, rows: Floats) -> None:
        squares = np.empty((len(rows) + 1, rows.shape[1]), np.float32)
        squares[0] = inputs.squares[matrix]
        np.multiply(rows, rows, out=squares[1:])
        inputs.squares[matrix] = np.add.reduce(squares, axis=0)
        if not np.isfinite(inputs.squares[matrix]).all():
            raise InvalidError("the model computes inputs that are not finite", field=_field(inputs.weights[0]))
        inputs.tokens[matrix] += len(rows)
        if self._pool is not None:
            self._add_products(inputs.tiles[matrix], inputs.sizes, rows)

    def _add_products(self, tiles: Floats, sizes: Sequence[int], rows: Floats) -> None:
        assert self._pool is not None
        work = []
        for panel in range(0, len(rows), PANEL):
            column = at = 0
            for size in sizes:
                slices = sliced(rows[panel : panel + PANEL, column : column + size])
                count = triangle(size)
                for first, last in shares(len(slices), self._threads):
                    work.append((slices, first, last, tiles[at : at + count]))
                column, at = column + size, at + count
            # each tile is done by one thread, a panel after the other: the sums do not depend on the threads
            for done in [self._pool.submit(_native.moments, s, s.shape[1], len(s), a, b, t) for s, a, b, t in work]:
                done.result()
            work.clear()


def is_output(weight: str) -> bool:
    """Whether a weight makes the logits: the output matrix, or the embeddings in its place."""
    return weight in ("output.weight", "token_embd.weight")


def block_sizes(width: int, most: int | None) -> list[int]:
    """Widths of the blocks of an input: one, or as few as are needed for each to have at most `most` columns.

    They begin at multiples of 256, of the superblocks of the K-quants, where `most` allows it.
    """
    if most is None or width <= most:
        return [width]
    unit = UNIT if most >= UNIT else SIDE
    units = -(-width // unit)
    count = -(-units // max(1, most // unit))
    edges = [min(width, round(units * i / count) * unit) for i in range(count + 1)]
    return [b - a for a, b in pairwise(edges)]


def sliced(rows: Floats) -> Floats:
    """Inputs (tokens, width) as the core takes them: float32 (slices, tokens, 16), filled up with zeros."""
    tokens, width = rows.shape
    count = -(-width // SIDE)
    if width % SIDE:
        padded = np.zeros((tokens, count * SIDE), np.float32)
        padded[:, :width] = rows
        rows = padded
    return np.ascontiguousarray(rows.reshape(tokens, count, SIDE).transpose(1, 0, 2))


def shares(count: int, threads: int) -> Iterator[tuple[int, int]]:
    """Cuts the rows of tiles of a triangle into runs of about equal work, some for each thread."""
    pieces = min(count, 1 if threads == 1 else 4 * threads)
    edges = [round(count * (1 - (1 - i / pieces) ** 0.5)) for i in range(pieces + 1)]
    return ((a, b) for a, b in pairwise(edges) if a < b)


def _field(weight: str) -> str:
    return f'tensor "{escaped(weight)}"'
