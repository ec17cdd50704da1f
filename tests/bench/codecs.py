"""Encode and decode rates of every type: ours on each instruction set, ggml's and gguf-py's, one thread; then two."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_forge import _native
from gguf_forge.quant.codec import dequantize, quantize
from gguf_forge.types import TENSOR_TYPES, TensorType
from tests.bench.report import Report, seconds
from tests.oracle import JUDGE, Oracle

WIDTH = 4096
#: Weights encoded at a time: small for the searches, large for what only rounds.
SLOW_ROWS, FAST_ROWS = 16, 128
#: Weights decoded: into 512 KiB, which stay in cache, and into 256 MiB, which do not.
SMALL, LARGE = 1 << 17, 1 << 26
F32 = TENSOR_TYPES["F32"]
HALVES = [TENSOR_TYPES["F16"], TENSOR_TYPES["BF16"]]
#: Encoded by rounding alone, unless there is an importance matrix.
ROUNDED = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4", "Q1_0", "Q2_0", "F16", "BF16"}

Array = npt.NDArray[Any]


def bench(report: Report, folder: Path) -> None:
    generator = np.random.default_rng(1)
    x = generator.standard_normal((FAST_ROWS, WIDTH), dtype=np.float32)
    weights = generator.random(WIDTH, dtype=np.float32) + np.float32(0.01)
    isas = _native.isa_names()[::-1]
    ggml = Oracle(JUDGE)
    kinds = [t for t in TENSOR_TYPES.values() if (t.quantized or t in HALVES) and t.encodes]
    encoding(report, ggml, kinds, x, weights, isas)
    decoding(report, ggml, [t for t in TENSOR_TYPES.values() if (t.quantized or t in HALVES) and t.decodes], x, isas)
    threads(report, x)


def encoding(
    report: Report, ggml: Oracle, kinds: list[TensorType], x: Array, weights: Array, isas: list[str]
) -> None:
    report.section(
        "Encoding",
        "One thread, million weights a second from float32 in cache; with an importance matrix where the type uses "
        "one. Ratios are to ggml in the same run.",
    )
    columns = [*(f">{isa}" for isa in isas), *(f">{isa} / ggml" for isa in isas)]
    report.table("type", "matrix", ">ggml", ">gguf-py", *columns)
    for kind in kinds:
        for w in (None, weights):
            if (w is None and kind.needs_weights) or (w is not None and not kind.weighted):
                continue
            rows = x if w is None and kind.name in ROUNDED else x[:SLOW_ROWS]
            peer = rate(partial(ggml.encode, rows, kind, w), rows.size)
            other = rate(gguf_encoder(rows, kind), rows.size) if w is None else None
            out = np.empty((len(rows), kind.row_bytes(WIDTH)), np.uint8)
            ours = [rate(partial(native, F32, rows, kind, out, w, isa), rows.size) for isa in isas]
            ratios = [r / peer if r and peer else None for r in ours]
            cells = [figure(v) for v in (peer, other, *ours)] + [figure(r) for r in ratios]
            report.row(kind.name, "yes" if w is not None else "", *cells)


def decoding(report: Report, ggml: Oracle, kinds: list[TensorType], x: Array, isas: list[str]) -> None:
    large = np.empty(LARGE, np.float32)
    fill = 1e-9 * large.size / seconds(partial(large.fill, 1))
    report.section(
        "Decoding",
        f"To float32, one thread, thousand million weights a second: into {4 * SMALL >> 10} KiB (in cache) and into "
        f"{4 * LARGE >> 20} MiB, of which this run fills {fill:.2f} with a constant. The last columns: to F16 and "
        f"BF16, {2 * LARGE >> 20} MiB, of which it would fill {2 * fill:.1f}.",
    )
    columns = [*(f">{isa}" for isa in isas), f">{isas[-1]}, large", ">of fill", ">to F16", ">to BF16"]
    report.table("type", ">ggml", ">gguf-py, large", *columns)
    for kind in kinds:
        width = max(kind.block_size, WIDTH)
        if kind.encodes:
            block = np.empty((len(x), kind.row_bytes(WIDTH)), np.uint8)
            native(F32, x, kind, block, np.ones(WIDTH, np.float32) if kind.needs_weights else None, isas[-1])
        else:
            block = np.zeros((len(x), kind.row_bytes(width)), np.uint8)
        small = np.ascontiguousarray(block[: SMALL // width])
        out = np.empty(SMALL, np.float32)
        repeat = 64
        theirs = times(repeat, partial(ggml.decode, small, kind)) if kind.encodes else None
        peer = rate(theirs, repeat * SMALL)
        calls = [times(repeat, partial(native, kind, small, F32, out, None, isa, width)) for isa in isas]
        ours = [rate(call, repeat * SMALL) for call in calls]
        many = np.tile(block, (LARGE // block.shape[0] // width, 1))
        mine = rate(partial(native, kind, many, F32, large, None, isas[-1], width), LARGE)
        half = large.view(np.uint8)[: 2 * LARGE]
        halves = [rate(partial(native, kind, many, to, half, None, isas[-1], width), LARGE) for to in HALVES]
        other = rate(gguf_decoder(block, kind), block.shape[0] * width)
        figures = [figure(None if v is None else v / 1000) for v in (peer, other, *ours, mine, *halves)]
        report.row(kind.name, *figures[:-2], "" if mine is None else f"{mine / 1000 / fill:.0%}", *figures[-2:])


def threads(report: Report, x: Array) -> None:
    big = np.tile(x, (64, 1))
    fresh = big.size / seconds(lambda: np.empty(big.shape, np.float32).fill(1)) / 1e6
    report.section(
        "Threads",
        "`gguf_forge.quantize` and `dequantize` of 64 million weights, million weights a second. Results are new "
        f"arrays, whose pages the system has to make: one of float32 is filled with a constant at {fresh:.0f}.",
    )
    report.table("call", "type", ">1 thread", ">2 threads", ">ratio")
    for call, names in ((quantize, ("Q4_K", "Q6_K", "Q3_K", "IQ4_XS", "Q8_0")), (dequantize, ("Q4_K", "Q8_0"))):
        for name in names:
            data = big if call is quantize else quantize(big, name)
            one, two = (rate(partial(call, data, name, threads=count), big.size) or 0 for count in (1, 2))
            report.row(call.__name__, name, figure(one), figure(two), f"{two / one:.2f}")


    report.section(
        "Into an array that is there",
        f"`gguf_forge.dequantize` of {big.size >> 20} million weights, thousand million a second: to a new array "
        "and, with `out=`, to one that is there. Fill: the same array, given a constant by one thread "
        "(`numpy.ndarray.fill`).",
    )
    report.table("type", "to", "threads", ">fill", ">new", ">out=", ">of fill")
    for name in ("Q4_K", "Q8_0"):
        blocks = quantize(big, name)
        for dtype in (np.float32, np.float16):
            there = np.ones(big.shape, dtype)
            fill = rate(partial(there.fill, 1), big.size) or 0
            for count in (1, 2):
                new = rate(partial(dequantize, blocks, name, dtype, count), big.size) or 0
                own = rate(partial(dequantize, blocks, name, threads=count, out=there), big.size) or 0
                figures = [figure(v / 1000) for v in (fill, new, own)]
                report.row(name, there.dtype.name, count, *figures, f"{own / fill:.0%}")


def native(
    source: TensorType, data: Array, target: TensorType, out: Array, weights: Array | None, isa: str, width: int = WIDTH
) -> None:
    """The core's conversion on this thread, with one instruction set."""
    rows = out.size // row_items(target, width)
    status, _ = _native.convert(source.id, data, target.id, out, rows, width, weights, isa)
    assert status == _native.OK


def row_items(kind: TensorType, width: int) -> int:
    """Items of a row's array: floats, or bytes of blocks."""
    return width if kind is F32 else kind.row_bytes(width)


def rate(call: Callable[[], object] | None, count: int) -> float | None:
    """Million items a second."""
    return None if call is None else count / seconds(call) / 1e6


def times(repeat: int, call: Callable[[], object]) -> Callable[[], None]:
    def calls() -> None:
        for _ in range(repeat):
            call()

    return calls


def gguf_encoder(rows: Array, kind: TensorType) -> Callable[[], object] | None:
    from gguf.quants import quantize as encode

    return _gguf_call(encode, rows, kind)


def gguf_decoder(block: Array, kind: TensorType) -> Callable[[], object] | None:
    from gguf.quants import dequantize as decode

    return _gguf_call(decode, block, kind)


def _gguf_call(function: Callable[[Array, Any], object], data: Array, kind: TensorType) -> Callable[[], object] | None:
    """The call on this data; None where gguf-py has no such type, or does not do this with it."""
    from gguf import GGMLQuantizationType

    try:
        which = GGMLQuantizationType[kind.name]
        function(data[:1], which)
    except (KeyError, NotImplementedError):
        return None
    return partial(function, data, which)


def figure(value: float | None) -> str:
    """Three digits that count."""
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"
