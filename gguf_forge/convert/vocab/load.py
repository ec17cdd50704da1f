"""Puts a checkpoint's vocabulary together: which files count, and which keys a family adds.

Knows the steps by name. Must not know how any file is read.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_forge.convert.vocab.bpe import is_llama_hf, load_bpe, load_llama_hf
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.sentencepiece import MODEL_FILE, load_spm, load_spm_phi3
from gguf_forge.convert.vocab.special import read_special
from gguf_forge.convert.vocab.tokens import Vocabulary
from gguf_forge.convert.vocab.wordpiece import load_wordpiece
from gguf_forge.errors import ConversionError
from gguf_forge.format import values
from gguf_forge.format.values import Value

_log = logging.getLogger(__name__)

LLAMA = ("config_space_prefix", "spm", "llama_hf", "bpe", "codellama_infill", "granite_bos")
QWEN = ("spm", "bpe")
GEMMA = ("spm", "gemma_infill", "no_space_prefix")
GEMMA2 = ("spm", "no_space_prefix")
GEMMA3 = ("spm_without_space_prefix", "bpe")
PHI3 = ("phi3_bpe", "phi3_spm")
BPE = ("bpe",)
BERT = ("token_type_count", "wordpiece")

_ADD_SPACE_PREFIX = "tokenizer.ggml.add_space_prefix"


@dataclass(frozen=True)
class _Job:
    folder: Folder
    config: dict[str, Any]
    pre: str | None
    note: Callable[[str], None]

    def count(self, *keys: str) -> int | None:
        """The first of `keys` the config holds. Raises `ConversionError` if it is not a whole number."""
        key = next((key for key in keys if self.config.get(key) is not None), None)
        if key is None:
            return None
        size = self.config[key]
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ConversionError(f"{self.folder.path / 'config.json'}: {key} {size!r:.40} is not a whole number")
        return size


def load_vocab(
    directory: Path,
    config: dict[str, Any],
    kinds: Sequence[str],
    *,
    pre: str | None = None,
    note: Callable[[str], None] = _log.warning,
) -> dict[str, Value]:
    """All tokenizer.* keys of a checkpoint, in the order of the reference converter.

    `config`: the model's hyperparameters (text_config merged in), for vocab_size. `kinds`: names of `LOADERS` and
    `STEPS`: the first loader that finds its files makes the vocabulary, each step adds its keys at its place.
    `pre`: tokenizer.ggml.pre, in place of recognising it. `note` is called with each thing left out or doubtful.

    Raises `ConversionError` if no loader finds its files or the vocabulary contradicts `config`, `CheckpointError`
    for damaged files.
    """
    job = _Job(Folder(directory), config, pre, note)
    result: dict[str, Value] = {}
    loaded = False
    for kind in kinds:
        if kind in STEPS:
            result.update(STEPS[kind](job))
        elif not loaded:
            found = LOADERS[kind](job)
            loaded = found is not None
            result.update(found or {})
    if pre is not None and loaded and result["tokenizer.ggml.pre"].value != pre:
        note(f"--pre {pre} has no effect: a vocabulary of {MODEL_FILE}'s kind has no pre-tokenizer")
    if not loaded:
        raise ConversionError(f"{directory}: no tokenizer.model, tokenizer.json or vocabulary file")
    return result


def _complete(job: _Job, vocab: Vocabulary, *, merges: bool = False, limited: bool = True) -> dict[str, Value]:
    n_vocab = len(vocab.tokens) if limited else None
    special = read_special(job.folder, job.note, merges=merges, n_vocab=n_vocab)
    if merges and not special.merges:
        job.note("the vocabulary has no merges")
    return {**vocab.values(), **special.values()}


def _spm(job: _Job) -> dict[str, Value] | None:
    if not job.folder.has(MODEL_FILE):
        return None
    return _complete(job, load_spm(job.folder, job.count("vocab_size_per_layer_input", "vocab_size"), job.note))


def _spm_without_space_prefix(job: _Job) -> dict[str, Value] | None:
    found = _spm(job)
    return None if found is None else {**found, **_no_space_prefix(job)}


def _llama_hf(job: _Job) -> dict[str, Value] | None:
    return _complete(job, load_llama_hf(job.folder)) if is_llama_hf(job.folder) else None


def _bpe(job: _Job) -> dict[str, Value] | None:
    if not any(job.folder.has(name) for name in ("tokenizer.json", "vocab.json")):
        return None
    vocab = load_bpe(job.folder, job.count("vocab_size"), job.pre, job.note)
    return _complete(job, vocab, merges=True, limited=False)


def _wordpiece(job: _Job) -> dict[str, Value] | None:
    if not any(job.folder.has(name) for name in ("tokenizer.json", "vocab.txt")):
        return None
    return _complete(job, load_wordpiece(job.folder, job.count("vocab_size"), job.pre, job.note))


def _phi3_bpe(job: _Job) -> dict[str, Value] | None:
    """Phi-4 has Phi-3's architecture and a byte-level vocabulary."""
    settings = job.folder.object("tokenizer_config.json") or {}
    return _bpe(job) if settings.get("tokenizer_class") == "GPT2Tokenizer" else None


def _phi3_spm(job: _Job) -> dict[str, Value] | None:
    if not job.folder.has(MODEL_FILE):
        return None
    return _complete(job, load_spm_phi3(job.folder, job.count("vocab_size"), job.note))


LOADERS: dict[str, Callable[[_Job], dict[str, Value] | None]] = {
    "spm": _spm,
    "spm_without_space_prefix": _spm_without_space_prefix,
    "llama_hf": _llama_hf,
    "bpe": _bpe,
    "wordpiece": _wordpiece,
    "phi3_bpe": _phi3_bpe,
    "phi3_spm": _phi3_spm,
}
"""Each returns None if its files are not there."""


def _config_space_prefix(job: _Job) -> dict[str, Value]:
    wanted = (job.folder.object("tokenizer_config.json") or {}).get("add_prefix_space")
    return {} if wanted is None else {_ADD_SPACE_PREFIX: values.boolean(bool(wanted))}


def _no_space_prefix(_: _Job) -> dict[str, Value]:
    return {_ADD_SPACE_PREFIX: values.boolean(False)}


def _infill(job: _Job, eot: int, *, template: bool) -> dict[str, Value]:
    """The end-of-infill token. Its companions (prefix, suffix, middle) have no key any more."""
    roles = ("prefix", "suffix", "middle", "fsep", "eot")
    special = read_special(job.folder, job.note, roles=roles)
    special.ids.setdefault("eot", eot)
    if not template:
        special.template = None
    return special.values()


def _codellama_infill(job: _Job) -> dict[str, Value]:
    return _infill(job, 32010, template=True) if job.config.get("vocab_size", 32000) == 32016 else {}


def _gemma_infill(job: _Job) -> dict[str, Value]:
    return _infill(job, 107, template=False)


def _granite_bos(job: _Job) -> dict[str, Value]:
    """Granite's small models share Llama's architecture and want no BOS."""
    if job.config.get("vocab_size", 32000) != 49152:
        return {}
    return {"tokenizer.ggml.add_bos_token": values.boolean(False)}


def _token_type_count(job: _Job) -> dict[str, Value]:
    count = job.count("type_vocab_size")
    return {"tokenizer.ggml.token_type_count": values.u32(1 if count is None else count)}


STEPS: dict[str, Callable[[_Job], dict[str, Value]]] = {
    "config_space_prefix": _config_space_prefix,
    "no_space_prefix": _no_space_prefix,
    "codellama_infill": _codellama_infill,
    "gemma_infill": _gemma_infill,
    "granite_bos": _granite_bos,
    "token_type_count": _token_type_count,
}
"""Each adds the keys of one family, or none."""
