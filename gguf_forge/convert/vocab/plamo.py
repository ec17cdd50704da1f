"""PLaMo's vocabulary: tokenizer.jsonl, a list [text, score, type, ...] on each line.

Must not know families.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from gguf_forge.convert.vocab.job import Keys, Loader, VocabJob
from gguf_forge.convert.vocab.special import ID_KEYS
from gguf_forge.convert.vocab.tokens import ADDED_SCORE, MAX_VOCAB, TokenType, Vocabulary
from gguf_forge.errors import CheckpointError, ConversionError
from gguf_forge.format import values

VOCAB_FILE = "tokenizer.jsonl"

_TYPES = {"UNKNOWN": TokenType.UNKNOWN, "CONTROL": TokenType.CONTROL, "BYTE": TokenType.BYTE}


def read_plamo(job: VocabJob, plain: Collection[str] = ()) -> Vocabulary | None:
    """The tokens of tokenizer.jsonl, padded to vocab_size; None if there is no such file. `plain`: NORMAL ones."""
    text = job.folder.text(VOCAB_FILE)
    if text is None:
        return None
    model = "plamo3" if job.settings.get("tokenizer_class") == "Plamo3Tokenizer" else "plamo2"
    vocab = Vocabulary(model, "default", [], [], [])
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            token, score, *more = json.loads(line)
            kind = _type(token, more[0] if more else "NORMAL", plain)
            vocab.put(len(vocab.tokens), token, kind, float(score))
        except (ValueError, TypeError, AttributeError, RecursionError):
            place = job.directory / VOCAB_FILE
            raise CheckpointError(f"{place}: line {number} is not a list of text, score and type") from None
    size = job.count("vocab_size") or 0
    if size > MAX_VOCAB:
        raise ConversionError(f"{job.directory}: vocab_size {size} is more than {MAX_VOCAB}")
    for number in range(size - len(vocab.tokens)):
        vocab.put(len(vocab.tokens), f"[PAD{number + 1}]", TokenType.UNUSED, ADDED_SCORE)
    return vocab


def _type(token: str, kind: str, plain: Collection[str]) -> TokenType:
    if token in plain:
        return TokenType.NORMAL
    if kind in _TYPES:
        return _TYPES[kind]
    return TokenType.CONTROL if token.startswith("<|plamo:") and token.endswith("|>") else TokenType.NORMAL


def token_ids(job: VocabJob, vocab: Vocabulary) -> Keys:
    """The ids of the tokens tokenizer_config.json names. ConversionError for one the vocabulary lacks."""
    result: Keys = {}
    for role in ("bos", "eos", "pad", "sep", "unk"):
        token = job.settings.get(f"{role}_token")
        if token is None:
            continue
        if token not in vocab.tokens:
            raise ConversionError(f"{job.directory}: {role}_token {token!r:.60} is not in {VOCAB_FILE}")
        result[ID_KEYS[role]] = values.u32(vocab.tokens.index(token))
    return result


def plamo_with(eot: str, plain: Collection[str] = ()) -> Loader:
    """tokenizer.jsonl with the special tokens and the flags of tokenizer_config.json; `eot` ends a turn, those of
    `plain` are no marks whatever they look like.
    """

    def plamo(job: VocabJob) -> Keys | None:
        vocab = read_plamo(job, plain)
        if vocab is None:
            return None
        ids = token_ids(job, vocab)
        if eot not in vocab.tokens:
            raise ConversionError(f"{job.directory}: {eot}, which ends a turn, is not in {VOCAB_FILE}")
        ends = {ID_KEYS["eot"]: values.u32(vocab.tokens.index(eot))}
        said = {name: job.settings.get(f"add_{name}_token") for name in ("bos", "eos")}
        flags = {f"tokenizer.ggml.add_{n}_token": values.boolean(v) for n, v in said.items() if isinstance(v, bool)}
        prefix = {"tokenizer.ggml.add_space_prefix": values.boolean(False)}
        return {**vocab.values(), **ids, **ends, **prefix, **flags}

    return Loader(plamo)


plamo = plamo_with("<|plamo:op|>")
#: PLaMo 3's, whose turns end otherwise, and whose marks may be put together of parts.
plamo3 = plamo_with("<|plamo:tag|>", plain=("<|plamo:begin_", "<|plamo:end_", ":plamo|>"))
