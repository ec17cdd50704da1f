"""A device as a worker uses it: memory that is poisoned, filled and fetched by pieces, kernels started, and timed.

Times are those of kernels on data in the card's memory: of many launches less that of few, so that what surrounds them
counts for nothing. Needs Python, NumPy and cffi only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge import cuda
from gguf_forge.cuda.context import Memory, Pinned, Stream
from gguf_forge.cuda.device import Lane
from gguf_forge.types import TENSOR_TYPES, TensorType
from tests.cuda.plan import FIRST, Sizes

#: What lies in memory that nothing was written to.
POISON = 0xA5
RESULTS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
#: Bytes of noise that is made; more repeats it.
NOISE = 96 << 20


class Card:
    """A device with its kernels, its context current in this thread for good. folder: where outputs go."""

    def __init__(self, ordinal: int, sizes: Sizes, folder: Path) -> None:
        self.sizes, self.folder = sizes, folder
        self.device = cuda.Device(ordinal)
        self.context = self.device.context
        self._held = ExitStack()
        self._held.enter_context(self.context.current())
        self.device.kernels.load()
        self.stream = Stream(self.context)
        self.rng = np.random.default_rng(11)

    @cached_property
    def pinned(self) -> Pinned:
        """Memory of the host that pieces are fetched to."""
        return Pinned(self.context, self.sizes.piece)

    @cached_property
    def _lane(self) -> Lane:
        return Lane(self.context, 256)

    def memory(self, size: int) -> Memory:
        """Poisoned memory of the device."""
        made = Memory(self.context, max(size, 1))
        self.poison(made.address, size)
        return made

    def poison(self, address: int, size: int) -> None:
        """Fills memory of the device with what no result is."""
        if size:
            self._do("cuMemsetD8Async", address, POISON, size)

    def send(self, x: NDArray[Any], to: int) -> None:
        """Fills memory of the device, and waits."""
        flat = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
        for at in range(0, flat.size, self.sizes.piece):
            part = flat[at : at + self.sizes.piece]
            self.stream.wait()
            self.pinned.bytes[: part.size] = part
            self._do("cuMemcpyHtoDAsync_v2", to + at, self.pinned.pointer, part.size)
        self.stream.wait()

    def placed(self, x: NDArray[Any]) -> Memory:
        """An array in memory of the device that is no larger."""
        made = Memory(self.context, max(x.nbytes, 1))
        self.send(x, made.address)
        return made

    def repeat(self, address: int, base: int, size: int) -> None:
        """Repeats the first `base` bytes of memory of the device until there are `size`."""
        while base < size:
            step = min(base, size - base)
            self._do("cuMemcpyDtoDAsync_v2", address + base, address, step)
            base += step
        self.stream.wait()

    def pieces(self, address: int, size: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Fetches memory of the device: where each piece begins, and its bytes, valid until the next."""
        for at in range(0, size, self.sizes.piece):
            few = min(self.sizes.piece, size - at)
            self._do("cuMemcpyDtoHAsync_v2", self.pinned.pointer, address + at, few)
            self.stream.wait()
            yield at, self.pinned.bytes[:few]

    def view(self, address: int, size: int) -> NDArray[np.uint8]:
        """The bytes of a piece of the device's memory, valid until the next."""
        assert size <= self.sizes.piece
        return next((piece for _, piece in self.pieces(address, size)), np.empty(0, np.uint8))

    def fetch(self, address: int, size: int) -> NDArray[np.uint8]:
        """A copy of memory of the device."""
        out = np.empty(size, np.uint8)
        for at, piece in self.pieces(address, size):
            out[at : at + piece.size] = piece
        return out

    def copy(self, to: int, source: int, size: int) -> None:
        """Starts a copy within the device's memory."""
        self._do("cuMemcpyDtoDAsync_v2", to, source, size)

    def prepared(self, name: str, units: int, addresses: tuple[int, ...], *rest: tuple[str, Any]) -> Callable[[], None]:
        """What starts a kernel; rest: C type and value of what follows the addresses."""
        pointers = [("uint64_t", at) for at in addresses]
        return self.device.kernels.prepared(name, units, self.stream.handle, *pointers, *rest)

    def decoder(self, kind: TensorType, suffix: str, blocks: int, out: int, elements: int) -> Callable[[], None]:
        """What starts a decoder."""
        name = f"forge_decode_{kind.name.lower()}_{suffix}"
        return self.prepared(name, elements, (blocks, out), ("uint64_t", elements // kind.block_size))

    def encoder(
        self, kind: TensorType, places: tuple[int, int, int, int], shape: tuple[int, int], key: int
    ) -> Callable[[], None]:
        """What starts an encoder, and what it needs before; places: of values, importances or 0, means, and blocks."""
        values, weights, squares, out = places
        name = f"forge_encode_{kind.name.lower()}"
        row = self.device.kernels.launches[name]
        lattice = 0 if row.lattice is None else self.device.lattice(row.lattice, self._lane).address
        sizes = tuple(("uint64_t", size) for size in shape)
        limits = (("float", float(np.finfo(np.float32).max)), ("uint64_t", key))
        means = weights and row.mean_squares
        units = shape[0] * shape[1] // kind.block_size
        addresses = (values, weights, squares if means else 0, lattice, out)
        start = self.prepared(name, units, addresses, *sizes, *limits)
        if not means:
            return start
        first = self.prepared("forge_row_mean_squares", shape[0], (values, squares), *sizes)

        def both() -> None:
            first()
            start()

        return both

    def product(
        self, kind: TensorType, dtype: str, shape: tuple[int, int, int], addresses: tuple[int, int, int]
    ) -> Callable[[], None]:
        """What starts a product; shape: rows, width, vectors; addresses: of the matrix, of those, and of results."""
        several = 4 if shape[2] > 1 else 1
        name = f"forge_matvec_{kind.name.lower()}_{RESULTS[dtype]}_{several}"
        sizes = tuple(("uint64_t", n) for n in shape)
        return self.prepared(name, shape[0] * -(-shape[2] // several), addresses, *sizes)

    def key(self) -> Memory:
        """A failure's key that says that nothing was refused."""
        made = Memory(self.context, 8)
        self._do("cuMemsetD8Async", made.address, 0xFF, 8)
        return made

    def refused(self, key: Memory) -> bool:
        """Whether an encoder refused a value."""
        return bool((self.fetch(key.address, 8) != 0xFF).any())

    def seconds(self, start: Callable[[], None]) -> float:
        """Seconds of the work that a call starts: many launches less few, the least of each, after the same work."""
        sizes = self.sizes

        def timed(often: int) -> float:
            self.stream.wait()
            began = time.perf_counter()
            for _ in range(often):
                start()
            self.stream.wait()
            return time.perf_counter() - began

        warm = once = timed(1)
        if not sizes.rounds:
            return once
        while warm < sizes.warm:
            often = max(1, int(sizes.warm / 10 / once))
            took = timed(often)
            once, warm = took / often, warm + took
        more = max(1, min(sizes.launches, int(sizes.spent / once)))
        rounds = sizes.rounds if once < sizes.spent else 1
        few = min(timed(2) for _ in range(rounds))
        many = min(timed(2 + more) for _ in range(rounds))
        return (many - few) / more if many > few else many / (2 + more)

    def warm(self) -> tuple[Callable[[], None], int, tuple[Memory, Memory]]:
        """Copies until clocks are up; returns what starts one, the bytes it reads and writes, and their memory."""
        size = 4 * self.sizes.elements
        one, other = self.memory(size), self.memory(size)
        noise = self.noise(min(size, NOISE))
        self.send(noise, one.address)
        self.repeat(one.address, noise.size, size)

        def start() -> None:
            self.copy(other.address, one.address, size)

        end = time.perf_counter() + self.sizes.warm_copies
        for i in count():
            start()
            if i % 16 == 15 or not self.sizes.warm_copies:
                self.stream.wait()
                if time.perf_counter() >= end:
                    break
        return start, 2 * size, (one, other)

    def noise(self, size: int) -> NDArray[np.uint8]:
        """Random bytes: as blocks every code, scales of any kind, NaNs among them."""
        return np.frombuffer(np.random.default_rng(7).bytes(size), np.uint8)

    def values(self, rows: int, width: int) -> NDArray[np.float32]:
        """Numbers as weights have them, some rows far larger or of few values, and one of zeros."""
        x = self.rng.standard_normal((rows, width), np.float32) * np.float32(0.02)
        x[::97] *= np.float32(300)
        x[5::101] = np.round(50 * x[5::101])
        x[-1:] = 0
        return x

    def weights(self, width: int) -> NDArray[np.float32]:
        """Importances."""
        return self.rng.random(width).astype(np.float32) + np.float32(0.01)

    def hows(self, kind: TensorType) -> list[str]:
        """Whether a type is encoded without importances, and with."""
        return ([] if kind.needs_weights else ["without"]) + (["with"] if kind.weighted else [])

    def _do(self, name: str, *args: Any) -> None:
        self.context.driver.call(name, *args, self.stream.handle)


def types(what: str) -> list[TensorType]:
    """Those that are "decoded" or "encoded", the most used ones first."""
    found = [t for t in TENSOR_TYPES.values() if (t.decodes if what == "decoded" else t.encodes)]
    return sorted(found, key=lambda t: FIRST.index(t.name) if t.name in FIRST else len(FIRST))


def product_types(card: Card) -> list[TensorType]:
    """Those that have products."""
    return [t for t in types("decoded") if f"forge_matvec_{t.name.lower()}_f32_1" in card.device.kernels.launches]
