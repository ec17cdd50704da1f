"""Arrays to blocks and back, by the native core. Knows shapes, dtypes and threads; not files, names or recipes."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gguf_forge import _native, system
from gguf_forge.errors import QuantError
from gguf_forge.quant.unseen import Importance, importance
from gguf_forge.results import DTYPES, fitting, float_dtype
from gguf_forge.types import TENSOR_TYPES, TensorType, tensor_type

#: Elements a task of the thread pool takes: large enough to make Python's share vanish, small enough to balance.
CHUNK = 1 << 20
#: Elements turned to float32 at a time where an importance matrix meets another source type.
STAGE = 1 << 17
#: Elements decoded by one native call: little enough that the core writes through the caches. The result is fresh
#: memory, whose pages the system has just filled with zeros there; stores past the caches would write all of it twice.
PIECE = 1 << 17
#: Elements a task decodes into memory that the caller has: enough for the core to write past the caches.
STREAMED = 1 << 22

_F32 = TENSOR_TYPES["F32"]


def quantize(
    x: NDArray[Any],
    type: str | TensorType,
    imatrix: NDArray[Any] | None = None,
    threads: int | None = None,
    *,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Encodes an array as blocks of `type`, bit for bit as ggml does.

    x: float32, float16, float64, or uint16 holding bfloat16 bits, of shape (..., width), width a multiple of the type's
    block. imatrix: None, or `width` importance values (finite, not negative), used for every row; weights that share a
    scale and have importance 0 throughout, which would make them 0, are encoded as without. threads: how many to use;
    None for one a processor. Returns uint8 of shape (..., row bytes): a new array, or `out`, a writable C-contiguous
    one apart from x and imatrix, so that nothing of that size is made.
    Raises QuantError for a dtype, shape, width, NaN, infinity or importance vector that cannot be encoded, or another
    `out`. After a NaN or infinity some rows of `out` are written.
    """
    kind = _encodable(type)
    x = np.asarray(x)
    source = source_type(x)
    if x.ndim == 0:
        raise QuantError(f"a scalar has no rows to encode as {kind.name}; give an array of at least one dimension")
    weights = None if imatrix is None else checked_importance(imatrix, x.shape[-1], kind)
    flat = _flat(x)
    shape = (*x.shape[:-1], row_bytes(kind, x.shape[-1]))
    given = () if imatrix is None else (np.asarray(imatrix),)
    made = np.empty(shape, np.uint8) if out is None else fitting(out, shape, np.dtype(np.uint8), x, *given)
    blocks = made.reshape(flat.shape[0], shape[-1])

    def run(start: int, stop: int) -> None:
        _encode_into(blocks[start:stop], np.ascontiguousarray(flat[start:stop]), source, kind, weights, start)

    _over_rows(run, flat.shape[0], x.shape[-1], threads)
    return made


def dequantize(
    data: NDArray[Any],
    type: str | TensorType,
    dtype: DTypeLike | str | None = None,
    threads: int | None = None,
    *,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Decodes blocks of `type` into floats, bit for bit as ggml does.

    data: uint8 of shape (..., row bytes). dtype: float32, float16, float64, or "bfloat16" for its bits as uint16; the
    decoded float32 values are rounded to nearest even. None: that of `out` (uint16: bfloat16), or float32. threads: how
    many to use; None for one a processor. Returns an array of shape (..., width): a new one, or `out`, a writable
    C-contiguous one apart from data, so that nothing of that size is made.
    Raises QuantError for a dtype or row length that does not fit, or another `out`.
    """
    kind = tensor_type(type)
    data = decodable(data, kind)
    result = float_dtype(dtype, out)
    target = TENSOR_TYPES[DTYPES[result.name]]
    width = data.shape[-1] // kind.block_bytes * kind.block_size
    flat = _flat(data)
    shape = (*data.shape[:-1], width)
    made = np.empty(shape, result) if out is None else fitting(out, shape, result, data)
    floats = made.reshape(flat.shape[0], width)
    piece = max(1, (PIECE if out is None else STREAMED) // max(width, 1))

    def run(start: int, stop: int) -> None:
        for row in range(start, stop, piece):
            end = min(row + piece, stop)
            blocks = np.ascontiguousarray(flat[row:end])
            _checked(blocks, kind, floats[row:end], target, end - row, width, None, row)

    _over_rows(run, flat.shape[0], width, threads, CHUNK if out is None else STREAMED)
    return made


def decodable(data: NDArray[Any], kind: TensorType) -> NDArray[np.uint8]:
    """Blocks as they came, uint8 of shape (..., row bytes). Raises QuantError where they cannot be decoded."""
    if not kind.decodes:
        raise QuantError(f"decoding {kind.name} is not supported")
    data = np.asarray(data)
    if data.dtype != np.uint8:
        raise QuantError(f"blocks must be uint8, found {data.dtype}")
    if data.ndim == 0 or data.shape[-1] % kind.block_bytes:
        raise QuantError(f"{kind.name}: rows must be a multiple of {kind.block_bytes} bytes, found shape {data.shape}")
    return data


def encode_rows(
    src: NDArray[Any],
    src_type: TensorType,
    dst_type: TensorType,
    weights: NDArray[np.float32] | None = None,
    first_row: int = 0,
    strict: bool = False,
) -> NDArray[np.uint8]:
    """Encodes rows of one type as another, in the calling thread with the GIL released.

    src: C-contiguous, (rows, width) elements of a float type (bfloat16 as uint16), or (rows, row bytes) uint8 for block
    types, which are decoded first. weights: None, or float32 (width,), as `imatrix` of `quantize`. strict: refuses
    numbers that are far too large for the type's scales, of which ggml makes zeros or others as soon as infinities.
    Returns uint8 (rows, row bytes of dst_type).
    Raises QuantError; positions in its message are rows, counted from `first_row`, and columns of src.
    """
    width = encodable_width(src, src_type, dst_type)
    out = np.empty((src.shape[0], row_bytes(dst_type, width)), np.uint8)
    checked = None if weights is None else checked_importance(weights, width, dst_type)
    _encode_into(out, np.ascontiguousarray(src), src_type, dst_type, checked, first_row, width, strict)
    return out


def encodable_width(src: NDArray[Any], src_type: TensorType, dst_type: TensorType) -> int:
    """The elements of a row of `src`, as `encode_rows` takes it. Raises QuantError for what that does not take."""
    _encodable(dst_type)
    if src.ndim != 2:
        raise QuantError(f"rows must be a 2-D array, found shape {src.shape}")
    width: int = src.shape[1]
    if src.dtype == np.uint8:
        if width % src_type.block_bytes:
            raise QuantError(f"{src_type.name}: rows must be a multiple of {src_type.block_bytes} bytes, found {width}")
        return width // src_type.block_bytes * src_type.block_size
    if src.dtype.itemsize != src_type.block_bytes or src_type.block_size != 1:
        raise QuantError(f"an array of {src.dtype} cannot hold {src_type.name}")
    return width


def first_not_finite(rows: NDArray[Any], kind: TensorType) -> int | None:
    """The first element of a float type, or block, with a NaN or infinity in it; None where all is finite.

    rows: C-contiguous, whole elements or blocks of `kind`. In a block only scales and minimums stored as floats count.
    """
    count = rows.nbytes // kind.block_bytes
    found = _native.first_not_finite(kind.id, rows, count) if count else count
    return found if found < count else None


def _encodable(which: str | TensorType) -> TensorType:
    kind = tensor_type(which)
    if not kind.encodes:
        raise QuantError(f"encoding {kind.name} is not supported")
    return kind


def source_type(x: NDArray[Any]) -> TensorType:
    """The float type that an array holds. Raises QuantError."""
    name = DTYPES.get(x.dtype.name) if x.dtype.isnative else None
    if name is None:
        known = "float32, float16, float64, or uint16 for bfloat16 bits"
        raise QuantError(f"cannot encode an array of {x.dtype}; give {known}")
    return TENSOR_TYPES[name]


def _flat(x: NDArray[Any]) -> NDArray[Any]:
    """Rows of the last axis, without a copy where strides allow; as many as there are of no elements, 0."""
    return x.reshape(-1, x.shape[-1]) if x.size else x.reshape(0, x.shape[-1])


def row_bytes(kind: TensorType, width: int) -> int:
    """Bytes of a row. Raises QuantError when it is not a whole number of blocks."""
    if width % kind.block_size:
        raise QuantError(
            f"row of {width} elements is not a multiple of the {kind.block_size}-element block of {kind.name}"
        )
    return width // kind.block_size * kind.block_bytes


def checked_importance(imatrix: NDArray[Any], width: int, kind: TensorType) -> Importance:
    """What `kind` encodes rows of `width` elements with. Raises QuantError for a vector of another shape."""
    found = np.asarray(imatrix)
    if found.shape != (width,):
        raise QuantError(f"importance vector must have shape ({width},) like a row, found {found.shape}")
    return importance(np.require(found, np.float32, ["C", "ALIGNED"]), kind)


def _over_rows(
    run: Callable[[int, int], None], rows: int, width: int, threads: int | None, chunk: int | None = None
) -> None:
    """Calls run(start, stop) over chunks of rows, on `threads` threads; raises the error of the first that fails."""
    count = thread_count(threads)
    step = max(1, min((CHUNK if chunk is None else chunk) // max(width, 1), -(-rows // count)))
    starts = iter(range(0, rows, step))
    lock = Lock()
    failed: dict[int, BaseException] = {}

    def work() -> None:
        while not failed:  # chunks are handed out in order: all before one that fails are done or being done
            with lock:
                start = next(starts, None)
            if start is None:
                return
            try:
                run(start, min(start + step, rows))
            except BaseException as error:  # noqa: BLE001 - raised again below
                failed[start] = error

    workers = [Thread(target=work) for _ in range(min(count, -(-rows // step)))]
    if len(workers) <= 1:
        work()
    else:
        try:
            for worker in workers:
                worker.start()
            system.join(workers)
        except BaseException as error:  # an interrupt: chunks in hand are finished, no more are taken
            failed[-1] = error
            raise
    if failed:
        raise failed[min(failed)]


def thread_count(threads: int | None) -> int:
    """How many threads to use: `threads`, or one a processor. Raises QuantError for what is no number of threads."""
    if threads is None:
        return system.processors()
    if isinstance(threads, bool) or not hasattr(threads, "__index__") or threads.__index__() < 1:
        raise QuantError(f"threads must be a whole number of at least 1, found {threads!r:.40}")
    return threads.__index__()


def _encode_into(
    out: NDArray[np.uint8],
    src: NDArray[Any],
    src_type: TensorType,
    dst_type: TensorType,
    given: Importance | None,
    first_row: int,
    width: int | None = None,
    strict: bool = False,
) -> None:
    width = src.shape[1] if width is None else width
    if given is None or given.weights is None:
        _checked(src, src_type, out, dst_type, src.shape[0], width, None, first_row, strict)
        return
    if src_type is _F32 and src.flags.aligned:
        _encode_weighted(out, src, dst_type, given, first_row, strict)
        return
    step = max(1, STAGE // max(width, 1))
    stage = np.empty((min(step, src.shape[0]), width), np.float32)
    for start in range(0, src.shape[0], step):
        stop = min(start + step, src.shape[0])
        rows = stage[: stop - start]
        _checked(src[start:stop], src_type, rows, _F32, stop - start, width, None, first_row + start)
        _encode_weighted(out[start:stop], rows, dst_type, given, first_row + start, strict)


def _encode_weighted(
    out: NDArray[np.uint8], rows: NDArray[Any], kind: TensorType, given: Importance, first_row: int, strict: bool
) -> None:
    """Encodes float32 rows with importances, then again without them the blocks that are to be plain."""
    count, width = rows.shape
    _checked(rows, _F32, out, kind, count, width, given.weights, first_row, strict)
    for start, stop in given.plain:
        blocks = np.empty((count, row_bytes(kind, stop - start)), np.uint8)
        _checked(np.ascontiguousarray(rows[:, start:stop]), _F32, blocks, kind, count, stop - start, None, first_row)
        at = row_bytes(kind, start)
        out[:, at : at + blocks.shape[1]] = blocks


def _checked(
    src: NDArray[Any],
    src_type: TensorType,
    dst: NDArray[Any],
    dst_type: TensorType,
    rows: int,
    width: int,
    weights: NDArray[np.float32] | None,
    first_row: int,
    strict: bool = False,
) -> None:
    """One native call; its status as a QuantError that names the place."""
    if rows == 0 or width == 0:
        return
    status, where = _native.convert(src_type.id, src, dst_type.id, dst, rows, width, weights, strict=strict)
    if status == _native.OK:
        return
    if status == _native.E_WEIGHTS and weights is not None:
        raise refused_importance(weights, where)
    raise refused(status, where, width, src_type.name, dst_type, first_row)


def refused_importance(weights: NDArray[np.float32], column: int) -> QuantError:
    """What is said of an importance that is negative or not finite."""
    return QuantError(f"importance values must be finite and not negative, found {weights[column]} at column {column}")


def refused(status: int, where: int, width: int, src: str, dst_type: TensorType, first_row: int) -> QuantError:
    """What a status of the core other than OK says of rows of `width` elements, the first of them `first_row`."""
    if status in {_native.E_NOT_FINITE, _native.E_TOO_LARGE}:
        row, column = divmod(where, width)
        place = f"found at row {first_row + row}, column {column}"
        if status == _native.E_NOT_FINITE:
            return QuantError(f"{dst_type.name} cannot hold NaN or infinity, {place}")
        return QuantError(f"{dst_type.name} has no scale for so large a number, {place} (--allow-nonfinite lets it be)")
    if status == _native.E_WEIGHTS:
        return QuantError(f"{dst_type.name} needs an importance matrix")
    if status == _native.E_WIDTH:
        return QuantError(f"row of {width} elements is not a whole number of blocks of {src} and {dst_type.name}")
    return QuantError(f"no conversion from {src} to {dst_type.name}")
