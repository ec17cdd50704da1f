"""SentencePiece files such as tokenizer.model: their pieces.

Knows the library that reads them. Must not know model families, or which other files add to a vocabulary.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gguf_forge.convert.vocab.added import file_entries
from gguf_forge.convert.vocab.folder import Folder, read_side_file
from gguf_forge.convert.vocab.ranks import is_ranks
from gguf_forge.convert.vocab.tokens import MAX_VOCAB, TokenType, Vocabulary, padding
from gguf_forge.errors import CheckpointError, ConversionError

MODEL_FILE = "tokenizer.model"


def is_spm(folder: Folder) -> bool:
    """Whether there is a tokenizer.model of SentencePiece's kind; Llama 3's own is a text of tiktoken's."""
    return folder.has(MODEL_FILE) and not is_ranks(folder.path / MODEL_FILE)


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
    vocab = padding("llama", size)
    for i in range(min(count, size)):
        vocab.put(i, model.id_to_piece(i), piece_type(model, i), model.get_score(i))
    return vocab


def open_model(path: Path) -> Any:
    """A SentencePiece file as its library opens it. CheckpointError if it is damaged, or the library is not there."""
    try:
        import sentencepiece  # noqa: PLC0415 - has no wheel for musl, where all but this works without it
    except ImportError:
        raise CheckpointError(f"{path}: needs the package sentencepiece, which is not installed, to be read") from None
    data = read_side_file(path)
    model = sentencepiece.SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(data)  # not from its path, which may be no text
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
