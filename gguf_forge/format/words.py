"""Arrays of strings, as vocabularies are: stepped over and decoded a window at a time. Knows only their layout.

Nearly all strings are shorter than 256 bytes, so their length is one byte and seven zeros. All places with seven zeros
are found at once; they are the strings' starts if each one's length leads to the next. Where that chain breaks (a long
string, an empty one, zeros in a text) strings are walked one by one, and the search goes on behind them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from gguf_forge.format.cursor import Cursor

Starts = np.ndarray[Any, np.dtype[np.int64]]

#: Bytes looked at together, small enough for the processor's cache.
_WINDOW = 1 << 18
#: A window that gives fewer strings than this did not pay, and some are walked; each time twice as many, to a bound.
_PAYS = 512
_MOST_WALKED = 1 << 16


def skip_strings(cursor: Cursor, count: int) -> int:
    """Steps over `count` strings; returns the length of the longest. Raises TruncatedError."""
    return max((int(lengths.max()) for _, lengths in _runs(cursor, count)), default=0)


def read_strings(cursor: Cursor, count: int) -> list[str]:
    """The next `count` strings, which are known to be there; bytes that are no UTF-8 as surrogates."""
    begin = cursor.pos
    runs = [starts for starts, _ in _runs(cursor, count)]
    if not runs:
        return []
    starts = np.concatenate(runs) - begin
    blob = cursor.buffer[begin : cursor.pos]
    return _split(blob, starts, cursor.order) or _slices(blob, starts)


def _runs(cursor: Cursor, count: int) -> Iterator[tuple[Starts, Starts]]:
    """Steps over `count` strings, yielding starts and lengths of some at a time, never of none."""
    walk = _PAYS
    left = count
    while left:
        starts, lengths = _window(cursor, left)
        if len(starts):
            left -= len(starts)
            yield starts, lengths
        if len(starts) >= _PAYS:
            walk = _PAYS
        elif left:
            found = _walk(cursor, count - left, min(left, walk), count)
            left -= len(found[0])
            yield found
            walk = min(2 * walk, _MOST_WALKED)


def _window(cursor: Cursor, count: int) -> tuple[Starts, Starts]:
    """Steps over up to `count` short strings; returns their starts and lengths, none if the first is not short."""
    begin = cursor.pos
    low, zeros_at = (0, 1) if cursor.order == "<" else (7, 0)
    size = min(_WINDOW, cursor.held - begin)
    if size < 8:
        return _NONE, _NONE
    raw = np.frombuffer(cursor.buffer, np.uint8, size, begin)
    zero = raw == 0
    two = zero[:-1] & zero[1:]
    four = two[:-2] & two[2:]
    seven = four[:-3] & four[3:]
    starts = np.flatnonzero(seven[zeros_at : size - 7 + zeros_at])
    starts = starts[np.diff(starts, append=size) > 1][:count]  # an empty string makes the place before it look like one
    if not len(starts) or starts[0]:
        return _NONE, _NONE
    lengths = raw[starts + low].astype(np.int64)
    stops = starts + 8 + lengths
    chained = stops[:-1] == starts[1:]
    good = len(starts) if chained.all() else int(chained.argmin()) + 1
    if begin + stops[good - 1] > cursor.held:
        good -= 1
    if not good:
        return _NONE, _NONE
    cursor.pos = begin + int(stops[good - 1])
    return starts[:good] + begin, lengths[:good]


_NONE: Starts = np.empty(0, dtype=np.int64)


def _walk(cursor: Cursor, first: int, steps: int, count: int) -> tuple[Starts, Starts]:
    """Steps over `steps` strings of any length, from number `first` of `count`; returns their starts and lengths."""
    buffer, end, pos = cursor.buffer, cursor.held, cursor.pos
    unpack = struct.Struct(cursor.order + "Q").unpack_from
    starts = np.empty(steps, dtype=np.int64)
    lengths = np.empty(steps, dtype=np.int64)
    for i in range(steps):
        if end - pos < 8 or (length := unpack(buffer, pos)[0]) > end - pos - 8:
            cursor.pos = pos
            cursor.string(f"string {first + i} of {count}")
        starts[i] = pos
        lengths[i] = length
        pos += 8 + length
    cursor.pos = pos
    return starts, lengths


def _split(blob: bytes, starts: Starts, order: str) -> list[str]:
    """The strings by one decoding of all, apart by their lengths' highest bytes; none when a text holds a zero."""
    raw = np.frombuffer(blob, np.uint8)
    keep = np.ones(len(raw), dtype=bool)
    for i in range(7) if order == "<" else range(1, 8):
        keep[starts + i] = False
    words = raw[keep].tobytes().decode("utf-8", "surrogateescape").split("\0")
    return words[1:] if len(words) == len(starts) + 1 else []


def _slices(blob: bytes, starts: Starts) -> list[str]:
    begins = (starts + 8).tolist()
    ends = [*starts[1:].tolist(), len(blob)]
    return [str(blob[a:b], "utf-8", "surrogateescape") for a, b in zip(begins, ends, strict=True)]
