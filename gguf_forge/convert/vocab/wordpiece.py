"""WordPiece vocabularies (BERT and its relatives).

Knows how "##" becomes the phantom space. Must not know model families.
"""

from collections.abc import Callable
from dataclasses import replace

from gguf_forge.convert.vocab.bpe import load_bpe
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.spm_json import walk
from gguf_forge.convert.vocab.tokens import SPACE_MARK, TokenType, Vocabulary
from gguf_forge.format import values
from gguf_forge.format.values import Value


def load_wordpiece(folder: Folder, vocab_size: int | None, pre: str | None, note: Callable[[str], None]) -> Vocabulary:
    """The tokenizer's tokens; "##ing" (goes on a word) becomes "ing", and "in" (begins one) the marked "_in"."""
    vocab = load_bpe(folder, vocab_size, pre, note, kind="WordPiece")
    tokens = [_marked(token, kind) for token, kind in zip(vocab.tokens, vocab.types, strict=True)]
    return replace(vocab, model="bert", tokens=tokens, preparation=_preparation(folder))


def _preparation(folder: Folder) -> dict[str, Value]:
    """What llama.cpp, which makes letters small and takes accents off, is to be told where nothing else tells it.

    vocab.txt says nothing of it, tokenizer_config.json may; a tokenizer.json may lack a normalizer that does either.
    """
    document = folder.object("tokenizer.json")
    if document is not None:
        kinds = {part.get("type") for part in walk(document.get("normalizer"))}
        lowercase, strips = bool(kinds & {"BertNormalizer", "Lowercase"}), None
    else:
        settings = folder.object("tokenizer_config.json") or {}
        lowercase, strips = settings.get("do_lower_case") is not False, settings.get("strip_accents")
    found = {} if lowercase else {"tokenizer.ggml.normalizer.lowercase": values.boolean(False)}
    if isinstance(strips, bool) and strips is not lowercase:
        found["tokenizer.ggml.normalizer.strip_accents"] = values.boolean(strips)
    return found


def _marked(token: str, kind: int) -> str:
    if kind == TokenType.CONTROL:
        return token
    return token[2:] if token.startswith("##") else SPACE_MARK + token
