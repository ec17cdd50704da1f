"""Finds llama.cpp's name for the way a vocabulary cuts text into words.

The fingerprint of the token ids decides, as in the reference converter; where it is unknown, the definition in
tokenizer.json does. Must not know model families.
"""

import difflib
import hashlib
from collections.abc import Callable
from typing import Any

from gguf_forge.convert.vocab.hub import HubTokenizer
from gguf_forge.convert.vocab.pretokenizers import DEFINITIONS, FINGERPRINTS, NAMES, PROBE
from gguf_forge.errors import ConversionError

_NAME_OF = {digest: name for name, digests in FINGERPRINTS.items() for digest in digests}

_UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
"""Normalizers llama.cpp leaves out for every byte-level vocabulary."""


def recognize(tokenizer: HubTokenizer, pre: str | None, note: Callable[[str], None]) -> str:
    """The value of tokenizer.ggml.pre. `pre`: the user's choice, checked against the known names only.

    Raises `ConversionError` for an unknown name, and for a cut that is neither known nor chosen.
    """
    if pre is not None:
        return _checked(pre)
    digest = fingerprint(tokenizer)
    found = _NAME_OF.get(digest)
    cut = signature(tokenizer.definition)
    defined = next((name for name, parts in DEFINITIONS if parts == cut), None)
    if found is not None:
        if defined is not None and _cuts_of(found) and cut not in _cuts_of(found):
            note(f"pre-tokenizer {found} by its token ids, but {defined} by its definition: {found} is written")
        return found
    if defined is not None:
        note(f"pre-tokenizer {defined} by its definition; its token ids are unknown (fingerprint {digest[:12]})")
        return defined
    raise ConversionError(
        f"unknown pre-tokenizer {' + '.join(cut) or 'none'!s:.300} (fingerprint {digest[:12]}); "
        f"the nearest known is {_nearest(cut)!r}: choose one with --pre NAME"
    )


def is_known(tokenizer: HubTokenizer) -> bool:
    """Whether the cut is one of llama.cpp's, by the token ids or by the definition."""
    cut = signature(tokenizer.definition)
    return fingerprint(tokenizer) in _NAME_OF or any(parts == cut for _, parts in DEFINITIONS)


def fingerprint(tokenizer: HubTokenizer) -> str:
    """SHA-256, in hexadecimal, of the written list of the token ids of `PROBE`."""
    return hashlib.sha256(str(tokenizer.encode(PROBE, special=True)).encode()).hexdigest()


def signature(definition: dict[str, Any]) -> tuple[str, ...]:
    """The parts of a tokenizer definition that decide the cut, as short texts in the order they act."""
    parts: list[str] = ["ignore_merges"] if (definition.get("model") or {}).get("ignore_merges") else []
    parts += _walk(definition.get("normalizer"), "normalizers")
    parts += _walk(definition.get("pre_tokenizer"), "pretokenizers")
    return tuple(parts)


def _walk(part: Any, children: str) -> list[str]:
    if not isinstance(part, dict):
        return []
    kind = part.get("type")
    if kind == "Sequence":
        return [text for child in part.get(children) or [] for text in _walk(child, children)]
    if kind in _UNICODE_FORMS or kind == "BertNormalizer":
        return []
    if kind == "Split":
        pattern = part.get("pattern") or {}
        inverted = "inverted " if part.get("invert") else ""
        return [f"split {inverted}{part.get('behavior')} {pattern.get('Regex', pattern.get('String'))}"]
    if kind == "ByteLevel":
        prefix = " prefix" if part.get("add_prefix_space") else ""
        return [f"bytes{' gpt2' if part.get('use_regex', True) else ''}{prefix}"]
    if kind == "Digits":
        return ["digits one" if part.get("individual_digits") else "digits run"]
    if kind == "Punctuation":
        return [f"punctuation {part.get('behavior')}"]
    if kind == "BertPreTokenizer":
        return ["bert"]
    return [str(kind).lower()]


def _cuts_of(name: str) -> list[tuple[str, ...]]:
    return [parts for other, parts in DEFINITIONS if other == name]


def _checked(pre: str) -> str:
    if pre in NAMES:
        return pre
    near = difflib.get_close_matches(pre, NAMES, n=3, cutoff=0.3)
    hint = f"; near are {', '.join(near)}" if near else ""
    raise ConversionError(f"--pre {pre!r}: not a pre-tokenizer llama.cpp knows{hint}")


def _nearest(cut: tuple[str, ...]) -> str:
    text = "\n".join(cut)
    return max(DEFINITIONS, key=lambda row: difflib.SequenceMatcher(None, "\n".join(row[1]), text).ratio())[0]
