"""Texts that tell tokenizers apart: languages, code, digits, white space, emoji, marks, and what joins them.

Those of data/probes.json, and texts made of its parts by a fixed rule. Must not know tokenizers.
"""

from __future__ import annotations

import json
import random
import unicodedata
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise


@lru_cache(maxsize=1)
def _data() -> dict[str, list[str]]:
    text = (files("gguf_forge.convert.vocab") / "data" / "probes.json").read_text(encoding="utf-8")
    found: dict[str, list[str]] = json.loads(text)
    return found


def chosen_texts() -> list[str]:
    """Texts picked by hand, each for what it puts beside each other."""
    return list(_data()["texts"])


def joined_texts(count: int, seed: int = 0) -> list[str]:
    """`count` texts of all parts, in an order drawn from a seed."""
    source = random.Random(seed)  # noqa: S311
    parts = _data()["parts"]
    return ["".join(source.sample(parts, len(parts))) for _ in range(count)]


def pair_texts() -> list[str]:
    """Every two parts side by side, in texts of one first part each."""
    parts = _data()["parts"]
    return ["".join(first + second for second in parts) for first in parts]


def damaged_texts(count: int, seed: int = 0) -> list[str]:
    """Texts that are no language: code points of all planes, and control characters."""
    source = random.Random(seed)  # noqa: S311
    planes = ((0, 0x80), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0x10000), (0x10000, 0x110000))
    texts = []
    for number in range(count):
        low, high = planes[number % len(planes)]
        texts.append("".join(chr(source.randrange(low, high)) for _ in range(24)))
    return texts


def assigned(text: str) -> str:
    """A text without the characters that Python's own Unicode tables lack: those of 3.10 are of Unicode 13."""
    return "".join(char for char in text if unicodedata.category(char) != "Cn")


def with_tokens(tokens: list[str]) -> list[str]:
    """Texts in which the given tokens stand between words, side by side, and cut off."""
    texts = [f"text{token} and {token}text {token}" for token in tokens]
    texts += [left + right for left, right in pairwise(tokens)]
    return texts + [token[:-1] for token in tokens if len(token) > 1]
