"""Vocabularies of `tokenizer.model`, a SentencePiece file, and the files that add to it.

Knows who may add or replace a token, and in which order. Must not know model families.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece

from gguf_forge.convert.vocab.added import config_entries, file_entries, is_special, json_entries, text_of
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.ranks import is_ranks
from gguf_forge.convert.vocab.tokens import SPACE_MARK, TokenType, Vocabulary, looks_special
from gguf_forge.errors import CheckpointError, ConversionError

MODEL_FILE = "tokenizer.model"
MAX_VOCAB = 1 << 24
"""More tokens than any model has; a larger `vocab_size` is a damaged config."""

_SCORE_UNUSED = -10000.0


def is_spm(folder: Folder) -> bool:
    """Whether there is a tokenizer.model of SentencePiece's kind; Llama 3's own is a text of tiktoken's."""
    return folder.has(MODEL_FILE) and not is_ranks(folder.path / MODEL_FILE)


def load_spm(folder: Folder, vocab_size: int | None, note: Callable[[str], None]) -> Vocabulary:
    """`tokenizer.model`, then added_tokens.json, then added_tokens_decoder of tokenizer_config.json.

    Ids the files leave open up to `vocab_size` become [PADn]; ids from `vocab_size` on are left out and noted.
    """
    vocab = open_pieces(folder, vocab_size, note)
    put_added_tokens(folder, vocab, note)
    for token_id, entry in (config_entries(folder) or {}).items():
        token = text_of(entry) or ""
        if not _in_range(token_id, vocab, note):
            continue
        if is_special(entry) or looks_special(token):
            vocab.put(token_id, token, TokenType.CONTROL)
        else:
            vocab.put(token_id, token.replace(SPACE_MARK, " "), TokenType.USER_DEFINED)
    return vocab


def load_spm_phi3(folder: Folder, vocab_size: int | None, note: Callable[[str], None]) -> Vocabulary:
    """As `load_spm`, then the added tokens of tokenizer.json; only those marked special become control tokens."""
    vocab = open_pieces(folder, vocab_size, note)
    put_added_tokens(folder, vocab, note)
    for token_id, entry in [*(config_entries(folder) or {}).items(), *json_entries(folder)]:
        if _in_range(token_id, vocab, note):
            kind = TokenType.CONTROL if is_special(entry) else TokenType.USER_DEFINED
            vocab.put(token_id, text_of(entry) or "", kind)
    return vocab


def open_pieces(
    folder: Folder, vocab_size: int | None, note: Callable[[str], None], file: str = MODEL_FILE
) -> Vocabulary:
    """The pieces of a SentencePiece file alone; ids it leaves open up to `vocab_size` become [PADn]."""
    model = open_model(folder.path / file)
    count = int(model.vocab_size())
    size = count if vocab_size is None else vocab_size
    if not 0 < size <= MAX_VOCAB:
        raise ConversionError(f"{folder.path}: vocab_size {size} is not between 1 and {MAX_VOCAB}")
    if count > size:
        note(f"{file} has {count} pieces, vocab_size is {size}: pieces from {size} on are left out")
    vocab = Vocabulary(
        model="llama",
        pre="default",
        tokens=[f"[PAD{i}]" for i in range(size)],
        types=[TokenType.UNUSED] * size,
        scores=[_SCORE_UNUSED] * size,
    )
    assert vocab.scores is not None
    for i in range(min(count, size)):
        vocab.tokens[i] = model.id_to_piece(i)
        vocab.scores[i] = model.get_score(i)
        vocab.types[i] = piece_type(model, i)
    return vocab


def open_model(path: Path) -> Any:
    """A SentencePiece file as its library opens it. CheckpointError if it is damaged."""
    model = sentencepiece.SentencePieceProcessor()
    try:
        model.LoadFromFile(str(path))
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a SentencePiece model: {reason}") from None
    return model


def piece_type(model: Any, piece: int) -> TokenType:
    """The kind of a piece. Pieces a user defined are NORMAL to SentencePiece, and stay so."""
    if model.is_unknown(piece):
        return TokenType.UNKNOWN
    if model.is_control(piece):
        return TokenType.CONTROL
    if model.is_unused(piece):
        return TokenType.UNUSED
    if model.is_byte(piece):
        return TokenType.BYTE
    return TokenType.NORMAL


def put_added_tokens(folder: Folder, vocab: Vocabulary, note: Callable[[str], None]) -> None:
    """The tokens of added_tokens.json in their places; those beyond the vocabulary are noted and left out."""
    for token_id, token in file_entries(folder):
        if _in_range(token_id, vocab, note):
            vocab.put(token_id, token, TokenType.USER_DEFINED)


def _in_range(token_id: int, vocab: Vocabulary, note: Callable[[str], None]) -> bool:
    if token_id < len(vocab.tokens):
        return True
    note(f"added token {token_id} is left out: vocab_size is {len(vocab.tokens)}")
    return False
