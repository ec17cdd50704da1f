"""Rows of floats or blocks to blocks of another type, a piece after the other through a lane of a device.

Knows which kernels that takes and how much memory; the rows come from the host or are on the device already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gguf_forge import _native
from gguf_forge.cuda.device import ROOM, Device, Lane, aligned
from gguf_forge.errors import QuantError
from gguf_forge.quant import codec
from gguf_forge.quant.unseen import Importance
from gguf_forge.types import TENSOR_TYPES, TensorType

F32 = TENSOR_TYPES["F32"]
#: Weights that one launch encodes at most: Windows gives a launch two seconds.
MOST = 1 << 27
_FLT_MAX = float(np.finfo(np.float32).max)
#: Magnitudes above this are refused when the core is strict, by types of which it says so.
_REACH = 2.0**29
#: The key where no value was refused.
_NONE = 2**64 - 1
#: Regions that a piece takes of a lane's memory at most, each of which begins on a boundary.
_REGIONS = 6


class Rows(Protocol):
    """A matrix of floats or blocks."""

    @property
    def kind(self) -> TensorType:
        """The type of the elements."""

    @property
    def count(self) -> int:
        """How many rows."""

    @property
    def width(self) -> int:
        """Elements of a row."""

    @property
    def staged(self) -> int:
        """Bytes of a row that come from the host."""

    def place(self, lane: Lane, first: int, last: int) -> int:
        """The address on the device where these rows are once what was staged is sent."""


@dataclass(frozen=True)
class HostRows:
    """Rows of C-contiguous memory: elements of a float type, or bytes of blocks, (rows, ...)."""

    data: NDArray[Any]
    kind: TensorType
    width: int

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.data)

    @property
    def staged(self) -> int:
        """Bytes of a row."""
        return self.kind.row_bytes(self.width)

    def place(self, lane: Lane, first: int, last: int) -> int:
        """Stages them."""
        part = self.data[first:last]
        to, at = lane.stage(part.nbytes)
        to.view(part.dtype).reshape(part.shape)[...] = part
        return at


@dataclass(frozen=True)
class DeviceRows:
    """Rows in a device's memory, from `address` on."""

    address: int
    kind: TensorType
    count: int
    width: int
    staged: int = 0

    def place(self, lane: Lane, first: int, last: int) -> int:
        """They are there."""
        return self.address + first * self.kind.row_bytes(self.width)


@dataclass(frozen=True)
class Encoding:
    """How rows become blocks of `kind` on a device, with the importances `given`; strict: as of `encode_rows`.

    first_row: the number that the first row has in messages.
    """

    device: Device
    kind: TensorType
    rows: Rows
    given: Importance | None
    strict: bool = False
    first_row: int = 0

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of blocks."""
        return codec.row_bytes(self.kind, self.rows.width)

    @cached_property
    def weights(self) -> NDArray[np.float32] | None:
        """The importances, where the type takes any."""
        return None if self.given is None or not self.kind.weighted else self.given.weights

    @cached_property
    def _columns(self) -> int:
        """The most columns that are encoded again without importances."""
        return max((stop - start for start, stop in self.given.plain), default=0) if self.given else 0

    @property
    def lane_size(self) -> int:
        """Bytes that a lane must have for a row at least."""
        return max(self._of_all + aligned(self.rows.staged), -(-(self._of_each + _REGIONS * 256) // ROOM))

    def rows_at_a_time(self, lane: Lane) -> int:
        """How many rows a piece has in such a lane."""
        staged = (lane.size - self._of_all) // self.rows.staged if self.rows.staged else self.rows.count
        most = MOST // max(self.rows.width, 1)
        return max(1, min(self.rows.count, staged, most, (ROOM * lane.size - _REGIONS * 256) // self._of_each))

    @property
    def _of_all(self) -> int:
        return aligned(0 if self.weights is None else self.weights.nbytes)

    @property
    def _of_each(self) -> int:
        """Bytes of room for a row: its float32 values, its mean square, its blocks, and columns apart."""
        apart = 4 * self._columns + codec.row_bytes(self.kind, self._columns)
        return 4 * self.rows.width * (self.rows.kind is not F32) + 4 + self.row_bytes + apart

    def encode(self, lane: Lane, first: int, last: int, to: int | None = None) -> int:
        """Starts what encodes rows first to last, and has the lane look at what was refused; returns where they are.

        to: an address on the device, or None for one of the lane's own. The lane is free, its context current. When it
        is waited for, QuantError is raised for the first value that cannot be encoded.
        """
        kind, count, width = self.kind, last - first, self.rows.width
        row = self.device.kernels.launches.get(f"forge_encode_{kind.name.lower()}")
        lattice = 0 if row is None or row.lattice is None else self.device.lattice(row.lattice, lane).address
        lane.begin()
        found, weights = self.rows.place(lane, first, last), 0
        if self.weights is not None:
            staged, weights = lane.stage(self.weights.nbytes)
            staged.view(np.float32)[:] = self.weights
        lane.send()
        values = self._values(lane, found, count)
        squares = 0
        if weights and row is not None and row.mean_squares:
            squares = lane.room(4 * count)
            sizes = (("uint64_t", count), ("uint64_t", width))
            given = (("uint64_t", values), ("uint64_t", squares))
            self.device.kernels.launch("forge_row_mean_squares", count, lane.stream.handle, *given, *sizes)
        to = lane.room(count * self.row_bytes) if to is None else to
        key = lane.clear_key()
        self._start(lane, values, (weights, squares, lattice, to), (count, width), key)
        for start, stop in self.given.plain if self.given is not None else ():
            self._again(lane, values, (start, stop), to, (count, key + 8), lattice)
        lane.fetch_key()
        lane.then(self._look(lane, self.first_row + first))
        return to

    def _values(self, lane: Lane, found: int, count: int) -> int:
        """Rows as float32, decoded on the device."""
        kind, elements = self.rows.kind, count * self.rows.width
        if kind is F32:
            return found
        values = lane.room(4 * elements)
        decode(self.device, lane, kind, "f32", (found, values, elements))
        return values

    def _start(
        self, lane: Lane, values: int, addresses: tuple[int, ...], shape: tuple[int, int], key: int
    ) -> None:
        pointers = [("uint64_t", at) for at in (values, *addresses)]
        sizes = [("uint64_t", size) for size in shape]
        limits = (("float", limit(self.kind, self.strict)), ("uint64_t", key))
        blocks = shape[0] * shape[1] // self.kind.block_size
        name = f"forge_encode_{self.kind.name.lower()}"
        self.device.kernels.launch(name, blocks, lane.stream.handle, *pointers, *sizes, *limits)

    def _again(
        self, lane: Lane, values: int, span: tuple[int, int], to: int, sizes: tuple[int, int], lattice: int
    ) -> None:
        """Encodes some columns without importances, over what was made of them. What it refuses was refused before."""
        start, width = span[0], span[1] - span[0]
        count, key = sizes
        size = codec.row_bytes(self.kind, width)
        mark = lane.mark()
        part, made = lane.room(4 * width * count), lane.room(size * count)
        lane.copy_rows((part, 4 * width), (values + 4 * start, 4 * self.rows.width), 4 * width, count)
        self._start(lane, part, (0, 0, lattice, made), (count, width), key)
        at = to + codec.row_bytes(self.kind, start)
        lane.copy_rows((at, self.row_bytes), (made, size), size, count)
        lane.back_to(mark)

    def _look(self, lane: Lane, first: int) -> Callable[[], None]:
        def after() -> None:
            key = lane.key()
            if key != _NONE:
                status = _native.E_TOO_LARGE if key & 1 else _native.E_NOT_FINITE
                raise codec.refused(status, key >> 1, self.rows.width, self.rows.kind.name, self.kind, first)

        return after


def decode(device: Device, lane: Lane, kind: TensorType, result: str, what: tuple[int, int, int]) -> None:
    """Starts the decoder of `kind` to "f32", "f16" or "bf16"; what: addresses of blocks and floats, elements."""
    blocks, floats, elements = what
    arguments = (("uint64_t", blocks), ("uint64_t", floats), ("uint64_t", elements // kind.block_size))
    name = f"forge_decode_{kind.name.lower()}_{result}"
    device.kernels.launch(name, elements, lane.stream.handle, *arguments)


def require_encodable(kind: TensorType, width: int, given: Importance | None) -> None:
    """Raises QuantError where the core would for a width, for importances, or for none."""
    weights = None if given is None else given.weights
    nothing = np.empty(0, np.float32)
    status, where = _native.convert(F32.id, nothing, kind.id, nothing, 0, width, weights)
    if status == _native.E_WEIGHTS and weights is not None:
        raise codec.refused_importance(weights, where)
    if status != _native.OK:
        raise codec.refused(status, where, width, F32.name, kind, 0)


@cache
def limit(kind: TensorType, strict: bool) -> float:
    """The largest magnitude that is encoded; the core is asked whether being strict changes it."""
    if not strict or not kind.quantized:
        return _FLT_MAX
    block = np.full((1, kind.block_size), 2 * _REACH, np.float32)
    try:
        codec.encode_rows(block, F32, kind, np.ones(kind.block_size, np.float32), strict=True)
    except QuantError:
        return _REACH
    return _FLT_MAX
