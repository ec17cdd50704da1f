"""Decoders and encoders on much data: how fast, and whether every bit is the core's."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gguf_forge
from gguf_forge import _native
from gguf_forge.cuda.context import Memory
from gguf_forge.types import TENSOR_TYPES, TensorType
from tests.cuda.card import NOISE, RESULTS, Card, types
from tests.cuda.compare import BLOCKS, Difference, block_pieces, float_pieces, keep

F32 = TENSOR_TYPES["F32"]
#: The instruction set that every other one is held to.
PLAIN = _native.isa_names()[-1]
#: Rows as which the core decodes blocks, so that all threads take part.
ROW = 8192
MOST_BYTES = max(t.block_bytes / t.block_size for t in TENSOR_TYPES.values())
Items = dict[str, Callable[[], dict[str, Any]]]


def items(what: str, card: Card) -> Items:
    """The copy within the card's memory, decoders, or encoders."""
    if what == "copy":
        return {"copy": partial(copy_rate, card)}
    card.warm()
    if what == "decode":
        decoding = Decoding(card)
        return {f"{t} {dtype}": partial(decoding.run, t, dtype) for t in types("decoded") for dtype in RESULTS}
    encoding = Encoding(card)
    return {f"{t} {how}": partial(encoding.run, t, how) for t in types("encoded") for how in card.hows(t)}


def copy_rate(card: Card) -> dict[str, Any]:
    """Bytes that a copy within the card's memory reads and writes, thousand millions a second."""
    start, moved, held = card.warm()
    rate = moved / card.seconds(start) / 1e9
    found = card.fetch(held[1].address, min(1 << 20, moved // 2))
    return {"rate": rate, "equal": bool((found == card.noise(NOISE)[: found.size]).all()), "bytes": moved // 2}


class Decoding:
    """Decoders; the same noise is the blocks of every type."""

    def __init__(self, card: Card) -> None:
        self.card, self.elements = card, max(card.sizes.elements // ROW, 1) * ROW
        while self.elements * (MOST_BYTES + 5) > card.context.free() and self.elements > ROW:
            self.elements = max(self.elements // 2 // ROW, 1) * ROW
        size = int(self.elements * MOST_BYTES)
        noise = card.noise(min(NOISE, size))
        self.data = np.resize(noise, size)
        self.there = Memory(card.context, size)
        card.send(noise, self.there.address)
        card.repeat(self.there.address, noise.size, size)
        self.out = card.memory(4 * self.elements)
        self.wanted = np.empty(4 * self.elements, np.uint8)

    def run(self, kind: TensorType, dtype: str) -> dict[str, Any]:
        """The rate of bytes read and written, and whether two launches wrote the core's bits."""
        card, size = self.card, 4 if dtype == "float32" else 2
        nbytes = self.elements // kind.block_size * kind.block_bytes
        start = card.decoder(kind, RESULTS[dtype], self.there.address, self.out.address, self.elements)
        rate = (nbytes + size * self.elements) / card.seconds(start) / 1e9
        data = self.data[:nbytes].reshape(self.elements // ROW, -1)
        plain: Any = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}[dtype]
        wanted = self.wanted[: size * self.elements].view(plain)
        gguf_forge.dequantize(data, kind, dtype, out=wanted.reshape(self.elements // ROW, ROW))
        found = []
        for _ in range(2):
            card.poison(self.out.address, 4 * self.elements)
            start()
            difference = Difference()
            for at, piece in card.pieces(self.out.address, wanted.nbytes):
                part = wanted[at // size :][: piece.size // size]
                float_pieces(piece.view(plain), part, dtype, at // size, difference)
            found.append(difference)
        told = twice(found)
        if not told["equal"]:
            self._keep(kind, dtype, found[0] if found[0].count else found[1], wanted)
        return {"type": kind.name, "dtype": dtype, "rate": rate, "elements": self.elements, **told}

    def _keep(self, kind: TensorType, dtype: str, difference: Difference, wanted: NDArray[Any]) -> None:
        where = np.unique(np.array(difference.places) // kind.block_size)[:BLOCKS]
        data = self.data[: self.elements // kind.block_size * kind.block_bytes].reshape(-1, kind.block_bytes)[where]
        size = wanted.itemsize * kind.block_size
        there = np.stack([self.card.fetch(self.out.address + int(i) * size, size) for i in where])
        core = wanted.reshape(-1, kind.block_size)[where]
        plain = np.empty((len(where), kind.block_size), wanted.dtype)
        to = TENSOR_TYPES[{"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]]
        _native.convert(kind.id, data, to.id, plain, 1, plain.size, None, PLAIN)
        kept = {"block": where, "inputs": data, "gpu": there, "core": core, "plain": plain}
        keep(self.card.folder, f"decode {kind} {dtype}", kept)


def twice(found: list[Difference]) -> dict[str, Any]:
    """What is told of two launches that were compared with the same."""
    first, second = found
    told = (first if first.count else second).told()
    if not told["equal"]:
        told["again"] = "the same" if first.told() == second.told() else f"another: {second.count} differ"
    return told


class Encoding:
    """Encoders; the same values are encoded as every type, some rows over and over."""

    def __init__(self, card: Card) -> None:
        sizes = card.sizes
        self.card, self.width = card, sizes.width
        self.rows = sizes.elements // sizes.width
        while self.rows * self.width * 13 > card.context.free() and self.rows > 1:
            self.rows //= 2
        self.unique = min(sizes.unique, self.rows)
        self.x, self.weights = card.values(self.unique, self.width), card.weights(self.width)
        self.there = Memory(card.context, 4 * self.rows * self.width)
        card.send(self.x, self.there.address)
        card.repeat(self.there.address, self.x.nbytes, 4 * self.rows * self.width)
        self.weights_there = card.placed(self.weights)
        self.squares = card.memory(4 * self.rows)
        self.out = card.memory(8 * self.rows * self.width)

    def run(self, kind: TensorType, how: str) -> dict[str, Any]:
        """The rate of weights, how many times one core's, and whether two launches wrote the core's blocks."""
        card, given = self.card, self.weights if how == "with" else None
        rows = self._rows(kind, how)
        rate = rows * self.width / card.seconds(self._start(kind, how, rows)) / 1e9
        one = core_rate(self.x[:256], kind, given)
        told = self._compared(kind, how, min(self.rows, 4 * rows), given)
        return {"type": kind.name, "how": how, "rate": rate, "core": one / 1e6, "faster": rate * 1e9 / one, **told}

    def _start(self, kind: TensorType, how: str, rows: int, key: Memory | None = None) -> Callable[[], None]:
        weights = self.weights_there.address if how == "with" else 0
        self.key = key or self.card.key()
        places = (self.there.address, weights, self.squares.address, self.out.address)
        return self.card.encoder(kind, places, (rows, self.width), self.key.address)

    def _rows(self, kind: TensorType, how: str) -> int:
        """As many as an encoder is done with in the time that a launch may take."""
        rows = min(256, self.rows)
        while rows < self.rows:
            start = self._start(kind, how, rows)
            start()
            self.card.stream.wait()
            began = time.perf_counter()
            start()
            self.card.stream.wait()
            if time.perf_counter() - began > self.card.sizes.at_most / 4:
                break
            rows = min(4 * rows, self.rows)
        return rows

    def _compared(self, kind: TensorType, how: str, rows: int, given: NDArray[np.float32] | None) -> dict[str, Any]:
        card, each = self.card, kind.row_bytes(self.width)
        wanted = gguf_forge.quantize(self.x[: min(self.unique, rows)], kind, given).reshape(-1)
        key, found = card.key(), []
        for _ in range(2):
            card.poison(self.out.address, rows * each)
            self._start(kind, how, rows, key)()
            difference = Difference()
            for at in range(0, rows, self.unique):
                few = min(self.unique, rows - at) * each
                piece = card.view(self.out.address + at * each, few)
                first = at * each // kind.block_bytes
                block_pieces(piece, wanted[:few], kind.block_bytes, first, difference)
            found.append(difference)
        told = twice(found)
        if card.refused(key):
            told |= {"equal": False, "refused": "a value was refused"}
        if told.get("different"):
            self._keep(kind, how, found[0] if found[0].count else found[1], wanted)
        return {"compared": rows * self.width, **told}

    def _keep(self, kind: TensorType, how: str, difference: Difference, wanted: NDArray[np.uint8]) -> None:
        where, per = np.array(difference.places[:BLOCKS]), self.width // kind.block_size
        size, given = kind.block_bytes, self.weights if how == "with" else None
        there = np.stack([self.card.fetch(self.out.address + int(i) * size, size) for i in where])
        rows, columns = where // per % self.unique, where % per
        values = self.x[rows]
        plain = np.empty((len(where), kind.row_bytes(self.width)), np.uint8)
        _native.convert(F32.id, values, kind.id, plain, len(where), self.width, given, PLAIN)
        blocks = np.arange(len(where))
        kept = {
            "block": where,
            "inputs": values.reshape(len(where), per, -1)[blocks, columns],
            "gpu": there,
            "core": wanted.reshape(-1, per, size)[rows, columns],
            "plain": plain.reshape(len(where), per, size)[blocks, columns],
        }
        if given is not None:
            kept["importances"] = given.reshape(per, -1)[columns]
        keep(self.card.folder, f"encode {kind} {how}", kept)


def core_rate(x: NDArray[np.float32], kind: TensorType, given: NDArray[np.float32] | None) -> float:
    """Weights a second that one processor encodes: the best of two runs, or of more in a tenth of a second."""
    best, spent, runs = np.inf, 0.0, 0
    x = x[: max(1, len(x) // 8)]
    while spent < 0.1 or runs < 2:
        began = time.perf_counter()
        gguf_forge.quantize(x, kind, given, threads=1)
        took = time.perf_counter() - began
        best, spent, runs = min(best, took), spent + took, runs + 1
    return float(x.size / best)
