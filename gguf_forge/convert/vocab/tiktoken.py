"""Vocabularies of tiktoken's kind: a file of "base64 rank" lines, special tokens and a pattern that stand elsewhere.

Knows what the tokenizer classes that come with such files assume, and how ranks become merges. Must not know families.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from gguf_forge.convert.vocab.added import config_entries, text_of
from gguf_forge.convert.vocab.byte_level import visible
from gguf_forge.convert.vocab.classes import QWEN2_REGEX
from gguf_forge.convert.vocab.cuts import GPT4O_REGEX, KIMI_REGEX, LLAMA3_REGEX
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.hub import HubTokenizer
from gguf_forge.convert.vocab.ranks import Ranks, is_ranks, read_ranks, split
from gguf_forge.convert.vocab.source_text import pattern_of, read_constants, special_tokens_of
from gguf_forge.errors import CheckpointError

_LLAMA3_FIRST = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    *("<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>"),
    *("<|eot_id|>", "<|python_tag|>"),
)


def _numbered(text: str, start: int, stop: int) -> tuple[str, ...]:
    return tuple(text.format(number) for number in range(start, stop))


_LLAMA4_TEXT = "<|text_post_train_reserved_special_token_{}|>"
_LLAMA4_VISION = "<|vision_reserved_special_token_{}|>"
_LLAMA4 = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    *("<|header_start|>", "<|header_end|>", "<|eom|>", "<|eot|>", "<|step|>", *_numbered(_LLAMA4_TEXT, 0, 6)),
    *("<|python_start|>", "<|python_end|>", "<|finetune_right_pad|>", *_numbered(_LLAMA4_TEXT, 8, 69)),
    *("<|image_start|>", "<|image_end|>", *_numbered(_LLAMA4_VISION, 0, 2)),
    *("<|tile_x_separator|>", "<|tile_y_separator|>", *_numbered(_LLAMA4_VISION, 2, 6)),
    *("<|image|>", *_numbered(_LLAMA4_VISION, 6, 7), "<|patch|>", *_numbered(_LLAMA4_VISION, 7, 1048)),
    *_numbered("<|reasoning_reserved_special_token_{}|>", 0, 8),
    *("<|reasoning_thinking_start|>", "<|reasoning_thinking_end|>"),
)


@dataclass(frozen=True)
class TiktokenClass:
    """What a tokenizer class adds to its file: the pattern that cuts words, and the special tokens after the last rank.

    `pre` is llama.cpp's name for the vocabulary, and `roles` has the special tokens that no file names.
    Ids after `special` have names made of `reserved` and the id, `count` special tokens in all.
    """

    pattern: str
    pre: str
    special: tuple[str, ...] = ()
    reserved: str = ""
    count: int = 0
    roles: Mapping[str, str] = field(default_factory=dict)


CLASSES: dict[str, TiktokenClass] = {
    "QWenTokenizer": TiktokenClass(
        QWEN2_REGEX, "qwen2", ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *_numbered("<|extra_{}|>", 0, 205))
    ),
    "HYTokenizer": TiktokenClass(
        QWEN2_REGEX,
        "hunyuan",
        ("<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>", *_numbered("<|extra_{}|>", 0, 205)),
    ),
    "TikTokenTokenizer": TiktokenClass(KIMI_REGEX, "kimi-k2", reserved="<|reserved_token_{}|>", count=256),
    "Arcade100kTokenizer": TiktokenClass(LLAMA3_REGEX, "stablelm2", ("<|endoftext|>",)),
    "llama 3": TiktokenClass(
        LLAMA3_REGEX,
        "llama-bpe",
        (*_LLAMA3_FIRST, *_numbered("<|reserved_special_token_{}|>", 2, 247)),
        roles={"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>", "eot": "<|eot_id|>", "eom": "<|eom_id|>"},
    ),
    "llama 4": TiktokenClass(
        GPT4O_REGEX,
        "llama4",
        (*_LLAMA4, *_numbered("<|reserved_special_token_{}|>", 0, 2048 - len(_LLAMA4))),
        roles={"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>", "eot": "<|eot|>", "eom": "<|eom|>"},
    ),
}
"""By the class tokenizer_config.json names; Meta's own files, which come without one, by the number of their ranks."""

_BY_RANKS = {128000: "llama 3", 200000: "llama 4"}


@dataclass
class TiktokenFile:
    """A file of ranks with what belongs to it. `special` has the ids of tokens that no text spells out.

    `known`: the class it is of, if that is a known one.
    """

    ranks: Ranks
    special: dict[str, int]
    pattern: str | None
    known: TiktokenClass | None = None

    @property
    def first(self) -> str | None:
        """The special token that a text begins with."""
        return self.known.roles.get("bos") if self.known else None

    def token(self, data: bytes) -> str:
        """A token's bytes as byte-level vocabularies write them."""
        return visible(data)

    def merges(self, *, skip: bool = False) -> list[str]:
        """For each token in the order of ranks the pair it is merged of.

        A token that no pair of lower ranks makes is an error, unless `skip` passes it over.
        """
        result = []
        for token in self.ranks:
            if len(token) == 1:
                continue
            parts = split(self.ranks, token)
            if len(parts) == 2:
                result.append(f"{visible(parts[0])} {visible(parts[1])}")
            elif not skip:
                raise CheckpointError(f"a file of ranks: no two tokens of lower rank make {token!r:.60}")
        return result

    def opened(self, merges: list[str]) -> HubTokenizer:
        """The same vocabulary as a tokenizer that can be asked."""
        pre: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        if self.pattern is not None:
            cut = {"type": "Split", "pattern": {"Regex": self.pattern}, "behavior": "Isolated", "invert": False}
            pre = {"type": "Sequence", "pretokenizers": [cut, pre]}
        model = {
            "type": "BPE",
            "vocab": {visible(token): rank for token, rank in self.ranks.items()},
            "merges": merges,
            "ignore_merges": True,  # a word that is a token is that token
        }
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        document: dict[str, Any] = {
            "version": "1.0",
            "pre_tokenizer": pre,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": model,
            "added_tokens": [{"id": number, "content": text, **flags} for text, number in self.special.items()],
        }
        definition = {"normalizer": None, "pre_tokenizer": pre, "model": {"type": "BPE", "ignore_merges": True}}
        if self.first is not None:
            opening, text = {"SpecialToken": {"id": self.first, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
            document["post_processor"] = {
                "type": "TemplateProcessing",
                "single": [opening, text],
                "pair": [opening, text, text],
                "special_tokens": {
                    self.first: {"id": self.first, "ids": [self.special[self.first]], "tokens": [self.first]}
                },
            }
        backend = Tokenizer.from_str(json.dumps(document))
        return HubTokenizer(backend, "tiktoken", definition, list(self.special), False)


def find_ranks(folder: Folder) -> Path | None:
    """The folder's file of ranks: *.tiktoken, tiktoken.model, or a tokenizer.model that is such a text."""
    named = sorted(folder.path.glob("*.tiktoken"))
    named += [folder.path / name for name in ("tiktoken.model", "tokenizer.model")]
    return next((path for path in named if path.is_file() and is_ranks(path)), None)


def read_tiktoken(folder: Folder) -> TiktokenFile | None:
    """The folder's file of ranks with special tokens and pattern, or None if there is none.

    Special tokens are those of tokenizer_config.json, then those of the tokenizer's own Python file, which is read and
    not run, or else those its class is known for.
    """
    path = find_ranks(folder)
    if path is None:
        return None
    ranks = read_ranks(path)
    settings = folder.object("tokenizer_config.json") or {}
    constants = read_constants(folder)
    known = CLASSES.get(str(settings.get("tokenizer_class"))) or CLASSES.get(_BY_RANKS.get(len(ranks), ""))
    first = max(ranks.values(), default=-1) + 1
    # A class with reserved names has the others in tokenizer_config.json; lists in its file are something else.
    named = [] if known and known.reserved else special_tokens_of(constants)
    special = dict(enumerate(named or (known.special if known else ()), first))
    special.update(_listed(folder, first))
    if known is not None and known.reserved:
        for number in range(first, first + known.count):
            special.setdefault(number, known.reserved.format(number))
    pattern = pattern_of(constants) or (known.pattern if known else None)
    return TiktokenFile(ranks, {text: number for number, text in sorted(special.items())}, pattern, known)


def _listed(folder: Folder, first: int) -> Mapping[int, str]:
    entries = config_entries(folder) or {}
    return {number: text_of(entry) or "" for number, entry in entries.items() if number >= first}
