"""What each type costs a tensor: the relative error of its outputs, measured on rows of it, or as usual for the type.

The error is tr(E H E') / tr(W H W'), E what encoding changes in rows W, H the second moments of the inputs: the share
of the outputs' square that is noise. Knows arrays; must not know models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gguf_forge.convert.metrics import Metrics
from gguf_forge.quant.codec import dequantize, quantize
from gguf_forge.quant.imatrix import Imatrix
from gguf_forge.quant.recipe_table import NEEDS_IMATRIX
from gguf_forge.types import TensorType, tensor_type

Floats = NDArray[np.float32]
#: Blocks on the diagonal of H: (first column, float32 (b, b)).
Moments = Sequence[tuple[int, Floats]]
#: Encodes rows, float32 (rows, width), of a tensor's matrix: (name, matrix, rows, type) to blocks.
Encode = Callable[[str, int, Floats, TensorType], NDArray[np.uint8]]

#: Types to choose from, the smallest first; those with blocks of 32 serve widths that the others do not fit.
CANDIDATES = (
    "IQ2_XXS", "IQ2_XS", "IQ2_S", "Q2_K", "IQ3_XXS", "IQ3_S", "Q3_K", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_K", "Q4_1",
    "Q5_0", "Q5_K", "Q5_1", "Q6_K", "Q8_0",
)  # fmt: skip
#: The usual relative squared error of ggml's encoders, of weights from a normal distribution. Rounding to F16 is 1e-7.
USUAL = {
    "IQ2_XXS": 1.18e-1, "IQ2_XS": 8.98e-2, "IQ2_S": 6.18e-2, "Q2_K": 8.80e-2, "IQ3_XXS": 4.54e-2, "IQ3_S": 2.76e-2,
    "Q3_K": 2.28e-2, "IQ4_XS": 5.88e-3, "IQ4_NL": 5.79e-3, "Q4_0": 7.39e-3, "Q4_K": 5.08e-3, "Q4_1": 6.11e-3,
    "Q5_0": 1.83e-3, "Q5_K": 1.30e-3, "Q5_1": 1.43e-3, "Q6_K": 3.14e-4, "Q8_0": 2.87e-5,
}  # fmt: skip
#: Rows that are encoded to judge a matrix, and matrices of a stack of experts.
ROWS, MATRICES = 256, 4


def encoder(imatrix: Imatrix | None, metrics: Metrics | None = None) -> Encode:
    """Encodes as files are made: fitted where `metrics` can, else as ggml does, with the importances that are known."""

    def encode(name: str, matrix: int, rows: Floats, kind: TensorType) -> NDArray[np.uint8]:
        metric = None if metrics is None else metrics.of(name, matrix, kind)
        plain = partial(_plain, imatrix, name, matrix, rows, kind)
        return plain() if metric is None else metric.encode_or(rows, kind, plain)

    return encode


def _plain(imatrix: Imatrix | None, name: str, matrix: int, rows: Floats, kind: TensorType) -> NDArray[np.uint8]:
    entry = None if imatrix is None else imatrix.entries.get(name)
    if entry is None or not (kind.weighted or kind.needs_weights):
        return quantize(rows, kind)
    weights = entry.weights().reshape(-1, rows.shape[-1])
    return quantize(rows, kind, imatrix=weights[min(matrix, len(weights) - 1)])


def sampled(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of `count` numbers, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def output_error(change: Floats, rows: Floats, moments: Moments | None) -> tuple[float, float]:
    """tr(E H E') and tr(W H W'); without moments H is the identity. Float32 products, float64 sums."""
    blocks = moments or ((0, None),)
    error, total = (
        sum(float(np.sum(x * (x if h is None else x @ h), dtype=np.float64)) for x, h in _pieces(part, blocks))
        for part in (change, rows)
    )
    return max(error, 0.0), total


def _pieces(rows: Floats, blocks: Iterable[tuple[int, Floats | None]]) -> Iterator[tuple[Floats, Floats | None]]:
    for start, block in blocks:
        yield (rows if block is None else np.ascontiguousarray(rows[:, start : start + len(block)])), block


def relative_errors(
    name: str,
    matrices: Sequence[Floats],
    types: Sequence[TensorType],
    encode: Encode,
    moments: Callable[[str, int], Moments | None] = lambda name, matrix: None,
) -> Mapping[str, float]:
    """The relative output error of each type, over matrices given by their number: float32 (rows, width) each."""
    sums = {kind.name: [0.0, 0.0] for kind in types}
    for number, rows in enumerate(matrices):
        known = moments(name, number)
        for kind in types:
            decoded = np.asarray(dequantize(encode(name, number, rows, kind), kind), np.float32).reshape(rows.shape)
            error, total = output_error(decoded - rows, rows, known)
            sums[kind.name][0] += error
            sums[kind.name][1] += total
    return {name: error / total if total > 0 else 0.0 for name, (error, total) in sums.items()}


def candidates(width: int, *, weighted: bool) -> list[TensorType]:
    """The types that fit a width; those that cannot do without importances only where there are any."""
    kinds = (tensor_type(name) for name in CANDIDATES)
    return [k for k in kinds if width % k.block_size == 0 and (weighted or k.name not in NEEDS_IMATRIX)]
