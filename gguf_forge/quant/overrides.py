"""Types the user names for some tensors: `REGEX=TYPE`, on the command line or in a file. Knows no recipes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gguf_forge.errors import RecipeError, UnsupportedError
from gguf_forge.types import TensorType, tensor_type


@dataclass(frozen=True)
class Override:
    """Tensors whose name contains a match of `pattern` get `type`; where several overrides match, the first counts."""

    pattern: re.Pattern[str]
    type: TensorType

    def matches(self, name: str) -> bool:
        """Whether the pattern occurs in a tensor's name."""
        return self.pattern.search(name) is not None


def parse_override(text: str, place: str = "tensor type") -> Override:
    """`attn_v=Q8_0` or `blk.[0-3].ffn_down=q6_k`: a pattern, lowered as GGUF names are, and a type in any case.

    `place` is named in errors. Raises RecipeError for a missing part, a bad pattern or an unknown type.
    """
    pattern, equals, type_name = text.partition("=")
    if not equals:
        raise RecipeError(f"{place}: {text!r} has no '='; expected REGEX=TYPE")
    if not pattern:
        raise RecipeError(f"{place}: {text!r} names no tensor before '='")
    if not type_name:
        raise RecipeError(f"{place}: {text!r} names no type after '='")
    try:
        chosen = tensor_type(type_name)
    except UnsupportedError as error:
        raise RecipeError(f"{place}: {text!r}: {error}") from None
    try:
        # llama-quantize lowers the pattern; escapes such as \D change meaning with it, there and here.
        return Override(re.compile(pattern.lower()), chosen)
    except re.error as error:
        raise RecipeError(f"{place}: pattern {pattern!r} is not a regular expression: {error}") from None


#: The largest file of overrides read, in bytes: a line for every tensor of the largest models is under 1 MiB.
MAX_FILE_BYTES = 16 * 2**20


def read_overrides(path: str | Path) -> list[Override]:
    """The overrides in a text file, separated by spaces or new lines, in order.

    Raises RecipeError that names the file and line.
    """
    try:
        if Path(path).stat().st_size > MAX_FILE_BYTES:
            raise RecipeError(f"{path}: more than {MAX_FILE_BYTES} bytes of tensor types")
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text at byte {error.start}") from None
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from None
    return [
        parse_override(word, f"{path}:{number}")
        for number, line in enumerate(text.splitlines(), 1)
        for word in line.split()
    ]
