"""The result of reading one vocabulary: pieces, scores, types.

Knows the token types of GGUF. Must not know any file format.
"""

import enum
import re
from dataclasses import dataclass, field

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

UNUSED_SCORE = -10000.0
"""The score of an id that no file has a token for."""

MAX_VOCAB = 1 << 24
"""More tokens than any model has; a larger `vocab_size` is a damaged config."""


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
    Where nothing else says otherwise, and llama.cpp would assume something else, there hold `preparation`, keys that
    say how a text is prepared, and by role, as in `special`, `flags` and `ids`.
    """

    model: str
    pre: str | None
    tokens: list[str]
    types: list[int]
    scores: list[float] | None = None
    merges: list[str] | None = None
    preparation: dict[str, Value] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)

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
        """The keys of tokens, scores and types in the order of the reference converter.

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


def padding(model: str, size: int) -> Vocabulary:
    """A vocabulary with scores in which every id is left open: [PADn]."""
    tokens = [f"[PAD{i}]" for i in range(size)]
    return Vocabulary(model, "default", tokens, [TokenType.UNUSED] * size, [UNUSED_SCORE] * size)


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


@dataclass(frozen=True)
class Typing:
    """How a family's added tokens are written.

    `looks`: what looks like a special token is one, and others are written with plain spaces, as a text has them.
    `rewriting`: the files whose tokens the reference writes one after the other, even where the vocabulary has the
    same already, with a score of their own.
    """

    looks: bool
    rewriting: tuple[str, ...]

    def __call__(self, text: str, special: bool) -> tuple[str, TokenType]:
        """The text and type of an added token, of which a file says whether it is special."""
        if special or (self.looks and looks_special(text)):
            return text, TokenType.CONTROL
        return text.replace(SPACE_MARK, " ") if self.looks else text, TokenType.USER_DEFINED


BY_LOOKS = Typing(looks=True, rewriting=("added_tokens.json", "tokenizer_config.json"))
AS_MARKED = Typing(looks=False, rewriting=("added_tokens.json", "tokenizer_config.json", "tokenizer.json"))
