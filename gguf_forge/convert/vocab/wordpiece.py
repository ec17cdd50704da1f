"""WordPiece vocabularies (BERT and its relatives).

Knows how "##" becomes the phantom space. Must not know model families.
"""

from collections.abc import Callable
from dataclasses import replace

from gguf_forge.convert.vocab.bpe import load_bpe
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.tokens import SPACE_MARK, TokenType, Vocabulary


def load_wordpiece(folder: Folder, vocab_size: int | None, pre: str | None, note: Callable[[str], None]) -> Vocabulary:
    """The tokenizer's tokens; "##ing" (goes on a word) becomes "ing", and "in" (begins one) the marked "_in"."""
    vocab = load_bpe(folder, vocab_size, pre, note)
    tokens = [_marked(token, kind) for token, kind in zip(vocab.tokens, vocab.types, strict=True)]
    return replace(vocab, model="bert", tokens=tokens)


def _marked(token: str, kind: int) -> str:
    if kind == TokenType.CONTROL:
        return token
    return token[2:] if token.startswith("##") else SPACE_MARK + token
