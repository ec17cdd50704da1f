"""Rows of hyperparameters as GGUF metadata, and what a configuration says that they cannot hold.

It must not know which families exist, nor how a configuration came about, nor touch tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gguf_forge.convert.config import first_of, shown
from gguf_forge.convert.facts import Facts
from gguf_forge.errors import ConversionError
from gguf_forge.format.layout import ValueType
from gguf_forge.format.values import Value

if TYPE_CHECKING:
    from gguf_forge.convert.arch import Arch, Hparam

def _number(row: Hparam, value: Any, names: str) -> Any:
    if row.type is ValueType.BOOL:
        if isinstance(value, bool):
            return value
    elif row.type is ValueType.STRING:
        if isinstance(value, str):
            return value
    elif row.type is ValueType.FLOAT32:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif row.type is ValueType.UINT32:
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if whole and not isinstance(value, bool) and 0 <= value < 2**32:
            return int(value)
    elif row.type is ValueType.INT32:
        if isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31:
            return value
    else:
        return value
    raise ConversionError(f"config.json: {names} must be a {row.type.name} for {row.key}, got {shown(value)}")


def _value(row: Hparam, facts: Facts) -> Any:
    value = row.value(facts) if row.value is not None else first_of(facts.config, *row.names)
    if value is None:
        value = row.default(facts) if callable(row.default) else row.default
    if value is None and row.required:
        raise ConversionError(f"config.json has no {' or '.join(row.names) or row.key}")
    return value


def metadata_of(arch: Arch, facts: Facts) -> tuple[dict[str, Value], dict[str, Value]]:
    """The metadata an architecture's rows state, in their order: the early ones, and the others.

    Raises ConversionError naming the key on a wrong value.
    """
    early: dict[str, Value] = {}
    others: dict[str, Value] = {}
    for row in arch.hparams:
        value = _value(row, facts)
        if value is None:
            continue
        found = early if row.early else others
        key = row.key if row.key.startswith(row.absolute) else f"{arch.name}.{row.key}"
        names = " or ".join(row.names) or row.key
        if isinstance(value, Sequence) and not isinstance(value, str) and row.type is not ValueType.ARRAY:
            items = [_number(row, v, names) for v in value]
            # One number a layer; lists of whole numbers are signed.
            element = ValueType.INT32 if row.type is ValueType.UINT32 else row.type
            found[key] = Value(ValueType.ARRAY, items, element)
        else:
            found[key] = Value(row.type, _number(row, value, names), row.element)
    return early, others


def misfits(config: Mapping[str, Any], rows: Iterable[Hparam]) -> list[str]:
    """What a configuration has under the rows' names that their metadata cannot hold; a null may be meant, or not."""
    text = config.get("text_config")
    both = {**config, **text} if isinstance(text, Mapping) else config
    found: dict[str, None] = {}
    for row in rows:
        for name in row.names:
            value = both.get(name)
            if name in both and not _fits(row, value):
                found[f"{name} is {shown(value)}"] = None
    return list(found)


def _fits(row: Hparam, value: Any) -> bool:
    try:
        for each in value if isinstance(value, list) else [value]:
            _number(row, each, row.key)
    except ConversionError:
        return False
    return True
