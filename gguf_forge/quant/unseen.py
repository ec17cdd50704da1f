"""Columns for which an importance matrix holds only zeros, and what the encoders are given there instead.

A column without data has importance 0, which tells ggml's search that its weights may become anything. While others
that share their scale have data, they are rounded with the scale found for those. Where all weights of a scale have
importance 0 most searches find no scale, and the weights become 0, whatever they were. There:

    a whole matrix      is encoded without importances; by types that need some, with all of them alike
    whole blocks        likewise, other blocks of the row being encoded as ever: blocks know nothing of each other
    part of a block     its columns count as the middle one of those with data in the same block

Elsewhere nothing changes. Knows one row of importances and one type; no files, no names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_forge.types import TensorType

Floats = NDArray[np.float32]
Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Importance:
    """What to encode the rows of a matrix with. Spans are columns: the first, and the one after the last.

    weights: float32 (width,), or None for none at all. plain: whole blocks to be encoded without, all the same.
    unseen: columns that share scales with zeros only, before any were replaced.
    """

    weights: Floats | None
    plain: tuple[Span, ...] = ()
    unseen: tuple[Span, ...] = ()


def importance(weights: Floats, kind: TensorType) -> Importance:
    """The importances that `kind` encodes a matrix with, given those recorded for its columns, float32 (width,).

    What is negative or not finite stays, for the encoder to refuse.
    """
    if not kind.weighted or not weights.size or weights.size % kind.block_size:
        return Importance(weights)
    unseen = ~(weights.reshape(-1, kind.fit) != 0).any(axis=1)  # NaNs differ from 0
    if not unseen.any():
        return Importance(weights)
    in_block = unseen.reshape(-1, kind.block_size // kind.fit)
    whole = in_block.all(axis=1)
    found = _spans(unseen, kind.fit)
    if whole.all():
        return Importance(np.ones_like(weights) if kind.needs_weights else None, unseen=found)
    blocks = weights.reshape(-1, kind.block_size).copy()
    for block in np.flatnonzero(in_block.any(axis=1) & ~whole):
        blocks[block, np.repeat(in_block[block], kind.fit)] = _middle(blocks[block])
    if kind.needs_weights:
        blocks[whole] = 1
        whole[:] = False
    return Importance(blocks.reshape(-1), _spans(whole, kind.block_size), found)


def _middle(weights: Floats) -> np.float32:
    """The median of the numbers above 0, the lower one of two; 0 where there are none."""
    seen = np.sort(weights[(weights > 0) & (weights < np.inf)])
    return seen[(seen.size - 1) // 2] if seen.size else np.float32(0)


def _spans(marked: NDArray[np.bool_], columns: int) -> tuple[Span, ...]:
    """Runs of marked entries, each of which stands for so many columns."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], marked, [False])).astype(np.int8)))
    return tuple((int(a) * columns, int(b) * columns) for a, b in edges.reshape(-1, 2))
