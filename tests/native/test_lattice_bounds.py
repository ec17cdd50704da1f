"""The bounds that native/lattice_walk.h gives: how far its lines and ggml's distances are from what they stand for, and
that where its test calls the lowest line sure, ggml's distances are in the same order.

The float operations here are those of the header, one by one. Weights lie near the middle between two points, where
rounding decides, and over the whole range that the header allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.reference_iq import lattice

F32s = NDArray[np.float32]
F64s = NDArray[np.float64]
ONE = np.float32(1)
U = 2.0**-24
N = 40_000


@dataclass(frozen=True)
class Bounds:
    """Of a line's value, (line_c C + line_f F) u; of a distance / s, (C + distance_f F) u; the test's part of C."""

    line_c: int
    line_f: int
    distance_f: int
    margin: float


BOUNDS = {8: Bounds(35, 92, 14, 2.0**-17), 4: Bounds(21, 56, 10, 2.0**-18)}


@dataclass(frozen=True)
class Groups:
    """Weights x and importances w of groups, two points each, a scale each; each scale's inverse is the ladder's."""

    x: F32s
    w: F32s
    points: tuple[F32s, F32s]
    scale: F32s
    inverse: F32s

    @property
    def own(self) -> F32s:
        return added(self.w * (self.x * self.x))

    def only(self, keep: NDArray[np.bool_]) -> Groups:
        p, q = self.points
        return Groups(self.x[keep], self.w[keep], (p[keep], q[keep]), self.scale[keep], self.inverse[keep])


def added(terms: F32s) -> F32s:
    total = terms[:, 0]
    for k in range(1, terms.shape[1]):
        total = total + terms[:, k]
    return total


def line(g: Groups, q: F32s, offset: F32s) -> F32s:
    a, b = added((g.w * q) * q), added((g.w * g.x) * (q + q))
    return (g.scale * a + offset) - b


def distance(g: Groups, q: F32s) -> F32s:
    away = g.scale[:, None] * q - g.x
    return added((g.w * away) * away)


def groups(rng: np.random.Generator, name: str) -> Groups:
    """Random groups within the ranges of lattice_own, most of them as near to one point as to the other."""
    points: F32s = (2 * lattice(name) + 1).astype(np.float32)
    p, q = (points[rng.integers(0, len(points), N)] for _ in range(2))
    middle = 15 if points.shape[1] == 4 else 5
    largest = 2.0 ** rng.uniform(-36, 20, N)
    inverse = ((middle * rng.uniform(0.82, 1.18, N)).astype(np.float32) / largest.astype(np.float32)).astype(np.float32)
    scale = ONE / inverse
    w = 2.0 ** rng.uniform(-60, 60, (N, 1)) * np.exp(rng.choice([0.1, 1, 6]) * rng.standard_normal(p.shape))
    s, levels, d = scale[:, None].astype(float), (p if rng.random() < 0.5 else (p + q) / 2).astype(float), p - q
    x = s * (levels + rng.choice([0.3, 1, 3]) * rng.standard_normal(p.shape))
    nearer = (w * ((s * p - x) ** 2 - (s * q - x) ** 2)).sum(1) / (2 * s[:, 0] * np.maximum((d * d).sum(1), 1))
    off = 1 + rng.standard_normal(N) * 2.0 ** -rng.integers(5, 26, N)
    x += (nearer * off)[:, None] * d / w
    found = Groups(x.astype(np.float32), w.astype(np.float32), (p, q), scale, inverse)
    max_ = largest.astype(np.float32)
    size = np.abs(found.x).max(1)
    with np.errstate(over="ignore"):
        own = found.own
    sound = (size < 2.0**20) & (size < 65536 * max_) & (own > max_ * 2.0**-55) & (own < max_ * 2.0**55)
    return found.only(sound & (p != q).any(1))


def exactly(g: Groups, q: F32s, offset: F32s) -> tuple[F64s, F64s, F64s]:
    """V, F and C; doubles are exact enough."""
    w, x, levels, s = (a.astype(float) for a in (g.w, g.x, q, g.scale[:, None]))
    v = s[:, 0] * (w * levels**2).sum(1) + offset.astype(float) - (2 * w * levels * x).sum(1)
    return v, (w * (s * levels - x) ** 2).sum(1) / s[:, 0], (w * x**2).sum(1) / s[:, 0]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"])
def test_what_the_lattice_walk_calls_sure_is_as_ggml_has_it(name: str, seed: int) -> None:
    g = groups(np.random.default_rng(seed), name)
    assert len(g.x) > N // 4
    bounds = BOUNDS[g.x.shape[1]]
    offset = g.inverse * (g.own * np.float32(1 + 2.0**-15))
    values: list[Any] = []
    distances: list[Any] = []
    for q in g.points:
        v, f, c = exactly(g, q, offset)
        values.append(line(g, q, offset))
        distances.append(distance(g, q))
        assert (np.abs(values[-1] - v) <= (bounds.line_c * c + bounds.line_f * f) * U).all()
        assert (np.abs(distances[-1] / g.scale.astype(float) - f) <= (c + bounds.distance_f * f) * U).all()
    assert (np.array(values) > 0).all()
    lowest = np.argmin(values, axis=0)
    low, second = np.min(values, axis=0), np.max(values, axis=0)
    near, far = (np.choose(which, distances) for which in (lowest, 1 - lowest))
    sure = second * np.float32(1 - 2.0**-15) > low + offset * np.float32(bounds.margin)
    assert (near < far)[sure].all()
    assert (near > far)[~sure].any(), "no group is so near to both that the test could be wrong"
    assert 0.05 < sure.mean() < 0.95
