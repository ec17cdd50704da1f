"""Rows fitted against a covariance: exact blocks, errors as said, the same bytes on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from gguf_forge import _native, dequantize, quantize
from gguf_forge.errors import QuantError
from gguf_forge.quant.fit import (
    DAMPING,
    FEW_LEVELS,
    FITTED,
    LATTICES,
    STEADY,
    SUB_BLOCKS,
    Layout,
    Metric,
    shrunk,
    surrogate,
)
from gguf_forge.types import tensor_type

WIDTH = 512


def covariance(width: int, tokens: int = 4096, seed: int = 0) -> np.ndarray:
    """Second moments of inputs that are correlated and of very different sizes, as those of a trained model are."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((tokens, width // 4)) @ rng.standard_normal((width // 4, width))
    x = (mixed + rng.standard_normal((tokens, width))) * np.exp(rng.standard_normal(width))
    found: np.ndarray = (x.T @ x / tokens).astype(np.float32)
    return found


def weighed(values: np.ndarray, rows: np.ndarray, h: np.ndarray) -> np.ndarray:
    """The error of each row under H scaled and damped as a metric does it, in float64."""
    whole = h.astype(np.float64) / np.trace(h.astype(np.float64)) * len(h) + DAMPING * np.eye(len(h))
    e = values.astype(np.float64) - rows
    found: np.ndarray = np.einsum("ij,jk,ik->i", e, whole, e)
    return found


@pytest.fixture(scope="module")
def h() -> np.ndarray:
    return covariance(WIDTH)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return (np.random.default_rng(1).standard_t(5, (150, WIDTH)) * 0.02).astype(np.float32)


@pytest.fixture(scope="module")
def metric(h: np.ndarray) -> Metric:
    return Metric(WIDTH, [(0, h)])


@pytest.mark.parametrize("name", sorted(FITTED))
def test_the_error_is_the_one_said_and_well_below_the_plain_encoders(
    name: str, h: np.ndarray, rows: np.ndarray, metric: Metric
) -> None:
    kind = tensor_type(name)
    blocks, said = metric.encode(rows, kind)
    found = weighed(dequantize(blocks, kind), rows, h)
    np.testing.assert_allclose(said, found, rtol=1e-2)  # carried errors are rounded to 12 bits
    assert said.sum() == pytest.approx(found.sum(), rel=1e-3)
    plain = weighed(dequantize(quantize(rows, kind, imatrix=np.diagonal(h).copy()), kind), rows, h)
    assert found.sum() < 0.75 * plain.sum()


@pytest.mark.parametrize("name", sorted(FITTED))
def test_more_rounds_are_kept_only_where_a_block_gains(name: str, rows: np.ndarray) -> None:
    kind = tensor_type(name)
    if kind.block_size != 256:
        width = kind.block_size
        some = rows[:40, :width]
    else:
        width, some = 256, rows[:40, :256]
    alone = Metric(width, [(0, covariance(width))])
    errors = [alone.encode(some, kind, rounds, again=0)[1] for rounds in (1, 2, 4)]
    assert (errors[1] <= errors[0]).all()
    assert (errors[2] <= errors[1]).all()


@pytest.mark.parametrize("name", sorted(FITTED - LATTICES))
def test_columns_looked_at_again_leave_less_error_in_every_row(
    name: str, h: np.ndarray, rows: np.ndarray, metric: Metric
) -> None:
    kind = tensor_type(name)
    once, twice, more = (metric.encode(rows, kind, again=again) for again in (0, 1, 3))
    assert (twice[1] <= once[1]).all()
    assert (more[1] <= twice[1]).all()
    assert twice[1].sum() < 0.99 * once[1].sum()
    for blocks, said in (once, twice, more):
        np.testing.assert_allclose(said, weighed(dequantize(blocks, kind), rows, h), rtol=1e-2)


def other_places(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """Columns that change places as a layout allows: blocks, sub-blocks in a block, columns in a sub-block."""
    order = rng.permutation(WIDTH // layout.block)
    for wide, step in zip((layout.block, *SUB_BLOCKS), (*SUB_BLOCKS, 1), strict=True):
        parts = wide // step
        if layout.lattice:
            order = (parts * order[:, None] + np.arange(parts)).reshape(-1)
        else:
            inner = rng.permuted(np.tile(np.arange(parts), (len(order), 1)), axis=1)
            order = (parts * order[:, None] + inner).reshape(-1)
    return order


@pytest.mark.parametrize("name", sorted(FITTED))
def test_what_has_the_largest_inputs_is_rounded_first_wherever_it_lies(
    name: str, h: np.ndarray, rows: np.ndarray
) -> None:
    """Columns that change places in rows and covariance give the same values, in those places."""
    kind = tensor_type(name)
    columns = other_places(Layout.of(kind), np.random.default_rng(3))
    blocks, errors = Metric(WIDTH, [(0, h)], Layout.of(kind)).encode(rows, kind)
    moved = Metric(WIDTH, [(0, h[np.ix_(columns, columns)])], Layout.of(kind))
    found, same = moved.encode(rows[:, columns], kind)
    np.testing.assert_array_equal(dequantize(found, kind), dequantize(blocks, kind)[:, columns])
    np.testing.assert_array_equal(same, errors)
    np.testing.assert_allclose(errors, weighed(dequantize(blocks, kind), rows, h), rtol=1e-2)


def test_the_largest_inputs_first_leave_less_than_the_smallest_first(rows: np.ndarray) -> None:
    sizes = np.exp(np.linspace(-1.5, 1.5, WIDTH)).astype(np.float32)
    rising = (covariance(WIDTH, seed=7) * sizes[:, None] * sizes).astype(np.float32)
    for kind in map(tensor_type, ("Q4_0", "Q4_K")):
        first = Metric(WIDTH, [(0, rising)], Layout.of(kind)).encode(rows, kind)[1].sum()
        assert first < 0.9 * Metric(WIDTH, [(0, rising)]).encode(rows, kind)[1].sum()


def test_types_of_another_layout_are_not_fitted() -> None:
    """A lattice's columns stay in their order, so that its metric is another than that of levels."""
    levels = Metric(WIDTH, [(0, np.eye(WIDTH, dtype=np.float32))], Layout.of(tensor_type("Q4_K")))
    assert levels.fits(tensor_type("Q2_K"))
    assert not levels.fits(tensor_type("IQ3_S"))
    assert not levels.fits(tensor_type("Q4_0"))


@pytest.mark.parametrize("name", sorted(LATTICES | FEW_LEVELS))
@pytest.mark.parametrize("shape", ["alike", "few", "steps"])
def test_where_inputs_have_nothing_in_common_no_row_is_worse_than_the_plain_encoders(name: str, shape: str) -> None:
    kind, rng = tensor_type(name), np.random.default_rng(5)
    rows = rng.standard_normal((60, WIDTH)).astype(np.float32)
    if shape == "few":
        rows *= (rng.random(rows.shape) < 0.05).astype(np.float32)
    elif shape == "steps":
        rows = (np.round(rows * 2) / 16).astype(np.float32)
    unrelated = np.eye(WIDTH, dtype=np.float32)
    fitted = dequantize(Metric(WIDTH, [(0, unrelated)]).encode(rows, kind)[0], kind)
    plain = dequantize(quantize(rows, kind, imatrix=np.ones(WIDTH, np.float32)), kind)
    ours, theirs = weighed(fitted, rows, unrelated), weighed(plain, rows, unrelated)
    assert (ours <= theirs * (1 + 1e-5)).all()


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(FITTED))
def test_every_instruction_set_makes_the_same_bytes(name: str, h: np.ndarray, rows: np.ndarray) -> None:
    kind = tensor_type(name)
    width = next(n for n in (320, 384, 512) if n % kind.block_size == 0)
    damped = h[:width, :width] / np.trace(h) * len(h) + np.float32(DAMPING) * np.eye(width, dtype=np.float32)
    made = {}
    for isa in _native.isa_names():
        fit = _native.Fit(width, isa=isa)
        assert fit.prepare(damped.copy()) == -1
        out = np.zeros((133, kind.row_bytes(width)), np.uint8)
        errors = np.zeros(133)
        assert fit.rows(kind.id, np.ascontiguousarray(rows[:133, :width]), out, 2, 2, errors) == _native.OK
        made[isa] = out, errors
    first, said = made["scalar"]
    for isa, (out, errors) in made.items():
        np.testing.assert_array_equal(out, first, isa)
        np.testing.assert_array_equal(errors, said, isa)


def test_rows_do_not_depend_on_their_neighbours(rows: np.ndarray, metric: Metric) -> None:
    kind = tensor_type("Q3_K")
    whole, errors = metric.encode(rows, kind)
    for start, stop in ((0, 1), (1, 130), (130, 150)):
        part, some = metric.encode(rows[start:stop], kind)
        np.testing.assert_array_equal(part, whole[start:stop])
        np.testing.assert_array_equal(some, errors[start:stop])
    assert metric.encode(rows[:0], kind)[0].shape == (0, whole.shape[1])


def test_blocks_on_the_diagonal_are_fitted_by_themselves(h: np.ndarray, rows: np.ndarray) -> None:
    kind = tensor_type("Q4_K")
    halves = [h[:256, :256], h[256:, 256:]]
    both, errors = Metric(WIDTH, [(0, halves[0]), (256, halves[1])]).encode(rows, kind)
    apart = np.zeros_like(h)
    apart[:256, :256], apart[256:, 256:] = halves
    np.testing.assert_allclose(errors, weighed(dequantize(both, kind), rows, apart), rtol=1e-2)


@pytest.mark.parametrize("name", sorted(FITTED))
def test_zeros_and_extremes_stay_finite(name: str, metric: Metric) -> None:
    kind = tensor_type(name)
    extremes = np.zeros((6, WIDTH), np.float32)
    extremes[1] = 1e-30
    extremes[2] = 1e6
    extremes[3, ::7] = -1e8
    extremes[4] = np.where(np.arange(WIDTH) % 2, 1e-8, -1e4)
    extremes[5, 3] = 1
    values = dequantize(metric.encode(extremes, kind)[0], kind)
    assert np.isfinite(values).all()
    assert not values[0].any()


@pytest.mark.parametrize("isa", _native.isa_names())
@pytest.mark.parametrize("name", sorted(FITTED))
def test_a_block_without_a_scale_is_the_same_whatever_memory_holds(
    name: str, isa: str, h: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scale beyond a half's range, in a type whose scales are halves, is none: the block's error is infinite."""
    kind = tensor_type(name)
    rows = np.full((2, WIDTH), 0.5, np.float32)
    rows[0] = np.where(np.arange(WIDTH) % 2, 5e8, -5e8)
    fit = _native.Fit(WIDTH, isa=isa)
    assert fit.prepare(h / np.trace(h) * len(h) + np.float32(DAMPING) * np.eye(WIDTH, dtype=np.float32)) == -1
    made = []
    for byte in (b"\0", b"\x55", b"\xff"):
        memory = bytearray(byte * _native._lib.forge_fit_scratch(_native.backend(isa), WIDTH))
        monkeypatch.setattr(_native, "_unfilled", lambda *_, memory=memory: _native._ffi.from_buffer(memory))
        out, errors = np.zeros((2, kind.row_bytes(WIDTH)), np.uint8), np.zeros(2)
        assert fit.rows(kind.id, rows, out, 2, 1, errors) == _native.OK
        made.append((out.tobytes(), errors.tobytes()))
    assert len({*made}) == 1
    assert np.isfinite(errors[1])
    assert np.isfinite(errors[0]) == (name in FEW_LEVELS | LATTICES | {"MXFP4", "NVFP4"})
    values = dequantize(out, kind)
    assert np.isfinite(values[1]).all()
    assert name in LATTICES or np.isfinite(values[0]).all()


@pytest.mark.parametrize("name", sorted(FITTED))
def test_rows_that_cannot_be_fitted_are_encoded_otherwise(name: str, metric: Metric, rows: np.ndarray) -> None:
    """Each by itself: numbers whose squares would overflow, numbers that are none, scales beyond a half float."""
    kind = tensor_type(name)
    some = rows[:6].copy()
    some[1, 3], some[2, 5] = -3e10, np.nan
    some[4] = np.where(np.arange(WIDTH) % 2, 5e8, -5e8)
    other = np.full((6, kind.row_bytes(WIDTH)), 7, np.uint8)
    made = metric.encode_or(some, kind, lambda: other)
    assert (made == 7).all(axis=1).nonzero()[0].tolist() == (
        [1, 2] if np.isfinite(metric.encode(some[4:5], kind)[1]).all() else [1, 2, 4]
    )
    np.testing.assert_array_equal(made[[0, 3, 5]], metric.encode(some[[0, 3, 5]], kind)[0])
    sound = metric.encode_or(some[[0, 3, 5]], kind, lambda: pytest.fail("nothing had to be encoded otherwise"), 2)
    np.testing.assert_array_equal(sound, metric.encode(some[[0, 3, 5]], kind, again=2)[0])


def test_a_singular_covariance_is_damped_and_nonsense_refused() -> None:
    kind = tensor_type("Q4_0")
    x = np.random.default_rng(2).standard_normal((3, 64)).astype(np.float32)
    rows = np.random.default_rng(3).standard_normal((5, 64)).astype(np.float32)
    for found in (x.T @ x, np.zeros((64, 64), np.float32)):
        values = dequantize(Metric(64, [(0, found)]).encode(rows, kind)[0], kind)
        assert np.abs(values - rows).max() < 1
    with pytest.raises(QuantError, match="64 columns for rows of 96"):
        Metric(96, [(0, np.eye(64, dtype=np.float32))])
    with pytest.raises(QuantError, match="does not fit"):
        Metric(96, [(0, np.eye(64, dtype=np.float32)), (32, np.eye(64, dtype=np.float32))])
    with pytest.raises(QuantError, match="positive definite"):
        Metric(32, [(0, np.full((32, 32), np.nan, np.float32))])
    assert not Metric(96, [(0, np.eye(96, dtype=np.float32))]).fits(tensor_type("Q4_K"))
    assert not Metric(256, [(0, np.eye(256, dtype=np.float32))]).fits(tensor_type("Q8_K"))


def test_few_tokens_draw_a_covariance_to_its_diagonal() -> None:
    h = covariance(64)
    few, many = shrunk(h, 16), shrunk(h, 10**7)
    np.testing.assert_array_equal(np.diagonal(few), np.diagonal(h))
    np.testing.assert_allclose(few[0, 1:], h[0, 1:] * 0.2 * STEADY, rtol=1e-6)
    np.testing.assert_allclose(many[0, 1:], h[0, 1:] * STEADY, rtol=1e-4)
    np.testing.assert_allclose(shrunk(h, 10**7, 1.0), h, rtol=1e-4)


def test_the_surrogate_weighs_what_the_first_layer_sees() -> None:
    rng = np.random.default_rng(4)
    q, k, norm = rng.standard_normal((8, 32)), rng.standard_normal((4, 32)), rng.uniform(0.5, 2, 32)
    found = surrogate([q.astype(np.float32), k.astype(np.float32)], norm.astype(np.float32))
    seen = np.concatenate([q, k]) * norm
    np.testing.assert_allclose(found, 32 * seen.T @ seen / (seen**2).sum() + np.eye(32), rtol=1e-4, atol=1e-5)
