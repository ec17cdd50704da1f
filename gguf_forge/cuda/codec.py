"""Arrays to blocks and back on a GPU: as gguf_forge.quantize and dequantize, to the same bytes.

What is on the host goes through two lanes in pieces of fixed size; what is on the device is taken as it lies there.
Knows shapes and dtypes; the kernels are native/cuda/'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gguf_forge import _native
from gguf_forge.cuda.array import DTYPES, DeviceArray
from gguf_forge.cuda.device import LANE, Device, aligned
from gguf_forge.cuda.encoding import DeviceRows, Encoding, HostRows, Rows, decode, require_encodable
from gguf_forge.cuda.given import Given, given, on_device, place, stream_handle
from gguf_forge.errors import QuantError
from gguf_forge.quant import codec
from gguf_forge.results import DTYPES as FLOATS
from gguf_forge.types import MAX_BYTES, TENSOR_TYPES, TensorType, tensor_type

#: Fills memory with the bytes from a place on.
Fill = Callable[[NDArray[np.uint8], int], None]
#: Elements that a decoder's CTA makes: whole blocks of every type. Pieces are multiples of them.
TILE = 8192
_RESULTS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
#: Which type's elements arrays of others hold.
_SOURCES = {**FLOATS, "bfloat16": "BF16"}


def dequantize(
    data: Any,
    type: str | TensorType,
    dtype: DTypeLike | str = np.float32,
    *,
    device: int | str | Device | None = None,
    stream: Any = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """Decodes blocks of `type` into floats on a GPU, bit for bit as on a CPU (of NaNs only that they are NaN).

    data: uint8 of shape (..., row bytes), on the host, or on the device: of torch, CuPy, JAX or this package, taken
    without a copy by DLPack or `__cuda_array_interface__`. dtype: float32, float16 or "bfloat16". device: its number,
    "cuda:N", or a Device; None for the one where data are, or the first. stream: of the caller, whose work so far comes
    first: a handle, or an object of torch or CuPy. out: None, or what this returned for data of the same shape. Returns
    an array of shape (..., width), done.
    Raises QuantError for a dtype or row length that does not fit, or data on another device or not C-contiguous;
    CudaError for what the device or driver lacks.
    """
    kind, name = tensor_type(type), result(dtype)
    found = place(device, data)
    there = given(data, found) if on_device(data) else None
    blocks = codec.decodable(data if there is None else _form(there), kind)
    shape = (*blocks.shape[:-1], blocks.shape[-1] // kind.block_bytes * kind.block_size)
    out = output(found, shape, name, out)
    after = handle(stream)
    if there is None:
        decode_bytes(filler(blocks), blocks.size, kind, out, after)
        return out
    _require_apart(out, there)
    with found.lanes(LANE, after, there.after, count=1) as lanes:
        size = there.nbytes // kind.block_bytes * kind.block_size
        if size:
            decode(found, lanes[0], kind, _RESULTS[name], (there.address, out.address, size))
    return out


def quantize(
    x: Any,
    type: str | TensorType,
    imatrix: NDArray[Any] | None = None,
    *,
    device: int | str | Device | None = None,
    stream: Any = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """Encodes an array as blocks of `type` on a GPU, bit for bit as on a CPU.

    x: as of gguf_forge.quantize, on the host or on the device. imatrix: as of that, on the host. device, stream, out:
    as of `dequantize`. Returns uint8 of shape (..., row bytes), done. A row is staged whole: one above 4 million
    elements (half as many with importances) takes as much pinned memory for the call.
    Raises QuantError as on a CPU, with the place of the first value that cannot be encoded, and for what `dequantize`
    refuses; CudaError for what the device or driver lacks.
    """
    kind = tensor_type(type)
    if not kind.encodes:
        raise QuantError(f"encoding {kind.name} is not supported")
    found = place(device, x)
    there = given(x, found) if on_device(x) else None
    host = np.asarray(x) if there is None else np.empty(0)
    shape = host.shape if there is None else there.shape
    source = codec.source_type(host) if there is None else _float_type(there)
    if not shape:
        raise QuantError(f"a scalar has no rows to encode as {kind.name}; give an array of at least one dimension")
    width = shape[-1]
    weights = None if imatrix is None else codec.checked_importance(imatrix, width, kind)
    made = (*shape[:-1], codec.row_bytes(kind, width))
    if 0 not in shape:
        require_encodable(kind, width, weights)
    out = output(found, made, "uint8", out)
    if 0 in shape:
        return out
    rows: Rows
    if there is not None:
        _require_apart(out, there)
        rows = DeviceRows(there.address, source, there.nbytes // (width * there.itemsize), width)
    else:
        rows = from_host = HostRows(np.ascontiguousarray(host).reshape(-1, width), source, width)
        if not kind.quantized:
            _converted(from_host, kind, out, handle(stream))
            return out
    encoding = Encoding(found, kind, rows, weights)
    with found.lanes(encoding.lane_size, handle(stream), None if there is None else there.after) as lanes:
        step = encoding.rows_at_a_time(lanes[0])
        for i, lane in found.turns(lanes, -(-rows.count // step)):
            first, last = i * step, min((i + 1) * step, rows.count)
            encoding.encode(lane, first, last, out.address + first * encoding.row_bytes)
    return out


def upload(
    x: NDArray[Any],
    dtype: str | None = None,
    *,
    device: int | str | Device = 0,
    stream: Any = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """An array of the host in a device's memory, as it is.

    x: float32, float16, uint8, or uint16 holding bfloat16 bits. dtype: the result's, None for x's. device, stream, out:
    as of `dequantize`. Raises QuantError for another dtype, CudaError for what the device or driver lacks.
    """
    x = np.asarray(x)
    name = dtype or ("bfloat16" if x.dtype == np.uint16 else x.dtype.name)
    if name not in DTYPES or np.dtype(DTYPES[name]) != x.dtype or not x.dtype.isnative:
        raise QuantError(f"an array of {x.dtype} cannot go to a device as {name}; one of {', '.join(DTYPES)} can")
    found = place(device)
    out = output(found, x.shape, name, out)
    send_bytes(filler(x), out, handle(stream))
    return out


def filler(x: NDArray[Any]) -> Fill:
    """What gives the bytes of an array."""
    flat = np.ascontiguousarray(x).reshape(-1).view(np.uint8)

    def fill(to: NDArray[np.uint8], start: int) -> None:
        to[:] = flat[start : start + to.size]

    return fill


def decode_bytes(fill: Fill, nbytes: int, kind: TensorType, out: DeviceArray, after: Any) -> None:
    """Decodes blocks of the host, of which `fill` gives any run of whole ones, into `out`."""
    tile = TILE // kind.block_size * kind.block_bytes
    piece, size = LANE // tile * tile, 2 if out.dtype != "float32" else 4
    with out.device.lanes(LANE, after) as lanes:
        for i, lane in out.device.turns(lanes, -(-nbytes // piece)):
            lane.begin()
            part, at = lane.stage(min(piece, nbytes - i * piece))
            fill(part, i * piece)
            lane.send()
            done, elements = (n // kind.block_bytes * kind.block_size for n in (i * piece, part.size))
            decode(out.device, lane, kind, _RESULTS[out.dtype], (at, out.address + done * size, elements))


def send_bytes(fill: Fill, out: DeviceArray, after: Any, unit: int = 1) -> None:
    """Sends bytes of the host, as many as `out` has; `fill` gives any run of whole units of so many bytes."""
    piece = LANE // unit * unit
    with out.device.lanes(LANE, after) as lanes:
        for i, lane in out.device.turns(lanes, -(-out.nbytes // piece)):
            lane.begin()
            part, _ = lane.stage(min(piece, out.nbytes - i * piece))
            fill(part, i * piece)
            lane.send(out.address + i * piece, part.size)


def _converted(rows: HostRows, kind: TensorType, out: DeviceArray, after: Any) -> None:
    """Floats as another type of floats: converted on the way into the pinned memory, which costs less than sending."""
    size = kind.row_bytes(rows.width)
    with out.device.lanes(aligned(size), after) as lanes:
        step = max(1, lanes[0].size // size)
        for i, lane in out.device.turns(lanes, -(-rows.count // step)):
            part = rows.data[i * step : (i + 1) * step]
            lane.begin()
            to, _ = lane.stage(len(part) * size)
            status, _ = _native.convert(rows.kind.id, part, kind.id, to, len(part), rows.width)
            assert status == _native.OK
            lane.send(out.address + i * step * size, to.size)


def _form(there: Given) -> NDArray[Any]:
    """An array of the same shape and dtype that has no memory."""
    return np.broadcast_to(np.empty((), there.dtype.replace("bfloat16", "uint16")), there.shape)


def _float_type(there: Given) -> TensorType:
    name = _SOURCES.get(there.dtype)
    if name is None:
        raise QuantError(f"cannot encode an array of {there.dtype}; give floats, or uint16 for bfloat16 bits")
    return TENSOR_TYPES[name]


def _require_apart(out: DeviceArray, there: Given) -> None:
    if out.address < there.address + there.nbytes and there.address < out.address + out.nbytes:
        raise QuantError("out must not overlap the input")


def result(dtype: DTypeLike | str) -> str:
    """The name of a dtype that kernels decode to. Raises QuantError."""
    if isinstance(dtype, str) and dtype.lower() in {"bf16", "bfloat16"}:
        return "bfloat16"
    found = np.dtype(dtype)
    if found.name not in _RESULTS or not found.isnative:
        raise QuantError(f"cannot decode to {found} on a GPU; choose float32, float16 or 'bfloat16'")
    return found.name


def output(device: Device, shape: tuple[int, ...], dtype: str, out: DeviceArray | None) -> DeviceArray:
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


def handle(stream: Any) -> int | None:
    """The handle of a stream: a number, or what torch, CuPy or an object of the stream protocol say."""
    if stream is None:
        return None
    if hasattr(stream, "__cuda_stream__"):
        stream = stream.__cuda_stream__()[1]
    for name in ("cuda_stream", "ptr"):
        stream = getattr(stream, name, stream)
    return stream_handle(stream)
