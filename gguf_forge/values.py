"""Metadata values with their types: what `GGUFWriter`, `convert_checkpoint` and `quantize_file` take for a key where a
plain Python object would get another type than wanted. Public names of gguf_forge/format/values.py.

    gguf_forge.GGUFWriter("new.gguf", {"a": 1, "b": values.u8(1), "c": values.array(values.ValueType.FLOAT64, [])})
"""

from gguf_forge.format.layout import ValueType
from gguf_forge.format.values import (
    Value,
    array,
    boolean,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    infer,
    scalar,
    string,
    strings,
    u8,
    u16,
    u32,
    u64,
)

__all__ = [
    "Value",
    "ValueType",
    "array",
    "boolean",
    "f32",
    "f64",
    "i8",
    "i16",
    "i32",
    "i64",
    "infer",
    "scalar",
    "string",
    "strings",
    "u8",
    "u16",
    "u32",
    "u64",
]
