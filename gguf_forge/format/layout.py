"""The GGUF layout as data: magic, versions, value types and limits. Knows no files and does no arithmetic.

"GGUF"  u32 version  u64 tensor count  u64 key count
key count x     string key   u32 value type   value
tensor count x  string name  u32 n_dims  u64 dim x n_dims  u32 tensor type  u64 offset from the data section
zeros to a multiple of general.alignment
data section: each tensor at its offset, zeros up to the next multiple of the alignment

string = u64 length, bytes     array = u32 element type, u64 count, elements
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

MAGIC = b"GGUF"
#: In its place while a header is replaced where it stands: no reader takes it.
EDITING = b"EDIT"
READ_VERSIONS = (2, 3)
WRITE_VERSION = 3
HEADER_BYTES = 24
ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32
#: A key without meaning, an array of zeros: room for a header that grows. See whole/edit.py.
SLACK_KEY = "gguf_forge.slack"
SPLIT_NO = "split.no"
SPLIT_COUNT = "split.count"
SPLIT_TENSORS = "split.tensors.count"


class ValueType(IntEnum):
    """Types of metadata values, as numbered in the file."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


@dataclass(frozen=True)
class Scalar:
    """A value type of fixed width: struct code, NumPy kind, bytes."""

    code: str
    dtype: str
    width: int


#: Every value type of fixed width. BOOL is one byte; 0 is false, 1 is true, readers take any other value as true.
SCALARS: Mapping[ValueType, Scalar] = MappingProxyType(
    {
        ValueType.UINT8: Scalar("B", "u1", 1),
        ValueType.INT8: Scalar("b", "i1", 1),
        ValueType.UINT16: Scalar("H", "u2", 2),
        ValueType.INT16: Scalar("h", "i2", 2),
        ValueType.UINT32: Scalar("I", "u4", 4),
        ValueType.INT32: Scalar("i", "i4", 4),
        ValueType.FLOAT32: Scalar("f", "f4", 4),
        ValueType.BOOL: Scalar("B", "u1", 1),
        ValueType.UINT64: Scalar("Q", "u8", 8),
        ValueType.INT64: Scalar("q", "i8", 8),
        ValueType.FLOAT64: Scalar("d", "f8", 8),
    }
)

#: The fewest bytes an element of each type takes: what lets a count be refused without walking.
SMALLEST: Mapping[ValueType, int] = MappingProxyType(
    {**{t: s.width for t, s in SCALARS.items()}, ValueType.STRING: 8, ValueType.ARRAY: 12}
)
SMALLEST_ENTRY = 8 + 4 + 1  # a key length, a value type, one byte of value
SMALLEST_TENSOR = 8 + 4 + 4 + 8  # a name length, n_dims, tensor type, offset

#: struct and NumPy prefixes of the two byte orders.
ORDERS: Mapping[str, str] = MappingProxyType({"little": "<", "big": ">"})


@dataclass(frozen=True)
class Limits:
    """Bounds on what a file may declare, each adjustable; see `open`. Counts have none: bytes left bound them."""

    key_bytes: int = 65535  # the specification's bound
    string_bytes: int = 64 << 20  # the longest known value, a chat template, is under 1 MiB
    depth: int = 8  # arrays in arrays; no known file has any
    dims: int = 4  # ggml's bound
    alignment: int = 1 << 20  # known files use at most 4096
    remote_header_bytes: int = 256 << 20  # of a file behind a URL; one with 256,000 tokens takes 16 MB


LIMITS = Limits()
#: ggml keeps names in 64 bytes with a closing NUL. Longer names are read, and not written.
WRITE_NAME_BYTES = 63
MAX_DIM = 2**63 - 1
