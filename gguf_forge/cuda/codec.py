"""Arrays to blocks and back on a GPU: as gguf_forge.quantize and dequantize, to the same bytes.

Data go through two lanes in pieces of fixed size. Knows shapes and dtypes; the kernels are native/cuda/'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gguf_forge import _native
from gguf_forge.cuda.array import DeviceArray
from gguf_forge.cuda.context import Memory
from gguf_forge.cuda.declarations import MEMORY_DEVICE
from gguf_forge.cuda.device import LANE, Device, Lane, device_of
from gguf_forge.errors import QuantError
from gguf_forge.quant import codec
from gguf_forge.quant.unseen import Importance
from gguf_forge.types import MAX_BYTES, TENSOR_TYPES, TensorType, tensor_type

#: Elements that a decoder's CTA makes: whole blocks of every type. Pieces are multiples of them.
TILE = 8192
_RESULTS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_F32 = TENSOR_TYPES["F32"]
_FLT_MAX = float(np.finfo(np.float32).max)
#: The key where no value was refused.
_NONE = 2**64 - 1


def dequantize(
    data: NDArray[Any],
    type: str | TensorType,
    dtype: DTypeLike | str = np.float32,
    *,
    device: int | str | Device = 0,
    stream: Any = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """Decodes blocks of `type` into floats on a GPU, bit for bit as on a CPU (of NaNs only that they are NaN).

    data: uint8 of shape (..., row bytes), on the host. dtype: float32, float16 or "bfloat16". device: its number,
    "cuda:N", or a Device. stream: of the caller, whose work so far comes first: a handle, or an object of torch or
    CuPy. out: None, or what this returned for data of the same shape. Returns an array of shape (..., width), done.
    Raises QuantError for a dtype or row length that does not fit, CudaError for what the device or driver lacks.
    """
    kind = tensor_type(type)
    data = codec.decodable(data, kind)
    name = _result(dtype)
    width = data.shape[-1] // kind.block_bytes * kind.block_size
    found = device_of(device)
    out = _output(found, (*data.shape[:-1], width), name, out)
    flat = np.ascontiguousarray(data).reshape(-1)
    kernel, size = f"forge_decode_{kind.name.lower()}_{_RESULTS[name]}", 2 if name != "float32" else 4
    tile = TILE // kind.block_size * kind.block_bytes
    piece = LANE // tile * tile
    with found.lanes(LANE, _handle(stream)) as lanes:
        for i, lane in found.turns(lanes, -(-flat.size // piece)):
            part = flat[i * piece : (i + 1) * piece]
            blocks = part.size // kind.block_bytes
            lane.pinned.bytes[: part.size] = part
            lane.upload(part.size)
            to = out.address + i * piece // kind.block_bytes * kind.block_size * size
            arguments = (("uint64_t", lane.memory.address), ("uint64_t", to), ("uint64_t", blocks))
            found.kernels.launch(kernel, blocks * kind.block_size, lane.stream.handle, *arguments)
    return out


def quantize(
    x: NDArray[Any],
    type: str | TensorType,
    imatrix: NDArray[Any] | None = None,
    *,
    device: int | str | Device = 0,
    stream: Any = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """Encodes an array as blocks of `type` on a GPU, bit for bit as on a CPU.

    x, imatrix: as of gguf_forge.quantize, on the host. device, stream, out: as of `dequantize`. Returns uint8 of shape
    (..., row bytes), done. A row is sent whole: one above 4 million elements takes as much pinned memory for the call.
    Raises QuantError as on a CPU, with the place of the first value that cannot be encoded; CudaError for what the
    device or driver lacks.
    """
    kind = tensor_type(type)
    if not kind.encodes:
        raise QuantError(f"encoding {kind.name} is not supported")
    x = np.asarray(x)
    source = codec.source_type(x)
    if x.ndim == 0:
        raise QuantError(f"a scalar has no rows to encode as {kind.name}; give an array of at least one dimension")
    width = x.shape[-1]
    weights = None if imatrix is None else codec.checked_importance(imatrix, width, kind)
    flat = np.ascontiguousarray(x).reshape(-1, width) if x.size else x.reshape(0, width)
    row_bytes = codec.row_bytes(kind, width)
    if x.size:
        _check_importance(kind, width, weights)
    found = device_of(device)
    out = _output(found, (*x.shape[:-1], row_bytes), "uint8", out)
    if not x.size:
        return out
    encoder = _Encoder(found, kind, _Source(flat, source), out.address, row_bytes, _handle(stream))
    given = None if weights is None or not kind.weighted else weights.weights
    encoder.run(0, width, given)
    for start, stop in weights.plain if weights is not None else ():
        encoder.run(start, stop, None)
    return out


@dataclass(frozen=True)
class _Source:
    """Rows of a float type on the host."""

    rows: NDArray[Any]
    kind: TensorType

    def stage(self, first: int, last: int, start: int, stop: int, to: NDArray[np.uint8]) -> None:
        """Rows first to last, columns start to stop, as float32 into `to`."""
        part = self.rows[first:last, start:stop]
        if self.kind is _F32:
            to.view(np.float32).reshape(part.shape)[...] = part
            return
        part = np.ascontiguousarray(part)
        status, _ = _native.convert(self.kind.id, part, _F32.id, to, part.shape[0], part.shape[1])
        assert status == _native.OK


@dataclass(frozen=True)
class _Encoder:
    """What encodes columns of a matrix into its blocks at `address` on the device."""

    device: Device
    kind: TensorType
    source: _Source
    address: int
    row_bytes: int
    after: int | None

    def run(self, start: int, stop: int, weights: NDArray[np.float32] | None) -> None:
        """Encodes the columns from start to stop of every row."""
        rows, columns = self.source.rows.shape[0], stop - start
        step = min(rows, max(1, LANE // (columns * 4)))
        row = self.device.kernels.launches.get(f"forge_encode_{self.kind.name.lower()}")
        with self.device.lanes(step * columns * 4, self.after) as lanes:
            context = self.device.context
            importance = None if weights is None else self._uploaded(weights, lanes[0])
            squares = None
            if importance is not None and row is not None and row.mean_squares:
                squares = [Memory(context, step * 4) for _ in lanes]
            lattice = 0 if row is None or row.lattice is None else self.device.lattice(row.lattice, lanes[0]).address
            for i, lane in self.device.turns(lanes, -(-rows // step)):
                first, last = i * step, min((i + 1) * step, rows)
                size = (last - first) * columns * 4
                self.source.stage(first, last, start, stop, lane.pinned.bytes[:size])
                lane.upload(size)
                mean = 0 if squares is None else squares[i % 2].address
                self._encode(lane, (first, last), (start, stop), importance.address if importance else 0, mean, lattice)

    def _uploaded(self, weights: NDArray[np.float32], lane: Lane) -> Memory:
        made = Memory(self.device.context, weights.nbytes)
        lane.pinned.bytes[: weights.nbytes] = weights.view(np.uint8)
        driver = self.device.context.driver
        driver.call("cuMemcpyHtoDAsync_v2", made.address, lane.pinned.pointer, weights.nbytes, lane.stream.handle)
        lane.wait()
        return made

    def _encode(
        self, lane: Lane, rows: tuple[int, int], columns: tuple[int, int], importance: int, squares: int, lattice: int
    ) -> None:
        """The kernels of a piece that is in the lane's memory, and what is looked at when they are done."""
        kind, stream, launch = self.kind, lane.stream.handle, self.device.kernels.launch
        count, width = rows[1] - rows[0], columns[1] - columns[0]
        made = codec.row_bytes(kind, width)
        sizes = (("uint64_t", count), ("uint64_t", width))
        values = ("uint64_t", lane.memory.address)
        if squares:
            launch("forge_row_mean_squares", count, stream, values, ("uint64_t", squares), *sizes)
        whole = made == self.row_bytes
        to = self.address + rows[0] * self.row_bytes if whole else lane.scratch.address
        key = lane.clear_key()
        pointers = [("uint64_t", at) for at in (importance, squares, lattice, to)]
        limits = (("float", _FLT_MAX), ("uint64_t", key))
        blocks = count * width // kind.block_size
        launch(f"forge_encode_{kind.name.lower()}", blocks, stream, values, *pointers, *sizes, *limits)
        if not whole:
            at = self.address + rows[0] * self.row_bytes + codec.row_bytes(kind, columns[0])
            self._place(lane, at, made, count)
        lane.fetch_key()
        lane.then(self._look(lane, rows[0], width))

    def _place(self, lane: Lane, at: int, size: int, rows: int) -> None:
        """Copies rows of `size` bytes from the lane's scratch memory to where the matrix has them."""
        copy = self.device.context.driver.ffi.new("CUDA_MEMCPY2D *")
        copy.srcMemoryType = copy.dstMemoryType = MEMORY_DEVICE
        copy.srcDevice, copy.srcPitch = lane.scratch.address, size
        copy.dstDevice, copy.dstPitch = at, self.row_bytes
        copy.WidthInBytes, copy.Height = size, rows
        self.device.context.driver.call("cuMemcpy2DAsync_v2", copy, lane.stream.handle)

    def _look(self, lane: Lane, first: int, width: int) -> Callable[[], None]:
        def after() -> None:
            key = lane.key()
            if key != _NONE:
                status = _native.E_TOO_LARGE if key & 1 else _native.E_NOT_FINITE
                raise codec.refused(status, key >> 1, width, self.source.kind.name, self.kind, first)

        return after


def _check_importance(kind: TensorType, width: int, given: Importance | None) -> None:
    """Raises QuantError where the core would for the importances, or for none."""
    weights = None if given is None else given.weights
    nothing = np.empty(0, np.float32)
    status, where = _native.convert(_F32.id, nothing, kind.id, nothing, 0, width, weights)
    if status == _native.E_WEIGHTS and weights is not None:
        raise codec.refused_importance(weights, where)
    if status != _native.OK:
        raise codec.refused(status, where, width, _F32.name, kind, 0)


def _result(dtype: DTypeLike | str) -> str:
    if isinstance(dtype, str) and dtype.lower() in {"bf16", "bfloat16"}:
        return "bfloat16"
    found = np.dtype(dtype)
    if found.name not in _RESULTS or not found.isnative:
        raise QuantError(f"cannot decode to {found} on a GPU; choose float32, float16 or 'bfloat16'")
    return found.name


def _output(device: Device, shape: tuple[int, ...], dtype: str, out: DeviceArray | None) -> DeviceArray:
    """The array for the result: `out`, if it fits, or a new one."""
    count = 4
    for dim in shape:
        count *= dim
    if count > MAX_BYTES:
        raise QuantError(f"{count} bytes exceed the limit of 2^63-1")
    if out is None:
        return DeviceArray(device, shape, dtype)
    if out.shape != shape or out.dtype != dtype or out.device.context.ordinal != device.context.ordinal:
        raise QuantError(f"out must be {dtype} {shape} on cuda:{device.context.ordinal}, found {out!r}")
    return out


def _handle(stream: Any) -> int | None:
    """The handle of a stream: a number, or what torch, CuPy or an object of the stream protocol say."""
    if stream is None or isinstance(stream, int):
        return stream
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("cuda_stream", "ptr"):
        if hasattr(stream, name):
            return int(getattr(stream, name))
    raise QuantError(f"a stream is a handle, or an object of torch or CuPy; found {stream!r:.60}")
