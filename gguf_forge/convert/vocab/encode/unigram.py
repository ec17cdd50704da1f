"""The encoder of Unigram vocabularies: the pieces of the best sum of scores, after SentencePiece's normalisation.

Must not know special tokens.
"""

from __future__ import annotations

from gguf_forge.convert.vocab.encode.charsmap import Charsmap
from gguf_forge.convert.vocab.encode.words import Words
from gguf_forge.convert.vocab.tokens import SPACE_MARK, TokenType

_UNKNOWN_PENALTY = 10.0


class UnigramEncoder:
    """Pieces of a text by the best sum of scores; what no piece covers is unknown, a run of it one token."""

    def __init__(self, words: Words, charsmap: bytes, *, prefix: bool, squeeze: bool) -> None:
        self._words, self._prefix, self._squeeze = words, prefix, squeeze
        self._charsmap = Charsmap(charsmap) if charsmap else None
        normal = words.of_type(TokenType.NORMAL)
        self._defined = frozenset(words.of_type(TokenType.USER_DEFINED))
        usable = {*normal, *self._defined, *words.of_type(TokenType.UNUSED)}
        self._ids = {words.tokens[number]: number for number in sorted(usable)}
        self._unknown_score = min((words.scores[number] for number in normal), default=0.0) - _UNKNOWN_PENALTY

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without special tokens."""
        text = self._normalized(text)
        best: list[tuple[float, int, int | None]] = [(0.0, 0, None)]
        best += [(float("-inf"), 0, None)] * len(text)
        for start in range(len(text)):
            score = best[start][0]
            for stop in range(start + 1, min(len(text), start + self._words.longest) + 1):
                number = self._ids.get(text[start:stop])
                if number is not None:
                    worth = score + (0.0 if number in self._defined else float(self._words.scores[number]))
                    if worth > best[stop][0]:
                        best[stop] = worth, start, number
            if text[start] not in self._ids and score + self._unknown_score > best[start + 1][0]:
                best[start + 1] = score + self._unknown_score, start, None
        return self._backtracked(best)

    def _backtracked(self, best: list[tuple[float, int, int | None]]) -> list[int]:
        ids: list[int] = []
        at, unknown = len(best) - 1, False
        while at > 0:
            _, start, number = best[at]
            if number is not None:
                ids.append(number)
            elif not unknown and self._words.unknown is not None:
                ids.append(self._words.unknown)
            at, unknown = start, number is None
        return ids[::-1]

    def _normalized(self, text: str) -> str:
        """Characters mapped, spaces marked, runs of them made one and ends trimmed if `squeeze`."""
        if self._charsmap is not None:
            text = self._charsmap.map(text)
        if self._squeeze:
            return "".join(SPACE_MARK + word for word in text.split(" ") if word)
        first = len(text) - len(text.lstrip(" "))
        marked = text.replace(" ", SPACE_MARK)
        return marked[:first] + SPACE_MARK + marked[first:] if self._prefix and first < len(text) else marked
