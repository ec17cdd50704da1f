"""Vocabularies for text and DNA: byte-level BPE, and words of six bases for what stands between <dna> and </dna>.

Carbon has such a one: its tokenizer class makes the words of DNA, no file lists them. Must not know families.
"""

from __future__ import annotations

import itertools

from gguf_forge.convert.vocab.job import Keys, VocabJob, loader
from gguf_forge.convert.vocab.load import finish
from gguf_forge.convert.vocab.loaders import read_bpe
from gguf_forge.convert.vocab.tokens import MAX_VOCAB, TokenType
from gguf_forge.errors import ConversionError

DNA_TAGS = ("<dna>", "</dna>", "<oov>")
"""What begins and ends DNA, and what stands for six letters that are not all bases."""

DNA_MARK = "\ue000"
"""Ends the words of DNA, which may be words of the text, too. llama.cpp takes it off again."""

DNA_LENGTH = 6
"""llama.cpp's length of a word of DNA."""

_CLASS = "HybridDNATokenizer"
_BASES = "ATCG"
_MULTIPLE = 128


@loader
def hybrid_dna(job: VocabJob) -> Keys | None:
    """A byte-level vocabulary, after which come tags, words of DNA and room up to a multiple of 128."""
    if job.settings.get("tokenizer_class") != _CLASS:
        return None
    size = job.count("vocab_size")
    vocab = read_bpe(job.but(config={**job.config, "vocab_size": None}))
    if vocab is None:
        return None
    length = job.settings.get("k", DNA_LENGTH)
    if length != DNA_LENGTH:
        raise ConversionError(f"{job.directory}: words of DNA have {length} bases, and in llama.cpp {DNA_LENGTH}")
    words = [*DNA_TAGS, *("".join(word) + DNA_MARK for word in itertools.product(_BASES, repeat=DNA_LENGTH))]
    for word in words:
        vocab.put(len(vocab.tokens), word, TokenType.NORMAL)
    for number in range(-len(vocab.tokens) % _MULTIPLE):
        vocab.put(len(vocab.tokens), f"<unused_{number}>", TokenType.NORMAL)
    size = len(vocab.tokens) if size is None else size
    if not len(vocab.tokens) <= size <= MAX_VOCAB:
        raise ConversionError(f"{job.directory}: vocab_size is {size}, but there are {len(vocab.tokens)} tokens")
    for number in range(len(vocab.tokens), size):
        vocab.put(number, f"[PAD{number}]", TokenType.UNUSED)
    vocab.model = "hybriddna"
    return finish(job, vocab, merges=True, limited=False)
