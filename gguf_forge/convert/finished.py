"""Which rows of tensors are finished, and what was found in them. Knows numbers of rows, no files."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gguf_forge.convert.blemish import Blemish


@dataclass(frozen=True)
class Piece:
    """Rows `start` to `stop` - 1 of a tensor, and what they add to its error, and its first blemish in them."""

    name: str
    start: int
    stop: int
    squares: tuple[float, float] | None = None
    blemish: Blemish | None = None

    def with_next(self, other: Piece) -> Piece:
        """One of both, where the other begins where this one ends."""
        one, two = self.squares, other.squares
        squares = one or two if one is None or two is None else (one[0] + two[0], one[1] + two[1])
        found = [blemish for blemish in (self.blemish, other.blemish) if blemish is not None]
        return replace(self, stop=other.stop, squares=squares, blemish=min(found, default=None))


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Pieces in order, those of one tensor together, and as one where one ends and another begins."""
    found: list[Piece] = []
    for piece in sorted(pieces, key=lambda one: (one.name, one.start)):
        last = found[-1] if found else None
        if last is not None and (last.name, last.stop) == (piece.name, piece.start):
            found[-1] = last.with_next(piece)
        else:
            found.append(piece)
    return found


class Finished:
    """Pieces that do not overlap."""

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self._spans: dict[str, list[tuple[int, int]]] = {}
        for piece in joined(pieces):
            self._spans.setdefault(piece.name, []).append((piece.start, piece.stop))

    def covers(self, name: str, start: int, stop: int) -> bool:
        """Whether all these rows of a tensor are finished; of no rows, that is not said."""
        spans = self._spans.get(name)
        if spans is None:
            return False
        at = bisect_right(spans, (start, 1 << 63)) - 1
        return at >= 0 and spans[at][0] <= start < stop <= spans[at][1]


class Log:
    """Pieces that came since they were last taken, from any thread."""

    def __init__(self) -> None:
        self.failed: BaseException | None = None
        self._pieces: list[Piece] = []
        self._lock = threading.Lock()

    def add(self, piece: Piece) -> None:
        """Notes a piece. Raises `failed`, which whoever takes them may set: all work is in vain then."""
        if self.failed is not None:
            raise self.failed
        with self._lock:
            self._pieces.append(piece)

    def take(self) -> list[Piece]:
        """The pieces, joined."""
        with self._lock:
            found, self._pieces = self._pieces, []
        return joined(found)
