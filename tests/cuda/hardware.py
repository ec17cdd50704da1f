"""The kernels on a real device with the signatures of tests/cuda/host.py, which runs them on the emulated one.

Arrays go to the device whole, with what lies around them and at the same place within 256 bytes, and come back whole,
so that whoever looks at what lies around a result sees what the device wrote.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.cuda.context import Memory
from gguf_forge.cuda.device import Lane
from tests.cuda import host
from tests.cuda.card import Card

BOUNDARY = 256


class Hardware:
    """Takes the place of host's functions that run kernels."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.lane = Lane(card.context, BOUNDARY)

    def instead(self) -> None:
        """From now on host's functions run kernels here."""
        vars(host).update(decode=self.decode, encode=self.encode, matvec=self.matvec)

    def decode(
        self, name: str, blocks: NDArray[np.uint8], count: int, out: NDArray[Any], result: str, grid: int
    ) -> None:
        """As host.decode."""
        source, to = _There(self.card, blocks), _There(self.card, out)
        self._launch(f"forge_decode_{name}_{result}", grid, (source.address, to.address), ("uint64_t", count))
        to.back()

    def encode(
        self, name: str, values: NDArray[np.float32], importance: NDArray[np.float32] | None, out: NDArray[np.uint8],
        limit: float = host.FLT_MAX, grid: int | None = None,
    ) -> int:  # fmt: skip
        """As host.encode."""
        row, (rows, width) = host.ENCODERS[name], values.shape
        x, to = _There(self.card, values), _There(self.card, out)
        weights = None if importance is None else _There(self.card, importance)
        lattice = None if row.lattice is None else self.card.device.lattice(row.lattice, self.lane)
        squares, shape = None, (("uint64_t", rows), ("uint64_t", width))
        if row.row_squares and weights is not None:
            squares = self.card.memory(4 * rows)
            self._launch("forge_row_mean_squares", max(1, rows // 50), (x.address, squares.address), *shape)
        key = self.card.key()
        beside = [0 if each is None else each.address for each in (weights, squares, lattice)]
        addresses = (x.address, *beside, to.address)
        fitting = max(1, -(-rows * width // host.SIZES[name] // row.blocks))
        rest = (*shape, ("float", limit), ("uint64_t", key.address))
        self._launch(f"forge_encode_{name}", grid or fitting, addresses, *rest)
        to.back()
        return int(self.card.fetch(key.address, 8).view(np.uint64)[0])

    def matvec(
        self, name: str, blocks: NDArray[np.uint8], x: NDArray[Any], rows: int, most: int, grid: int | None = None,
        capability: int = 0,
    ) -> NDArray[np.float32]:  # fmt: skip
        """As host.matvec; the capability is the device's."""
        y = np.full((x.shape[0], rows), np.nan, np.float32)
        suffix = {np.dtype(np.float32): "f32", np.dtype(np.float16): "f16"}[x.dtype]
        fitting = -(-rows // host.CONSTANTS["FORGE_MATVEC_ROWS"]) * -(-x.shape[0] // most)
        there = [_There(self.card, each) for each in (blocks, x, y)]
        sizes = tuple(("uint64_t", size) for size in (rows, x.shape[1], x.shape[0]))
        addresses = tuple(each.address for each in there)
        self._launch(f"forge_matvec_{name}_{suffix}_{most}", grid or fitting, addresses, *sizes)
        there[2].back()
        return y

    def _launch(self, name: str, grid: int, addresses: tuple[int, ...], *rest: tuple[str, Any]) -> None:
        """Starts a kernel of just so many CTAs, and waits."""
        each = self.card.device.kernels.launches[name].each
        self.card.prepared(name, grid * each, addresses, *rest)()
        self.card.stream.wait()


class _There:
    """An array's memory, on the device."""

    def __init__(self, card: Card, x: NDArray[Any]) -> None:
        base: Any = x
        while isinstance(base.base, np.ndarray):
            base = base.base
        self.card, self.host = card, base.reshape(-1).view(np.uint8)
        place = self.host.ctypes.data
        self.memory = Memory(card.context, self.host.size + BOUNDARY)
        self.start = self.memory.address + (place - self.memory.address) % BOUNDARY
        self.address = self.start + x.ctypes.data - place
        card.send(self.host, self.start)

    def back(self) -> None:
        """The array and what lies around it as the device has them now."""
        self.host[:] = self.card.fetch(self.start, self.host.size)
