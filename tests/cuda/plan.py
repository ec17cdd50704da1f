"""What `make test-cuda` does: its parts, in their order, with the seconds that each may take, and how much data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A part is done by workers, processes of their own. Seconds: of all of it, and of an item, after which a worker is
    killed and another goes on with the next item. quick: done with --quick, too. under: a tool of compute-sanitizer.
    optional: done if so many seconds are left, as far as it comes.
    """

    name: str
    limit: float
    item: float
    quick: bool = False
    under: str | None = None
    work: str | None = None
    optional: float = 0

    @property
    def worker(self) -> str:
        """What its workers do."""
        return self.work or self.name


PARTS = (
    Part("device", 40, 40, quick=True),
    Part("copy", 40, 30, quick=True),
    Part("bits", 45, 20, quick=True),
    Part("memcheck", 100, 60, under="memcheck", work="touch"),
    Part("edges", 50, 20, quick=True),
    Part("decode", 80, 20),
    Part("encode", 85, 25),
    Part("products", 60, 20),
    Part("model", 60, 50),
    Part("torch", 40, 40),
    Part("cupy", 40, 40),
    Part("large", 25, 25),
    Part("copy after", 20, 20, work="copy"),
    Part("racecheck", 60, 60, under="racecheck", work="touch", optional=15),
)
#: Seconds that a worker has before its first item: Python, the driver, memory, the first copies.
START = 40.0
#: How many workers a part may lose.
LOSSES = 12
#: Seconds of compute-sanitizer for an item in which a kernel failed, and for how many such items of a part.
AGAIN, FAILURES = 25.0, 3
#: Types that come first, should the time run out.
FIRST = ("Q4_K", "Q6_K", "Q5_K", "Q8_0", "Q4_0", "IQ4_XS", "MXFP4", "BF16", "F16", "Q2_K", "Q3_K", "IQ2_XXS", "IQ3_S")


@dataclass(frozen=True)
class Sizes:
    """How much is done.

    elements: weights of a tensor whose rate is taken; unique: how many rows of `width` it repeats when it is encoded;
    bits: rows and width of one that is only compared; piece: bytes that are fetched and compared at a time; warm,
    warm_copies: seconds of the same work before a measurement, and of copies before any; spent: seconds of a series
    of launches, whose number is `launches` at most; rounds: how many series, 0: one launch is timed; at_most: seconds
    of one launch of an encoder; shapes: rows, width and how many matrices take turns in products; model: bytes of the
    model; large: elements of the largest tensor.
    """

    elements: int = 1 << 28
    width: int = 4096
    unique: int = 4093
    bits: tuple[int, int] = (259, 4096)
    piece: int = 256 << 20
    warm: float = 0.06
    warm_copies: float = 1.0
    spent: float = 0.03
    launches: int = 4000
    rounds: int = 3
    at_most: float = 0.08
    shapes: tuple[tuple[int, int, int], ...] = ((8192, 8192, 8), (28672, 8192, 2), (32768, 16384, 2))
    model: int = 2 << 30
    large: int = (1 << 32) + 8192 * 3 // 2


FULL = Sizes()
LITTLE = Sizes(
    elements=1 << 14, width=256, unique=13, bits=(3, 512), piece=1 << 16, warm=0, warm_copies=0, spent=0, launches=1,
    rounds=0, at_most=0, shapes=((37, 1024, 2),), model=1 << 20, large=1 << 15,
)  # fmt: skip
