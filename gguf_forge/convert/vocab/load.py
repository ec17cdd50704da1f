"""Puts a family's parts together into all tokenizer.* keys, and a vocabulary together with its special tokens.

Must not know how any file is read, or which files mean which kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.job import Keys, Note, Part, VocabJob, compose, warn
from gguf_forge.convert.vocab.sentencepiece import MODEL_FILE
from gguf_forge.convert.vocab.special import ROLES, read_special
from gguf_forge.convert.vocab.tokens import Vocabulary
from gguf_forge.errors import ConversionError

Roles = Mapping[str, int | str]
"""Special tokens by role: an id, or a token of the vocabulary."""


def load_vocab(
    directory: Path,
    config: Mapping[str, Any],
    parts: Sequence[Part],
    *,
    pre: str | None = None,
    note: Note = warn,
    architecture: str = "",
    native: bool = False,
    community_template: bool = True,
    target: tuple[Path, Sequence[Part]] | None = None,
) -> Keys:
    """All tokenizer.* keys of a checkpoint, in the order of the reference converter.

    `config`: the model's hyperparameters (text_config merged in), for vocab_size. `parts`: a family's loaders, of
    which the first that finds its files makes the vocabulary, and steps, each of which adds its keys at its place.
    `pre`: tokenizer.ggml.pre, in place of recognising it. `note` is called with each thing left out or doubtful.
    `architecture`: general.architecture, under which Mistral's own files have a vocab_size. `native`: the folder is in
    Mistral's own format; `community_template`: a template that others made for it may be written. `target`: the folder
    and the parts of the model that this one drafts for.

    Raises `ConversionError` if no loader finds its files or the vocabulary contradicts `config`, `CheckpointError`
    for damaged files.
    """
    drafted = None if target is None else (Folder(target[0]), tuple(target[1]))
    note = _once(note)
    job = VocabJob(Folder(directory), config, pre, note, architecture, native, community_template, drafted)
    keys = compose(job, parts)
    if keys is None:
        raise ConversionError(f"{directory}: {_missing(job.folder)}")
    for key, value in job.last.items():
        if keys.setdefault(key, value) != value:
            note(f"{key} is {keys[key].value}, though by the tokenizer's own file it would be {value.value}")
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
    fill: Roles | None = None,
    force: Roles | None = None,
    only_special: bool = False,
) -> Keys:
    """The keys of a vocabulary and of the special tokens the files name, as a loader gives them.

    `merges`: with the files' merges; a vocabulary that has its own writes those. `limited`: ids beyond the vocabulary
    are noted and left out. `roles` are the special tokens looked for. `fill` has those of roles no file names,
    `force` those that count whatever the files say: ids, or tokens of this vocabulary.
    `only_special` leaves the vocabulary's own keys out. ConversionError if the vocabulary lacks a token that is named.
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
    for role, number in vocab.ids.items():
        special.ids.setdefault(role, number)
    for role, flag in vocab.flags.items():
        special.flags.setdefault(role, flag)
    job.last.update(vocab.preparation)
    _note_twins(job, vocab)
    return special.values() if only_special else {**vocab.values(), **special.values()}


def _once(note: Note) -> Note:
    """Says each thing once, though several parts read the same files."""
    said: set[str] = set()

    def note_once(text: str) -> None:
        if text not in said:
            said.add(text)
            note(text)

    return note_once


def _note_twins(job: VocabJob, vocab: Vocabulary) -> None:
    """llama.cpp finds a token's id by its text, and ends its process where two have the same."""
    if len(set(vocab.tokens)) == len(vocab.tokens):
        return
    first: dict[str, int] = {}
    for number, text in enumerate(vocab.tokens):
        if text and first.setdefault(text, number) != number:
            job.note(f"tokens {first[text]} and {number} are both {text!r}: llama.cpp does not load such a vocabulary")
            return


def _missing(folder: Folder) -> str:
    if folder.has("tokenizer.json"):
        return "tokenizer.json holds a vocabulary of a kind that this family is not converted with"
    return "no tokenizer.model, tokenizer.json or vocabulary file"


def _id_of(job: VocabJob, vocab: Vocabulary, token: int | str) -> int:
    if isinstance(token, int):
        return token
    if token not in vocab.tokens:
        raise ConversionError(f"{job.directory}: the tokenizer has no token {token!r}, which this family needs")
    return vocab.tokens.index(token)
