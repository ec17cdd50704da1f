"""Cuts a text at the special tokens that stand in it, longest first, as llama.cpp does before anything else.

Must not know how the text between them is encoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Fragment = str | int
"""Text, or the id of a special token."""

_BLANK = " \t\n\v\f\r"


def cut_at_tokens(text: str, special: Sequence[tuple[str, int]], swallowing: frozenset[int]) -> list[Fragment]:
    """The text's fragments. `special` are texts and ids, longest first; those of `swallowing` take space after them."""
    fragments: list[Fragment] = [text] if text else []
    for token, number in special:
        if token and token in text:
            fragments = [part for fragment in fragments for part in _cut(fragment, token, number, number in swallowing)]
    return fragments


def _cut(fragment: Fragment, token: str, number: int, swallows: bool) -> Iterator[Fragment]:
    if isinstance(fragment, int):
        yield fragment
        return
    first, *others = fragment.split(token)
    if first:
        yield first
    for other in others:
        yield number
        rest = other.lstrip(_BLANK) if swallows else other
        if rest:
            yield rest
