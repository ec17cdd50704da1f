"""How llama.cpp cuts a text under the tokenizers it calls "llama" and "t5", written from what its source does.

Judges vocabularies by their tokens, scores and types alone; must not know how these were made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from gguf_forge.convert.vocab.tokens import TokenType
from gguf_forge.format.values import Value

MARK = "\u2581"
LETTERS = re.compile("<0x([0-9A-F]{2})>")


class Cutter:
    """A vocabulary as llama.cpp reads it from its keys."""

    def __init__(self, keys: Mapping[str, Value]) -> None:
        found: dict[str, Any] = {key.removeprefix("tokenizer.ggml."): value.value for key, value in keys.items()}
        self.tokens: list[str] = found["tokens"]
        self.types: list[int] = list(found["token_type"])
        self.scores: list[float] = [float(score) for score in found["scores"]]
        self.ids = {text: number for number, text in enumerate(self.tokens)}
        assert len(self.ids) == len(self.tokens), "llama.cpp ends its process where two tokens have one text"
        self.unigram = found["model"] == "t5"
        self.unknown: int = found.get("unknown_token_id", 2 if self.unigram else 0)
        self.prefix: bool = found.get("add_space_prefix", not self.unigram)
        self.joins: bool = found.get("remove_extra_whitespaces", False)
        whole = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
        self.whole = [text for text, kind in zip(self.tokens, self.types, strict=True) if kind in whole]

    def cut(self, text: str) -> list[int]:
        """Token ids of a text, without those added at its ends."""
        found: list[int] = []
        after_special = True
        for part in self._parts(text):
            if part in self.ids and part in self.whole:
                found.append(self.ids[part])
                after_special = True
            else:
                found += self._probable(part) if self.unigram else self._merged(part, after_special)
                after_special = False
        return found

    def _parts(self, text: str) -> list[str]:
        whole = sorted(self.whole, key=lambda token: -len(token.encode()))
        parts = re.split("(" + "|".join(map(re.escape, whole)) + ")", text) if whole else [text]
        return [part for part in parts if part]

    def _merged(self, text: str, spaced: bool) -> list[int]:
        symbols = list((" " + text if spaced and self.prefix else text).replace(" ", MARK))
        while True:
            pairs = [(self.ids.get(a + b), i) for i, (a, b) in enumerate(pairwise(symbols))]
            able = [(self.scores[number], -i) for number, i in pairs if number is not None]
            if not able:
                break
            at = -max(able)[1]
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        return [number for symbol in symbols for number in self._spelled(symbol)]

    def _spelled(self, symbol: str) -> list[int]:
        if symbol in self.ids:
            return [self.ids[symbol]]
        return [self.ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]

    def _probable(self, text: str) -> list[int]:
        text = re.sub(" +", " ", text).strip(" ") if self.joins else text
        text = (" " + text if self.prefix else text).replace(" ", MARK)
        kinds = (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED)
        known = {t: i for i, t in enumerate(self.tokens) if self.types[i] in kinds}
        normal = [s for s, kind in zip(self.scores, self.types, strict=True) if kind == TokenType.NORMAL]
        penalty, longest = min(normal) - 10.0, max(map(len, known))
        best: list[tuple[float, list[int]]] = [(0.0, [])]
        for end in range(1, len(text) + 1):
            ways = []
            for start in range(max(0, end - longest), end):
                number, (score, before) = known.get(text[start:end]), best[start]
                if number is not None:
                    ways.append((score + self.scores[number], [*before, number]))
                elif start == end - 1:
                    ways.append((score + penalty, [*before, self.unknown]))
            best.append(max(ways, key=lambda way: way[0]))
        ids = best[-1][1]
        return [number for i, number in enumerate(ids) if i == 0 or number != self.unknown or ids[i - 1] != number]
