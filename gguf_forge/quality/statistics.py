"""Figures of one model's logits beside another's: what is computed for each position of a text, and what of all.

NumPy alone; knows nothing of models, files or texts. The arithmetic and its precision are those of llama-perplexity
(tools/perplexity/perplexity.cpp: log_softmax, process_logits, kl_divergence), so that the figures are equal to the
digits it prints: probabilities in single precision, sums in double.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Codes = NDArray[np.uint16]
Tokens = NDArray[np.int32]

#: Logits looked at at a time: their temporary arrays stay within some 100 MB, whatever the vocabulary.
CHUNK = 1 << 22
#: In logarithms: what lies further below the likeliest token is stored as if it lay here, and has no part in the
#: divergence.
DEPTH = np.float32(16)
#: uint16 before the codes of a position: two float32, the step and the least logarithm.
HEADER = 4
#: Shares of positions for which a quantile is given.
SHARES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.75, 0.9, 0.95, 0.99, 0.999)


@dataclass(frozen=True, eq=False)
class Positions:
    """Of a model beside its base, each (positions,).

    loss, base_loss: minus the logarithm of the probability of the token that follows, float32. divergence: of Kullback
    and Leibler, of the base's distribution from the model's, in nats, float64. difference: the token's probability less
    that of the base, float32. same: whether both hold the same token for the likeliest.
    """

    loss: Floats
    base_loss: Floats
    divergence: Doubles
    difference: Floats
    same: NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: Sequence[Positions]) -> Positions:
        """All positions of the parts."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error."""

    value: float
    error: float

    def scaled(self, factor: float) -> Estimate:
        """In another unit."""
        return Estimate(self.value * factor, self.error * abs(factor))


@dataclass(frozen=True)
class Summary:
    """Of all positions of a model beside its base. Divergences in nats, probabilities as shares of 1.

    perplexity_ratio: the model's over the base's. correlation: of the logarithms of both. kl_quantiles and
    difference_quantiles: share of positions to the figure that so many do not exceed.
    """

    positions: int
    perplexity: Estimate
    base_perplexity: Estimate
    perplexity_ratio: Estimate
    perplexity_difference: Estimate
    correlation: float
    kl: Estimate
    kl_median: float
    kl_maximum: float
    kl_minimum: float
    kl_quantiles: dict[float, float]
    difference: Estimate
    difference_rms: Estimate
    difference_median: float
    difference_maximum: float
    difference_minimum: float
    difference_quantiles: dict[float, float]
    same_top: Estimate


def row_width(vocabulary: int) -> int:
    """uint16 of a stored position: codes, an even number of them, after the header."""
    return 2 * ((vocabulary + 1) // 2) + HEADER


def pieces(rows: int, width: int) -> list[slice]:
    """Rows in slices of at most CHUNK elements."""
    step = max(1, CHUNK // width)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def losses(logits: Floats, following: Tokens) -> Doubles:
    """Minus the logarithms of the probabilities of the tokens that follow; logits: (positions, vocabulary)."""
    found = np.empty(len(logits), np.float64)
    for part in pieces(*logits.shape):
        highest, total = _totals(logits[part])
        chosen = np.take_along_axis(logits[part], following[part, None], 1)[:, 0]
        found[part] = np.log(total) - (chosen - highest)
    return found


def store(logits: Floats) -> Codes:
    """Logarithms of probabilities as llama-perplexity stores them: uint16 (positions, row_width(vocabulary)).

    In steps of 1/65535 of the range, which reaches at most DEPTH below the likeliest.
    """
    count, vocabulary = logits.shape
    rows = np.zeros((count, row_width(vocabulary)), np.uint16)
    header = rows[:, :HEADER].view(np.float32)
    for part in pieces(count, vocabulary):
        some = logits[part]
        highest, total = _totals(some)
        logarithm = np.log(total).astype(np.float32)
        lowest = np.maximum(some.min(axis=1), highest - DEPTH)
        step = (highest - lowest) / np.float32(65535)
        header[part, 0] = step
        header[part, 1] = lowest - highest - logarithm
        inverse = np.divide(np.float32(1), step, out=np.zeros_like(step), where=step > 0)
        codes = np.rint(inverse[:, None] * np.maximum(some - lowest[:, None], np.float32(0)))
        rows[part, HEADER : HEADER + vocabulary] = codes.astype(np.uint16)
    return rows


def compare(logits: Floats, base: Codes, following: Tokens) -> Positions:
    """A model's logits, (positions, vocabulary), beside its base's stored rows."""
    found = [_compared(logits[part], base[part], following[part]) for part in pieces(*logits.shape)]
    return Positions.joined(found)


def stored_losses(base: Codes, following: Tokens) -> Doubles:
    """The same of stored rows."""
    step, lowest = _header(base)
    codes = np.take_along_axis(base, following[:, None] + HEADER, 1)[:, 0]
    found: Doubles = -(step * codes.astype(np.float32) + lowest).astype(np.float64)
    return found


def _header(base: Codes) -> tuple[Floats, Floats]:
    header = np.ascontiguousarray(base[:, :HEADER]).view(np.float32)
    return header[:, 0], header[:, 1]


def _totals(logits: Floats) -> tuple[Floats, Doubles]:
    """The highest logit of each position, and the sum of all probabilities as multiples of its own."""
    highest = logits.max(axis=1)
    return highest, np.exp(logits - highest[:, None]).sum(axis=1, dtype=np.float64)


def _compared(logits: Floats, base: Codes, following: Tokens) -> Positions:
    vocabulary = logits.shape[1]
    highest, total = _totals(logits)
    ceiling = highest + np.log(total).astype(np.float32)
    step, lowest = _header(base)
    logarithms = base[:, HEADER : HEADER + vocabulary].astype(np.float32)
    # No step is negative, so the codes alone tell the likeliest; of equals the first, as there.
    same = logits.argmax(axis=1) == logarithms.argmax(axis=1)
    logarithms *= step[:, None]
    logarithms += lowest[:, None]
    loss = ceiling - np.take_along_axis(logits, following[:, None], 1)[:, 0]
    base_loss = -np.take_along_axis(logarithms, following[:, None], 1)[:, 0]
    share = np.exp(logarithms)
    share[logarithms <= -DEPTH] = 0
    logarithms -= logits
    logarithms += ceiling[:, None]
    share *= logarithms
    divergence = share.sum(axis=1, dtype=np.float64)
    return Positions(loss, base_loss, divergence, np.exp(-loss) - np.exp(-base_loss), same)


def perplexity(found: Doubles) -> Estimate:
    """The exponential of the mean loss."""
    return _exponential(_mean(found))


def summarize(found: Positions) -> Summary:
    """All figures of some positions, of which there is at least one."""
    loss, base = _mean(found.loss), _mean(found.base_loss)
    count = len(found.loss)
    product = (found.loss * found.base_loss).astype(np.float64).mean() - loss.value * base.value
    covariance = float(product) / (count - 1) if count >= 10 else 0.0
    ratio = Estimate(loss.value - base.value, _spread(loss.error, base.error, covariance))
    ours, theirs = _exponential(loss), _exponential(base)
    errors = loss.error * base.error
    divergence = np.sort(found.divergence.astype(np.float32))
    difference = np.sort(found.difference)
    square = _mean(found.difference * found.difference)
    rms = math.sqrt(square.value)
    share = float(found.same.mean())
    return Summary(
        positions=count,
        perplexity=ours,
        base_perplexity=theirs,
        perplexity_ratio=_exponential(ratio),
        perplexity_difference=Estimate(
            ours.value - theirs.value, _spread(ours.error, theirs.error, ours.value * theirs.value * covariance)
        ),
        correlation=covariance / errors if errors else 1.0,
        kl=_mean(found.divergence),
        kl_median=_median(divergence),
        kl_maximum=float(divergence[-1]),
        kl_minimum=float(divergence[0]),
        kl_quantiles={share: _quantile(divergence, share) for share in SHARES},
        difference=_mean(found.difference),
        difference_rms=Estimate(rms, 0.5 / rms * square.error if rms else 0.0),
        difference_median=_median(difference),
        difference_maximum=float(difference[-1]),
        difference_minimum=float(difference[0]),
        difference_quantiles={share: _quantile(difference, share) for share in SHARES},
        same_top=Estimate(share, math.sqrt(share * (1 - share) / (count - 1)) if count > 1 else 0.0),
    )


def _mean(values: NDArray[Any]) -> Estimate:
    """Of values and the mean's standard error, which is 0 for ten and fewer. Squares in the values' own precision."""
    mean = float(values.mean(dtype=np.float64))
    variance = float((values * values).mean(dtype=np.float64)) - mean * mean
    count = len(values)
    return Estimate(mean, math.sqrt(variance / (count - 1)) if variance > 0 and count > 10 else 0.0)


def _exponential(logarithm: Estimate) -> Estimate:
    # Of logits that mean nothing a loss can be beyond what has an exponential.
    value = math.exp(logarithm.value) if logarithm.value < 700 else math.inf
    return Estimate(value, value * logarithm.error if logarithm.error else 0.0)


def _spread(a: float, b: float, covariance: float) -> float:
    """The standard error of a difference."""
    return math.sqrt(max(0.0, a * a + b * b - 2 * covariance))


def _median(ordered: Floats) -> float:
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[middle])
    return float(np.float32(0.5) * (ordered[middle] + ordered[middle - 1]))


def _quantile(ordered: Floats, share: float) -> float:
    """Between the two values next to it, in single precision."""
    place = np.float32(share) * np.float32(len(ordered) - 1)
    below = int(place)
    part = np.float32(place - np.float32(below))
    return float((np.float32(1) - part) * ordered[below] + part * ordered[min(below + 1, len(ordered) - 1)])
