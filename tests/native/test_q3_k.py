"""Q3_K without importance against the definition, written out here in NumPy.

The C core tries only the moves of levels that a test of its own lets through; here every move of every round is tried,
as ggml does. Values are made to come close to that test's edges and to the limits of what it may be asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge.types import TENSOR_TYPES
from tests.native.conftest import ISAS, encode

Q3_K = TENSOR_TYPES["Q3_K"]
SUPERBLOCKS = 71  # more than are searched at once, and an odd end
ROUNDS = 5

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def nearest(v: NDArray[Any]) -> Ints:
    """Adds 1.5 * 2^23 and takes the mantissa: to nearest even where |v| < 2^22, garbage elsewhere."""
    return ((v + np.float32(12582912)).view(np.int32) & 0x7FFFFF).astype(np.int64) - 0x400000


def clamped(v: NDArray[Any]) -> Ints:
    return np.clip(nearest(v), -4, 3)


def first_peak(x: Floats) -> Floats:
    """x: (n, m). The element of largest magnitude of each row, (n,); NaNs count as 0."""
    x = np.where(np.isnan(x), np.float32(0), x)
    return np.take_along_axis(x, np.abs(x).argmax(1)[:, None], 1)[:, 0]


def search(x: Floats) -> tuple[Floats, Ints, Ints]:
    """x: (n, 16). Scales (n,), levels -4 .. 3 of shape (n, 16), and the rounds in which some level moved (n,)."""
    peak, w = first_peak(x), x * x
    wx = w * x
    level = clamped(np.float32(-4) / peak[:, None] * x)
    dead = np.abs(peak) < np.float32(1e-15)
    lx, l2 = np.zeros_like(peak), np.zeros_like(peak)
    for i in range(16):
        f = level[:, i].astype(np.float32)
        lx, l2 = lx + wx[:, i] * f, l2 + w[:, i] * f * f
    going, rounds = ~dead, np.zeros(len(x), np.int64)
    for _ in range(ROUNDS):
        changed = np.zeros_like(going)
        for i in range(16):
            f = level[:, i].astype(np.float32)
            slx, sl2 = lx - wx[:, i] * f, l2 - w[:, i] * f * f
            moved = clamped(x[:, i] * sl2 / slx)
            take = going & (slx > 0) & (moved != level[:, i])
            f = moved.astype(np.float32)
            slx, sl2 = slx + wx[:, i] * f, sl2 + w[:, i] * f * f
            take &= (sl2 > 0) & (slx * slx * l2 > lx * lx * sl2)
            level[take, i], lx[take], l2[take] = moved[take], slx[take], sl2[take]
            changed |= take
        going, rounds = changed, rounds + changed
    scale = np.where(dead | ~(l2 > 0), np.float32(0), lx / l2)
    return scale, np.where(dead[:, None], -4, level), rounds


def blocks_of(x: Floats) -> tuple[NDArray[np.uint8], Ints]:
    """x: (n, 256). Bytes (n, 110), and the rounds in which levels moved, (n * 16,)."""
    searched, level, rounds = search(x.reshape(-1, 16))
    searched = searched.reshape(-1, 16)
    peak = first_peak(searched)
    iscale = np.float32(-32) / peak
    scales = np.clip(nearest(iscale[:, None] * searched).astype(np.int8), -32, 31).astype(np.int64) + 32
    scales[peak == 0] = 0
    d = np.where(peak == 0, np.float32(0), 1 / iscale).astype(np.float16)
    step = (d.astype(np.float32)[:, None] * (scales - 32).astype(np.float32)).reshape(-1, 1)
    level = np.where(step == 0, level, clamped(x.reshape(-1, 16) / step)) + 4
    planes = level.reshape(-1, 8, 32).astype(np.uint8)
    h = np.bitwise_or.reduce(planes >> 2 << np.arange(8, dtype=np.uint8)[:, None], axis=1)
    shift = np.array([0, 2, 4, 6], np.uint8)[:, None]
    q = np.bitwise_or.reduce((planes & 3).reshape(-1, 2, 4, 32) << shift, axis=2).reshape(-1, 64)
    low = scales[:, :8] & 15 | (scales[:, 8:] & 15) << 4
    high = np.bitwise_or.reduce((scales >> 4).reshape(-1, 4, 4) << np.array([0, 2, 4, 6])[:, None], axis=1)
    parts = [h, q, low.astype(np.uint8), high.astype(np.uint8), d[:, None].view(np.uint8)]
    return np.concatenate(parts, axis=1), rounds


def half_steps(rng: np.random.Generator, n: int) -> NDArray[Any]:
    """Halves of a scale, nearly."""
    noise = rng.standard_normal((n, 16)) * 10.0 ** rng.uniform(-8, -1, (n, 1))
    return (rng.integers(-9, 9, (n, 16)) / 2 + noise) * 10.0 ** rng.uniform(-6, 3, (n, 1))


def edges(rng: np.random.Generator, n: int) -> NDArray[Any]:
    """A negative peak and few others, within some units in the last place of where its scale rounds either way."""
    some = rng.random((n, 16)) < rng.choice([0.1, 0.2], (n, 1))
    edge = rng.choice([-7, -5, -3, -1, 1, 3, 5, 7], (n, 16)) / 8 * some
    edge[np.arange(n), rng.integers(0, 16, n)] = -1
    return edge * (1 + rng.integers(-3, 4, (n, 16)) * 2.0**-23) * rng.uniform(1, 2, (n, 1))


def negative_peak(rng: np.random.Generator, n: int) -> NDArray[Any]:
    """Only such blocks have levels to move."""
    x = rng.standard_normal((n, 16))
    x[np.arange(n), rng.integers(0, 16, n)] = -1.01 * np.abs(x).max(1)
    return x


def many_rounds(rng: np.random.Generator, n: int) -> NDArray[Any]:
    """Blocks that move levels in at least four rounds, over and over."""
    x = negative_peak(rng, 16 * n).astype(np.float32)
    return np.resize(x[search(x)[2] >= 4], (n, 16)) * 2.0 ** rng.integers(-3, 3, (n, 1))


Values = Callable[[np.random.Generator, int], NDArray[Any]]
VALUES: dict[str, Values] = {
    "normal": lambda rng, n: rng.standard_normal((n, 16)) * 0.02,
    "negative peak": negative_peak,
    "many rounds": many_rounds,
    "half steps": half_steps,
    "edges": edges,
    "opposite peaks": lambda rng, n: rng.integers(-2, 3, (n, 16)) * 10.0 ** rng.uniform(-9, 3, (n, 1)),
    "alone": lambda rng, n: np.where(np.arange(16) == 5, -1, rng.standard_normal((n, 16)) * 1e-3),
    "sparse": lambda rng, n: rng.standard_normal((n, 16)) * (rng.random((n, 16)) < 0.1),
    "tiny": lambda rng, n: rng.standard_normal((n, 16)) * 10.0 ** rng.uniform(-16, -5, (n, 1)),
    "huge": lambda rng, n: rng.standard_normal((n, 16)) * 10.0 ** rng.uniform(4, 37, (n, 1)),
    "spread": lambda rng, n: rng.standard_normal((n, 16)) * 10.0 ** rng.uniform(-30, 12, (n, 16)),
}


def make(values: str, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    return np.ascontiguousarray(VALUES[values](rng, SUPERBLOCKS * 16).reshape(SUPERBLOCKS, 256), np.float32)


@pytest.mark.parametrize("values", VALUES)
def test_every_level_is_that_of_the_definition(values: str) -> None:
    for seed in range(4):
        x = make(values, seed)
        with np.errstate(all="ignore"):
            expected, _ = blocks_of(x)
        for isa in ISAS:
            got = encode(x.reshape(1, -1), Q3_K, None, isa).reshape(SUPERBLOCKS, -1)
            np.testing.assert_array_equal(got, expected, err_msg=f"{isa}, seed {seed}")


def test_the_values_need_every_round() -> None:
    _, usual = blocks_of(make("normal", 0))
    with np.errstate(all="ignore"):
        _, more = blocks_of(make("many rounds", 0))
    assert set(usual) | set(more) == set(range(ROUNDS + 1))
