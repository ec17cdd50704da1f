"""Loaders several families share, and the readers they are made of: which files mean which kind of vocabulary.

Knows file names. Must not know any file's format, or any family.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gguf_forge.convert.vocab.bpe import holds_bpe, is_llama_hf, load_bpe, load_llama_hf
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.job import Changes, Keys, Loader, Part, VocabJob, loader, together
from gguf_forge.convert.vocab.load import Roles, finish
from gguf_forge.convert.vocab.protobuf import BPE, read_piece_model
from gguf_forge.convert.vocab.ranks import is_ranks
from gguf_forge.convert.vocab.sentencepiece import MODEL_FILE, open_pieces
from gguf_forge.convert.vocab.special import ROLES
from gguf_forge.convert.vocab.spm import load_spm
from gguf_forge.convert.vocab.spm_json import JSON_FILE
from gguf_forge.convert.vocab.steps import type_count
from gguf_forge.convert.vocab.tokens import AS_MARKED, BY_LOOKS, Vocabulary
from gguf_forge.convert.vocab.unigram import is_unigram_json, read_unigram, read_xlmr_file, read_xlmr_json
from gguf_forge.convert.vocab.wordpiece import load_wordpiece
from gguf_forge.errors import ConversionError
from gguf_forge.format import values

Edit = Callable[[VocabJob, Vocabulary], Vocabulary]
"""A change of a vocabulary before it is written."""

T5_FILE = "spiece.model"
XLMR_FILE = "sentencepiece.bpe.model"


def read_spm(job: VocabJob, *sizes: str) -> Vocabulary | None:
    """The tokens of tokenizer.model, or of a tokenizer.json of its kind, and of the files that add to them.

    Padded to the first of `sizes` in the config. None if there is neither.
    """
    count = job.count(*(sizes or ("vocab_size_per_layer_input", "vocab_size")))
    return load_spm(job.folder, count, BY_LOOKS, job.note)


def read_pieces(job: VocabJob, file: str = MODEL_FILE, *, size: int | None = None) -> Vocabulary | None:
    """The pieces of a SentencePiece file alone, padded to `size` or vocab_size; None if there is no such file."""
    if not job.folder.has(file) or is_ranks(job.directory / file):
        return None
    return open_pieces(job.folder, job.count("vocab_size") if size is None else size, job.note, file)


def read_bpe(job: VocabJob, *, as_flagged: bool = False) -> Vocabulary | None:
    """The tokens of tokenizer.json or vocab.json, padded to vocab_size, with the pre-tokenizer's name.

    `as_flagged`: added tokens are what their flags say and stand as they are written, whatever they look like.
    """
    if not any(job.folder.has(name) for name in ("tokenizer.json", "vocab.json")):
        return None
    return load_bpe(job.folder, job.count("vocab_size"), job.pre, job.note, as_flagged=as_flagged)


def read_llama_hf(job: VocabJob) -> Vocabulary | None:
    """The tokens of a vocabulary of SentencePiece's kind in tokenizer.json, all of one score.

    For models of llama.cpp that have the merges themselves; `llama_hf` is for those that go by scores.
    """
    return load_llama_hf(job.folder) if is_llama_hf(job.folder) else None


def spm_with(*sizes: str, edit: Edit | None = None, fill: Roles | None = None, force: Roles | None = None) -> Loader:
    """As `spm`, padded to the first of `sizes` that the config holds; see `bpe_with`."""

    def spm_edited(job: VocabJob) -> Changes | None:
        vocab = read_spm(job, *sizes)
        if vocab is None:
            return None
        return finish(job, edit(job, vocab) if edit else vocab, fill=fill, force=force)

    return Loader(spm_edited)


def bpe_with(
    *,
    edit: Edit | None = None,
    fill: Roles | None = None,
    force: Roles | None = None,
    roles: Sequence[str] = ROLES,
    as_flagged: bool = False,
) -> Loader:
    """As `bpe`, where `edit` changes the vocabulary before it is written.

    `fill` has the special tokens that no file names, `force` those that files name wrongly: ids, or tokens. `roles`
    are those looked for; see `read_bpe` for `as_flagged`.
    """

    def bpe_edited(job: VocabJob) -> Changes | None:
        if not holds_bpe(job.folder):
            return spm_with(edit=edit, fill=fill, force=force)(job)
        vocab = read_bpe(job, as_flagged=as_flagged)
        if vocab is None:
            return None
        vocab = edit(job, vocab) if edit else vocab
        return finish(job, vocab, merges=True, limited=False, roles=roles, fill=fill, force=force)

    return Loader(bpe_edited)


spm = spm_with()
"""tokenizer.model, a SentencePiece file, or a tokenizer.json of its kind."""

bpe = bpe_with()
"""A byte-level vocabulary in tokenizer.json, or in vocab.json and merges.txt; one of SentencePiece's kind is `spm`."""


@loader
def llama_hf(job: VocabJob) -> Keys | None:
    """A vocabulary of SentencePiece's kind in tokenizer.json, whatever tokenizer.model may be there."""
    vocab = load_spm(job.folder, job.count("vocab_size"), BY_LOOKS, job.note, file=JSON_FILE)
    return None if vocab is None else finish(job, vocab)


@loader
def wordpiece(job: VocabJob) -> Keys | None:
    """BERT's kind, in tokenizer.json or vocab.txt."""
    if not any(job.folder.has(name) for name in ("tokenizer.json", "vocab.txt")):
        return None
    return finish(job, load_wordpiece(job.folder, job.count("vocab_size"), job.pre, job.note))


@loader
def whitespace(job: VocabJob) -> Keys | None:
    """Whole words between white space, of a tokenizer.json that cuts there and nowhere else."""
    cut = (job.folder.object("tokenizer.json") or {}).get("pre_tokenizer") or {}
    if cut.get("type") != "Whitespace":
        return None
    vocab = read_bpe(job.but(pre=job.pre or "whitespace"))
    if vocab is None:
        return None
    vocab.model = "whitespace"
    return finish(job, vocab, merges=True, limited=False)


@loader
def phi3_spm(job: VocabJob) -> Keys | None:
    """As `spm`, where added tokens are what they are marked as, whatever they look like."""
    vocab = load_spm(job.folder, job.count("vocab_size"), AS_MARKED, job.note)
    return None if vocab is None else finish(job, vocab)


@loader
def t5(job: VocabJob) -> Changes | None:
    """T5's Unigram vocabulary in tokenizer.model, spiece.model or tokenizer.json; a BPE one, as Pile-T5's, is `spm`."""
    file = next((name for name in (MODEL_FILE, T5_FILE) if job.folder.has(name)), None)
    if file is None:
        return spm(job) if is_unigram_json(job.folder) else None
    if file == MODEL_FILE and read_piece_model(job.directory / file).kind == BPE:
        return spm(job)
    unigram = read_unigram(job, file)
    return {**unigram.values(), **finish(job, unigram.vocabulary, only_special=True)}


@loader
def xlm_roberta(job: VocabJob) -> Keys | None:
    """XLM-RoBERTa's Unigram vocabulary, in sentencepiece.bpe.model or tokenizer.json."""
    return xlmr_keys(job)


def xlmr_keys(job: VocabJob, edit: Callable[[Vocabulary], None] = lambda _: None) -> Keys | None:
    """As `xlm_roberta`, with a change of the tokens read from sentencepiece.bpe.model."""
    if job.folder.has(XLMR_FILE):
        unigram = read_xlmr_file(job, XLMR_FILE)
        edit(unigram.vocabulary)
    elif is_unigram_json(job.folder):
        unigram = read_xlmr_json(job)
    else:
        return None
    return {**unigram.values(type_count(job)), **finish(job, unigram.vocabulary, only_special=True)}


@loader
def none(_: VocabJob) -> Keys:
    """A model without a vocabulary: what it reads are not texts."""
    return {"tokenizer.ggml.model": values.string("none")}


def sized(size: Callable[[VocabJob], int | None], *parts: Part) -> Loader:
    """The parts for a model whose embedding has another number of rows than vocab_size says; None leaves it."""
    whole = together(*parts)

    def of_size(job: VocabJob) -> Changes | None:
        rows = size(job)
        return whole(job if rows is None else job.but(config={**job.config, "vocab_size": rows}))

    return Loader(of_size)


def padded(multiple: int | Callable[[VocabJob], int], *parts: Part) -> Loader:
    """The parts for a model whose embedding has vocab_size rounded up to a multiple."""

    def rounded_up(job: VocabJob) -> int | None:
        size = job.count("vocab_size")
        by = multiple if isinstance(multiple, int) else multiple(job)
        return None if size is None else -(-size // by) * by

    return sized(rounded_up, *parts)


def in_target(*parts: Part) -> Loader:
    """The parts in the folder of the model this one drafts for. ConversionError if none was named."""
    whole = together(*parts)

    def of_folder(job: VocabJob) -> Changes | None:
        return whole(job.but(folder=_target(job)[0]))

    return Loader(of_folder)


@loader
def of_target(job: VocabJob) -> Changes | None:
    """The vocabulary of the model this one drafts for, as its family makes it. ConversionError if none was named."""
    folder, parts = _target(job)
    return together(*parts)(job.but(folder=folder, target=None))


def _target(job: VocabJob) -> tuple[Folder, tuple[Part, ...]]:
    if job.target is None:
        raise ConversionError(
            f"{job.directory}: a draft model has the tokenizer of the model it drafts for: name that one's folder with "
            "--target-model-dir"
        )
    return job.target
