"""Vocabularies of SentencePiece's kind, from tokenizer.model or tokenizer.json, and the files that add to them.

Knows which of the two counts, who may add or replace a token, and in which order. Must not know model families.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from gguf_forge.convert.vocab.added import ADDED_FILE, CONFIG_FILE, Listed, listed_tokens, named_special
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.pieces import Pieces, read_pieces_of
from gguf_forge.convert.vocab.sentencepiece import MODEL_FILE, is_spm
from gguf_forge.convert.vocab.spm_json import (
    JSON_FILE,
    adds_space_prefix,
    byte_of,
    holds_spm,
    pieces_by_id,
    read_spm_json,
)
from gguf_forge.convert.vocab.steps import SPACE_PREFIX
from gguf_forge.convert.vocab.tokens import MAX_VOCAB, TokenType, Typing, Vocabulary, padding
from gguf_forge.convert.vocab.unigram import charsmap_value
from gguf_forge.errors import ConversionError
from gguf_forge.format import values

_UNKNOWN_PENALTY = 10.0
"""SentencePiece's kUnkPenalty."""

_Note = Callable[[str], None]


@dataclass(frozen=True)
class _Sources:
    """Where tokens come from: pieces, added tokens by id, and texts named as special ones with the place."""

    pieces: Pieces
    listed: Mapping[int, Listed]
    named: Mapping[str, str]


def load_spm(
    folder: Folder, vocab_size: int | None, typing: Typing, note: _Note, *, file: str | None = None
) -> Vocabulary | None:
    """The pieces of tokenizer.model or tokenizer.json, and the added tokens of all files over them.

    `typing` gives an added token its text and type. Ids the files leave open up to `vocab_size` become [PADn]; ids
    from `vocab_size` on are left out and noted. `file`: the only one to look for; else tokenizer.json counts where the
    two hold different pieces, as it does for the Hub's library (transformers). None if there are none.

    Raises `ConversionError` for a vocab_size no model has, `CheckpointError` for damaged files.
    """
    listed = listed_tokens(folder, typing.rewriting, note)
    pieces = _open_pieces(folder, listed, note, file)
    if pieces is None:
        return None
    named = named_special(folder, note)
    sources = _Sources(pieces, listed | _without_id(pieces, listed, named, note), named)
    vocab = _padding(folder, sources, vocab_size, note)
    for number, text in enumerate(pieces.texts[: len(vocab.tokens)]):
        if text is not None:
            kind = pieces.types[number]
            token = typing(text, False) if kind == TokenType.USER_DEFINED else (text, kind)
            vocab.put(number, *token, pieces.scores[number])
    _add_listed(vocab, sources, typing, note)
    _type_named(vocab, sources)
    if folder.has(JSON_FILE):
        # transformers puts before a text what tokenizer.json says, llama.cpp a BOS unless it is told not to.
        vocab.flags["bos"] = False
    if pieces.unigram:
        _cut_by_probability(vocab, pieces, note)
    else:
        _cut_by_merging(vocab, pieces, note)
    return vocab


def _open_pieces(folder: Folder, listed: Mapping[int, Listed], note: _Note, file: str | None) -> Pieces | None:
    if file in (None, MODEL_FILE) and is_spm(folder):
        pieces = read_pieces_of(folder.path / MODEL_FILE)
        difference = None if file else _difference(pieces, pieces_by_id(folder), listed)
        if difference is None:
            return _prepared_alike(folder, pieces)
        note(f"{MODEL_FILE} and {JSON_FILE} hold different vocabularies ({difference}): {JSON_FILE} is followed")
    return read_spm_json(folder, note) if file in (None, JSON_FILE) and holds_spm(folder) else None


def _prepared_alike(folder: Folder, pieces: Pieces) -> Pieces:
    """The pieces of tokenizer.model, for texts prepared as tokenizer.json prepares them, where there is one."""
    if not holds_spm(folder):
        return pieces
    return replace(pieces, settings=replace(pieces.settings, dummy_prefix=adds_space_prefix(folder)))


def _difference(pieces: Pieces, others: Mapping[int, str], listed: Mapping[int, Listed]) -> str | None:
    """The first id for which the two have different texts, or only `others` has one, that is no added token's."""
    for number, other in others.items():
        text = pieces.texts[number] if number < len(pieces.texts) else None
        if text == other or number in listed:
            continue
        if text is None:
            return f"token {number}, {other!r}, is new"
        byte = byte_of(text)
        if byte is None or other != chr(byte):  # Gemma's tokenizer.json has a tab itself in place of its byte
            return f"token {number} is {text!r} and {other!r}"
    return None


def _without_id(
    pieces: Pieces, listed: Mapping[int, Listed], named: Mapping[str, str], note: _Note
) -> dict[int, Listed]:
    """Special tokens that are named but have no id in any file.

    The Hub's library adds them after the others of tokenizer.json. With tokenizer.model alone they are only noted.
    """
    known = {token.text for token in listed.values()}.union(text for text in pieces.texts if text is not None)
    missing = [text for text in named if text not in known]
    if pieces.file == MODEL_FILE:
        for text in missing:
            note(f"special token {text!r} ({named[text]}) has no id in any file and is left out")
        return {}
    first = max([len(pieces.texts), *(number + 1 for number in listed)])
    return {first + number: Listed(text, True, (named[text],)) for number, text in enumerate(missing)}


def _padding(folder: Folder, sources: _Sources, vocab_size: int | None, note: _Note) -> Vocabulary:
    pieces = sources.pieces
    count = len(pieces.texts)
    own = count if pieces.file == MODEL_FILE else max([count, *(number + 1 for number in sources.listed)])
    size = own if vocab_size is None else vocab_size
    if not 0 < size <= MAX_VOCAB:
        raise ConversionError(f"{folder.path}: vocab_size {size} is not between 1 and {MAX_VOCAB}")
    if count > size:
        note(f"{pieces.file} has {count} pieces, vocab_size is {size}: pieces from {size} on are left out")
    return padding("llama", size)


def _add_listed(vocab: Vocabulary, sources: _Sources, typing: Typing, note: _Note) -> None:
    pieces, listed = sources.pieces, sources.listed
    ids = {text: number for number, text in enumerate(pieces.texts) if text is not None and number not in listed}
    for number, token in listed.items():
        place = ids.get(token.text, number)
        if place != number:
            ours, theirs = f"has id {place} in {pieces.file}", f"{number} in {token.files[0]}"
            note(f"token {token.text!r} {ours}, {theirs}: the former is written")
            if place < len(vocab.tokens) and vocab.types[place] == TokenType.BYTE:
                continue  # what stands for a byte must go on doing so
        if place >= len(vocab.tokens):
            note(f"added token {place} is left out: vocab_size is {len(vocab.tokens)}")
            continue
        flagged = CONFIG_FILE in token.files and token.special is not None
        special = bool(token.special) or (token.text in sources.named and not flagged)
        kind = TokenType.CONTROL if special else TokenType.USER_DEFINED
        written = (token.text, kind) if token.files == (ADDED_FILE,) else typing(token.text, special)
        rewriting = pieces.file == JSON_FILE or any(file in typing.rewriting for file in token.files)
        if not _amounts_to(vocab, place, written) or (rewriting and not pieces.unigram):
            vocab.put(place, *written, pieces.added_score)


def _amounts_to(vocab: Vocabulary, number: int, written: tuple[str, TokenType]) -> bool:
    """Whether the vocabulary has the token already; the unknown token is a special one."""
    kind = TokenType.CONTROL if vocab.types[number] == TokenType.UNKNOWN else vocab.types[number]
    return (vocab.tokens[number], kind) == written


def _type_named(vocab: Vocabulary, sources: _Sources) -> None:
    """Pieces that a file names as special tokens, though none lists them as added, are CONTROL."""
    for number, text in enumerate(sources.pieces.texts[: len(vocab.tokens)]):
        plain = vocab.types[number] in (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED)
        if text in sources.named and number not in sources.listed and plain:
            vocab.tokens[number], vocab.types[number] = text or "", TokenType.CONTROL


def _cut_by_merging(vocab: Vocabulary, pieces: Pieces, note: _Note) -> None:
    if not pieces.settings.dummy_prefix:
        vocab.preparation[SPACE_PREFIX] = values.boolean(False)
    if TokenType.BYTE not in vocab.types:
        note(f"{pieces.file} has no pieces for bytes: llama.cpp ends its process at a character that is no piece")
    if pieces.file == JSON_FILE:
        rows = zip(vocab.tokens, vocab.types, vocab.scores or (), strict=True)
        lowest = pieces.added_score
        unmade = [t for t, kind, score in rows if kind == TokenType.NORMAL and score == lowest and len(t) > 1]
        if unmade:
            note(f"no merge makes {len(unmade)} tokens, the first is {unmade[0]!r}: only llama.cpp may use them")
        return
    undone = {
        "normalises characters": bool(pieces.settings.charsmap),
        "removes extra spaces": pieces.settings.remove_extra_spaces,
    }
    if any(undone.values()):
        what = " and ".join(text for text, done in undone.items() if done)
        note(f"{MODEL_FILE} {what}, llama.cpp does not: some texts will get other tokens")


def _cut_by_probability(vocab: Vocabulary, pieces: Pieces, note: _Note) -> None:
    """llama.cpp's "t5" finds the most probable cut; its "llama" would merge pairs by scores not meant for that."""
    vocab.model = "t5"
    vocab.ids.update(pieces.roles)
    vocab.flags = {"bos": "bos" in pieces.roles, "eos": False, **vocab.flags}
    if TokenType.BYTE in vocab.types:
        _write_bytes_as_characters(vocab)
        note("llama.cpp does not fall back on bytes here: a character beyond ASCII that is no token will be unknown")
    vocab.preparation[SPACE_PREFIX] = values.boolean(pieces.settings.dummy_prefix)
    vocab.preparation["tokenizer.ggml.remove_extra_whitespaces"] = values.boolean(pieces.settings.remove_extra_spaces)
    if pieces.settings.charsmap:
        vocab.preparation["tokenizer.ggml.precompiled_charsmap"] = charsmap_value(pieces.settings.charsmap)


def _write_bytes_as_characters(vocab: Vocabulary) -> None:
    """Tokens of bytes as the ASCII characters they are, those without a token: a line's end is mostly one.

    llama.cpp's "t5" looks for texts only, and takes the unknown token for a character it does not find. The score is
    the one that SentencePiece gives what it then spells in bytes: ten below the lowest.
    """
    assert vocab.scores is not None
    rows = zip(vocab.types, vocab.scores, strict=True)
    score = min((score for kind, score in rows if kind == TokenType.NORMAL), default=0.0) - _UNKNOWN_PENALTY
    known = set(vocab.tokens)
    for number, kind in enumerate(vocab.types):
        byte = byte_of(vocab.tokens[number]) if kind == TokenType.BYTE else None
        if byte is not None and 0 < byte < 0x80 and byte != ord(" ") and chr(byte) not in known:
            vocab.put(number, chr(byte), TokenType.NORMAL, score)
