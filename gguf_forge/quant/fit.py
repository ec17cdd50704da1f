"""Rows quantized so that what a matrix computes changes least: the error is weighed with its inputs' covariance.

For rows W (rows, n) and inputs with second moments H = X'X / N, the mean square of the change of W x is the trace of
E H E', E being the error of the quantized rows. The core rounds column after column, makes up in later ones for what
was rounded before, and chooses each block's scales with that in mind (native/fit/). The blocks are the type's ordinary
ones. Knows arrays and types; no files and no names of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_forge import _native
from gguf_forge.errors import QuantError
from gguf_forge.types import TensorType

Floats = NDArray[np.float32]
Blocks = NDArray[np.uint8]

#: Types of one scale and two, three or four levels.
FEW_LEVELS = frozenset(("TQ1_0", "TQ2_0", "Q1_0", "Q2_0"))
#: Types whose weights are points of a lattice, four or eight at a time.
LATTICES = frozenset(("IQ3_S", "IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_S", "IQ1_M"))
#: Types whose weights are levels of their own, each with a scale: those that can be fitted.
FITTED = frozenset(("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"))
FITTED |= {"IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4"} | FEW_LEVELS | LATTICES
#: Of the mean square of the inputs, what is added to each: directions in which no input was seen count a little.
DAMPING = 0.01
#: Of what lies off the diagonal, the share that stays however many tokens were seen: in the quantized model inputs are
#: blurred by the errors of the layers before, which have little in common from one column to the next.
STEADY = 0.95
#: How often a block is rounded, its scales fitted to the levels found between one time and the next: a second time
#: takes 1 to 3 % off the error, of eight bits 8 % and of six half a per cent; a third time 2 % of what two bits leave.
ROUNDS = dict.fromkeys(FITTED, 2) | dict.fromkeys(FEW_LEVELS | LATTICES | {"Q2_K"}, 3) | {"Q6_K": 1}
#: Up to so many columns all are looked at again once a row is rounded, which takes 3 to 4 % off the error, 5 of FP4 and
#: 6 to 8 of one or three levels. In wider rows that would take as long as all the rest.
NARROW = 2048
#: Numbers from here on are not fitted: sums of their squares could overflow.
REACH = 1e9
#: Columns of a block of the widest type, and of the core's chunks.
ALIGNED = 256
#: Columns of sub-blocks, with a scale of their own.
SUB_BLOCKS = (32, 16)


@dataclass(frozen=True)
class Layout:
    """What of a type says in which order columns can be rounded: the width of its blocks, and whether the weights of a
    block are points of a lattice, which stay in their order.
    """

    block: int
    lattice: bool

    @classmethod
    def of(cls, kind: TensorType) -> Layout:
        """That of a type."""
        return cls(kind.block_size, kind.name in LATTICES)


class Metric:
    """What rows of one width are fitted against, factored; used by any number of threads. width: columns."""

    def __init__(
        self, width: int, blocks: Sequence[tuple[int, Floats]], layout: Layout | None = None, damping: float = DAMPING
    ) -> None:
        """blocks: of H's diagonal, in order, (first column, float32 (b, b), symmetric); between them they have all
        columns, and b is a multiple of 32. layout: of the types that are fitted, so that the blocks with the largest
        inputs are rounded first, and in each the sub-blocks and columns; without one columns are rounded as they lie.

        Raises QuantError for blocks that do not fit, and for numbers that are no second moments.
        """
        self.width, self._layout = width, layout
        self._parts: list[_Part] = []
        mean = sum(float(np.trace(block, dtype=np.float64)) for _, block in blocks) / max(width, 1)
        at = 0
        for start, block in blocks:
            if start != at or block.shape != (block.shape[0], block.shape[0]) or block.shape[0] % 32:
                raise QuantError(
                    f"covariance of {width} columns: a block of {block.shape} at column {start} does not fit"
                )
            self._parts.append(_part(start, block, layout, mean, damping))
            at += block.shape[0]
        if at != width:
            raise QuantError(f"covariance of {at} columns for rows of {width}")

    def fits(self, kind: TensorType) -> bool:
        """Whether rows can be fitted as blocks of this type."""
        if kind.name not in FITTED or self._layout not in (None, Layout.of(kind)):
            return False
        return not any(edge % kind.block_size for edge in (*(part.start for part in self._parts), self.width))

    def encode(
        self, rows: Floats, kind: TensorType, rounds: int | None = None, again: int | None = None
    ) -> tuple[Blocks, NDArray[np.float64]]:
        """Blocks (rows, row bytes) uint8 of float32 rows (rows, width), and float64 (rows,): each row's error, with H
        scaled to a mean square of 1.

        rounds: 1 to 8, by default as many as pay in the type. again: how often all columns are looked at again after
        that (of lattices never), by default once in blocks of H that are not wide. All values must be finite; `fits`
        must hold. In the calling thread, with the GIL released.
        """
        rounds = rounds or ROUNDS[kind.name]
        x = np.ascontiguousarray(rows, np.float32)
        out = np.zeros((x.shape[0], kind.row_bytes(self.width)), np.uint8)
        errors = np.zeros(x.shape[0], np.float64)
        for part in self._parts if x.shape[0] else ():
            width, at = part.fit.width, kind.row_bytes(part.start)
            turns = int(width <= NARROW) if again is None else again
            columns, blocks = x[:, part.start : part.start + width], out[:, at : at + kind.row_bytes(width)]
            if part.rows(kind, columns, blocks, rounds, turns, errors) != _native.OK:
                raise QuantError(f"{kind.name}: rows of {width} columns cannot be fitted")
        return out, errors

    def encode_or(
        self, rows: Floats, kind: TensorType, plain: Callable[[], Blocks], again: int | None = None
    ) -> Blocks:
        """Blocks (rows, row bytes) uint8 as `encode` makes them, of rows that cannot be fitted those of `plain`.

        These have numbers of `REACH` and above, or not finite ones, or ask for scales that no half float holds. plain:
        encodes all the rows in another way; called only where it is needed, and what it raises is passed on.
        """
        near = np.abs(rows).max(axis=1, initial=0) < REACH  # a NaN is not below either
        sound = rows if near.all() else np.where(near[:, None], rows, np.float32(0))
        made, errors = self.encode(sound, kind, again=again)
        fitted = near & np.isfinite(errors)
        return made if fitted.all() else np.where(fitted[:, None], made, plain())


@dataclass(frozen=True)
class _Part:
    """A block of H: its first column, in which order its columns are rounded (None: as they lie), and its factor."""

    start: int
    order: NDArray[np.intp] | None
    fit: _native.Fit

    def rows(
        self, kind: TensorType, x: Floats, out: NDArray[np.uint8], rounds: int, again: int, errors: NDArray[np.float64]
    ) -> int:  # fmt: skip
        """Fits rows in that order; the blocks are put where they belong. Returns the core's status."""
        if self.order is None:
            return self.fit.rows(kind.id, x, out, rounds, again, errors)
        moved = np.zeros(out.shape, np.uint8)
        status = self.fit.rows(kind.id, np.take(x, self.order, axis=1), moved, rounds, again, errors)
        places = self.order[:: kind.block_size] // kind.block_size
        blocks = moved.reshape(len(x), len(places), -1)
        out[:] = blocks[:, np.argsort(places)].reshape(out.shape)
        return status


def shrunk(block: Floats, tokens: int, steady: float = STEADY) -> Floats:
    """Second moments nearer to their diagonal, by as much as so few tokens call for: from fewer tokens than columns a
    covariance tells of the sample what is not true of the model.

    block: float32 (b, b). The share of what lies off the diagonal that stays is steady * tokens / (tokens + b).
    """
    keep = steady * tokens / (tokens + block.shape[0])
    out = (block * np.float32(keep)).astype(np.float32)
    np.fill_diagonal(out, np.diagonal(block))
    return out


def surrogate(matrices: Sequence[Floats], norm: Floats) -> Floats:
    """A covariance for the errors of token embeddings, from the first layer's weights alone: float32 (n, n).

    matrices: what the normalised embedding is multiplied with, each (rows, n); norm: the norm's weights (n,). Errors
    count as far as these matrices see them, and a little by themselves, since later layers see them too.
    """
    seen = np.concatenate([m.reshape(-1, m.shape[-1]) for m in matrices]).astype(np.float64) * norm.astype(np.float64)
    squares = seen.T @ seen
    mean = np.trace(squares) / len(squares)
    found = squares / mean if mean > 0 else np.zeros_like(squares)
    return (found + np.eye(len(squares))).astype(np.float32)


def _largest_first(squares: Floats, layout: Layout) -> NDArray[np.intp] | None:
    """In which order columns are rounded, or None for that in which they lie. squares: the mean squares of inputs (b,).

    What is rounded early is made up for by all columns that come later, so the largest inputs come first: blocks by the
    sum of theirs, in each of them sub-blocks, and in those columns.
    """
    if len(squares) % layout.block or not np.isfinite(squares).all():
        return None
    columns = np.arange(len(squares))
    keys: list[NDArray[np.float64 | np.intp]] = []  # the first decides first
    for step in (layout.block,) if layout.lattice else (layout.block, *SUB_BLOCKS):
        sums = [math.fsum(some) for some in squares.reshape(-1, step).tolist()]  # exact: the same on every processor
        keys += [np.repeat(np.negative(sums), step), columns // step]
    if not layout.lattice:
        keys.append(-squares.astype(np.float64))
    order = np.lexsort(keys[::-1])
    return None if (order == columns).all() else order


def _part(start: int, block: Floats, layout: Layout | None, mean: float, damping: float) -> _Part:
    """The factor of a block scaled to a mean square of 1 and damped; more where it is not positive definite."""
    scale = 1 / mean if mean > 0 and np.isfinite(mean) else 0.0
    order = None if layout is None else _largest_first(np.diagonal(block), layout)
    slots = None
    if order is not None and layout is not None:
        block = block[np.ix_(order, order)]
        slots = None if layout.lattice else (order % layout.block).astype(np.uint8)
    for added in (damping, 10 * damping, 100 * damping, 1.0):
        h = (block * np.float32(scale)).astype(np.float32)
        h[np.diag_indices_from(h)] += np.float32(added)
        fit = _native.Fit(len(h), slots)
        if fit.prepare(np.ascontiguousarray(h)) < 0:
            return _Part(start, order, fit)
    raise QuantError("covariance: it is not positive definite")
