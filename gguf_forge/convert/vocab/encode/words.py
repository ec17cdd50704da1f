"""The vocabulary that all kinds of encoders read: texts, scores and types by id, ids by text.

Knows llama.cpp's reading of the arrays. Must not know any kind's rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from gguf_forge.convert.vocab.tokens import TokenType


@dataclass(frozen=True)
class Words:
    """The tokens of a file. Of two with one text the later counts, as in llama.cpp."""

    tokens: Sequence[str]
    types: Sequence[int]
    scores: Sequence[float]
    unknown: int | None = None
    _ids: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ids.update((text, number) for number, text in enumerate(self.tokens))

    def id_of(self, text: str) -> int | None:
        """The id of a token, None if there is none of that text."""
        return self._ids.get(text)

    def of_type(self, *kinds: TokenType) -> list[int]:
        """The ids of all tokens of these kinds."""
        return [number for number, kind in enumerate(self.types) if kind in kinds]

    @cached_property
    def longest(self) -> int:
        """Characters of the longest token."""
        return max(map(len, self.tokens), default=0)

    def byte_tokens(self, data: bytes) -> list[int]:
        """The <0xNN> tokens of some bytes; a byte without one is left out, or the unknown token if there is one."""
        found = [self._ids.get(f"<0x{byte:02X}>", self.unknown) for byte in data]
        return [number for number in found if number is not None]
