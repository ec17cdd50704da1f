"""Byte-level BPE vocabularies, and those of Llama's kind that live in tokenizer.json alone.

Knows how tokens are padded, typed and rewritten. Must not know model families.
"""

import re
from collections.abc import Callable
from typing import Any

from gguf_forge.convert.vocab.added import config_entries, json_entries, text_of
from gguf_forge.convert.vocab.cuts import CUT_OF
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.hub import HubTokenizer, open_tokenizer
from gguf_forge.convert.vocab.recognize import is_begun_unasked, is_known, recognize
from gguf_forge.convert.vocab.spm_json import JSON_FILE, holds_spm, walk
from gguf_forge.convert.vocab.tokens import BY_LOOKS, MAX_VOCAB, TokenType, Vocabulary
from gguf_forge.errors import ConversionError

BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")
_SCORE = -1000.0
"""The score of every token of a vocabulary whose merges have ranks."""


def holds_bpe(folder: Folder) -> bool:
    """Whether the vocabulary is one for a pre-tokenizer of llama.cpp, not one of SentencePiece's kind.

    Some of the latter are such, too: those of which llama.cpp needs the merges.
    """
    return not holds_spm(folder) or is_known(open_tokenizer(folder))


def load_bpe(
    folder: Folder,
    vocab_size: int | None,
    pre: str | None,
    note: Callable[[str], None],
    *,
    as_flagged: bool = False,
    kind: str = "BPE",
) -> Vocabulary:
    """All tokens of the checkpoint's tokenizer, padded with [PADn] to `vocab_size`.

    `as_flagged`: added tokens are what their flags say and stand as they are written, whatever they look like. `kind`:
    that of the model section.

    Raises `ConversionError` for an id from `vocab_size` on, for an unknown pre-tokenizer, and for another kind.
    """
    tokenizer = open_tokenizer(folder)
    _require_kind(tokenizer, kind, folder)
    by_id, added = _numbered(tokenizer, folder, note)
    highest = max(by_id, default=-1)
    size = highest + 1 if vocab_size is None else vocab_size
    if not highest < size <= MAX_VOCAB:
        raise ConversionError(
            f"{folder.path}: vocab_size is {size}, but the tokenizer's token {by_id.get(highest)!r} has id {highest}"
        )
    name = recognize(tokenizer, pre, note)
    vocab = Vocabulary("gpt2", name, tokens=[], types=[])
    if kind == "BPE":
        _note_unwritten(tokenizer, name, note)
    if pre is None and is_begun_unasked(tokenizer, name):
        vocab.flags["bos"] = False
    for number in range(size):
        token = by_id.get(number)
        if token is None:
            token, written = f"[PAD{number}]", TokenType.UNUSED
        elif number in added and as_flagged:
            control = added[number].special or token in tokenizer.special_tokens
            written = TokenType.CONTROL if control else TokenType.USER_DEFINED
        elif number in added:
            token, written = _added_token(tokenizer, token, added[number])
        else:
            written = TokenType.NORMAL
        vocab.tokens.append(token)
        vocab.types.append(written)
    return vocab


_AFFIXES = {
    "BPE": {"continuing_subword_prefix": (None, ""), "end_of_word_suffix": (None, "")},
    "WordPiece": {"continuing_subword_prefix": (None, "##")},
}
"""By kind of vocabulary the marks that llama.cpp knows inside words."""


def _require_kind(tokenizer: HubTokenizer, kind: str, folder: Folder) -> None:
    place = folder.path / JSON_FILE
    model = tokenizer.definition.get("model") or {}
    found = model.get("type", kind)
    if found != kind:
        raise ConversionError(f"{place}: a {found} vocabulary, but this family has one of {kind}'s kind")
    for affix, known in _AFFIXES[kind].items():
        if model.get(affix) not in known:
            raise ConversionError(f"{place}: {affix} is {model[affix]!r:.40}, for which llama.cpp has no form")


def _note_unwritten(tokenizer: HubTokenizer, name: str, note: Callable[[str], None]) -> None:
    """Say what the tokenizer does to a text before it is cut, for which GGUF has no key. NFC is left unsaid."""
    if name in CUT_OF and CUT_OF[name].raw:
        return
    parts = [*walk(tokenizer.definition.get("normalizer")), *walk(tokenizer.definition.get("pre_tokenizer"))]
    named = [str(part.get("type")) for part in walk(tokenizer.definition.get("normalizer"))]
    rest = [kind for kind in named if kind != "NFC"]
    if rest:
        note(f"{JSON_FILE}: {', '.join(rest)} changes texts, llama.cpp does not: some will get other tokens")
    if any(part.get("type") == "ByteLevel" and part.get("add_prefix_space") for part in parts):
        note(f"{JSON_FILE} puts a space before a text, llama.cpp does not: its first token may be another")


def _numbered(
    tokenizer: HubTokenizer, folder: Folder, note: Callable[[str], None]
) -> tuple[dict[int, str], dict[int, Any]]:
    """All tokens by id, and the added ones with their flags.

    The Hub's library numbers added tokens from the count of the others on. Where these leave an id open, the last of
    them has the id of the first added one: then the ids count that the files list.
    """
    vocab = tokenizer.backend.get_vocab(with_added_tokens=True)
    by_id = {number: token for token, number in vocab.items()}
    added = tokenizer.backend.get_added_tokens_decoder()
    if len(by_id) == len(vocab):
        return by_id, added
    own = tokenizer.backend.get_vocab(with_added_tokens=False)
    by_id = {number: token for token, number in own.items()}
    entries = [*(config_entries(folder) or {}).items(), *json_entries(folder)]
    listed = {text_of(entry): number for number, entry in entries}
    flags = {}
    for token in added.values():
        number = own.get(token.content, listed.get(token.content, max(by_id) + 1))
        if by_id.get(number, token.content) != token.content:
            number = max(by_id) + 1
        by_id[number], flags[number] = token.content, token
    opened = next(number for number in range(max(by_id)) if number not in by_id)
    note(f"no token has id {opened}: the ids of added tokens are those listed, not those the Hub's library gives them")
    return by_id, flags


def _added_token(tokenizer: HubTokenizer, token: str, flags: Any) -> tuple[str, TokenType]:
    """An added token as llama.cpp expects it: already normalised, a user's one with plain spaces."""
    if not flags.normalized:
        token = tokenizer.decode(tokenizer.encode(token, special=False))
    return BY_LOOKS(token, flags.special)


def is_llama_hf(folder: Folder) -> bool:
    """True if tokenizer.json is a SentencePiece-like BPE: byte fallback, a decoder that is a sequence."""
    document = folder.object("tokenizer.json") or {}
    model, decoder = document.get("model"), document.get("decoder")
    return (
        isinstance(model, dict)
        and isinstance(decoder, dict)
        and model.get("type") == "BPE"
        and bool(model.get("byte_fallback"))
        and decoder.get("type") == "Sequence"
    )


def load_llama_hf(folder: Folder) -> Vocabulary:
    """The vocabulary of a tokenizer.json for which `is_llama_hf` holds, all of one score: for merges that have ranks.

    It is not padded to the model's vocab_size.
    """
    tokenizer = open_tokenizer(folder)
    by_id = {number: token for token, number in tokenizer.backend.get_vocab(with_added_tokens=True).items()}
    size = tokenizer.backend.get_vocab_size(with_added_tokens=False)
    special = set(tokenizer.special_tokens)
    tokens, types = [], []
    for number in range(size):
        if number not in by_id:
            raise ConversionError(f"{folder.path / 'tokenizer.json'}: no token has id {number}, of {size} tokens")
        tokens.append(by_id[number])
        types.append(_llama_type(by_id[number], special))
    added = {token.content: number for number, token in tokenizer.backend.get_added_tokens_decoder().items()}
    for token in sorted(added, key=added.__getitem__):
        if added[token] >= size:
            tokens.append(token)
            types.append(TokenType.CONTROL if token in special else TokenType.USER_DEFINED)
    return Vocabulary("llama", "default", tokens, list(types), [_SCORE] * len(tokens))


def _llama_type(token: str, special: set[str]) -> TokenType:
    if BYTE_TOKEN.fullmatch(token):
        return TokenType.BYTE
    return TokenType.CONTROL if token in special else TokenType.NORMAL
