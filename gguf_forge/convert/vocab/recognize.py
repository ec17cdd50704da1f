"""Finds llama.cpp's name for the way a vocabulary cuts text into words.

The fingerprint of the token ids decides, as in the reference converter; where it is unknown, what the tokenizer makes
of many texts does, beside what each name of llama.cpp makes of them. Must not know model families.
"""

import difflib
import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

from gguf_forge.convert.vocab.classes import split
from gguf_forge.convert.vocab.cuts import CUT_OF, CUTS, NAMES, WORDPIECE, Part
from gguf_forge.convert.vocab.hub import HubTokenizer, guarded
from gguf_forge.convert.vocab.pretokenizers import FINGERPRINTS, PROBE
from gguf_forge.convert.vocab.probes import chosen_texts, pair_texts
from gguf_forge.errors import ConversionError

_NAME_OF = {digest: name for name, digests in FINGERPRINTS.items() for digest in digests}

Spans = tuple[frozenset[tuple[int, int]], ...]
"""Where the pieces of each probe begin and end."""


def recognize(
    tokenizer: HubTokenizer, pre: str | None, note: Callable[[str], None], *, likely: str | None = None
) -> str:
    """The value of tokenizer.ggml.pre. `pre`: the user's choice, checked against the known names only.

    `likely` is the name to take, of those that cut alike, where the token ids are unknown.
    Raises `ConversionError` for an unknown name, and for a cut that is neither known nor chosen.
    """
    if pre is not None:
        return _checked(pre)
    digest = fingerprint(tokenizer)
    kin = _kin(tokenizer)
    found = _NAME_OF.get(digest)
    if found is not None:
        return _by_ids(tokenizer, found, kin, note)
    defined = defined_name(tokenizer, *([] if likely is None else [likely]), *kin)
    if defined is not None:
        note(f"pre-tokenizer {defined} by its definition; its token ids are unknown (fingerprint {digest[:12]})")
        return defined
    name, difference = _nearest(_spans_of(tokenizer.definition))
    raise ConversionError(
        f"unknown pre-tokenizer {_described(tokenizer.definition)!s:.200} (fingerprint {digest[:12]}); "
        f"the nearest known is {name!r}, {difference}: choose one with --pre NAME"
    )


def _by_ids(tokenizer: HubTokenizer, found: str, kin: list[str], note: Callable[[str], None]) -> str:
    """The name that the token ids give, or one that says what they do not show: that words are taken whole."""
    whole = next((name for name in kin if _only_wholes_differ(found, name, tokenizer)), None)
    if whole is not None:
        note(f"pre-tokenizer {found} by its token ids, but words that are tokens stay whole: {whole} is written")
        return whole
    if not _does(found, tokenizer):
        defined = defined_name(tokenizer) or "none that is known"
        note(f"pre-tokenizer {found} by its token ids, but {defined} by its definition: {found} is written")
    return found


def is_begun_unasked(tokenizer: HubTokenizer, name: str) -> bool:
    """Whether llama.cpp would begin a text with the BOS token, as under some names, where the tokenizer does not.

    Of vocabularies whose token ids are known this is not asked: the reference converter's files leave it open, too.
    """
    if name in WORDPIECE or not CUT_OF[name].begun or _NAME_OF.get(fingerprint(tokenizer)) == name:
        return False
    return tokenizer.encode("a", special=True)[:1] == tokenizer.encode("a", special=False)[:1]


def is_known(tokenizer: HubTokenizer) -> bool:
    """Whether the cut is one of llama.cpp's, by the token ids or by what it does."""
    return fingerprint(tokenizer) in _NAME_OF or defined_name(tokenizer) is not None


def fingerprint(tokenizer: HubTokenizer) -> str:
    """SHA-256, in hexadecimal, of the written list of the token ids of `PROBE`."""
    return _digest(tokenizer.encode(PROBE, special=True))


def _digest(ids: list[int]) -> str:
    return hashlib.sha256(str(ids).encode()).hexdigest()


def _kin(tokenizer: HubTokenizer) -> list[str]:
    """Names of vocabularies that give `PROBE` the same ids, but begin it with another special token, or with none.

    A vocabulary is often published anew with other tokens at a text's ends; what cuts words stays as it was.
    """
    ids = tokenizer.encode(PROBE, special=False)
    first = (tokenizer.backend.token_to_id(text) for text in tokenizer.special_tokens)
    starts = [[], *([number] for number in dict.fromkeys(first) if number is not None)]
    return [name for start in starts if (name := _NAME_OF.get(_digest(start + ids))) is not None]


def _only_wholes_differ(found: str, other: str, tokenizer: HubTokenizer) -> bool:
    """Whether two names cut alike, and only `other` takes a word that is a token whole, as the tokenizer does."""
    if found in WORDPIECE or other in WORDPIECE or not _ignores_merges(tokenizer):
        return False
    one, two = CUT_OF[found], CUT_OF[other]
    return one.regexes == two.regexes and two.whole and not one.whole


def _ignores_merges(tokenizer: HubTokenizer) -> bool:
    """Whether a word that is a token is that token, whatever the merges make of it."""
    return bool((tokenizer.definition.get("model") or {}).get("ignore_merges"))


def defined_name(tokenizer: HubTokenizer, *likely: str) -> str | None:
    """llama.cpp's name for what a tokenizer's definition does to the probes, or None if it has none.

    Of names that cut alike, one of `likely` is taken if it is among them; then one that treats whole words as the
    tokenizer does.
    """
    definition = tokenizer.definition
    model = definition.get("model") or {}
    if (definition.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer":
        return WORDPIECE[0] if model.get("type", "WordPiece") == "WordPiece" else None
    if model.get("byte_fallback"):
        return None
    spans = _spans_of(definition)
    names = [cut.names[0] for cut in CUTS if not cut.raw]
    alike = [name for name in names if spans in (_definition_spans(name), _own_spans(name))]
    known = [name for name in likely if any(name in CUT_OF[first].names for first in alike)]
    return min([*known, *alike], key=lambda name: CUT_OF[name].whole is not _ignores_merges(tokenizer), default=None)


def _does(name: str, tokenizer: HubTokenizer) -> bool:
    """Whether a tokenizer cuts as those a name stands for; of raw and WordPiece vocabularies this is not asked."""
    if name in WORDPIECE or CUT_OF[name].raw:
        return True
    return _spans_of(tokenizer.definition) in (_definition_spans(name), _own_spans(name))


@lru_cache(maxsize=1)
def _probes() -> tuple[str, ...]:
    return (*chosen_texts(), *pair_texts())


def _definition_spans(name: str) -> Spans:
    """What a tokenizer of this name does itself."""
    return _spans(_sequence(CUT_OF[name].definition))


def _own_spans(name: str) -> Spans:
    """What llama.cpp does under this name."""
    return _spans(_sequence(CUT_OF[name].regexes))


def _sequence(parts: tuple[str | Part, ...]) -> Part:
    """The parts of a cut as one pre-tokenizer of tokenizer.json."""
    return {"type": "Sequence", "pretokenizers": [split(part) if isinstance(part, str) else part for part in parts]}


def _spans_of(definition: dict[str, Any]) -> Spans:
    return _spans(_without_prefix(definition.get("pre_tokenizer")))


def _without_prefix(part: Any) -> Any:
    """The same without a space in front of a text, which no name of llama.cpp adds."""
    if isinstance(part, dict) and part.get("type") == "Sequence":
        return {**part, "pretokenizers": [_without_prefix(child) for child in part.get("pretokenizers") or []]}
    if isinstance(part, dict) and part.get("type") == "ByteLevel":
        return {**part, "add_prefix_space": False}
    return part


def _spans(part: Part | None) -> Spans:
    if part is None:
        return tuple(frozenset([(0, len(text))]) for text in _probes())
    return _written_spans(json.dumps(part))


@lru_cache(maxsize=4 * len(CUTS))
def _written_spans(part: str) -> Spans:
    document = f'{{"version": "1.0", "model": {{"type": "BPE", "vocab": {{}}, "merges": []}}, "pre_tokenizer": {part}}}'
    with guarded("tokenizer.json"):
        backend = Tokenizer.from_str(document).pre_tokenizer
        return tuple(frozenset(span for _, span in backend.pre_tokenize_str(text)) for text in _probes())


def _nearest(spans: Spans) -> tuple[str, str]:
    """The name that cuts most probes alike, and what it makes of the first that it does not."""
    byte_level = [cut for cut in CUTS if not cut.raw]
    names = [cut.names[0] for cut in byte_level]
    nearest = max(names, key=lambda name: sum(a == b for a, b in zip(spans, _definition_spans(name), strict=True)))
    for text, ours, theirs in zip(_probes(), spans, _definition_spans(nearest), strict=True):
        if ours != theirs:
            first = min(ours ^ theirs)
            at = max(0, first[0] - 8)
            return nearest, f"which cuts {text[at : first[1] + 8]!r} elsewhere"
    return nearest, "which cuts alike"


def _described(definition: dict[str, Any]) -> str:
    """The kinds and expressions of a pre-tokenizer's parts, in the order they act."""
    part = definition.get("pre_tokenizer") or {}
    parts = part.get("pretokenizers") or [] if part.get("type") == "Sequence" else [part]
    return " + ".join(" ".join([str(part.get("type")), *_patterns(part)]) for part in parts if part) or "none"


def _patterns(part: dict[str, Any]) -> list[str]:
    pattern = part.get("pattern")
    return [str(text) for text in pattern.values()] if isinstance(pattern, dict) else []


def _checked(pre: str) -> str:
    if pre in NAMES:
        return pre
    near = difflib.get_close_matches(pre, sorted(NAMES), n=3, cutoff=0.3)
    hint = f"; near are {', '.join(near)}" if near else ""
    raise ConversionError(f"--pre {pre!r}: not a pre-tokenizer llama.cpp knows{hint}")
