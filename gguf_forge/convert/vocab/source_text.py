"""What a tokenizer's own Python file assigns, read as data: its cutting pattern and its special tokens.

A checkpoint that brings `tokenization_*.py` keeps there what tokenizer.json would hold. Nothing in it is run: constants
are followed through names, sums, joins, f-strings and loops over ranges; anything else is passed over.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.tokens import SPECIAL_TEXT

_MAX_ITEMS = 1 << 16
_MAX_TEXT = 1 << 16
"""No pattern or list of special tokens is longer; what a file builds beyond is not followed."""


class _NotConstantError(Exception):
    """An expression that is not made of constants alone."""


def read_constants(folder: Folder) -> dict[str, Any]:
    """The constants of the folder's tokenization_*.py files by the name they are assigned to, the last one counting."""
    found: dict[str, Any] = {}
    for path in sorted(folder.path.glob("tokenization_*.py")):
        text = folder.text(path.name)
        try:
            tree = ast.parse(text or "")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                value, targets = node.value, node.targets
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                value, targets = node.value, [node.target]
            else:
                continue
            try:
                constant = _value(value, found)
            except (_NotConstantError, RecursionError):
                continue
            found.update({target.id: constant for target in targets if isinstance(target, ast.Name)})
    return found


def pattern_of(constants: Mapping[str, Any]) -> str | None:
    """The regular expression that cuts words: the longest constant text with a class of characters in it."""
    texts = [value for value in constants.values() if isinstance(value, str) and "\\p{" in value]
    return max(texts, key=len, default=None)


def special_tokens_of(constants: Mapping[str, Any]) -> list[str]:
    """The special tokens in the order of their ids: the longest constant list of texts that look like some."""
    lists = [_texts(value) for value in constants.values() if isinstance(value, (list, tuple))]
    return max((texts for texts in lists if texts), key=len, default=[])


def _texts(items: list[Any] | tuple[Any, ...]) -> list[str]:
    """The items, or the texts of (number, text) pairs; empty if one is not a text or few look special."""
    texts = [item[1] if isinstance(item, tuple) and len(item) == 2 else item for item in items]
    if not texts or not all(isinstance(text, str) for text in texts) or len(set(texts)) != len(texts):
        return []
    return texts if sum(bool(SPECIAL_TEXT.fullmatch(text)) for text in texts) * 2 > len(texts) else []


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """The constant an expression stands for."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, (ast.Tuple, ast.List)):
        items = [_value(item, names) for item in node.elts]
        return tuple(items) if isinstance(node, ast.Tuple) else items
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _sum(_value(node.left, names), _value(node.right, names))
    if isinstance(node, ast.JoinedStr):
        return _bounded("".join(_formatted(part, names) for part in node.values))
    if isinstance(node, (ast.GeneratorExp, ast.ListComp)):
        return list(_loop(node, names))
    if isinstance(node, ast.Call) and not node.keywords[1:]:
        return _call(node, names)
    raise _NotConstantError


def _sum(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        return _bounded(left + right)
    if isinstance(left, (list, tuple)) and type(left) is type(right):
        return _bounded(type(left)([*left, *right]))
    raise _NotConstantError


def _formatted(part: ast.expr, names: Mapping[str, Any]) -> str:
    if isinstance(part, ast.FormattedValue) and part.format_spec is None:
        return str(_value(part.value, names))
    return str(_value(part, names))


def _loop(node: ast.GeneratorExp | ast.ListComp, names: Mapping[str, Any]) -> Iterator[Any]:
    if len(node.generators) != 1 or node.generators[0].ifs or not isinstance(node.generators[0].target, ast.Name):
        raise _NotConstantError
    for item in _sequence(_value(node.generators[0].iter, names)):
        yield _value(node.elt, {**names, node.generators[0].target.id: item})


def _call(node: ast.Call, names: Mapping[str, Any]) -> Any:
    function = node.func
    if isinstance(function, ast.Attribute) and function.attr == "join" and len(node.args) == 1:
        glue, parts = _value(function.value, names), _sequence(_value(node.args[0], names))
        if isinstance(glue, str) and all(isinstance(part, str) for part in parts):
            return _bounded(glue.join(parts))
    if isinstance(function, ast.Name):
        args = [_value(arg, names) for arg in node.args]
        options = {keyword.arg: _value(keyword.value, names) for keyword in node.keywords}
        if function.id == "range" and args and all(isinstance(arg, int) for arg in args[:3]):
            return _bounded(range(*args[:3]))
        if function.id in ("tuple", "list") and len(args) == 1:
            return tuple(_sequence(args[0])) if function.id == "tuple" else list(_sequence(args[0]))
        if function.id == "enumerate" and args:
            start = options.get("start", args[1] if len(args) > 1 else 0)
            if isinstance(start, int):
                return list(enumerate(_sequence(args[0]), start))
    raise _NotConstantError


def _sequence(value: Any) -> Any:
    if not isinstance(value, (list, tuple, range)):
        raise _NotConstantError
    return value


def _bounded(value: Any) -> Any:
    if len(value) > (_MAX_TEXT if isinstance(value, str) else _MAX_ITEMS):
        raise _NotConstantError
    return value
