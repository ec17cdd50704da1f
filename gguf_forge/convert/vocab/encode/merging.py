"""Encoders that merge neighbours: by rank (BPE) and by score (SentencePiece's BPE).

Knows the order of merges. Must not know special tokens.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from tokenizers import Regex
from tokenizers.pre_tokenizers import Sequence as Steps
from tokenizers.pre_tokenizers import Split

from gguf_forge.convert.vocab.byte_level import CHAR_OF_BYTE
from gguf_forge.convert.vocab.cuts import Cut
from gguf_forge.convert.vocab.encode.words import Words
from gguf_forge.convert.vocab.tokens import SPACE_MARK

Priority = Callable[[str, str], float | None]
"""How early two neighbours merge: the lowest number first, and of equals the leftmost; None if they do not."""


def merge(symbols: Sequence[str], priority: Priority) -> list[str]:
    """The symbols after all merges."""
    parts: list[str | None] = list(symbols)
    after = [*range(1, len(parts)), -1]
    before = [*range(-1, len(parts) - 1)]
    queue: list[tuple[float, int, str, int]] = []

    def offer(left: int, right: int) -> None:
        if left < 0 or right < 0:
            return
        first, second = parts[left], parts[right]
        assert first is not None
        assert second is not None
        rank = priority(first, second)
        if rank is not None:
            heapq.heappush(queue, (rank, left, first + second, right))

    for left in range(len(parts) - 1):
        offer(left, left + 1)
    while queue:
        _, left, joined, right = heapq.heappop(queue)
        first, second = parts[left], parts[right]
        if first is None or second is None or after[left] != right or first + second != joined:
            continue
        parts[left], parts[right] = joined, None
        after[left] = after[right]
        if after[right] >= 0:
            before[after[right]] = left
        offer(before[left], left)
        offer(left, after[left])
    return [part for part in parts if part is not None]


class RankedEncoder:
    """BPE: a text is cut into words, and each word's symbols merge by the rank of their pair."""

    def __init__(self, words: Words, merges: Sequence[str], cut: Cut) -> None:
        self._words, self._cut = words, cut
        self._ranks: dict[tuple[str, str], int] = {}
        for number, rule in enumerate(merges):
            at = rule.find(" ", 1)
            self._ranks.setdefault((rule[:at], rule[at + 1 :]), number)
        self._cutter = Steps([Split(Regex(regex), "isolated") for regex in cut.regexes])
        self._of_word = lru_cache(maxsize=1 << 14)(self._encode_word)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without special tokens."""
        if self._cut.raw and self._cut.names[0] != "whitespace":
            text = text.replace(" ", SPACE_MARK)
        if self._cut.spaced:
            lines = text.split("\n")
            text = "\n".join(line if line[:1] in ("", SPACE_MARK) else SPACE_MARK + line for line in lines)
        return [number for word in self._cut_words(text) for number in self._of_word(word)]

    def _cut_words(self, text: str) -> Iterator[str]:
        for piece, _ in self._cutter.pre_tokenize_str(text):
            if self._cut.names[0] == "whitespace" and piece.isspace():
                continue
            yield piece if self._cut.raw else "".join(CHAR_OF_BYTE[byte] for byte in piece.encode())

    def _encode_word(self, word: str) -> tuple[int, ...]:
        whole = self._words.id_of(word)
        if whole is not None and (self._cut.whole or (self._cut.raw and not word.strip("\n"))):
            return (whole,)
        return tuple(
            number for symbol in merge(word, lambda a, b: self._ranks.get((a, b))) for number in self._ids(symbol)
        )

    def _ids(self, symbol: str) -> list[int]:
        number = self._words.id_of(symbol)
        if number is not None:
            return [number]
        if self._cut.raw:
            return self._words.byte_tokens(symbol.encode())
        found = [self._words.id_of(char) for char in symbol]
        return [number for number in found if number is not None]


class ScoredEncoder:
    """SentencePiece's BPE: all neighbours that make a token merge, the best score first."""

    def __init__(self, words: Words) -> None:
        self._words = words

    def encode(self, text: str) -> list[int]:
        """Token ids of a text whose spaces are marked."""
        made: dict[str, tuple[str, str]] = {}

        def priority(left: str, right: str) -> float | None:
            number = self._words.id_of(left + right)
            if number is None:
                return None
            made[left + right] = left, right
            return -self._words.scores[number]

        symbols = merge(text, priority)
        return [number for symbol in symbols for number in self._ids(symbol)]

    def _ids(self, symbol: str) -> list[int]:
        number = self._words.id_of(symbol)
        return self._words.byte_tokens(symbol.encode()) if number is None else [number]
