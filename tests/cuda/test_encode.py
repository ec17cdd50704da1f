"""Encode kernels, emulated on the host, against golden bytes and the core: every type, with and without importance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge.types import TENSOR_TYPES, TensorType
from tests.cuda import host
from tests.native import conftest as core
from tests.native.test_golden import ENCODED, load

KINDS = [t for t in TENSOR_TYPES.values() if t.encodes and t.quantized]
FLOATS = [t for t in TENSOR_TYPES.values() if t.encodes and not t.quantized]
MODES = [(t, m) for t in KINDS for m in ("plain", "imatrix") if (t.weighted or m == "plain")]
MODES = [(t, m) for t, m in MODES if m == "imatrix" or not t.needs_weights]
MODE_NAMES = [f"{t.name}-{m}" for t, m in MODES]
NOTHING = (1 << 64) - 1


def encoded(
    kind: TensorType, values: NDArray[np.float32], weights: NDArray[np.float32] | None, **launch: Any
) -> NDArray[np.uint8]:
    """The kernel's blocks; what lies around them must stay."""
    rows, width = values.shape
    whole = np.full(rows * kind.row_bytes(width) + 128, 0xA5, np.uint8)
    out = whole[64:-64]
    assert host.encode(kind.name.lower(), values, weights, out, **launch) == NOTHING
    assert (whole[:64] == 0xA5).all()
    assert (whole[-64:] == 0xA5).all()
    return out.reshape(rows, -1)


def weights_for(kind: TensorType, mode: str, width: int, seed: int) -> NDArray[np.float32] | None:
    if mode == "plain":
        return None
    rng = np.random.default_rng(seed)
    weights = (rng.standard_normal(width).astype(np.float32) ** 2).astype(np.float32)
    weights[rng.random(width) < 0.05] = 0
    return weights


def nasty(rng: np.random.Generator, rows: int, width: int) -> NDArray[np.float32]:
    """Rows of many scales and shapes, each a case of its own."""
    x = rng.standard_normal((rows, width)).astype(np.float32)
    with np.errstate(over="ignore"):
        for i in range(rows):
            match i % 9:
                case 0:
                    x[i] *= np.float32(10.0 ** rng.integers(-44, 8))
                case 1:
                    x[i] = np.round(x[i])
                case 2:
                    x[i, rng.random(width) < 0.9] = 0
                case 3:
                    x[i] = np.abs(x[i])
                case 4:
                    x[i, :: rng.integers(2, 40)] *= 1e4
                case 5:
                    x[i] = np.float32(rng.standard_normal()) * rng.choice([-1, 0, 1, -0.0], width)
                case 6:
                    x[i] = rng.standard_t(1, width)
                case 7:
                    x[i] *= np.repeat(10.0 ** rng.integers(-12, 6, width // 32), 32)
                case 8:  # scales that half floats cannot hold, and sums that floats cannot
                    x[i] *= np.float32(10.0 ** rng.integers(8, 38))
    return np.nan_to_num(np.ascontiguousarray(x, np.float32), posinf=1e30, neginf=-1e30)


def test_every_encoder_has_a_row() -> None:
    assert set(host.ENCODERS) == {t.name.lower() for t in KINDS + FLOATS}


@pytest.mark.parametrize(("kind", "mode"), ENCODED, ids=[f"{t.name}-{mode}" for t, mode in ENCODED])
def test_golden(kind: TensorType, mode: str) -> None:
    inputs = load("inputs")
    made = encoded(kind, inputs["x"], inputs["imatrix"] if mode == "imatrix" else None)
    wrong = (made != load(kind.name)[mode]).any(axis=1)
    assert not wrong.any(), f"rows that differ: {sorted(set(inputs['row_names'][wrong]))}"


@pytest.mark.parametrize(("kind", "mode"), MODES, ids=MODE_NAMES)
def test_equals_the_core(kind: TensorType, mode: str) -> None:
    """Widths and counts of blocks that do not fill a CTA, more CTAs than pieces and fewer, nasty data."""
    rng = np.random.default_rng(kind.id)
    per = kind.block_size
    for rows, blocks, grid in ((1, 1, None), (27, 3, 1), (5, 13, 9)):
        x = nasty(rng, rows, per * blocks)
        weights = weights_for(kind, mode, x.shape[1], rows)
        made, wanted = encoded(kind, x, weights, grid=grid), core.encode(x, kind, weights, core.ISAS[-1])
        wrong = np.flatnonzero((made != wanted).any(axis=1))
        assert wrong.size == 0, f"{rows} rows of {blocks} blocks: {wrong[:8]} differ"


@pytest.mark.parametrize("kind", FLOATS, ids=lambda t: t.name)
def test_floats(kind: TensorType) -> None:
    bits = np.random.default_rng(1).integers(0, 1 << 32, (3, 3001), np.uint32)
    x = bits.view(np.float32)
    made, wanted = encoded(kind, x, None), core.encode(x, kind, None, core.ISAS[-1])
    if kind.name == "F64":  # what a NaN carries is not promised
        assert core.same_floats(made.view(np.float64).astype(np.float32), wanted.view(np.float64).astype(np.float32))
    else:
        assert (made == wanted).all()


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", KINDS, ids=lambda t: t.name)
def test_what_is_not_finite_is_told(kind: TensorType, bad: float) -> None:
    x = np.ones((3, kind.block_size * 70), np.float32)
    weights = np.ones(x.shape[1], np.float32) if kind.needs_weights else None
    first, last = x.size // 2 + 3, x.size - 1
    x.reshape(-1)[[first, last]] = bad
    out = np.zeros(3 * kind.row_bytes(x.shape[1]), np.uint8)
    assert host.encode(kind.name.lower(), x, weights, out) == 2 * first


@pytest.mark.parametrize("kind", KINDS, ids=lambda t: t.name)
def test_what_is_above_the_limit_is_told(kind: TensorType) -> None:
    x = np.ones((1, kind.block_size * 3), np.float32)
    weights = np.ones(x.shape[1], np.float32) if kind.needs_weights else None
    x[0, 2 * kind.block_size + 1] = -(2.0**29) - 64
    out = np.zeros(kind.row_bytes(x.shape[1]), np.uint8)
    assert host.encode(kind.name.lower(), x, weights, out, 2.0**29) == 2 * (2 * kind.block_size + 1) + 1
    x[0, 2 * kind.block_size + 1] = 2.0**29
    assert host.encode(kind.name.lower(), x, weights, out, 2.0**29) == NOTHING
