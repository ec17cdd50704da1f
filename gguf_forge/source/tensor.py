"""A tensor of a checkpoint: where its bytes lie and how rows of it are read. Knows views; must not know containers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_forge.errors import InvalidError, UnsupportedError, escaped
from gguf_forge.quant.floats8 import FORMATS, decode_floats8
from gguf_forge.source.dtypes import RETURNED_ARRAY, Dtype
from gguf_forge.source.input_file import InputFile
from gguf_forge.types import TensorType

#: A strided view is read as one piece when the piece is at most this large, in bytes, or twice what is needed.
_PIECE_BYTES = 1 << 20


def tensor_field(name: str) -> str:
    """A tensor's name as errors give the place."""
    return f'tensor "{escaped(name)}"'


@dataclass(frozen=True, eq=False, slots=True)
class SourceTensor:
    """One tensor of a checkpoint; its values are read from the file when asked for, never kept.

    `offset` is the byte at which element [0, 0, ...] lies; `strides` (in elements) is None when rows lie one after
    the other. Reads may run in several threads.
    """

    name: str
    element: Dtype
    shape: tuple[int, ...]
    file: InputFile
    offset: int
    strides: tuple[int, ...] | None = None
    big_endian: bool = False

    def __post_init__(self) -> None:
        """Raises InvalidError for a shape that no array has: without elements, and too large in its other axes."""
        if 0 in self.shape and 8 * prod(n for n in self.shape if n) >= 2**63:
            text = f"shape {list(self.shape)} is too large for an array, though it has no elements"
            raise InvalidError(text, path=self.file.path, field=tensor_field(self.name))

    @property
    def dtype(self) -> str:
        """The element type as the file names it: "BF16", "F8_E4M3", ..."""
        return self.element.name

    @property
    def type(self) -> TensorType:
        """The type of the values that `rows` and `read` give. Raises UnsupportedError when there is none."""
        if self.element.returned is None:
            raise UnsupportedError(
                f"{self.dtype} values cannot be read", path=self.file.path, field=tensor_field(self.name)
            )
        return self.element.returned

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the values in the file's element type."""
        return self.size * self.element.bits // 8

    def rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Values of rows start..stop-1 as a fresh C-contiguous array of shape (stop - start, *shape[1:]).

        BF16 comes as uint16, 8-bit floats as float32, BOOL and unsigned integers as the next wider signed type.
        Raises TruncatedError or ChangedInputError when the file no longer holds them, ValueError for a scalar or rows
        out of range.
        """
        target = RETURNED_ARRAY[self.type.name]
        values = self.stored_rows(start, stop)
        if self.dtype in FORMATS:
            flat, one = values.reshape(1, -1), np.ones((1, 1), np.float32)
            return decode_floats8(flat, self.dtype, one, max(1, flat.size)).reshape(values.shape)
        if self.element.table is not None:
            decoded: npt.NDArray[np.float32] = self.element.table[values]
            return decoded
        if self.dtype == "BOOL":
            return values.astype(bool).astype(np.int8)
        if self.type.name == "BF16":
            return values
        return values.astype(target, copy=False)

    def read(self) -> npt.NDArray[Any]:
        """All values, in the tensor's shape; as `rows`."""
        return self._as_list().rows(0, self.shape[0] if self.shape else 1).reshape(self.shape)

    def stored_rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows start..stop-1 as they lie in the file (8-bit floats, BOOL and U8 as uint8), otherwise as `rows`."""
        if not self.shape:
            raise ValueError(f"tensor {self.name!r} is a scalar and has no rows")
        if not 0 <= start <= stop <= self.shape[0]:
            raise ValueError(f"tensor {self.name!r}: rows {start}..{stop} are outside its {self.shape[0]} rows")
        stored = self.element.stored
        if stored is None:
            raise UnsupportedError(
                f"{self.dtype} values cannot be read", path=self.file.path, field=tensor_field(self.name)
            )
        if self.big_endian:
            stored = stored.newbyteorder(">")
        shape = (stop - start, *self.shape[1:])
        if self.strides is None:
            values = np.empty(shape, stored)
            self.file.read_into(values, self.offset + start * prod(shape[1:]) * stored.itemsize)
        else:
            values = self._gather(self.offset + start * self.strides[0] * stored.itemsize, shape, self.strides, stored)
        return values.astype(stored.newbyteorder("="), copy=False)

    def _as_list(self) -> SourceTensor:
        """The tensor with at least one axis."""
        if self.shape:
            return self
        return SourceTensor(self.name, self.element, (1,), self.file, self.offset, None, self.big_endian)

    def _gather(
        self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any]
    ) -> npt.NDArray[Any]:
        """A strided view as a contiguous array. Never reads much more than is needed, whatever the strides."""
        if 0 in shape:
            return np.empty(shape, dtype)
        reach = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        distinct = prod(n for n, stride in zip(shape, strides, strict=True) if stride)
        if reach * dtype.itemsize <= max(_PIECE_BYTES, 2 * distinct * dtype.itemsize):
            piece = np.empty(reach, dtype)
            self.file.read_into(piece, offset)
            steps = [stride * dtype.itemsize for stride in strides]
            return np.array(np.lib.stride_tricks.as_strided(piece, shape, steps, writeable=False), order="C")
        widest = max(range(len(shape)), key=lambda axis: strides[axis] if shape[axis] > 1 else -1)
        values = np.empty(shape, dtype)
        inner_shape = shape[:widest] + shape[widest + 1 :]
        inner_strides = strides[:widest] + strides[widest + 1 :]
        step = strides[widest] * dtype.itemsize
        for index in range(shape[widest]):
            into = (slice(None),) * widest + (index,)
            values[into] = self._gather(offset + index * step, inner_shape, inner_strides, dtype)
        return values
