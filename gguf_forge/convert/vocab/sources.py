"""A checkpoint's tokenizer as its own files define it, to be asked for token ids: the truth a vocabulary is checked by.

Knows which file counts, and how each kind encodes. Must not know GGUF.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gguf_forge.convert.vocab.encode.matching import LongestEncoder
from gguf_forge.convert.vocab.encode.words import Words
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.hub import open_tokenizer
from gguf_forge.convert.vocab.ranks import Ranks
from gguf_forge.convert.vocab.rwkv import VOCAB_FILE as RWKV_FILE
from gguf_forge.convert.vocab.rwkv import read_rwkv
from gguf_forge.convert.vocab.sentencepiece import open_model
from gguf_forge.convert.vocab.tekken import TEKKEN_FILE, find_mistral, read_mistral
from gguf_forge.convert.vocab.tiktoken import TiktokenFile, find_ranks, read_tiktoken

_FAIRSEQ_FILE = "sentencepiece.bpe.model"
_PIECE_FILES = ("tokenizer.model", "spiece.model", _FAIRSEQ_FILE)


@dataclass(frozen=True)
class Source:
    """A tokenizer to ask.

    `file` is where it comes from; `encode(text, special)` gives token ids, `special` with those it puts at the ends;
    `spelled`: special tokens spelled out in a text become those tokens; `wraps`: it knows what a text is wrapped in.
    """

    file: str
    encode: Callable[[str, bool], list[int]]
    spelled: bool = True
    wraps: bool = True


def open_source(folder: Folder, *, native: bool = False) -> Source | None:
    """The tokenizer of a checkpoint, or None if there is none that can be asked.

    `native`: Mistral's own files before those of the Hub's library.
    """
    openers = (_hub, _mistral, _ranks, _pieces, _rwkv, _vocab_files)
    for opener in (_mistral, *openers) if native else openers:
        source = opener(folder)
        if source is not None:
            return source
    return None


def _hub(folder: Folder) -> Source | None:
    if not folder.has("tokenizer.json"):
        return None
    tokenizer = open_tokenizer(folder, as_written=True)
    return Source("tokenizer.json", lambda text, special: tokenizer.encode(text, special=special))


def _vocab_files(folder: Folder) -> Source | None:
    file = next((name for name in ("vocab.json", "vocab.txt") if folder.has(name)), None)
    if file is None:
        return None
    tokenizer = open_tokenizer(folder)
    return Source(file, lambda text, special: tokenizer.encode(text, special=special))


def _mistral(folder: Folder) -> Source | None:
    file = find_mistral(folder)
    found = read_mistral(folder) if file == TEKKEN_FILE else None
    if found is None:
        return None if file is None or file in _PIECE_FILES else _pieces_of(folder, file)
    ranks = {word: number for number, word in enumerate(found.words)}
    first = len(found.vocabulary.tokens) - len(ranks)
    encode = _ranked(ranks, found.pattern)
    return Source(
        TEKKEN_FILE, lambda text, _: [first + number for number in encode(text, False)], spelled=False, wraps=False
    )


def _ranks(folder: Folder) -> Source | None:
    path, found = find_ranks(folder), read_tiktoken(folder)
    if path is None or found is None or found.pattern is None:
        return None
    encode = _ranked(found.ranks, found.pattern)
    if found.first is None:
        return Source(path.name, encode, spelled=False, wraps=False)
    first = [found.special[found.first]]
    return Source(path.name, lambda text, special: [*first, *encode(text, special)][not special :], spelled=False)


def _ranked(ranks: Ranks, pattern: str | None) -> Callable[[str, bool], list[int]]:
    """Encodes by ranks alone, as tiktoken does: no merges are made of them."""
    cutter = TiktokenFile({}, {}, pattern).opened([]).backend.pre_tokenizer.pre_tokenize_str

    def encode(text: str, _: bool) -> list[int]:
        ids: list[int] = []
        for _piece, (start, stop) in cutter(text):
            ids += [ranks[part] for part in _merged(ranks, text[start:stop].encode())]
        return ids

    return encode


def _merged(ranks: Ranks, word: bytes) -> list[bytes]:
    """A word's bytes, merged as long as two neighbours make a token, that of the lowest rank first."""
    if word in ranks:
        return [word]
    parts = [word[i : i + 1] for i in range(len(word))]
    while len(parts) > 1:
        pairs = [(ranks[pair], i) for i in range(len(parts) - 1) if (pair := parts[i] + parts[i + 1]) in ranks]
        if not pairs:
            break
        _, at = min(pairs)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _pieces(folder: Folder) -> Source | None:
    file = next((name for name in _PIECE_FILES if folder.has(name)), None)
    return None if file is None else _pieces_of(folder, file)


def _pieces_of(folder: Folder, file: str) -> Source:
    model: Any = open_model(folder.path / file)
    moved = {0: 3, 1: 0, 2: 2} if file == _FAIRSEQ_FILE else None

    def encode(text: str, _: bool) -> list[int]:
        ids = [int(number) for number in model.encode(text)]
        return ids if moved is None else [moved.get(number, number + 1) for number in ids]

    return Source(file, encode, spelled=False, wraps=False)


def _rwkv(folder: Folder) -> Source | None:
    if not folder.has(RWKV_FILE):
        return None
    vocab = read_rwkv(folder, 1 << 16)
    encoder = LongestEncoder(Words(vocab.tokens, vocab.types, []))
    return Source(RWKV_FILE, lambda text, _: encoder.encode(text), spelled=False, wraps=False)
