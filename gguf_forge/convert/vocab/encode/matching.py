"""Encoders that take the longest token at each place: WordPiece, and RWKV's World vocabulary.

Must not know special tokens.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from gguf_forge.convert.vocab.encode.words import Words
from gguf_forge.convert.vocab.tokens import SPACE_MARK

_CHINESE = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F)),
    *((0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)
_SPACES = "\t\n\v\f\r\x85"
_ESCAPES = {"t": b"\t", "n": b"\n", "r": b"\r"}


class WordPieceEncoder:
    """Words by spaces and punctuation, each of the longest tokens from its start; one that fails is unknown."""

    def __init__(self, words: Words, *, lowercase: bool, strip_accents: bool) -> None:
        self._words, self._lowercase, self._strip = words, lowercase, strip_accents

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without special tokens."""
        return [number for word in self._cut_words(text) for number in self._encode_word(SPACE_MARK + word)]

    def _encode_word(self, word: str) -> list[int]:
        ids: list[int] = []
        at = 0
        while at < len(word):
            stops = range(min(len(word), at + self._words.longest), at, -1)
            found = next(((stop, n) for stop in stops if (n := self._words.id_of(word[at:stop])) is not None), None)
            if found is None:
                return [] if self._words.unknown is None else [self._words.unknown]
            at, number = found
            ids.append(number)
        return ids

    def _cut_words(self, text: str) -> Iterator[str]:
        word = ""
        for char in text:
            if self._strip:  # the base of a letter, which is where llama.cpp ends a decomposition
                char = unicodedata.normalize("NFD", char)[0]  # noqa: PLW2901
            kind = unicodedata.category(char)
            if char in _SPACES or kind[0] == "Z":
                yield from [word] if word else []
                word = ""
            elif char in "\0\ufffd" or kind in ("Cc", "Cf", "Co") or (self._strip and kind[0] == "M"):
                continue
            elif _stands_alone(char, kind):
                yield from [word] if word else []
                yield char.lower() if self._lowercase else char
                word = ""
            else:
                word += char.lower() if self._lowercase else char
        yield from [word] if word else []


def _stands_alone(char: str, kind: str) -> bool:
    """Punctuation, ASCII's symbols, and Chinese characters are words of their own."""
    code = ord(char)
    return kind[0] == "P" or (code < 0x7F and kind[0] == "S") or any(low <= code <= high for low, high in _CHINESE)


class LongestEncoder:
    """RWKV's World vocabulary: at each byte of a text the longest token that begins there."""

    def __init__(self, words: Words) -> None:
        self._ids = {unescaped(token): number for number, token in enumerate(words.tokens)}
        self._longest = max(map(len, self._ids), default=0)
        self._unknown = words.unknown

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without special tokens."""
        data, ids, at = text.encode(), [], 0
        while at < len(data):
            stops = range(min(len(data), at + self._longest), at, -1)
            stop = next((stop for stop in stops if data[at:stop] in self._ids), None)
            number = self._unknown if stop is None else self._ids[data[at:stop]]
            if number is not None:
                ids.append(number)
            at = at + 1 if stop is None else stop
        return ids


def unescaped(token: str) -> bytes:
    r"""The bytes of a token written as Python writes bytes: \n, \xNN, \\ and so on."""
    data, at = bytearray(), 0
    while at < len(token):
        if token[at] != "\\" or at + 1 == len(token):
            data += token[at].encode()
            at += 1
        elif token[at + 1] == "x":
            data.append(int(token[at + 2 : at + 4], 16))
            at += 4
        else:
            data += _ESCAPES.get(token[at + 1], token[at + 1].encode())
            at += 2
    return bytes(data)
