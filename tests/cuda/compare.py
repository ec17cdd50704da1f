"""Whether the device's bytes are the core's, by pieces in threads; and what is kept of those that are not."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.quant import codec

STEP = 4 << 20
#: How many places and how many blocks are kept of a difference, and bytes of all that are kept.
PLACES, BLOCKS, MOST = 16, 32, 12 << 20
MODULI = (32, 256, 8192)
#: Above these, sign aside, bits are of a NaN.
TOPS = {"float32": 0x7F800000, "float16": 0x7C00, "bfloat16": 0x7F80}


@dataclass
class Difference:
    """What is not equal, in units: elements of floats, or blocks. bins: how many fall on each remainder."""

    of: int = 0
    count: int = 0
    places: list[int] = field(default_factory=list)
    bins: dict[int, NDArray[np.int64]] = field(
        default_factory=lambda: {modulus: np.zeros(modulus, np.int64) for modulus in MODULI}
    )

    def add(self, size: int, where: NDArray[np.int64]) -> None:
        """Takes in a piece of so many units, and which of them differ, by index in the whole."""
        self.of += size
        self.count += where.size
        self.places = sorted([*self.places, *where[: 64 * BLOCKS].tolist()])[: 64 * BLOCKS]
        for modulus in MODULI if where.size else ():
            self.bins[modulus] += np.bincount(where % modulus, minlength=modulus)

    def told(self) -> dict[str, Any]:
        """For the results: whether all is equal, else how much is not, and where."""
        if not self.count:
            return {"equal": True}
        hit = {m: np.flatnonzero(bins) for m, bins in self.bins.items()}
        most = {m: hit[m][np.argsort(-self.bins[m][hit[m]], kind="stable")][:16] for m in MODULI}
        often = {m: {int(i): int(self.bins[m][i]) for i in most[m]} for m in MODULI}
        return {
            "equal": False,
            "different": self.count,
            "share": self.count / self.of,
            "first": self.places[:PLACES],
            "remainders": {m: {"hit": int(hit[m].size), "most": often[m]} for m in MODULI},
        }


def floats(found: NDArray[Any], wanted: NDArray[Any], dtype: str, at: int = 0) -> NDArray[np.int64]:
    """Which elements differ, counted from `at`; NaNs are alike. dtype: float32, float16 or bfloat16."""
    bits: Any = np.uint32 if dtype == "float32" else np.uint16
    a, b = found.reshape(-1).view(bits), wanted.reshape(-1).view(bits)
    apart = np.flatnonzero(a != b)
    if apart.size:
        magnitude = bits((1 << (8 * a.itemsize - 1)) - 1)
        nan = ((a[apart] & magnitude) > TOPS[dtype]) & ((b[apart] & magnitude) > TOPS[dtype])
        apart = apart[~nan]
    return apart.astype(np.int64) + at


def blocks(found: NDArray[np.uint8], wanted: NDArray[np.uint8], size: int, at: int = 0) -> NDArray[np.int64]:
    """Which blocks of so many bytes differ, counted from `at`."""
    a, b = found.reshape(-1), wanted.reshape(-1)
    apart = np.flatnonzero(a != b)
    return (np.unique(apart // size) if apart.size else apart).astype(np.int64) + at


def in_threads(difference: Difference, jobs: Iterable[tuple[int, Any]], which: Any) -> None:
    """Compares in as many threads as the core uses; jobs: units of a piece and what `which` finds its places from."""
    with ThreadPoolExecutor(codec.thread_count(None)) as pool:
        for size, where in pool.map(lambda job: (job[0], which(job[1])), jobs):
            difference.add(size, where)


def float_pieces(found: NDArray[Any], wanted: NDArray[Any], dtype: str, at: int, to: Difference) -> None:
    """Compares floats of which the first has index `at`."""
    starts = range(0, found.size, STEP)
    jobs = ((min(STEP, found.size - i), i) for i in starts)
    in_threads(to, jobs, lambda i: floats(found[i : i + STEP], wanted[i : i + STEP], dtype, at + i))


def block_pieces(found: NDArray[np.uint8], wanted: NDArray[np.uint8], size: int, at: int, to: Difference) -> None:
    """Compares blocks of `size` bytes of which the first has index `at`."""
    step = STEP // size * size
    jobs = ((min(step, found.size - i) // size, i) for i in range(0, found.size, step))
    in_threads(to, jobs, lambda i: blocks(found[i : i + step], wanted[i : i + step], size, at + i // size))


def keep(folder: Path, item: str, arrays: dict[str, NDArray[Any]]) -> None:
    """Adds arrays to unequal.npz, while it is not too large."""
    path = folder / "unequal.npz"
    held: dict[str, NDArray[Any]] = {}
    if path.exists():
        with np.load(path) as file:
            held = {name: file[name] for name in file.files}
    held |= {f"{item}/{name}": array for name, array in arrays.items()}
    if sum(array.nbytes for array in held.values()) <= MOST:
        np.savez_compressed(path, **held)  # type: ignore[arg-type]
