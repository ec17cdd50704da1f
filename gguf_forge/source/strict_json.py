"""JSON from untrusted files, with limits. Knows text and nesting; must not know what the values mean."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from gguf_forge.errors import FormatError, InvalidError, LimitError
from gguf_forge.source.input_file import InputFile

#: Bytes of a JSON file in a checkpoint folder (the largest real tokenizer.json have about 40 MB).
MAX_JSON_BYTES = 256 << 20
#: Levels of nested lists and objects.
MAX_JSON_DEPTH = 64


def parse_json(
    data: bytes, path: Path, field: str | None = None, *, unique: bool = False, infinity: bool = False
) -> Any:
    """The value of a JSON text in UTF-8; `path` and `field` say in errors where it stands.

    `unique` refuses a key given twice in one object, `infinity` lets the word Infinity pass (config files of
    state-space models hold it). Raises FormatError for what is not JSON, InvalidError for NaN, numbers out of range
    and repeated keys, LimitError for nesting the parser cannot follow.
    """

    def constant(word: str) -> float:
        if infinity and word != "NaN":
            return float(word)
        raise InvalidError(f"{word} is not a JSON number", path=path, field=field)

    def real(text: str) -> float:
        value = float(text)
        if math.isinf(value):
            raise InvalidError(f"number {text[:40]} is out of range", path=path, field=field)
        return value

    def whole(text: str) -> int:
        if len(text) > 1000:
            raise InvalidError(f"number of {len(text)} digits is out of range", path=path, field=field)
        return int(text)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            _refuse_repeated(items, path, field)
        return found

    try:
        return json.loads(
            data.decode("utf-8-sig"),
            parse_constant=constant,
            parse_float=real,
            parse_int=whole,
            object_pairs_hook=pairs if unique else None,
        )
    except UnicodeDecodeError as error:
        raise FormatError(f"byte {error.start} of the JSON text is not UTF-8", path=path, field=field) from None
    except json.JSONDecodeError as error:
        raise FormatError(
            f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}", path=path, field=field
        ) from None
    except RecursionError:
        raise LimitError(f"JSON nested deeper than the limit of {MAX_JSON_DEPTH}", path=path, field=field) from None


def _refuse_repeated(items: list[tuple[str, Any]], path: Path, field: str | None) -> NoReturn:
    seen: set[str] = set()
    for key, _ in items:
        if key in seen:
            raise InvalidError(f"key {key[:80]!r} is given twice", path=path, field=field)
        seen.add(key)
    raise AssertionError("called without a repeated key")


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint folder. Raises as `parse_json`, and LimitError for size or depth."""
    with InputFile(path) as file:
        if file.size > MAX_JSON_BYTES:
            raise LimitError(f"{file.size} bytes of JSON exceed the limit of {MAX_JSON_BYTES}", path=path)
        file.refuse_lfs_pointer()
        value = parse_json(file.read(0, file.size), path, infinity=True)
    if not isinstance(value, dict):
        raise FormatError(f"holds a JSON {type(value).__name__}, expected an object", path=path)
    _check_depth(value, path)
    return value


def _check_depth(value: Any, path: Path) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise LimitError(f"JSON nested deeper than the limit of {MAX_JSON_DEPTH}", path=path)
