"""Rows quantized so that what a matrix computes changes least: the error is weighed with its inputs' covariance.

For rows W (rows, n) and inputs with second moments H = X'X / N, the mean square of the change of W x is the trace of
E H E', E being the error of the quantized rows. The core rounds column after column, makes up in later ones for what
was rounded before, and chooses each block's scales with that in mind (native/fit/). The blocks are the type's ordinary
ones. Knows arrays and types; no files and no names of tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """What rows of one width are fitted against, factored; used by any number of threads.

    width: columns. covers: where the blocks on the diagonal of H begin, each with its factor.
    """

    def __init__(self, width: int, blocks: Sequence[tuple[int, Floats]], damping: float = DAMPING) -> None:
        """blocks: of H's diagonal, in order, (first column, float32 (b, b), symmetric); between them they have all
        columns, and b is a multiple of 32.

        Raises QuantError for blocks that do not fit, and for numbers that are no second moments.
        """
        self.width = width
        self._parts: list[tuple[int, _native.Fit]] = []
        self._starts = [start for start, _ in blocks]
        mean = sum(float(np.trace(block, dtype=np.float64)) for _, block in blocks) / max(width, 1)
        at = 0
        for start, block in blocks:
            if start != at or block.shape != (block.shape[0], block.shape[0]) or block.shape[0] % 32:
                raise QuantError(
                    f"covariance of {width} columns: a block of {block.shape} at column {start} does not fit"
                )
            self._parts.append((start, _factored(block, mean, damping)))
            at += block.shape[0]
        if at != width:
            raise QuantError(f"covariance of {at} columns for rows of {width}")

    def fits(self, kind: TensorType) -> bool:
        """Whether rows can be fitted as blocks of this type."""
        edges = (*self._starts, self.width)
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
        for start, fit in self._parts if x.shape[0] else ():
            at = kind.row_bytes(start)
            status = fit.rows(kind.id, x[:, start : start + fit.width], out[:, at:], rounds, errors)
            if status != _native.OK:
                raise QuantError(f"{kind.name}: rows of {fit.width} columns cannot be fitted")
        return out, errors


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


def _factored(block: Floats, mean: float, damping: float) -> _native.Fit:
    """The factor of a block scaled to a mean square of 1 and damped; more where it is not positive definite."""
    scale = 1 / mean if mean > 0 and np.isfinite(mean) else 0.0
    for added in (damping, 10 * damping, 100 * damping, 1.0):
        h = (block * np.float32(scale)).astype(np.float32)
        h[np.diag_indices_from(h)] += np.float32(added)
        fit = _native.Fit(len(h))
        if fit.prepare(np.ascontiguousarray(h)) < 0:
            return fit
    raise QuantError("covariance: it is not positive definite")
