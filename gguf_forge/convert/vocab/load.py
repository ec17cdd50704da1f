"""Loaders several families share, and what puts a family's parts together into all tokenizer.* keys.

Knows which files mean which kind. Must not know how any file is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf_forge.convert.vocab.bpe import is_llama_hf, load_bpe, load_llama_hf
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.job import Keys, Note, Part, VocabJob, compose, loader, warn
from gguf_forge.convert.vocab.sentencepiece import MODEL_FILE, load_spm, load_spm_phi3
from gguf_forge.convert.vocab.special import ROLES, read_special
from gguf_forge.convert.vocab.tokens import Vocabulary
from gguf_forge.convert.vocab.wordpiece import load_wordpiece
from gguf_forge.errors import ConversionError


def load_vocab(
    directory: Path,
    config: Mapping[str, Any],
    parts: Sequence[Part],
    *,
    pre: str | None = None,
    note: Note = warn,
) -> Keys:
    """All tokenizer.* keys of a checkpoint, in the order of the reference converter.

    `config`: the model's hyperparameters (text_config merged in), for vocab_size. `parts`: a family's loaders, of
    which the first that finds its files makes the vocabulary, and steps, each of which adds its keys at its place.
    `pre`: tokenizer.ggml.pre, in place of recognising it. `note` is called with each thing left out or doubtful.

    Raises `ConversionError` if no loader finds its files or the vocabulary contradicts `config`, `CheckpointError`
    for damaged files.
    """
    keys = compose(VocabJob(Folder(directory), config, pre, note), parts)
    if keys is None:
        raise ConversionError(f"{directory}: no tokenizer.model, tokenizer.json or vocabulary file")
    written = keys.get("tokenizer.ggml.pre")
    if pre is not None and written is not None and written.value != pre:
        note(f"--pre {pre} has no effect: a vocabulary of {MODEL_FILE}'s kind has no pre-tokenizer")
    return keys


def finish(
    job: VocabJob,
    vocab: Vocabulary,
    *,
    merges: bool = False,
    limited: bool = True,
    roles: Sequence[str] = ROLES,
    fill: Mapping[str, int | str] | None = None,
    force: Mapping[str, int | str] | None = None,
) -> Keys:
    """The keys of a vocabulary and of the special tokens the files name, as a loader gives them.

    `merges`: with the files' merges; a vocabulary that has its own writes those. `limited`: ids beyond the vocabulary
    are noted and left out. `roles` are the special tokens looked for. `fill` has those of roles no file names,
    `force` those that count whatever the files say: ids, or tokens of this vocabulary.
    ConversionError if it lacks one of those.
    """
    special = read_special(
        job.folder, job.note, roles=roles, merges=merges, n_vocab=len(vocab.tokens) if limited else None
    )
    if vocab.merges is not None:
        special.merges = vocab.merges
    if merges and not special.merges:
        job.note("the vocabulary has no merges")
    for role, token in (fill or {}).items():
        special.ids.setdefault(role, _id_of(job, vocab, token))
    for role, token in (force or {}).items():
        special.ids[role] = _id_of(job, vocab, token)
    return {**vocab.values(), **special.values()}


def _id_of(job: VocabJob, vocab: Vocabulary, token: int | str) -> int:
    if isinstance(token, int):
        return token
    if token not in vocab.tokens:
        raise ConversionError(f"{job.directory}: the tokenizer has no token {token!r}, which this family needs")
    return vocab.tokens.index(token)


def read_spm(job: VocabJob, *sizes: str) -> Vocabulary | None:
    """The tokens of tokenizer.model and of the files that add to it, padded to the first of `sizes` in the config."""
    if not job.folder.has(MODEL_FILE):
        return None
    return load_spm(job.folder, job.count(*(sizes or ("vocab_size_per_layer_input", "vocab_size"))), job.note)


def read_bpe(job: VocabJob) -> Vocabulary | None:
    """The tokens of tokenizer.json or vocab.json, padded to vocab_size, with the pre-tokenizer's name."""
    if not any(job.folder.has(name) for name in ("tokenizer.json", "vocab.json")):
        return None
    return load_bpe(job.folder, job.count("vocab_size"), job.pre, job.note)


@loader
def spm(job: VocabJob) -> Keys | None:
    """tokenizer.model, a SentencePiece file."""
    vocab = read_spm(job)
    return None if vocab is None else finish(job, vocab)


@loader
def llama_hf(job: VocabJob) -> Keys | None:
    """A vocabulary of SentencePiece's kind in tokenizer.json."""
    return finish(job, load_llama_hf(job.folder)) if is_llama_hf(job.folder) else None


@loader
def bpe(job: VocabJob) -> Keys | None:
    """A byte-level vocabulary in tokenizer.json, or in vocab.json and merges.txt."""
    vocab = read_bpe(job)
    return None if vocab is None else finish(job, vocab, merges=True, limited=False)


@loader
def wordpiece(job: VocabJob) -> Keys | None:
    """BERT's kind, in tokenizer.json or vocab.txt."""
    if not any(job.folder.has(name) for name in ("tokenizer.json", "vocab.txt")):
        return None
    return finish(job, load_wordpiece(job.folder, job.count("vocab_size"), job.pre, job.note))


@loader
def phi3_spm(job: VocabJob) -> Keys | None:
    """tokenizer.model, to which tokenizer.json adds too."""
    if not job.folder.has(MODEL_FILE):
        return None
    return finish(job, load_spm_phi3(job.folder, job.count("vocab_size"), job.note))


def bpe_with(
    *, fill: Mapping[str, int | str] | None = None, edit: Callable[[Vocabulary], Vocabulary] | None = None
) -> Part:
    """As `bpe`; `fill` names special tokens that the files do not, `edit` changes the vocabulary first."""

    @loader
    def bpe_edited(job: VocabJob) -> Keys | None:
        vocab = read_bpe(job)
        if vocab is None:
            return None
        return finish(job, edit(vocab) if edit else vocab, merges=True, limited=False, fill=fill)

    return bpe_edited
