"""Unigram vocabularies (T5, XLM-RoBERTa): pieces with scores, and the normalizer's table of characters.

Knows SentencePiece files and tokenizer.json's Unigram section. Must not know families.
"""

from __future__ import annotations

from dataclasses import dataclass

from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.hub import open_tokenizer
from gguf_forge.convert.vocab.job import VocabJob
from gguf_forge.convert.vocab.protobuf import PieceModel, read_piece_model
from gguf_forge.convert.vocab.sentencepiece import open_model, open_pieces, put_added_tokens
from gguf_forge.convert.vocab.spm_json import charsmap_of, joins_spaces
from gguf_forge.convert.vocab.tokens import MAX_VOCAB, TokenType, Vocabulary, padding
from gguf_forge.errors import CheckpointError, ConversionError
from gguf_forge.format import values
from gguf_forge.format.layout import ValueType
from gguf_forge.format.values import Value

_T5_IDS = {"eos": 1, "unk": 2, "pad": 0}
"""What llama.cpp takes for granted of the kind; other ids a file has are written even where nothing else names them."""

_XLMR_FIRST = (
    ("<s>", TokenType.CONTROL),
    ("<pad>", TokenType.CONTROL),
    ("</s>", TokenType.CONTROL),
    ("<unk>", TokenType.UNKNOWN),
)
"""The first ids of fairseq's vocabularies; SentencePiece's own, of <unk>, <s>, </s>, move up by one after them."""


_XLMR_TOKENS = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
"""The special tokens of the tokenizer's class, where tokenizer_config.json names no others."""


@dataclass
class Unigram:
    """A vocabulary with the settings of its normalizer."""

    vocabulary: Vocabulary
    normalizer: PieceModel

    def values(self, *between: tuple[str, Value]) -> dict[str, Value]:
        """The keys in the reference's order; `between` stand after add_space_prefix."""
        result = self.vocabulary.values()
        result["tokenizer.ggml.add_space_prefix"] = values.boolean(self.normalizer.dummy_prefix)
        result.update(between)
        result["tokenizer.ggml.remove_extra_whitespaces"] = values.boolean(self.normalizer.remove_extra_spaces)
        if self.normalizer.charsmap:
            result["tokenizer.ggml.precompiled_charsmap"] = charsmap_value(self.normalizer.charsmap)
        return result


def charsmap_value(charsmap: bytes) -> Value:
    """The normalizer's table as the array of bytes it is stored as."""
    return values.array(ValueType.UINT8, list(charsmap))


def read_unigram(job: VocabJob, file: str) -> Unigram:
    """A Unigram SentencePiece file, padded to vocab_size, with added_tokens.json. ConversionError for another kind."""
    settings = read_piece_model(job.directory / file)
    if settings.kind != 1:
        raise ConversionError(f"{job.directory / file}: expected a Unigram model, found kind {settings.kind}")
    vocab = open_pieces(job.folder, job.count("vocab_size"), job.note, file)
    put_added_tokens(job.folder, vocab, job.note)
    vocab.model = "t5"
    model = open_model(job.directory / file)
    ids = {"eos": int(model.eos_id()), "unk": int(model.unk_id()), "pad": int(model.pad_id())}
    vocab.ids = {role: number for role, number in ids.items() if number not in (-1, _T5_IDS[role])}
    return Unigram(vocab, settings)


def read_xlmr_file(job: VocabJob, file: str) -> Unigram:
    """sentencepiece.bpe.model in the order of fairseq's ids: four of its own first, one id more for each piece."""
    settings = read_piece_model(job.directory / file)
    if settings.kind != 1:
        raise ConversionError(f"{job.directory / file}: expected a Unigram model, found kind {settings.kind}")
    size = max(job.count("vocab_size") or 0, int(open_model(job.directory / file).vocab_size()))
    vocab = open_pieces(job.folder, size, job.note, file)
    assert vocab.scores is not None
    first = len(_XLMR_FIRST)
    vocab.tokens = [text for text, _ in _XLMR_FIRST] + vocab.tokens[3:-1]
    vocab.types = [kind for _, kind in _XLMR_FIRST] + vocab.types[3:-1]
    vocab.scores = [0.0] * first + vocab.scores[3:-1]
    vocab.model = "t5"
    # llama.cpp would else take the ids of T5, and add an end and no beginning.
    vocab.ids = {"bos": 0, "eos": 2, "unk": 3, "sep": 2, "pad": 1}
    vocab.flags = {"bos": True, "eos": True}
    return Unigram(vocab, settings)


def read_xlmr_json(job: VocabJob) -> Unigram:
    """The Unigram section of tokenizer.json. ConversionError if it holds another kind."""
    place = job.directory / "tokenizer.json"
    document = job.folder.object("tokenizer.json") or {}
    model = document.get("model")
    if not isinstance(model, dict) or model.get("type") != "Unigram":
        raise ConversionError(f"{place}: expected a Unigram model")
    tokenizer = open_tokenizer(job.folder)
    added = {token.content: number for number, token in tokenizer.backend.get_added_tokens_decoder().items()}
    unknown = added.get(str(job.settings.get("unk_token")), model.get("unk_id", 3))
    assumed = [text for role, text in _XLMR_TOKENS.items() if f"{role}_token" not in job.settings]
    named = [*tokenizer.special_tokens, *(assumed if tokenizer.class_name == "XLMRobertaTokenizer" else ())]
    special = {tokenizer.backend.token_to_id(text) for text in named}
    count = int(tokenizer.backend.get_vocab_size(with_added_tokens=False))
    size = max(job.count("vocab_size") or 0, count)
    if size > MAX_VOCAB:
        raise ConversionError(f"{job.directory}: vocab_size {size} is more than {MAX_VOCAB}")
    vocab = padding("t5", size)
    try:
        pieces = [(str(text), float(score)) for text, score in model["vocab"]]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{place}: the Unigram vocabulary is not a list of texts and scores") from None
    for number, (text, score) in enumerate(pieces):
        kind = TokenType.USER_DEFINED if number in added.values() else TokenType.NORMAL
        kind = TokenType.CONTROL if number in special else kind
        vocab.put(number, text, TokenType.UNKNOWN if number == unknown else kind, score)
    prefix = bool(job.settings.get("add_prefix_space", True))
    joins = joins_spaces(document) or bool(job.settings.get("clean_up_tokenization_spaces"))
    return Unigram(vocab, PieceModel(1, charsmap_of(document, place), prefix, joins))


def is_unigram_json(folder: Folder) -> bool:
    """Whether tokenizer.json holds a Unigram model."""
    model = (folder.object("tokenizer.json") or {}).get("model")
    return isinstance(model, dict) and model.get("type") == "Unigram"
