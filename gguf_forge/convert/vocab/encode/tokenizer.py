"""A whole tokenizer from tokenizer.* keys: special tokens, the flags that wrap a text, and the kind's own encoder.

Knows llama.cpp's defaults for keys that are missing. Must not know how any kind encodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gguf_forge.convert.vocab.cuts import CUT_OF
from gguf_forge.convert.vocab.encode.dna import DNAEncoder
from gguf_forge.convert.vocab.encode.fragments import cut_at_tokens
from gguf_forge.convert.vocab.encode.matching import LongestEncoder, WordPieceEncoder
from gguf_forge.convert.vocab.encode.merging import RankedEncoder, ScoredEncoder
from gguf_forge.convert.vocab.encode.unigram import UnigramEncoder
from gguf_forge.convert.vocab.encode.words import Words
from gguf_forge.convert.vocab.tokens import SPACE_MARK, TokenType
from gguf_forge.errors import UnsupportedError

KINDS = ("gpt2", "gemma4", "whitespace", "hybriddna", "llama", "t5", "bert", "rwkv")
"""The values of tokenizer.ggml.model that can be read."""

_BYTE_PAIR = ("gpt2", "gemma4", "whitespace", "hybriddna")
_SPECIAL = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
_DEFAULT_IDS = {
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "t5": {"eos": 1, "unknown": 2},
    "bert": {"bos": 101, "seperator": 102, "unknown": 100},
}
_DEFAULT_FLAGS = {"llama": (True, False), "bert": (True, False), "t5": (False, True)}
"""add_bos_token and add_eos_token by model, where the file has none; llama-bpe's names add a BOS, others do not."""


class Encoder(Protocol):
    """What a kind makes of text."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without special tokens."""


class GGUFTokenizer:
    """The tokenizer that `metadata` describes: plain values by key, as a GGUF file's tokenizer.* keys.

    Raises `UnsupportedError` for a tokenizer.ggml.model or tokenizer.ggml.pre that cannot be read.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._keys = metadata
        self.model = str(metadata.get("tokenizer.ggml.model", ""))
        if self.model not in KINDS:
            raise UnsupportedError(f"tokenizer.ggml.model {self.model!r}: texts can be encoded for {', '.join(KINDS)}")
        tokens = list(metadata.get("tokenizer.ggml.tokens", ()))
        types = [int(kind) for kind in metadata.get("tokenizer.ggml.token_type", [TokenType.NORMAL] * len(tokens))]
        scores = [float(score) for score in metadata.get("tokenizer.ggml.scores", [0.0] * len(tokens))]
        self.words = Words(tokens, types, scores, self._special_id("unknown"))
        special = [(tokens[number], number) for number in self.words.of_type(*_SPECIAL)]
        self._special = sorted(special, key=lambda pair: -len(pair[0].encode()))
        self._swallowing = self._swallowing_ids()
        self._prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", self.model in ("llama", "t5")))
        self._encoder = self._make_encoder()

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of a text, in which special tokens may be spelled out; `special`: wrapped as the flags say."""
        ids: list[int] = []
        marked = True
        for fragment in cut_at_tokens(text, self._special, self._swallowing):
            if isinstance(fragment, int):
                ids.append(fragment)
            elif self.model == "llama":
                spaced = " " + fragment if self._prefix and marked else fragment
                ids += self._encoder.encode(spaced.replace(" ", SPACE_MARK))
            else:
                ids += self._encoder.encode(fragment)
            marked = isinstance(fragment, int)
        return self._wrapped(ids) if special else ids

    def _wrapped(self, ids: list[int]) -> list[int]:
        first, last = self._flags()
        before, after = self._special_id("bos"), self._special_id("eos")
        if self.model == "bert":  # llama.cpp asks no flags: a text stands between BOS and separator
            first = last = True
            after = self._special_id("seperator")
        elif self.model == "rwkv":
            first = last = False
        ids = [before, *ids] if first and before is not None else ids
        return [*ids, after] if last and after is not None else ids

    def _flags(self) -> tuple[bool, bool]:
        bos, eos = _DEFAULT_FLAGS.get(self.model, (False, False))
        if self.model == "gpt2" and str(self._keys.get("tokenizer.ggml.pre")) in _ADDING_BOS:
            bos = True
        return (
            bool(self._keys.get("tokenizer.ggml.add_bos_token", bos)),
            bool(self._keys.get("tokenizer.ggml.add_eos_token", eos)),
        )

    def _special_id(self, role: str) -> int | None:
        number = self._keys.get(f"tokenizer.ggml.{role}_token_id", _DEFAULT_IDS.get(self.model, {}).get(role))
        return None if number is None else int(number)

    def _swallowing_ids(self) -> frozenset[int]:
        """Phi-3's special tokens, told by the model's name, take the space after them; three do not."""
        name = str(self._keys.get("general.name", "")).lower()
        if "phi-3" not in name and "phi3" not in name:
            return frozenset()
        kept = ("<unk>", "<s>", "<|endoftext|>")
        return frozenset(number for text, number in self._special if text not in kept)

    def _make_encoder(self) -> Encoder:
        keys = self._keys
        if self.model in _BYTE_PAIR:
            pre = "gemma4" if self.model == "gemma4" else str(keys.get("tokenizer.ggml.pre", "default"))
            if pre not in CUT_OF:
                raise UnsupportedError(f"tokenizer.ggml.pre {pre!r}: not a name llama.cpp knows")
            ranked = RankedEncoder(self.words, list(keys.get("tokenizer.ggml.merges", ())), CUT_OF[pre])
            return DNAEncoder(self.words, ranked) if self.model == "hybriddna" else ranked
        if self.model == "llama":
            return ScoredEncoder(self.words)
        if self.model == "t5":
            charsmap = bytes(int(byte) for byte in keys.get("tokenizer.ggml.precompiled_charsmap", ()))
            squeeze = bool(keys.get("tokenizer.ggml.remove_extra_whitespaces", False))
            return UnigramEncoder(self.words, charsmap, prefix=self._prefix, squeeze=squeeze)
        if self.model == "bert":
            lowercase = bool(keys.get("tokenizer.ggml.normalizer.lowercase", True))
            strip = keys.get("tokenizer.ggml.normalizer.strip_accents")
            strips = lowercase if strip is None else bool(strip)
            return WordPieceEncoder(self.words, lowercase=lowercase, strip_accents=strips)
        return LongestEncoder(self.words)


_ADDING_BOS = frozenset((*CUT_OF["llama-bpe"].names, "tekken", "chameleon"))
