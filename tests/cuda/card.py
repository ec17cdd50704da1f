"""What a GPU makes and how fast: every type both ways against the core, products against float64, a model's conversion.

Times are those of kernels on data in the card's memory: of many launches less that of few, so that what surrounds them
counts for nothing. Needs Python, NumPy and cffi only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gguf_forge
from gguf_forge import cuda
from gguf_forge.cuda.encoding import DeviceRows, Encoding, decode
from gguf_forge.quant import codec
from gguf_forge.types import TENSOR_TYPES, TensorType

F32 = TENSOR_TYPES["F32"]
#: Seconds that the launches of a kernel may take while they are timed, once.
PATIENCE = 0.5
RESULTS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Sizes:
    """How much is done. Elements are weights; seconds are the processors', a type.

    decoded: of a tensor that is decoded; encoded: of one that is encoded for its rate, `compared` at most of one whose
    bytes are compared; matrix: rows and width in products; matrices: how many take turns, so that caches hold none;
    model: bytes of the model that is converted; launches, rounds: how many are timed, how often.
    """

    decoded: int = 1 << 28
    encoded: int = 1 << 26
    compared: int = 1 << 25
    seconds: float = 1.0
    matrix: tuple[int, int] = (8192, 8192)
    matrices: int = 8
    model: int = 2 << 30
    launches: int = 12
    rounds: int = 3

    def within(self, free: int) -> Sizes:
        """As much of it as fits into so many bytes of a card's memory."""
        decoded = self.decoded
        while decoded * 20 > free and decoded > 1 << 20:
            decoded //= 2
        return Sizes(**{**vars(self), "decoded": decoded, "encoded": min(self.encoded, decoded)})


@dataclass
class Row:
    """A line of the table. Rates are in thousand millions a second; None: not measured."""

    type: str
    decoded: dict[str, float] = field(default_factory=dict)
    encoded: dict[str, float] = field(default_factory=dict)
    faster: dict[str, float] = field(default_factory=dict)
    equal: dict[str, bool] = field(default_factory=dict)


class Card:
    """A device that is measured. copy: bytes that a copy within its memory reads and writes, a second."""

    def __init__(self, device: cuda.Device, sizes: Sizes) -> None:
        self.device, self.sizes = device, sizes.within(device.context.free())
        self.rng = np.random.default_rng(11)
        self.noise = np.frombuffer(self.rng.bytes(min(self.sizes.decoded, 96 << 20) // 256 * 256), np.uint8)
        self.copy = self._copy_rate()

    def seconds_of(self, start: Callable[[Any], None], often: int = 1) -> float:
        """Seconds of the work that a call starts on a lane: the least of some slopes over launches, or more `often`."""
        with self.device.lanes(1) as lanes:
            lane = lanes[0]

            def timed(count: int) -> float:
                lane.wait()
                began = time.perf_counter()
                for _ in range(count):
                    start(lane)
                lane.wait()
                return time.perf_counter() - began

            timed(1)
            once = timed(1)
            more = max(1, min(self.sizes.launches * often, int(PATIENCE / once)))
            found = []
            for _ in range(self.sizes.rounds if once < PATIENCE else 1):
                few, many = timed(2), timed(2 + more)
                found.append((many - few) / more if many > few else many / (2 + more))
        return min(found)

    def _copy_rate(self) -> float:
        size = 4 * self.sizes.decoded
        one, other = (cuda.DeviceArray(self.device, (size,), "uint8") for _ in range(2))
        return 2 * size / self.seconds_of(lambda lane: lane.copy(other.address, one.address, size))

    def blocks(self, kind: TensorType, elements: int) -> NDArray[np.uint8]:
        """Random bytes as blocks: every code, scales of any kind, NaNs among them."""
        return np.resize(self.noise, elements // kind.block_size * kind.block_bytes)

    def decode(self, kind: TensorType, row: Row) -> None:
        """Rates, and whether the core decodes to the same bits; NaNs are NaNs."""
        elements = self.sizes.decoded // 8192 * 8192
        data = self.blocks(kind, elements)
        there = cuda.upload(data, device=self.device)
        for dtype, suffix in RESULTS.items():
            out = cuda.dequantize(there, kind, dtype)
            what = (there.address, out.address, elements)
            seconds = self.seconds_of(partial(self._decode, kind, suffix, what))
            row.decoded[dtype] = (data.nbytes + out.nbytes) / seconds / 1e9
            wanted = np.empty(elements, {"float32": np.float32, "float16": np.float16}.get(dtype, np.uint16))
            gguf_forge.dequantize(data, kind, dtype, out=wanted)
            row.equal[dtype] = same_floats(out.numpy(), wanted)

    def _decode(self, kind: TensorType, suffix: str, what: tuple[int, int, int], lane: Any) -> None:
        decode(self.device, lane, kind, suffix, what)

    def encode(self, kind: TensorType, row: Row) -> None:
        """Rates with and without importances, and whether the core makes the same blocks."""
        width = 4096
        weights = self.rng.random(width).astype(np.float32) + np.float32(0.01)
        for name, given in (("without", None), ("with", weights)):
            if (given is None and kind.needs_weights) or (given is not None and not kind.weighted):
                continue
            x = self.values(256, width)
            one = core_rate(x, kind, given)
            row.encoded[name] = self._encode_rate(kind, given, width)
            row.faster[name] = row.encoded[name] * 1e9 / one
            rows = int(min(self.sizes.compared, max(x.size, one * self.sizes.seconds * processors()))) // width
            x = self.values(rows, width)
            where = x if kind.quantized else cuda.upload(x, device=self.device)  # floats go to kernels from there only
            made = cuda.quantize(where, kind, given, device=self.device).numpy()
            row.equal[f"blocks {name}"] = bool((made == gguf_forge.quantize(x, kind, given)).all())

    def _encode_rate(self, kind: TensorType, given: NDArray[np.float32] | None, width: int) -> float:
        count = max(1, self.sizes.encoded // width)
        x = cuda.upload(self.values(count, width), device=self.device)
        rows = DeviceRows(x.address, F32, count, width)
        weights = None if given is None else codec.checked_importance(given, width, kind)
        encoding = Encoding(self.device, kind, rows, weights)
        out = cuda.DeviceArray(self.device, (count, encoding.row_bytes), "uint8")
        with self.device.lanes(encoding.lane_size) as lanes:
            step = encoding.rows_at_a_time(lanes[0])
        few = min(count, step)

        def start(lane: Any) -> None:
            encoding.encode(lane, 0, few, out.address)  # what is staged meanwhile is the same each time

        return few * width / self.seconds_of(start) / 1e9

    def values(self, rows: int, width: int) -> NDArray[np.float32]:
        """Numbers as weights have them, a few rows far larger and one of zeros."""
        some = self.rng.standard_normal((min(rows, 1021), width), np.float32) * np.float32(0.02)
        some[-1:] = 0
        some[::97] *= np.float32(300)
        return np.resize(some, (rows, width))

    def product(self, kind: TensorType, dtype: str, vectors: int) -> tuple[float, float, bool]:
        """Bytes of blocks a second in thousand millions, the share of the copy rate, and whether float64 agrees."""
        rows, width = self.sizes.matrix
        blocks = gguf_forge.quantize(self.values(min(256, rows), width), kind)
        whole = np.resize(blocks, (rows, blocks.shape[1]))
        there = [cuda.upload(whole, device=self.device) for _ in range(self.sizes.matrices)]
        x = self.rng.standard_normal((vectors, width), np.float32).astype(dtype)
        v = cuda.upload(x, device=self.device)
        made = cuda.matvec(there[0], v, kind)
        name = f"forge_matvec_{kind.name.lower()}_{RESULTS[dtype]}_{4 if vectors > 1 else 1}"
        units, sizes = rows * -(-vectors // 4 if vectors > 1 else 1), [("uint64_t", n) for n in (rows, width, vectors)]
        turns: Iterator[Callable[[], None]] = iter(())

        def start(lane: Any) -> None:  # starts take microseconds only if they are prepared
            nonlocal turns
            if not (ready := next(turns, None)):
                addresses = [[one.address, v.address, made.address] for one in there]
                pointers = [[("uint64_t", at) for at in three] for three in addresses]
                launch = self.device.kernels.prepared
                turns = cycle([launch(name, units, lane.stream.handle, *p, *sizes) for p in pointers])
                ready = next(turns)
            ready()

        rate = (whole.nbytes + x.nbytes + made.nbytes) / self.seconds_of(start, 16)
        exact = gguf_forge.dequantize(blocks, kind).astype(np.float64)
        wide = x.astype(np.float64)
        size = np.abs(wide) @ (np.abs(exact) + 2 * np.abs(exact).max(axis=1, keepdims=True)).T
        near = np.abs(made.numpy()[:, : len(exact)] - wide @ exact.T) <= (width / 32 + 16) * 2.0**-24 * size
        return rate / 1e9, rate / self.copy, bool(near.all())


def core_rate(x: NDArray[np.float32], kind: TensorType, given: NDArray[np.float32] | None) -> float:
    """Weights a second that one processor encodes, the best of some runs of a fifth of a second in all."""
    best, spent = np.inf, 0.0
    while spent < 0.2:
        began = time.perf_counter()
        gguf_forge.quantize(x, kind, given, threads=1)
        took = time.perf_counter() - began
        best, spent = min(best, took), spent + took
    return float(x.size / best)


def processors() -> int:
    """How many threads the core uses."""
    return codec.thread_count(None)


def same_floats(found: NDArray[Any], wanted: NDArray[Any]) -> bool:
    """Whether two arrays have the same bits, but for which NaN a NaN is."""
    bits: Any = {4: np.uint32, 2: np.uint16}[wanted.itemsize]
    a, b = found.reshape(-1).view(bits), wanted.reshape(-1).view(bits)
    apart = np.flatnonzero(a != b) if a.shape == b.shape else np.zeros(1, np.intp)
    if not apart.size:
        return True
    if a.shape != b.shape:
        return False
    top = {np.float32: 0x7F800000, np.float16: 0x7C00, np.uint16: 0x7F80}[wanted.dtype.type]
    sign = 1 << (8 * wanted.itemsize - 1)
    return bool(((a[apart] & ~bits(sign) > top) & (b[apart] & ~bits(sign) > top)).all())
