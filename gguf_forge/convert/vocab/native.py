"""Loaders of vocabularies that come in no Hub format: tiktoken's, Mistral's, RWKV's, and two shipped for want of any.

Knows which keys each writes, in the reference's order. Must not know any family.
"""

from __future__ import annotations

import lzma
from importlib.resources import files

import numpy as np

from gguf_forge.convert.vocab.byte_level import CHAR_OF_BYTE
from gguf_forge.convert.vocab.job import Changes, Keys, VocabJob, loader
from gguf_forge.convert.vocab.load import finish
from gguf_forge.convert.vocab.recognize import is_begun_unasked, recognize
from gguf_forge.convert.vocab.rwkv import VOCAB_FILE as RWKV_FILE
from gguf_forge.convert.vocab.rwkv import read_rwkv
from gguf_forge.convert.vocab.special import FLAG_KEYS, ID_KEYS
from gguf_forge.convert.vocab.tekken import TEKKEN_FILE, MistralVocabulary, read_mistral
from gguf_forge.convert.vocab.templates import template_values
from gguf_forge.convert.vocab.tiktoken import read_tiktoken
from gguf_forge.convert.vocab.tokens import MAX_VOCAB, SPACE_MARK, TokenType, Vocabulary
from gguf_forge.errors import ConversionError
from gguf_forge.format import values
from gguf_forge.format.layout import ValueType


def shipped(name: str) -> str:
    """A text that comes with this package: a template, for models that are published without one (see data/)."""
    return (files("gguf_forge.convert.vocab") / "data" / name).read_text(encoding="utf-8")


def read_ranks_vocabulary(job: VocabJob, *, skip: bool = True) -> Vocabulary | None:
    """The tokens of a file of ranks, padded to vocab_size, with the merges that the ranks mean. None if there is none.

    A token that no two of lower rank make has no merge; unless `skip`, it is an error.
    """
    found = read_tiktoken(job.folder)
    if found is None:
        return None
    merges = found.merges(skip=skip)
    by_id = {rank: found.token(data) for data, rank in found.ranks.items()}
    special = {number: text for text, number in found.special.items()}
    highest = max([*by_id, *special], default=-1)
    size = job.count("vocab_size")
    size = highest + 1 if size is None else size
    if max(by_id, default=-1) >= size or size > MAX_VOCAB:
        raise ConversionError(f"{job.directory}: vocab_size is {size}, but the tokenizer has ids up to {highest}")
    likely = found.known.pre if found.known else None
    opened = found.opened(merges)
    pre = recognize(opened, job.pre, job.note, likely=likely)
    vocab = Vocabulary("gpt2", pre, [], [], merges=merges)
    roles = found.known.roles if found.known else {}
    vocab.ids = {role: found.special[token] for role, token in roles.items()}
    vocab.flags = {} if found.first is None else {"bos": True}
    if job.pre is None and is_begun_unasked(opened, pre):
        vocab.flags = {"bos": False}
    for number in range(size):
        if number in special:
            vocab.put(number, special[number], TokenType.CONTROL)
        elif number in by_id:
            vocab.put(number, by_id[number], TokenType.NORMAL)
        else:
            vocab.put(number, f"[PAD{number}]", TokenType.UNUSED)
    return vocab


@loader
def tiktoken(job: VocabJob) -> Keys | None:
    """A file of ranks: *.tiktoken, tiktoken.model, or a tokenizer.model that is one."""
    vocab = read_ranks_vocabulary(job)
    return None if vocab is None else finish(job, vocab, limited=False)


@loader
def qwen_tiktoken(job: VocabJob) -> Keys | None:
    """As `tiktoken`, of models in which one token ends, begins and stands for the unknown where no file says more."""
    vocab = read_ranks_vocabulary(job, skip=False)
    if vocab is None:
        return None
    bare = not finish(job, vocab, limited=False, only_special=True).keys() & set(ID_KEYS.values())
    roles = ("bos", "eos", "unk") if bare else ("unk",)
    return finish(job, vocab, limited=False, fill=dict.fromkeys(roles, "<|endoftext|>"))


@loader
def mistral(job: VocabJob) -> Keys | None:
    """Mistral's own files: tekken.json, or tokenizer.model with a version after its name."""
    found = read_mistral(job.folder)
    return None if found is None else _mistral_keys(job, found)


@loader
def tekken_only(job: VocabJob) -> Changes | None:
    """Mistral's own files where the folder is in its own format, or has tekken.json and no tokenizer.json."""
    bare = job.folder.has(TEKKEN_FILE) and not job.folder.has("tokenizer.json")
    return mistral(job) if job.native or bare else None


def _mistral_keys(job: VocabJob, found: MistralVocabulary) -> Keys:
    vocab = found.vocabulary
    written = vocab.values()
    keys: Keys = {"tokenizer.ggml.model": written["tokenizer.ggml.model"]}
    if vocab.merges is not None:
        keys["tokenizer.ggml.pre"] = written["tokenizer.ggml.pre"]
        keys["tokenizer.ggml.merges"] = values.strings(vocab.merges)
    for role, number in found.ids.items():
        keys[ID_KEYS[role]] = values.u32(number)
    for name in ("tokens", "scores", "token_type"):
        keys[f"tokenizer.ggml.{name}"] = written[f"tokenizer.ggml.{name}"]
    if found.tekken:  # its tokens have none: the reference writes whole zeros
        keys["tokenizer.ggml.scores"] = values.array(ValueType.INT32, np.zeros(len(vocab.tokens), np.int32))
    keys[f"{job.architecture}.vocab_size"] = values.u32(len(vocab.tokens))
    keys[FLAG_KEYS["bos"]] = values.boolean(True)
    keys[FLAG_KEYS["eos"]] = values.boolean(False)
    template = job.folder.text("chat_template.jinja") if job.native else None
    if template is None and (job.community_template or not job.native):
        template = _community_template(job, found)
    return keys if template is None else {**keys, **template_values(template)}


_COMMUNITY = {
    ("v1", False): "mistral-v1",
    ("v1", True): "mistral-v1",
    ("v3", False): "mistral-v3",
    ("v3", True): "mistral-v3-tekken",
    ("v7", False): "mistral-v7",
    ("v7", True): "mistral-v7-tekken",
}
"""llama.cpp's names for the templates it has built in, by version and whether the vocabulary is tekken.json's."""

_COMMUNITY_FILES = {"v11": "mistral-v11.jinja", "v13": "mistral-v13.jinja"}


def _community_template(job: VocabJob, found: MistralVocabulary) -> str:
    if found.version in _COMMUNITY_FILES:
        return shipped(_COMMUNITY_FILES[found.version])
    if (found.version, found.tekken) in _COMMUNITY:
        return _COMMUNITY[found.version, found.tekken]
    raise ConversionError(
        f"{job.directory}: no chat template is known for a tokenizer of version {found.version}: add "
        "chat_template.jinja, or leave the template out with --disable-mistral-community-chat-template"
    )


@loader
def rwkv_world(job: VocabJob) -> Keys | None:
    """RWKV's World vocabulary. Its token of two line feeds ends a turn, token 0 begins and ends a text."""
    if not job.folder.has(RWKV_FILE):
        return None
    size = job.count("vocab_size")
    vocab = read_rwkv(job.folder, 65536 if size is None else size)
    keys = finish(job, vocab, limited=False, fill={"eot": 261}, force={"bos": 0, "eos": 0})
    if not any(key.startswith("tokenizer.chat_template") for key in keys):
        keys.update(template_values(shipped("rwkv-world.jinja")))
    return keys


def _shipped_lines(name: str) -> list[str]:
    packed = (files("gguf_forge.convert.vocab") / "data" / f"{name}.txt.xz").read_bytes()
    return lzma.decompress(packed).decode().split("\n")


@loader
def llama_default(job: VocabJob) -> Keys:
    """Llama 2's vocabulary, for models that are published without any and were trained with it.

    Three special tokens and 256 bytes, then the pieces in the order of their merges, which is minus their score; runs
    of spaces come after all others.
    """
    vocab = Vocabulary("llama", "default", [], [], scores=[])
    for token, kind in (("<unk>", TokenType.UNKNOWN), ("<s>", TokenType.CONTROL), ("</s>", TokenType.CONTROL)):
        vocab.put(len(vocab.tokens), token, kind, 0.0)
    for byte in range(256):
        vocab.put(len(vocab.tokens), f"<0x{byte:02X}>", TokenType.BYTE, 0.0)
    for rank, piece in enumerate(_shipped_lines("llama-pieces")):
        score = -rank if piece.strip(SPACE_MARK) else -1e9
        vocab.put(len(vocab.tokens), piece, TokenType.NORMAL, float(score))
    size = job.count("vocab_size")
    if size is not None and size != len(vocab.tokens):
        raise ConversionError(
            f"{job.directory}: no tokenizer files, and vocab_size {size} is not that of Llama 2's vocabulary, 32000"
        )
    job.note("no tokenizer files: Llama 2's vocabulary is written")
    ids = {ID_KEYS[role]: values.u32(number) for role, number in (("bos", 1), ("eos", 2), ("unk", 0))}
    flags = {FLAG_KEYS[role]: values.boolean(value) for role, value in (("bos", True), ("eos", False))}
    return {**vocab.values(), **ids, **flags}


@loader
def gpt_neox_default(job: VocabJob) -> Keys:
    """GPT-NeoX-20B's vocabulary, for models that are published without any and were trained with it.

    Its tokens follow from its merges: two special ones, the bytes that occur in UTF-8, what each merge makes, and runs
    of 24 to 2 spaces.
    """
    merges = _shipped_lines("gpt-neox-merges")
    vocab = Vocabulary("gpt2", "mpt", [], [], merges=merges)
    in_utf8 = [char for byte, char in enumerate(CHAR_OF_BYTE) if byte not in (0xC0, 0xC1) and byte < 0xF5]
    for kind, tokens in (
        (TokenType.CONTROL, ["<|endoftext|>", "<|padding|>"]),
        (TokenType.NORMAL, [*sorted(in_utf8), *(merge.replace(" ", "") for merge in merges)]),
        (TokenType.USER_DEFINED, [" " * count for count in range(24, 1, -1)]),
    ):
        for token in tokens:
            vocab.put(len(vocab.tokens), token, kind)
    size = job.count("vocab_size")
    size = len(vocab.tokens) if size is None else size
    if size > MAX_VOCAB:
        raise ConversionError(f"{job.directory}: vocab_size {size} is more than {MAX_VOCAB}")
    for number in range(len(vocab.tokens), size):
        vocab.put(number, f"[PAD{number}]", TokenType.USER_DEFINED)
    del vocab.tokens[size:], vocab.types[size:]
    job.note("no tokenizer files: GPT-NeoX-20B's vocabulary is written")
    ids = {ID_KEYS[role]: values.u32(0) for role in ("bos", "eos", "unk")}
    return {**vocab.values(), "tokenizer.ggml.merges": values.strings(merges), **ids}
