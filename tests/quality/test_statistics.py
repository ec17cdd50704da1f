"""Figures of logits beside stored ones, against the formulas in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge.quality import statistics

Doubles = NDArray[np.float64]


def log_softmax(logits: NDArray[np.float32]) -> Doubles:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    found: Doubles = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return found


def decoded(rows: NDArray[np.uint16], vocabulary: int) -> Doubles:
    header = rows[:, :4].copy().view(np.float32).astype(np.float64)
    found: Doubles = header[:, :1] * rows[:, 4 : 4 + vocabulary] + header[:, 1:2]
    return found


def drawn(vocabulary: int, spread: float, count: int = 200) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    draw = np.random.default_rng(vocabulary)
    logits = (draw.standard_normal((count, vocabulary)) * spread).astype(np.float32)
    return logits, draw.integers(0, vocabulary, count).astype(np.int32)


@pytest.mark.parametrize("vocabulary", [2, 7, 4096])
@pytest.mark.parametrize("spread", [0.5, 3, 20])
def test_stored_logarithms_are_within_half_a_step(vocabulary: int, spread: float) -> None:
    logits, following = drawn(vocabulary, spread)
    rows = statistics.store(logits)
    assert rows.shape == (200, statistics.row_width(vocabulary))
    assert statistics.row_width(vocabulary) % 2 == 0
    exact = log_softmax(logits)
    floor = np.maximum(exact, exact.max(axis=1, keepdims=True) - 16)
    step = rows[:, :2].copy().view(np.float32)
    assert np.all(np.abs(decoded(rows, vocabulary) - floor) <= 0.5 * step + 1e-5)
    stored = statistics.stored_losses(rows, following)
    assert np.allclose(stored, -decoded(rows, vocabulary)[np.arange(200), following], atol=1e-6)


def test_equal_logits_are_stored_without_a_step() -> None:
    rows = statistics.store(np.zeros((3, 5), np.float32))
    assert np.allclose(decoded(rows, 5), -np.log(5))


@pytest.mark.parametrize("vocabulary", [2, 7, 4096])
def test_figures_of_positions_are_the_formulas(vocabulary: int) -> None:
    base, following = drawn(vocabulary, 3)
    logits = base + drawn(vocabulary + 1, 0.2)[0][:, :vocabulary]
    rows = statistics.store(base)
    found = statistics.compare(logits, rows, following)
    ours, theirs = log_softmax(logits), decoded(rows, vocabulary)
    at = (np.arange(200), following)
    share = np.where(theirs > -16, np.exp(theirs), 0)
    assert np.allclose(found.loss, -ours[at], atol=1e-5)
    assert np.allclose(found.base_loss, -theirs[at], atol=1e-5)
    assert np.allclose(found.divergence, (share * (theirs - ours)).sum(axis=1), atol=1e-5)
    assert np.allclose(found.difference, np.exp(ours[at]) - np.exp(theirs[at]), atol=1e-5)
    assert np.array_equal(found.same, logits.argmax(axis=1) == rows[:, 4 : 4 + vocabulary].argmax(axis=1))
    assert np.allclose(statistics.losses(logits, following), -ours[at], atol=1e-6)


def test_memory_bounds_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    base, following = drawn(50, 3)
    logits = base + np.float32(0.1) * base[::-1]
    whole = statistics.compare(logits, statistics.store(base), following)
    monkeypatch.setattr(statistics, "CHUNK", 120)  # two rows at a time
    parts = statistics.compare(logits, statistics.store(base), following)
    assert all(np.array_equal(value, vars(parts)[name]) for name, value in vars(whole).items())


def test_a_summary_is_of_all_positions() -> None:
    base, following = drawn(300, 3, count=1001)
    logits = base + np.random.default_rng(1).standard_normal(base.shape).astype(np.float32)
    found = statistics.compare(logits, statistics.store(base), following)
    summary = statistics.summarize(found)
    assert summary.positions == 1001
    assert summary.kl.value == pytest.approx(found.divergence.mean())
    assert summary.kl.error == pytest.approx(found.divergence.std() / np.sqrt(1000))
    assert summary.kl_median == pytest.approx(np.median(found.divergence))
    assert summary.perplexity.value == pytest.approx(np.exp(found.loss.astype(float).mean()))
    assert summary.perplexity_ratio.value == pytest.approx(np.exp((found.loss - found.base_loss).astype(float).mean()))
    assert summary.perplexity_ratio.error == pytest.approx(
        summary.perplexity_ratio.value * (found.loss - found.base_loss).astype(float).std() / np.sqrt(1000), rel=1e-3
    )
    assert summary.correlation == pytest.approx(np.corrcoef(found.loss, found.base_loss)[0, 1], rel=1e-4)
    assert summary.difference_rms.value == pytest.approx(np.sqrt((found.difference.astype(float) ** 2).mean()))
    assert summary.same_top.value == found.same.mean()
    for share in statistics.SHARES:
        assert summary.kl_quantiles[share] == pytest.approx(np.quantile(found.divergence, share), rel=1e-3)
        assert summary.difference_quantiles[share] == pytest.approx(
            np.quantile(found.difference, share), rel=1e-3, abs=1e-5
        )


def test_a_model_beside_itself_is_the_same() -> None:
    logits, following = drawn(300, 1)  # nothing lies too deep to be stored
    summary = statistics.summarize(statistics.compare(logits, statistics.store(logits), following))
    assert summary.same_top.value == 1
    assert abs(summary.kl.value) < 1e-5
    assert summary.perplexity_ratio.value == pytest.approx(1, abs=1e-5)


def test_one_position_has_no_errors() -> None:
    logits, following = drawn(5, 1, count=1)
    summary = statistics.summarize(statistics.compare(logits, statistics.store(logits), following))
    assert (summary.kl.error, summary.same_top.error, summary.perplexity.error) == (0, 0, 0)


def test_a_hopeless_loss_is_an_infinite_perplexity() -> None:
    logits = np.array([[0, -2000]] * 20, np.float32)
    assert statistics.perplexity(statistics.losses(logits, np.ones(20, np.int32))).value == np.inf
