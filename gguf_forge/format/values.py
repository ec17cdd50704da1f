"""Metadata values with the type they have in the file, and their bytes, both ways. Knows no files and no keys."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gguf_forge.errors import InvalidError, escaped
from gguf_forge.format.cursor import Buffer, Cursor
from gguf_forge.format.layout import SCALARS, SMALLEST, ValueType
from gguf_forge.format.words import read_strings


@dataclass(frozen=True, eq=False)
class Value:
    """One metadata value as a file holds it.

    type: its value type. value: int, float, bool or str; of an array with `element` STRING a list[str], ARRAY a
    list[Value], and otherwise a 1-D NumPy array of the element's dtype (bool for BOOL). Strings are UTF-8 in the file;
    other bytes appear as surrogates (`surrogateescape`) and are written back as they were. Two values are equal when
    their types and bytes are.
    """

    type: ValueType
    value: Any
    element: ValueType | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value):
            return NotImplemented
        return (self.type, self.element) == (other.type, other.element) and encode(self) == encode(other)

    def __hash__(self) -> int:
        return hash((self.type, self.element, encode(self)))

    def __repr__(self) -> str:
        if self.element is not None:
            return f"<Value: {len(self.value)} of {self.element.name}>"
        return f"<Value: {self.type.name} {_shown(self.value)}>"

    def plain(self) -> Any:
        """The value without types: as `value`, but nested arrays as lists."""
        if self.element is ValueType.ARRAY:
            return [v.plain().tolist() if isinstance(v.plain(), np.ndarray) else v.plain() for v in self.value]
        return self.value


class StoredValue(Value):
    """A value as a file has it, to be written as it was: bytes that no other value gives (a BOOL of 2, a NaN's payload)
    stay too. Decoded only when it is looked at.
    """

    def __init__(self, type: ValueType, element: ValueType | None, count: int, raw: bytes, order: str) -> None:
        """`raw`: the value's bytes as `encode` gives them in the byte order `order`; `count` of an array's elements."""
        for name, given in (("type", type), ("element", element), ("count", count), ("raw", raw), ("order", order)):
            object.__setattr__(self, name, given)

    count: int
    raw: bytes
    order: str

    def encoded(self, order: str) -> bytes | None:
        """The bytes in a byte order, of numbers bit for bit; None of texts and nested arrays in another one."""
        if order == self.order:
            return self.raw
        if self.element is None:
            return None if self.type is ValueType.STRING else self.raw[::-1]
        kind = SCALARS.get(self.element)
        if kind is None:
            return None
        head = struct.pack(order + "IQ", self.element, self.count)
        return head + np.frombuffer(self.raw, f"u{kind.width}", offset=len(head)).byteswap().tobytes()

    @cached_property
    def value(self) -> Any:
        """As of a Value."""
        start = 0 if self.element is None else SMALLEST[ValueType.ARRAY]
        return decode(self.raw, self.order, start, self.type, element=self.element, count=self.count).value


def scalar(kind: ValueType, value: Any) -> Value:
    """A value of any type but ARRAY. Raises InvalidError when it does not fit the type."""
    if kind is ValueType.STRING:
        if not isinstance(value, str):
            raise InvalidError(f"{_shown(value)} is no string")
        return Value(kind, value)
    if kind is ValueType.BOOL:
        if not isinstance(value, (bool, np.bool_)):
            raise InvalidError(f"{_shown(value)} is no bool")
        return Value(kind, bool(value))
    if kind is ValueType.ARRAY:
        raise InvalidError("an array needs an element type")
    if isinstance(value, (bool, np.bool_, str)):
        raise InvalidError(f"{_shown(value)} is no {kind.name}")
    try:
        number = float(value) if kind in _FLOATS else value.__index__()
        struct.pack("<" + SCALARS[kind].code, number)
    except (struct.error, OverflowError, TypeError, ValueError, AttributeError) as error:
        raise InvalidError(f"{_shown(value)} does not fit {kind.name}") from error
    return Value(kind, number)


_FLOATS = (ValueType.FLOAT32, ValueType.FLOAT64)


def u8(value: int) -> Value:
    """A UINT8."""
    return scalar(ValueType.UINT8, value)


def i8(value: int) -> Value:
    """An INT8."""
    return scalar(ValueType.INT8, value)


def u16(value: int) -> Value:
    """A UINT16."""
    return scalar(ValueType.UINT16, value)


def i16(value: int) -> Value:
    """An INT16."""
    return scalar(ValueType.INT16, value)


def u32(value: int) -> Value:
    """A UINT32."""
    return scalar(ValueType.UINT32, value)


def i32(value: int) -> Value:
    """An INT32."""
    return scalar(ValueType.INT32, value)


def u64(value: int) -> Value:
    """A UINT64."""
    return scalar(ValueType.UINT64, value)


def i64(value: int) -> Value:
    """An INT64."""
    return scalar(ValueType.INT64, value)


def f32(value: float) -> Value:
    """A FLOAT32; the value is kept as given and rounded when written."""
    return scalar(ValueType.FLOAT32, value)


def f64(value: float) -> Value:
    """A FLOAT64."""
    return scalar(ValueType.FLOAT64, value)


def boolean(value: bool) -> Value:
    """A BOOL."""
    return scalar(ValueType.BOOL, value)


def string(value: str) -> Value:
    """A STRING."""
    return scalar(ValueType.STRING, value)


def strings(values: Iterable[str]) -> Value:
    """An array of STRING."""
    return array(ValueType.STRING, list(values))


def array(element: ValueType, values: Any) -> Value:
    """An array of one element type, from a sequence or a 1-D NumPy array. Raises InvalidError when one does not fit."""
    if element is ValueType.STRING:
        items = list(values)
        for item in items:
            if not isinstance(item, str):
                raise InvalidError(f"{_shown(item)} is no string")
        return Value(ValueType.ARRAY, items, element)
    if element is ValueType.ARRAY:
        nested = [v if isinstance(v, Value) else infer(v) for v in values]
        for item in nested:
            if item.type is not ValueType.ARRAY:
                raise InvalidError(f"{_shown(item.value)} is no array")
        return Value(ValueType.ARRAY, nested, element)
    return Value(ValueType.ARRAY, _number_array(element, values), element)


def _number_array(element: ValueType, values: Any) -> np.ndarray[Any, Any]:
    dtype = np.dtype(bool if element is ValueType.BOOL else SCALARS[element].dtype)
    if isinstance(values, np.ndarray):
        given = values
    else:
        values = list(values)
        for item in values:
            scalar(element, item)
        return np.array(values, dtype=dtype)
    if given.ndim != 1:
        raise InvalidError(f"an array of shape {given.shape} has more than one axis")
    if given.dtype == dtype:
        return given
    if dtype.kind == "b" or given.dtype.kind not in "iuf" or (dtype.kind in "iu" and given.dtype.kind == "f"):
        raise InvalidError(f"an array of {given.dtype} is no array of {element.name}")
    if dtype.kind in "iu" and given.size:
        bounds = np.iinfo(dtype)
        if int(given.min()) < bounds.min or int(given.max()) > bounds.max:
            raise InvalidError(f"an array from {given.min()} to {given.max()} does not fit {element.name}")
    return given.astype(dtype)


#: What a NumPy dtype is in the file.
_DTYPES = {np.dtype(s.dtype): t for t, s in SCALARS.items() if t is not ValueType.BOOL} | {
    np.dtype(bool): ValueType.BOOL
}


def infer(value: Any) -> Value:
    """The usual value of a Python object: bool BOOL, int UINT32 (INT32 if negative, 64 bits if it must), float FLOAT32,
    str STRING, NumPy scalars and arrays by dtype, lists by their elements. Raises InvalidError for anything else.
    """
    if isinstance(value, Value):
        return value
    if isinstance(value, str):
        return string(value)
    if isinstance(value, (bool, np.bool_)):
        return boolean(bool(value))
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.newbyteorder("=") in _DTYPES:
        kind = _DTYPES[value.dtype.newbyteorder("=")]
        return array(kind, value) if isinstance(value, np.ndarray) else scalar(kind, value.item())
    if isinstance(value, int):
        return scalar(_int_type([value]), value)
    if isinstance(value, float):
        return f32(value)
    if isinstance(value, (list, tuple)):
        return _infer_array(value)
    raise InvalidError(f"{_shown(value)} has no GGUF type")


def typed(metadata: Mapping[str, Any]) -> dict[str, Value]:
    """Metadata with types: each Value as it is, anything else by `infer`. Raises InvalidError naming the key."""
    found: dict[str, Value] = {}
    for key, value in metadata.items():
        if not isinstance(key, str):
            raise InvalidError(f"metadata key {_shown(key)} is no string")
        try:
            found[key] = infer(value)
        except InvalidError as error:
            raise InvalidError(error.text, field=f'key "{escaped(key)}"') from error
    return found


def _infer_array(values: Sequence[Any]) -> Value:
    kinds = {bool if isinstance(v, (bool, np.bool_)) else type(v) for v in values}
    if not values:
        raise InvalidError("an empty array has no element type; gguf_forge.values.array(ValueType.STRING, []) has one")
    if kinds == {str}:
        return strings(values)
    if kinds == {bool}:
        return array(ValueType.BOOL, values)
    if kinds == {int}:
        return array(_int_type(values, signed=True), values)
    if kinds <= {int, float}:
        return array(ValueType.FLOAT32, values)
    if kinds <= {list, tuple, np.ndarray, Value}:
        return array(ValueType.ARRAY, values)
    raise InvalidError(f"array of mixed types: {', '.join(sorted(k.__name__ for k in kinds))}")


def _int_type(values: Sequence[int], signed: bool = False) -> ValueType:
    low, high = min(values), max(values)
    if low < 0 or signed:
        if low >= -(2**31) and high < 2**31:
            return ValueType.INT32
        return ValueType.INT64 if high < 2**63 else ValueType.UINT64
    return ValueType.UINT32 if high < 2**32 else ValueType.UINT64


def _shown(value: object) -> str:
    return escaped(repr(value), 40)


def encode_string(text: str | bytes, order: str = "<") -> bytes:
    """A string as a file holds it: u64 length, bytes."""
    raw = text if isinstance(text, bytes) else _utf8(text)
    return struct.pack(order + "Q", len(raw)) + raw


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidError(f"{_shown(text)} holds a lone surrogate, which UTF-8 cannot") from error


def encode(value: Value, order: str = "<") -> bytes:
    """A value's bytes, without its type; an array starts with its element type and count. `order` is "<" or ">"."""
    if isinstance(value, StoredValue):
        found = value.encoded(order)
        if found is not None:
            return found
    if value.type is ValueType.STRING:
        return encode_string(value.value, order)
    if value.type is not ValueType.ARRAY:
        try:
            return struct.pack(order + SCALARS[value.type].code, value.value)
        except (struct.error, OverflowError) as error:  # of values that were not made by `scalar`
            raise InvalidError(f"{_shown(value.value)} does not fit {value.type.name}") from error
    assert value.element is not None
    head = struct.pack(order + "IQ", value.element, len(value.value))
    if value.element is ValueType.STRING:
        raws = [_utf8(s) for s in value.value]
        lengths = np.array([len(r) for r in raws], dtype=order + "u8").tobytes()
        parts: list[bytes] = [head] * (2 * len(raws) + 1)
        parts[1::2] = [lengths[i : i + 8] for i in range(0, len(lengths), 8)]
        parts[2::2] = raws
        return b"".join(parts)
    if value.element is ValueType.ARRAY:
        return head + b"".join(encode(v, order) for v in value.value)
    return head + np.asarray(value.value, dtype=_dtype(value.element, order)).tobytes()


def _dtype(element: ValueType, order: str) -> np.dtype[Any]:
    return np.dtype(order + SCALARS[element].dtype)


def decode(
    buffer: Buffer, order: str, start: int, kind: ValueType, *, element: ValueType | None = None, count: int = 1
) -> Value:
    """The value whose bytes (of an array: whose first element) start at `start` of a header that was parsed."""
    cursor = Cursor(buffer, "", start, order)
    if kind is ValueType.ARRAY:
        assert element is not None
        return _decode_array(cursor, element, count)
    if kind is ValueType.STRING:
        return Value(kind, cursor.string("value").decode("utf-8", "surrogateescape"))
    (found,) = struct.unpack_from(order + SCALARS[kind].code, buffer, start)
    return Value(kind, bool(found) if kind is ValueType.BOOL else found)


def _decode_array(cursor: Cursor, element: ValueType, count: int) -> Value:
    if element is ValueType.STRING:
        return Value(ValueType.ARRAY, read_strings(cursor, count), element)
    if element is ValueType.ARRAY:
        nested = []
        for _ in range(count):
            inner = ValueType(cursor.u32("value type"))
            nested.append(_decode_array(cursor, inner, cursor.u64("count")))
        return Value(ValueType.ARRAY, nested, element)
    raw = np.frombuffer(cursor.buffer, dtype=_dtype(element, cursor.order), count=count, offset=cursor.pos)
    cursor.pos += raw.nbytes
    native = raw != 0 if element is ValueType.BOOL else raw.astype(raw.dtype.newbyteorder("="))
    return Value(ValueType.ARRAY, native, element)
