"""Mistral's own tokenizer files: tekken.json, and SentencePiece files whose name carries a version.

Knows what mistral-common reads out of them. Must not know families.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_forge.convert.vocab.byte_level import visible
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.sentencepiece import open_model, open_pieces
from gguf_forge.convert.vocab.tokens import TokenType, Vocabulary
from gguf_forge.errors import CheckpointError, ConversionError

TEKKEN_FILE = "tekken.json"

_FIRST_SPECIAL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"),
    *("[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
"""The special tokens of files that do not list them, which are those up to version 7."""

_UNLISTED = ("v1", "v2", "v3", "v7")

_SPM_NAME = re.compile(r".*\.model(\.(v\d+)(m\d+)?)?")

_ROLES = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>"}


@dataclass
class MistralVocabulary:
    """A vocabulary, the version of the conversation format it serves, and its special ids.

    Of tekken.json's kind also the bytes of its tokens by rank, and the pattern that cuts words.
    """

    vocabulary: Vocabulary
    version: str
    ids: dict[str, int]
    pattern: str | None = None
    words: tuple[bytes, ...] = ()

    @property
    def tekken(self) -> bool:
        """Whether it is of tekken.json's kind."""
        return self.vocabulary.model == "gpt2"


def find_mistral(folder: Folder) -> str | None:
    """The file mistral-common would take: tekken.json, or else the last by name of the SentencePiece files."""
    if folder.has(TEKKEN_FILE):
        return TEKKEN_FILE
    return max((path.name for path in folder.path.glob("*.model*") if _SPM_NAME.fullmatch(path.name)), default=None)


def read_mistral(folder: Folder) -> MistralVocabulary | None:
    """The vocabulary of Mistral's own file, or None if there is none. CheckpointError for a damaged one."""
    file = find_mistral(folder)
    if file is None:
        return None
    return _read_tekken(folder) if file == TEKKEN_FILE else _read_spm(folder, file)


def _read_spm(folder: Folder, file: str) -> MistralVocabulary:
    vocab = open_pieces(folder, None, lambda _: None, file)
    vocab.pre = None
    model = open_model(folder.path / file)
    ids = {"bos": int(model.bos_id()), "eos": int(model.eos_id()), "unk": int(model.unk_id())}
    pad = int(model.pad_id())
    ids["pad"] = ids["eos"] if pad == -1 else pad
    named = _SPM_NAME.fullmatch(file)
    return MistralVocabulary(vocab, (named and named[2]) or "v1", ids)


def _read_tekken(folder: Folder) -> MistralVocabulary:
    place = folder.path / TEKKEN_FILE
    data = folder.object(TEKKEN_FILE) or {}
    try:
        config = data["config"]
        size, special_count = int(config["default_vocab_size"]), int(config["default_num_special_tokens"])
        version, pattern = str(config["version"]), str(config["pattern"])
        special = _special_tokens(data, special_count, version)
        words = _words(data["vocab"], size - special_count)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise CheckpointError(f"{place}: not a tekken vocabulary: {type(error).__name__} {error}") from None
    tokens = special + [visible(word) for word in words]
    vocab = Vocabulary(
        "gpt2",
        "tekken",
        tokens,
        [int(TokenType.CONTROL)] * len(special) + [int(TokenType.NORMAL)] * len(words),
        [0.0] * len(tokens),
        _merges(words, place),
    )
    missing = [text for text in _ROLES.values() if text not in special]
    if missing:
        raise ConversionError(f"{place}: no special token {missing[0]}")
    ids = {role: special.index(text) for role, text in _ROLES.items()}
    return MistralVocabulary(vocab, version, ids, pattern, tuple(words))


def _special_tokens(data: dict[str, Any], count: int, version: str) -> list[str]:
    listed = data.get("special_tokens")
    if listed is None:
        if version not in _UNLISTED:
            raise ValueError(f"no special_tokens, which files of version {version:.20} list")
        texts = list(_FIRST_SPECIAL)
    else:
        by_rank = {int(entry["rank"]): str(entry["token_str"]) for entry in listed}
        texts = [by_rank[rank] for rank in range(len(listed))]
    if len(texts) > count or len(set(texts)) != len(texts):
        raise ValueError(f"{len(texts)} special tokens, of which {count} are to be different ones")
    return texts + [f"<SPECIAL_{number}>" for number in range(len(texts), count)]


def _words(entries: list[dict[str, Any]], count: int) -> list[bytes]:
    """The bytes of the first `count` tokens by rank, of which the first 256 are the bytes themselves."""
    words = [b""] * count
    for entry in entries:
        if int(entry["rank"]) < count:
            words[int(entry["rank"])] = base64.b64decode(entry["token_bytes"], validate=True)
    if not count >= 256 or b"" in words:
        raise ValueError(f"no token of rank {words.index(b'') if b'' in words else count}, of {count}")
    if words[:256] != [bytes([byte]) for byte in range(256)]:
        raise ValueError("the first 256 tokens are not the bytes in order")
    return words


def _merges(words: list[bytes], place: Path) -> list[str]:
    """For each token all pairs of tokens that make it, those of lower ranks first."""
    rank = {word: number for number, word in enumerate(words)}
    merges = []
    for number, word in enumerate(words[256:], 256):
        halves = [(rank.get(word[:cut]), rank.get(word[cut:])) for cut in range(1, len(word))]
        pairs = sorted((left, right) for left, right in halves if left is not None and right is not None)
        if not pairs:
            raise ConversionError(f"{place}: no two tokens make the one of rank {number}, {word!r:.60}")
        merges += [f"{visible(words[left])} {visible(words[right])}" for left, right in pairs]
    return merges
