"""Whether a written vocabulary makes of texts what the checkpoint's own tokenizer makes of them.

Asks the checkpoint's tokenizer (sources) and one made of the written keys alone, which encodes as llama.cpp does
(encode). Must not know how either works.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_forge.convert.vocab import probes
from gguf_forge.convert.vocab.encode import KINDS, GGUFTokenizer
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.sources import Source, open_source
from gguf_forge.convert.vocab.tokens import TokenType

_MOST_SPECIAL = 24
_SHOWN = 5


@dataclass(frozen=True)
class Difference:
    """A text, and the token ids that the checkpoint's tokenizer and the written vocabulary make of it.

    `wrapped`: with the tokens that are put at its ends. `composed`: the two agree on the text in Unicode's NFC form.
    """

    text: str
    source: tuple[int, ...]
    written: tuple[int, ...]
    wrapped: bool = False
    composed: bool = False

    @property
    def place(self) -> int:
        """The number of tokens before the first that differs."""
        pairs = enumerate(zip(self.source, self.written, strict=False))
        return next((i for i, (a, b) in pairs if a != b), min(len(self.source), len(self.written)))


@dataclass(frozen=True)
class TokenizerCheck:
    """What came of a check: against which `file`, on how many `texts`, and where the two differ.

    `skipped` says why nothing was checked, and is None otherwise. `tokens` are the written texts by id.
    """

    file: str = ""
    texts: int = 0
    differences: tuple[Difference, ...] = ()
    skipped: str | None = None
    tokens: Sequence[str] = ()

    @property
    def alike(self) -> bool:
        """True if something was checked and nothing differs."""
        return self.skipped is None and not self.differences

    def lines(self) -> list[str]:
        """What to tell a user: one line for the whole, and one for each of the first differences of a kind."""
        if self.skipped is not None:
            return [f"the tokenizer is not checked: {self.skipped}"]
        if not self.differences:
            return [f"the tokenizer is that of {self.file}: {self.texts} texts encode alike"]
        lines = [f"{len(self.differences)} of {self.texts} texts encode otherwise than by {self.file}"]
        kinds = (
            ("", [d for d in self.differences if not d.wrapped and not d.composed]),
            (" (alike once composed, which llama.cpp does not do)", [d for d in self.differences if d.composed]),
            (" (with the tokens at its ends)", [d for d in self.differences if d.wrapped]),
        )
        for remark, found in kinds:
            lines += [f"{self._shown(difference)}{remark}" for difference in found[:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f"and {len(found) - _SHOWN} more{remark}")
        return lines

    def _shown(self, difference: Difference) -> str:
        at = difference.place
        wanted, made = (self._texts(ids[at : at + 4]) for ids in (difference.source, difference.written))
        text = difference.text if len(difference.text) <= 40 else difference.text[:37] + "..."
        return f"{text!r}: after {at} tokens {wanted or 'the end'}, but llama.cpp reads {made or 'the end'}"

    def _texts(self, ids: Sequence[int]) -> str:
        return " ".join(repr(self.tokens[i]) if 0 <= i < len(self.tokens) else f"<{i}>" for i in ids)


def check_vocabulary(directory: Path, keys: Mapping[str, Any], *, native: bool = False) -> TokenizerCheck:
    """Compares the tokenizer that `keys` describe (tokenizer.* keys with plain values) with that of a checkpoint.

    `native`: the checkpoint is in Mistral's own format. Raises `CheckpointError` for damaged tokenizer files, and
    `ConversionError` for files that no tokenizer can be made of.
    """
    model = str(keys.get("tokenizer.ggml.model", "none"))
    tokens = list(keys.get("tokenizer.ggml.tokens", ()))
    if model not in KINDS:
        return TokenizerCheck(skipped=f"no texts can be encoded with a vocabulary of kind {model!r}", tokens=tokens)
    source = open_source(Folder(directory), native=native)
    if source is None:
        return TokenizerCheck(skipped=f"{directory} has no tokenizer that can be asked", tokens=tokens)
    written = GGUFTokenizer(keys)
    texts = _probes(source, keys, tokens)
    differences = [*_plain_differences(source, written, texts), *_wrapped_differences(source, written)]
    return TokenizerCheck(source.file, len(texts) + source.wraps, tuple(differences), None, tokens)


def _plain_differences(source: Source, written: GGUFTokenizer, texts: Sequence[str]) -> Iterator[Difference]:
    for text in texts:
        wanted, made = source.encode(text, False), written.encode(text)
        if wanted != made:
            composed = unicodedata.normalize("NFC", text)
            alike = composed != text and source.encode(composed, False) == written.encode(composed)
            yield Difference(text, tuple(wanted), tuple(made), composed=alike)


def _wrapped_differences(source: Source, written: GGUFTokenizer) -> Iterator[Difference]:
    text = "word"
    if source.wraps and source.encode(text, False) == written.encode(text):
        wanted, made = source.encode(text, True), written.encode(text, special=True)
        if wanted != made:
            yield Difference(text, tuple(wanted), tuple(made), wrapped=True)


def _probes(source: Source, keys: Mapping[str, Any], tokens: Sequence[str]) -> list[str]:
    texts = [*probes.chosen_texts(), *probes.pair_texts(), *probes.joined_texts(6), *probes.damaged_texts(20)]
    if keys["tokenizer.ggml.model"] == "bert":  # the one kind whose encoder asks Python what a character is
        texts = [probes.assigned(text) for text in texts]
    types = [int(kind) for kind in keys.get("tokenizer.ggml.token_type", ())]
    kinds = (TokenType.CONTROL, TokenType.USER_DEFINED)
    special = [token for token, kind in zip(tokens, types, strict=False) if kind in kinds and token.strip()]
    if source.spelled:
        return texts + probes.with_tokens(special[:: len(special) // _MOST_SPECIAL + 1])
    return [text for text in texts if not any(token in text for token in special)]
