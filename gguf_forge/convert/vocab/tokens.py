"""The result of reading one vocabulary: pieces, scores, types.

Knows the token types of GGUF. Must not know any file format.
"""

import enum
import re
from dataclasses import dataclass

import numpy as np

from gguf_forge.errors import ConversionError
from gguf_forge.format import values
from gguf_forge.format.layout import ValueType
from gguf_forge.format.values import Value

SPACE_MARK = "\u2581"
"""SentencePiece's visible space."""

SPECIAL_TEXT = re.compile(r"<\|.*\|>|\[[A-Za-z_]+\]|<[a-z_/]+>")
"""What special tokens look like, where a list of texts must be told from any other."""


ADDED_SCORE = -1000.0
"""The score of a token that was added to a vocabulary with scores."""


class TokenType(enum.IntEnum):
    """The numbers stored in tokenizer.ggml.token_type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass
class Vocabulary:
    """Tokens by id. `model` and `pre` are GGUF's names, `pre` None where the kind has no such key.

    `scores` and `merges` are None where the kind has none, or where its merges are read with the special tokens.
    """

    model: str
    pre: str | None
    tokens: list[str]
    types: list[int]
    scores: list[float] | None = None
    merges: list[str] | None = None

    def put(self, number: int, token: str, kind: TokenType, score: float = ADDED_SCORE) -> None:
        """Another token in an id's place. Beyond the last id it is added there, and nowhere else (IndexError)."""
        if number == len(self.tokens):
            self.tokens.append(token)
            self.types.append(kind)
            if self.scores is not None:
                self.scores.append(score)
            return
        self.tokens[number] = token
        self.types[number] = kind
        if self.scores is not None:
            self.scores[number] = score

    def values(self) -> dict[str, Value]:
        """The tokenizer.ggml.* keys in the order of the reference converter.

        Raises `ConversionError` for an empty vocabulary and for a token that has no UTF-8 form.
        """
        if not self.tokens:
            raise ConversionError("the vocabulary is empty")
        require_utf8("token", self.tokens)
        result = {"tokenizer.ggml.model": values.string(self.model)}
        if self.pre is not None:
            result["tokenizer.ggml.pre"] = values.string(self.pre)
        result["tokenizer.ggml.tokens"] = values.strings(self.tokens)
        if self.scores is not None:
            result["tokenizer.ggml.scores"] = values.array(ValueType.FLOAT32, np.array(self.scores, np.float32))
        result["tokenizer.ggml.token_type"] = values.array(ValueType.INT32, np.array(self.types, np.int32))
        return result


def require_utf8(what: str, texts: list[str]) -> None:
    """Raise `ConversionError` naming the first of `texts` that holds a lone surrogate."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        for number, text in enumerate(texts):
            if any("\ud800" <= char <= "\udfff" for char in text):
                raise ConversionError(f"{what} {number} has no UTF-8 form: {text!r}") from None
        raise


def looks_special(token: str) -> bool:
    """True for texts that models use as control tokens even where the file does not say `special`."""
    return (
        token in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
        or (token.startswith("<|") and token.endswith("|>"))
        or (token.startswith("<\uff5c") and token.endswith("\uff5c>"))  # DeepSeek's fullwidth bars
        or (token.startswith("<unused") and token.endswith(">"))
    )
