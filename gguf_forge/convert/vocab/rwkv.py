"""RWKV's World vocabulary: one file of lines "id 'text' length", the text as Python writes it.

Must not know families.
"""

from __future__ import annotations

import ast

from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.tokens import MAX_VOCAB, TokenType, Vocabulary
from gguf_forge.errors import CheckpointError, ConversionError

VOCAB_FILE = "rwkv_vocab_v20230424.txt"


def read_rwkv(folder: Folder, vocab_size: int) -> Vocabulary:
    """Token 0 is <s>, those of the file follow by the order of its lines, [PADn] fill up to `vocab_size`.

    A token's text is its bytes as Python writes them without quotes, which is what llama.cpp reads back.
    """
    place = folder.path / VOCAB_FILE
    tokens, types = ["<s>"], [int(TokenType.CONTROL)]
    for number, line in enumerate((folder.text(VOCAB_FILE) or "").splitlines(keepends=True), 1):
        data = _token(line)
        if data is None:
            raise CheckpointError(f"{place}: line {number} is not an id, a text and its length: {line[:60]!r}")
        tokens.append(repr(data)[2:-1])
        types.append(TokenType.NORMAL)
    if not len(tokens) <= vocab_size <= MAX_VOCAB:
        raise ConversionError(f"{place}: vocab_size {vocab_size} is not between {len(tokens)} and {MAX_VOCAB}")
    for number in range(len(tokens), vocab_size):
        tokens.append(f"[PAD{number}]")
        types.append(TokenType.UNUSED)
    return Vocabulary("rwkv", None, tokens, types)


def _token(line: str) -> bytes | None:
    """The bytes of a line's text; None unless the line is sound."""
    words = line.split(" ")
    if len(words) < 3 or not words[-1].strip().isdigit():
        return None
    try:
        value = ast.literal_eval(" ".join(words[1:-1]))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    data = value.encode() if isinstance(value, str) else value
    return data if isinstance(data, bytes) and len(data) == int(words[-1]) else None
