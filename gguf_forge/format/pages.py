"""A sum over bytes of a file that tells whether storage gave back what was written: cheap enough to be made of all.

It is SHA-256 over one number for each page of 4 KiB, which is the sum of its 64-bit words: lost, old and exchanged
pages, and single wrong bits, change it. It is no defence against somebody who makes other bytes with the same sum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

_PAGE = 4096
#: Bytes read at a time: as many pages as fit the nearest caches.
_PIECE = 1 << 18
#: Hexadecimal digits that are kept.
DIGITS = 32

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def page_sum(read: Callable[[memoryview, int], None], offset: int, nbytes: int) -> str:
    """The sum over `nbytes` bytes from `offset` on; `read(view, offset)` fills a view, and what it raises is raised."""
    digest = hashlib.sha256(nbytes.to_bytes(8, "little"))
    piece = np.empty(min(-(-nbytes // _PAGE) * _PAGE, _PIECE), np.uint8)
    for start in range(0, nbytes, _PIECE):
        taken = min(_PIECE, nbytes - start)
        read(piece[:taken].data, offset + start)
        whole = -(-taken // _PAGE) * _PAGE
        piece[taken:whole] = 0
        words = piece[:whole].view("<u8").reshape(-1, _PAGE // 8)
        digest.update(np.add.reduce(words, axis=1, dtype=np.uint64).astype("<u8").data)
    return digest.hexdigest()[:DIGITS]
