"""What encoding costs: values to blocks and back, and the errors between. Knows arrays and rows; not files or names."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import QuantError
from gguf_forge.quant.codec import dequantize, thread_count
from gguf_forge.quant.encoders import PROCESSORS, Encoder
from gguf_forge.quant.imatrix import matrix_runs
from gguf_forge.types import TENSOR_TYPES, TensorType, tensor_type

#: Elements compared at a time; each costs about 30 bytes a thread.
CHUNK = 1 << 18

_DTYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "uint16": "BF16"}

#: Rows start..stop-1 over the flattened leading axes, as an array that encoders take.
ReadRows = Callable[[int, int], NDArray[Any]]


@dataclass(frozen=True)
class Errors:
    """Sums over pairs (x, y) of a value and what became of it, in float64. They add: (a + b) is both taken together.

    count: pairs. xx, yy, xy: sums of x*x, y*y, x*y. ee: sum of (y - x)^2. largest: largest |y - x|.
    """

    count: int = 0
    xx: float = 0.0
    yy: float = 0.0
    xy: float = 0.0
    ee: float = 0.0
    largest: float = 0.0

    @classmethod
    def of(cls, x: NDArray[np.float64], y: NDArray[np.float64]) -> Errors:
        """The sums of two arrays of one shape."""
        if not x.size:
            return cls()
        with np.errstate(over="ignore", invalid="ignore"):
            e = y - x
            return cls(
                count=x.size,
                xx=float(np.sum(x * x)),
                yy=float(np.sum(y * y)),
                xy=float(np.sum(x * y)),
                ee=float(np.sum(e * e)),
                largest=float(np.max(np.abs(e))),
            )

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.count + other.count,
            self.xx + other.xx,
            self.yy + other.yy,
            self.xy + other.xy,
            self.ee + other.ee,
            max(self.largest, other.largest),
        )

    @property
    def rmse(self) -> float:
        """Root of the mean squared error."""
        return math.sqrt(self.ee / self.count) if self.count else 0.0

    @property
    def relative_rmse(self) -> float:
        """RMSE as a share of the root mean square of the values; infinite for an error on values that are all 0."""
        if self.ee == 0:
            return 0.0
        return math.sqrt(self.ee / self.xx) if self.xx else math.inf

    @property
    def snr_db(self) -> float:
        """Signal to noise in decibels, 10 log10(sum x^2 / sum e^2); infinite where nothing was lost."""
        if self.ee == 0:
            return math.inf
        return 10 * math.log10(self.xx / self.ee) if self.xx else -math.inf

    @property
    def cosine(self) -> float:
        """Cosine of the angle between values and results; 1 where nothing was lost, 0 where one side is all 0."""
        if self.ee == 0:
            return 1.0
        length = math.sqrt(self.xx) * math.sqrt(self.yy)
        return min(1.0, self.xy / length) if length else 0.0


@dataclass(frozen=True)
class RoundTrip:
    """What a type does to values. Figures are in float64; errors are in the values' own unit.

    type: of the blocks. nbytes: size of the blocks. errors: the sums behind the figures. stable: whether encoding the
    decoded values again gives the same bytes, None when that was not tried.
    """

    type: TensorType
    nbytes: int
    errors: Errors
    stable: bool | None

    @property
    def bits_per_weight(self) -> float:
        """Bits of blocks for each value."""
        return 8 * self.nbytes / self.errors.count if self.errors.count else self.type.bpw

    @property
    def rmse(self) -> float:
        """Root of the mean squared error."""
        return self.errors.rmse

    @property
    def relative_rmse(self) -> float:
        """RMSE divided by the root mean square of the values."""
        return self.errors.relative_rmse

    @property
    def max_error(self) -> float:
        """Largest absolute error."""
        return self.errors.largest

    @property
    def snr_db(self) -> float:
        """Signal to noise ratio in decibels."""
        return self.errors.snr_db

    @property
    def cosine(self) -> float:
        """Cosine similarity of values and decoded values."""
        return self.errors.cosine


@dataclass(frozen=True)
class Compared:
    """Blocks that exist, against the values they were made from.

    trip: the errors of the blocks; `stable` tells whether encoding their values again gives them. equal_blocks of
    blocks: how many our encoder makes of the values, to the bit; None when it has no encoder for the type.
    """

    trip: RoundTrip
    equal_blocks: int | None
    blocks: int


def roundtrip(
    x: NDArray[Any],
    type: str | TensorType,
    imatrix: NDArray[Any] | None = None,
    threads: int | None = None,
    encoder: Encoder = PROCESSORS,
) -> RoundTrip:
    """The public `roundtrip` of measure.py, with the encoder in place of a device."""
    x = np.asarray(x)
    name = _DTYPES.get(x.dtype.name) if x.dtype.isnative else None
    if name is None or x.ndim == 0:
        raise QuantError(f"cannot encode {x.dtype} of shape {x.shape}; give floats, or uint16 for bfloat16 bits")
    rows = x.reshape(-1, x.shape[-1]) if x.size else x.reshape(0, x.shape[-1])
    weights = None if imatrix is None else np.asarray(imatrix)
    if weights is not None and weights.ndim == 2:
        matrices = math.prod(x.shape[:-2])
        if len(weights) not in {1, matrices}:
            raise QuantError(f"importance values for {len(weights)} matrices, but the array holds {matrices}")

    def read(start: int, stop: int) -> NDArray[Any]:
        return np.ascontiguousarray(rows[start:stop])

    kinds = [tensor_type(type)]
    return measure_rows(read, TENSOR_TYPES[name], x.shape, kinds, weights, threads=threads, encoder=encoder)[0]


def measure_rows(
    read: ReadRows,
    source: TensorType,
    shape: Sequence[int],
    types: Sequence[TensorType],
    weights: NDArray[Any] | None = None,
    *,
    threads: int | None = None,
    advance: Callable[[int], None] = lambda rows: None,
    encoder: Encoder = PROCESSORS,
) -> list[RoundTrip]:
    """A round trip through each of `types` of a tensor read in runs of rows, each run read once.

    read: gives rows of type `source` (block types as uint8 blocks, whose decoded values count as the truth). shape:
    the tensor's, in NumPy order. weights: (width,) or (matrices, width). advance: told how many rows have been done.
    encoder: what makes the blocks.
    """

    def measure(run: tuple[int, int, int]) -> list[RoundTrip]:
        matrix, start, stop = run
        rows, kind = _encodable(read(start, stop), source)
        x = _as_float64(rows, kind)
        return [_trip(rows, x, kind, to, _weights_of(weights, matrix), encoder) for to in types]

    totals = [RoundTrip(to, 0, Errors(), True) for to in types]
    for run, found in _over_runs(measure, shape, thread_count(threads) + encoder.workers):
        totals = [_joined(a, b) for a, b in zip(totals, found, strict=True)]
        advance(run[2] - run[1])
    return totals


def compare_rows(
    read_blocks: ReadRows,
    kind: TensorType,
    read: ReadRows,
    source: TensorType,
    shape: Sequence[int],
    weights: NDArray[Any] | None = None,
    *,
    threads: int | None = None,
    advance: Callable[[int], None] = lambda rows: None,
    encoder: Encoder = PROCESSORS,
) -> Compared:
    """Compares the blocks of a tensor of type `kind` with the values of type `source` they were made from.

    read_blocks: rows of blocks, uint8. The rest as for `measure_rows`. Types that need an importance matrix are not
    encoded without one.
    """
    encodes = kind.encodes and (weights is not None or not kind.needs_weights)

    def compare(run: tuple[int, int, int]) -> Compared:
        matrix, start, stop = run
        blocks = read_blocks(start, stop)
        rows, plain = _encodable(read(start, stop), source)
        decoded = dequantize(blocks, kind, threads=1)
        errors = Errors.of(_as_float64(rows, plain), decoded.astype(np.float64))
        count = blocks.size // kind.block_bytes
        if not encodes:
            return Compared(RoundTrip(kind, blocks.size, errors, None), None, count)
        importance = _weights_of(weights, matrix)
        ours = encoder.encode_rows(rows, plain, kind, importance)
        again = encoder.encode_rows(decoded, TENSOR_TYPES["F32"], kind, importance)
        trip = RoundTrip(kind, blocks.size, errors, bool(np.array_equal(again, blocks)))
        same = (ours == blocks).reshape(-1, kind.block_bytes).all(axis=1)
        return Compared(trip, int(same.sum()), count)

    total = Compared(RoundTrip(kind, 0, Errors(), True if encodes else None), 0 if encodes else None, 0)
    for run, found in _over_runs(compare, shape, thread_count(threads) + encoder.workers):
        equal = None if total.equal_blocks is None else total.equal_blocks + (found.equal_blocks or 0)
        total = Compared(_joined(total.trip, found.trip), equal, total.blocks + found.blocks)
        advance(run[2] - run[1])
    return total


def _trip(
    rows: NDArray[Any],
    x: NDArray[np.float64],
    kind: TensorType,
    to: TensorType,
    weights: NDArray[np.float32] | None,
    encoder: Encoder,
) -> RoundTrip:
    blocks = encoder.encode_rows(rows, kind, to, weights)
    decoded = dequantize(blocks, to, threads=1)
    again = encoder.encode_rows(decoded, TENSOR_TYPES["F32"], to, weights)
    errors = Errors.of(x, decoded.astype(np.float64))
    return RoundTrip(to, blocks.size, errors, bool(np.array_equal(again, blocks)))


def _joined(a: RoundTrip, b: RoundTrip) -> RoundTrip:
    stable = None if a.stable is None or b.stable is None else a.stable and b.stable
    return RoundTrip(a.type, a.nbytes + b.nbytes, a.errors + b.errors, stable)


def _encodable(rows: NDArray[Any], source: TensorType) -> tuple[NDArray[Any], TensorType]:
    """Rows the codecs take, with their type: blocks decoded, integers as float32."""
    if source.quantized:
        return dequantize(rows, source, threads=1), TENSOR_TYPES["F32"]
    if source.floating:
        return rows, source
    return rows.astype(np.float32), TENSOR_TYPES["F32"]


def _as_float64(rows: NDArray[Any], kind: TensorType) -> NDArray[np.float64]:
    if kind.name == "BF16":
        rows = (rows.astype(np.uint32) << 16).view(np.float32)
    return rows.astype(np.float64)


def _weights_of(weights: NDArray[Any] | None, matrix: int) -> NDArray[np.float32] | None:
    if weights is None:
        return None
    found: NDArray[np.float32] = weights if weights.ndim == 1 else weights[matrix if len(weights) > 1 else 0]
    return found.astype(np.float32, copy=False)


def _over_runs(
    work: Callable[[tuple[int, int, int]], Any], shape: Sequence[int], count: int
) -> Iterator[tuple[tuple[int, int, int], Any]]:
    """Results of `work` for each run (matrix, start, stop) of rows, in order: sums do not depend on threads."""
    rows, width = math.prod(shape[:-1]), shape[-1] if shape else 1
    step = max(1, CHUNK // max(width, 1))
    runs = (run for start in range(0, rows, step) for run in matrix_runs(shape, start, min(start + step, rows)))
    if count == 1 or rows <= step:
        for run in runs:
            yield run, work(run)
        return
    with ThreadPoolExecutor(count) as pool:
        pending: deque[tuple[tuple[int, int, int], Future[Any]]] = deque()
        try:
            for run in runs:
                pending.append((run, pool.submit(work, run)))
                if len(pending) > count:
                    done, result = pending.popleft()
                    yield done, result.result()
            while pending:
                done, result = pending.popleft()
                yield done, result.result()
        finally:
            for _, result in pending:
                result.cancel()
