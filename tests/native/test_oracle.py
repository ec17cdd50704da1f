"""Differential runs: our bytes and floats against libggml's, on shapes and values hypothesis makes up.

Compared: encode with and without importance, and decode of random bytes, for every type and instruction set (the
lattice types' encoders in test_lattices). Equal means equal bits; decoded NaNs only have to be NaNs. Not compared:
input with NaN or infinity, which ggml encodes and we refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gguf_forge.types import TensorType
from tests.native.conftest import BLOCK_TYPES, ISAS, decode, encode, same_floats
from tests.native.lattice_oracle import judge
from tests.oracle import NO_DECODER, NOT_AS_OLDER, OLDER, Oracle

pytestmark = pytest.mark.peer
# ggml ends the process when the search of a lattice type meets what it does not expect: test_lattices judges those.
LATTICE = ("IQ1", "IQ2", "IQ3")
ENCODED = [t for t in BLOCK_TYPES if t.encodes and not t.name.startswith(LATTICE)]
DECODED = [t for t in BLOCK_TYPES if t.decodes and t.name not in NO_DECODER]
Rng = np.random.Generator

QUIET = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _levels(rng: Rng, shape: tuple[int, int]) -> NDArray[Any]:
    return rng.integers(-9, 9, shape) / 4


Values = Callable[[Rng, tuple[int, int]], NDArray[Any]]
Weights = Callable[[Rng, int], NDArray[Any] | None]
VALUES: dict[str, Values] = {
    "weights": lambda rng, shape: rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 2),
    "normal": lambda rng, shape: rng.standard_normal(shape) * 10.0 ** rng.integers(-44, 38),
    "spread": lambda rng, shape: rng.standard_normal(shape) * 10.0 ** rng.integers(-45, 30, shape),
    "any bits": lambda rng, shape: rng.integers(0, 2**32, shape, dtype=np.uint32).view(np.float32),
    "levels": _levels,
    "sparse": lambda rng, shape: np.where(rng.random(shape) < 0.9, 0, rng.standard_normal(shape)),
    "offset": lambda rng, shape: rng.standard_normal(shape) * 1e-3 + rng.choice([1, -1, -7, 100]),
    "signed zeros": lambda rng, shape: rng.choice([0.0, -0.0], shape),
    "denormal": lambda rng, shape: rng.standard_normal(shape) * 1e-39,
    "runs": lambda rng, shape: np.repeat(rng.standard_normal((shape[0], shape[1] // 16)), 16, axis=1),
}
WEIGHTS: dict[str, Weights] = {
    "none": lambda rng, n: None,
    "uniform": lambda rng, n: rng.random(n),
    "with zeros": lambda rng, n: np.where(rng.random(n) < 0.3, 0, rng.random(n)),
    "heavy": lambda rng, n: rng.standard_normal(n) ** 4 * 10.0 ** rng.integers(-10, 10),
    "wild": lambda rng, n: 10.0 ** rng.integers(-44, 36, n),
}


@pytest.mark.parametrize("kind", ENCODED, ids=lambda t: t.name)
@QUIET
@given(st.data())
def test_encode(kind: TensorType, oracle: Oracle, data: st.DataObject) -> None:
    rows, blocks = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 2048 // kind.block_size))
    values, weights = data.draw(st.sampled_from(sorted(VALUES))), data.draw(st.sampled_from(sorted(WEIGHTS)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    with np.errstate(all="ignore"):
        x = np.ascontiguousarray(VALUES[values](rng, (rows, blocks * kind.block_size)), np.float32)
        x[~np.isfinite(x)] = 1
        drawn = WEIGHTS[weights](rng, x.shape[1])
        w = None if drawn is None else np.ascontiguousarray(drawn, np.float32)
    expected = oracle.encode(x, kind, w)
    for isa in ISAS:
        np.testing.assert_array_equal(encode(x, kind, w, isa), expected, err_msg=isa)


@pytest.mark.parametrize("kind", DECODED, ids=lambda t: t.name)
@QUIET
@given(rows=st.integers(1, 9), blocks=st.integers(1, 6), seed=st.integers(0, 2**32))
def test_decode(kind: TensorType, oracle: Oracle, rows: int, blocks: int, seed: int) -> None:
    data = np.random.default_rng(seed).integers(0, 256, (rows, blocks * kind.block_bytes), dtype=np.uint8)
    expected = oracle.decode(data, kind)
    for isa in ISAS:
        assert same_floats(decode(data, kind, isa), expected), isa


def test_ggml_knows_every_type(oracle: Oracle) -> None:
    assert [t.name for t in BLOCK_TYPES if not oracle.knows(t)] == []


@pytest.mark.long
@pytest.mark.parametrize("kind", [t for t in BLOCK_TYPES if t.encodes], ids=lambda t: t.name)
def test_an_older_ggml_writes_the_same(kind: TensorType, older: Oracle) -> None:
    """What was quantized with it, without and with importance, is what we write; but for the exceptions listed."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((6, 1024), np.float32) * np.float32(0.02)
    w = rng.standard_normal(1024, np.float32) ** 4 + np.float32(1e-6)
    uses = ([] if kind.needs_weights else [None]) + ([w] if kind.weighted else [])
    same = older.knows(kind) and all(
        blocks is not None and np.array_equal(encode(x, kind, v, ISAS[0]), blocks)
        for v, blocks in zip(uses, judge(kind, [(x, v) for v in uses], OLDER), strict=True)
    )
    assert same == (kind.name not in NOT_AS_OLDER), NOT_AS_OLDER.get(kind.name)
