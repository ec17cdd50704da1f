"""The tensor types of ggml, as the native table states them. Knows sizes and flags, not codecs or files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from gguf_forge._native import TypeRow, type_rows
from gguf_forge.errors import InvalidError, UnsupportedError

MAX_BYTES = 2**63 - 1


@dataclass(frozen=True)
class TensorType:
    """One ggml tensor type. `block_size` is in elements, `block_bytes` in bytes.

    fit: for how many weights the encoder finds one scale, so that their importances count against each other only; 0
    where it uses none.
    """

    name: str
    id: int
    block_size: int
    block_bytes: int
    quantized: bool
    floating: bool
    weighted: bool
    needs_weights: bool
    fit: int
    encodes: bool
    decodes: bool

    @property
    def bpw(self) -> float:
        """Bits per weight."""
        return 8 * self.block_bytes / self.block_size

    def row_bytes(self, width: int) -> int:
        """Bytes of a row of `width` elements. Raises InvalidError when it is not a whole number of blocks."""
        blocks, rest = divmod(width, self.block_size)
        if rest:
            raise InvalidError(
                f"row of {width} elements is not a multiple of the {self.block_size}-element block of {self.name}"
            )
        return blocks * self.block_bytes

    def nbytes(self, shape: Sequence[int]) -> int:
        """Bytes of a tensor of this shape (NumPy order, last axis contiguous; () is a scalar)."""
        count = 1
        for dim in shape[:-1]:
            count *= dim
        total = count * self.row_bytes(shape[-1] if shape else 1)
        if total > MAX_BYTES:
            raise InvalidError(f"{total} bytes exceed the limit of 2^63-1")
        return total

    def __str__(self) -> str:
        return self.name


def _from_row(row: TypeRow) -> TensorType:
    return TensorType(
        name=row.name,
        id=row.id,
        block_size=row.block,
        block_bytes=row.bytes,
        quantized=row.quant,
        floating=row.floating,
        weighted=row.weighted,
        needs_weights=row.needs_weights,
        fit=row.fit,
        encodes=row.encodes,
        decodes=row.decodes,
    )


#: Every type by its name in capitals, in order of id.
TENSOR_TYPES: Mapping[str, TensorType] = MappingProxyType({r.name: _from_row(r) for r in type_rows() if r.block})
#: Types that ggml has removed, which are not read: id to name.
REMOVED: Mapping[int, str] = MappingProxyType({r.id: r.name for r in type_rows() if not r.block})
_BY_ID = {t.id: t for t in TENSOR_TYPES.values()}


def tensor_type(which: str | int | TensorType) -> TensorType:
    """The type of a name (any case) or of a ggml id. Raises UnsupportedError for an unknown or removed one."""
    if isinstance(which, TensorType):
        return which
    if isinstance(which, str):
        found = TENSOR_TYPES.get(which.upper())
        if found is None:
            raise UnsupportedError(f"unknown tensor type {which!r}; known: {', '.join(TENSOR_TYPES)}")
        return found
    found = known_type(which)
    if found is None:
        raise UnsupportedError(f"unknown tensor type id {which}")
    return found


def known_type(number: int) -> TensorType | None:
    """The type of a ggml id; None for one that is not read."""
    return _BY_ID.get(number)
