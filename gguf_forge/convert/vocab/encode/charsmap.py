"""SentencePiece's table of characters: a trie in a double array, then the texts that its leaves stand for.

Must not know vocabularies.
"""

from __future__ import annotations

import numpy as np

from gguf_forge.errors import CheckpointError

_LEAF, _VALUE, _LABEL = 1 << 8, (1 << 31) - 1, 1 << 31 | 0xFF


class Charsmap:
    """precompiled_charsmap: bytes of the trie (uint32, its size first), then NUL-ended replacements.

    Raises `CheckpointError` if its sizes do not fit each other.
    """

    def __init__(self, data: bytes) -> None:
        size = int.from_bytes(data[:4], "little")
        if len(data) < 4 or size % 4 or size + 4 > len(data):
            raise CheckpointError(f"precompiled_charsmap: a trie of {size} bytes in a table of {len(data)}")
        self._units = [int(unit) for unit in np.frombuffer(data, "<u4", size // 4, 4)]
        self._texts = data[4 + size :]

    def map(self, text: str) -> str:
        """The text with the longest sequence the table knows at each place replaced."""
        data, out, at = text.encode(), bytearray(), 0
        while at < len(data):
            length, replacement = self._longest(data, at)
            if length == 0:
                length = 1
                while at + length < len(data) and data[at + length] & 0xC0 == 0x80:
                    length += 1
                replacement = data[at : at + length]
            out += replacement
            at += length
        return out.decode("utf-8", "replace")

    def _longest(self, data: bytes, start: int) -> tuple[int, bytes]:
        """Bytes of the longest known sequence at a place, and what stands for it."""
        length, text = 0, b""
        node = self._offset(0)
        for at in range(start, len(data)):
            node ^= data[at]
            if data[at] == 0 or self._unit(node) & _LABEL != data[at]:
                break
            leaf = self._unit(node) & _LEAF
            node ^= self._offset(node)
            if leaf:
                value = self._unit(node) & _VALUE
                length, text = at + 1 - start, self._texts[value : self._texts.find(b"\0", value)]
        return length, text

    def _unit(self, node: int) -> int:
        if node >= len(self._units):
            raise CheckpointError(f"precompiled_charsmap: node {node} of {len(self._units)}")
        return self._units[node]

    def _offset(self, node: int) -> int:
        unit = self._unit(node)
        return (unit >> 10) << ((unit & 1 << 9) >> 6)
