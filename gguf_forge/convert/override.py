"""Metadata given by hand: `KEY=TYPE:VALUE`. Knows the notation, must not know which keys exist."""

import json
from typing import Any

from gguf_forge.errors import ConversionError, InvalidError, escaped, is_utf8
from gguf_forge.format import values
from gguf_forge.format.layout import ValueType
from gguf_forge.format.values import Value

_TYPES = {kind.name.lower(): kind for kind in ValueType if kind is not ValueType.ARRAY}
_SHORT = {"u": "uint", "i": "int", "f": "float"}
_TYPES |= {name.replace(long, short): kind for name, kind in list(_TYPES.items()) for short, long in _SHORT.items()}
_TYPES |= {"str": ValueType.STRING, "float": ValueType.FLOAT32}
_TRUTH = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
_MAX_KEY_BYTES = 65535


def parse_override(text: str) -> tuple[str, Value]:
    """The key and value of `KEY=TYPE:VALUE`.

    TYPE: str, bool, int (UINT32, or INT32 if negative), float (FLOAT32), or an exact one as u8 or float64; with `[]`
    after it an array, whose VALUE is a JSON list. Raises `ConversionError` that says what is wrong and where.

    llama-quantize knows str, bool, int and float, with these results, but that it writes an int's absolute value, and
    of a larger one the low 32 bits: -5 as 5. What was asked for is written here, or refused.
    """
    key, equals, rest = text.partition("=")
    name, colon, written = rest.partition(":")
    if not equals or not colon:
        raise ConversionError(f"metadata '{escaped(text, 80)}': expected KEY=TYPE:VALUE, as general.name=str:My model")
    if not key or not is_utf8(key) or any(char.isspace() for char in key) or len(key.encode()) > _MAX_KEY_BYTES:
        raise ConversionError(f"metadata '{escaped(text, 80)}': '{escaped(key, 40)}' is not a key")
    array = name.endswith("[]")
    name = name.removesuffix("[]").strip().lower()
    if name not in _TYPES and name != "int":
        known = "str, bool, int, float, u8 u16 u32 u64, i8 i16 i32 i64, f32 f64, or one of them with []"
        raise ConversionError(f"metadata {key}: unknown type '{escaped(name, 40)}'; known are {known}")
    try:
        return key, _array(name, written) if array else _scalar(name, written)
    except (InvalidError, ValueError) as error:
        raise ConversionError(f"metadata {key}: '{escaped(written, 60)}' is not of type {name}: {error}") from None


def _scalar(name: str, written: str) -> Value:
    if name == "int":
        number = int(written, 0)
        return values.i32(number) if number < 0 else values.u32(number)
    kind = _TYPES[name]
    if kind is ValueType.STRING:
        return values.string(_utf8(written))
    if kind is ValueType.BOOL:
        if written.strip().lower() not in _TRUTH:
            raise ValueError("expected true or false")
        return values.boolean(_TRUTH[written.strip().lower()])
    if kind in (ValueType.FLOAT32, ValueType.FLOAT64):
        return values.scalar(kind, float(written))
    return values.scalar(kind, int(written, 0))


def _array(name: str, written: str) -> Value:
    listed: Any = json.loads(written)
    if not isinstance(listed, list):
        raise ValueError("expected a JSON list")
    items = [_utf8(item) if isinstance(item, str) else item for item in listed]
    return values.array(ValueType.INT32 if name == "int" else _TYPES[name], items)


def _utf8(text: str) -> str:
    if not is_utf8(text):
        raise ValueError("not UTF-8")
    return text
