"""Rows quantized so that what a matrix computes changes least: the error is weighed with its inputs' covariance.

For rows W (rows, n) and inputs with second moments H = X'X / N, the mean square of the change of W x is the trace of
E H E', E being the error of the quantized rows. The core rounds column after column, makes up in later ones for what
was rounded before, and chooses each block's scales with that in mind (native/fit/). The blocks are the type's ordinary
ones. Knows arrays and types; no files and no names of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_forge import _native
from gguf_forge.errors import QuantError
from gguf_forge.types import TensorType

Floats = NDArray[np.float32]

#: Types of one scale and two, three or four levels.
FEW_LEVELS = frozenset(("TQ1_0", "TQ2_0", "Q1_0", "Q2_0"))
#: Types whose weights are points of a lattice, four or eight at a time.
LATTICES = frozenset(("IQ3_S", "IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_S", "IQ1_M"))
#: Types whose weights are levels of their own, each with a scale: those that can be fitted.
FITTED = frozenset(("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"))
FITTED |= {"IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4"} | FEW_LEVELS | LATTICES
#: Of the mean square of the inputs, what is added to each: directions in which no input was seen count a little.
DAMPING = 0.01
#: How often a block is rounded, its scales fitted to the levels found between one time and the next: a second time
#: takes 1 to 3 % off the error, of eight bits 8 % and of six half a per cent; a third time 2 % of what two bits leave.
ROUNDS = dict.fromkeys(FITTED, 2) | dict.fromkeys(FEW_LEVELS | LATTICES | {"Q2_K"}, 3) | {"Q6_K": 1}
#: Columns of a block of the widest type, and of the core's chunks.
ALIGNED = 256


class Metric:
    """What rows of one width are fitted against, factored; used by any number of threads. width: columns."""

    def __init__(
        self, width: int, blocks: Sequence[tuple[int, Floats]], damping: float = DAMPING, step: int = ALIGNED
    ) -> None:
        """blocks: of H's diagonal, in order, (first column, float32 (b, b), symmetric); between them they have all
        columns, and b is a multiple of 32. step: so many columns lie together in rows' blocks, and are rounded
        together, those with the largest inputs first (where b is a multiple of it).

        Raises QuantError for blocks that do not fit, and for numbers that are no second moments.
        """
        self.width, self._step = width, step
        self._parts: list[_Part] = []
        mean = sum(float(np.trace(block, dtype=np.float64)) for _, block in blocks) / max(width, 1)
        at = 0
        for start, block in blocks:
            if start != at or block.shape != (block.shape[0], block.shape[0]) or block.shape[0] % 32:
                raise QuantError(
                    f"covariance of {width} columns: a block of {block.shape} at column {start} does not fit"
                )
            order = _largest_first(block, step)
            self._parts.append(_Part(start, step, order, _factored(block, order, step, mean, damping)))
            at += block.shape[0]
        if at != width:
            raise QuantError(f"covariance of {at} columns for rows of {width}")

    def fits(self, kind: TensorType) -> bool:
        """Whether rows can be fitted as blocks of this type."""
        edges = [*(part.start for part in self._parts), self.width]
        if any(part.order is not None for part in self._parts):
            edges.append(self._step)
        return kind.name in FITTED and not any(edge % kind.block_size for edge in edges)

    def encode(
        self, rows: Floats, kind: TensorType, rounds: int | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Blocks (rows, row bytes) uint8 of float32 rows (rows, width), and float64 (rows,): each row's error, with H
        scaled to a mean square of 1.

        rounds: 1 to 8, by default as many as pay in the type. All values must be finite; `fits` must hold. In the
        calling thread, with the GIL released.
        """
        rounds = rounds or ROUNDS[kind.name]
        x = np.ascontiguousarray(rows, np.float32)
        out = np.zeros((x.shape[0], kind.row_bytes(self.width)), np.uint8)
        errors = np.zeros(x.shape[0], np.float64)
        for part in self._parts if x.shape[0] else ():
            width, at = part.fit.width, kind.row_bytes(part.start)
            columns, blocks = x[:, part.start : part.start + width], out[:, at : at + kind.row_bytes(width)]
            if part.rows(kind, columns, blocks, rounds, errors) != _native.OK:
                raise QuantError(f"{kind.name}: rows of {width} columns cannot be fitted")
        return out, errors


@dataclass(frozen=True)
class _Part:
    """A block of H: its first column, the order of its steps of columns (None: as they lie), and its factor."""

    start: int
    step: int
    order: NDArray[np.intp] | None
    fit: _native.Fit

    def rows(
        self, kind: TensorType, x: Floats, out: NDArray[np.uint8], rounds: int, errors: NDArray[np.float64]
    ) -> int:  # fmt: skip
        """Fits rows, steps in their order, and puts the blocks where they belong; the core's status."""
        if self.order is None:
            return self.fit.rows(kind.id, x, out, rounds, errors)
        count, width = x.shape
        moved = x.reshape(count, -1, self.step)[:, self.order].reshape(count, width)
        blocks = np.zeros((count, kind.row_bytes(width)), np.uint8)
        status = self.fit.rows(kind.id, moved, blocks, rounds, errors)
        steps = blocks.reshape(count, -1, kind.row_bytes(self.step))
        out[:] = steps[:, np.argsort(self.order)].reshape(out.shape)
        return status


def shrunk(block: Floats, tokens: int) -> Floats:
    """Second moments nearer to their diagonal, by as much as so few tokens call for: from fewer tokens than columns a
    covariance tells of the sample what is not true of the model.

    block: float32 (b, b). The share of what lies off the diagonal that stays is tokens / (tokens + b).
    """
    keep = tokens / (tokens + block.shape[0])
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


def _largest_first(block: Floats, step: int) -> NDArray[np.intp] | None:
    """In which order steps of columns are rounded: what is rounded first is made up for by all that comes later, so
    those with the largest squares are; None for the order in which they lie.
    """
    squares = np.diagonal(block)
    if len(block) % step or not np.isfinite(squares).all():
        return None
    sums = [math.fsum(row) for row in squares.reshape(-1, step).tolist()]  # exact: the same on every processor
    order = np.argsort(np.negative(sums), kind="stable")
    return None if (order[1:] > order[:-1]).all() else order


def _factored(
    block: Floats, order: NDArray[np.intp] | None, step: int, mean: float, damping: float
) -> _native.Fit:  # fmt: skip
    """The factor of a block scaled to a mean square of 1 and damped, more where it is not positive definite; of its
    columns in that order.
    """
    scale = 1 / mean if mean > 0 and np.isfinite(mean) else 0.0
    if order is not None:
        columns = (step * order[:, None] + np.arange(step)).reshape(-1)
        block = block[np.ix_(columns, columns)]
    for added in (damping, 10 * damping, 100 * damping, 1.0):
        h = (block * np.float32(scale)).astype(np.float32)
        h[np.diag_indices_from(h)] += np.float32(added)
        fit = _native.Fit(len(h))
        if fit.prepare(np.ascontiguousarray(h)) < 0:
            return fit
    raise QuantError("covariance: it is not positive definite")
