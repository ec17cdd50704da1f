"""How much encoding a tensor changes what its matrix computes, by the covariance of its inputs; must not print.

For inputs x with second moments H the mean square of W x is the trace of W H W'; of the change that an error E of the
weights makes, the trace of E H E'. What is given is the square root of their quotient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gguf_forge.convert.metrics import Metrics
from gguf_forge.convert.view import View
from gguf_forge.quant.calibration import Calibration, Covariance
from gguf_forge.quant.codec import dequantize, encode_rows
from gguf_forge.types import TENSOR_TYPES, TensorType

#: Elements of rows taken at a time.
RUN_ELEMENTS = 1 << 22

Floats = NDArray[np.float32]
_F32 = TENSOR_TYPES["F32"]


@dataclass(frozen=True)
class OutputChange:
    """Root mean square of the change of a matrix's outputs, as a share of theirs.

    plain: encoded as ggml does (None where the type needs an importance matrix and there is none); other: fitted to the
    calibration, or as a file has it (None for a type that is not fitted).
    """

    plain: float | None
    other: float | None


def of_types(
    view: View,
    kinds: Sequence[TensorType],
    weights: NDArray[np.float32] | None,
    calibration: Calibration,
    metrics: Metrics,
) -> dict[TensorType, OutputChange]:
    """The errors of a tensor in each of these types, which must fit its width; {} where its inputs are not known.

    weights: its importances, float32 (matrices, width) or None.
    """
    sums: dict[TensorType, list[float | None]] = {kind: [0.0, 0.0] for kind in kinds}
    whole = 0.0
    for matrix, low, high, covariance in _runs(view, calibration):
        rows = _values(view, low, high)
        whole += _weighed(rows, covariance)
        for kind in kinds:
            metric = metrics.of(view.name, matrix, kind)
            otherwise = partial(_plain, rows, kind, weights, matrix)
            fitted = None if metric is None else dequantize(metric.encode_or(rows, kind, otherwise), kind)
            _add(sums[kind], rows, (_plain_values(rows, kind, weights, matrix), fitted), covariance)
    return {kind: _share(found, whole) for kind, found in sums.items() if whole > 0}


def of_file(
    view: View, origin: View, weights: NDArray[np.float32] | None, calibration: Calibration
) -> OutputChange | None:
    """The error of a tensor as a file has it against its source, beside that of ggml's encoding of the source."""
    sums: list[float | None] = [0.0, 0.0]
    whole = 0.0
    for matrix, low, high, covariance in _runs(view, calibration):
        rows = _values(origin, low, high)
        whole += _weighed(rows, covariance)
        plain = _plain_values(rows, view.type, weights, matrix) if view.type.encodes else None
        _add(sums, rows, (plain, _values(view, low, high)), covariance)
    return _share(sums, whole) if whole > 0 else None


def _runs(view: View, calibration: Calibration) -> Iterator[tuple[int, int, int, Covariance]]:
    """Matrix, first row, row after the last, and the covariance, of each run of rows whose inputs are known."""
    height = view.shape[-2] if len(view.shape) > 1 else view.count
    step = max(1, RUN_ELEMENTS // max(view.width, 1))
    for matrix in range(view.count // max(height, 1)):
        covariance = calibration.covariance(view.name, matrix)
        if covariance is None or covariance.width != view.width:
            continue
        for low in range(matrix * height, (matrix + 1) * height, step):
            yield matrix, low, min(low + step, (matrix + 1) * height), covariance


def _values(view: View, low: int, high: int) -> Floats:
    rows = encode_rows(view.rows(low, high), view.type, _F32)
    return rows.view(np.float32).reshape(high - low, view.width)


def _plain(rows: Floats, kind: TensorType, weights: NDArray[np.float32] | None, matrix: int) -> NDArray[np.uint8]:
    given = None if weights is None or not kind.weighted else weights.reshape(-1, rows.shape[-1])
    of_matrix = None if given is None else given[matrix if len(given) > 1 else 0]
    return encode_rows(rows, _F32, kind, of_matrix)


def _plain_values(rows: Floats, kind: TensorType, weights: NDArray[np.float32] | None, matrix: int) -> Floats | None:
    if weights is None and kind.needs_weights:
        return None
    return np.asarray(dequantize(_plain(rows, kind, weights, matrix), kind), np.float32)


def _add(sums: list[float | None], rows: Floats, found: Sequence[Floats | None], covariance: Covariance) -> None:
    for i, values in enumerate(found):
        before = sums[i]
        sums[i] = None if values is None or before is None else before + _weighed(values - rows, covariance)


def _weighed(rows: Floats, covariance: Covariance) -> float:
    total = 0.0
    for start, block in covariance.blocks:
        part = rows[:, start : start + len(block)]
        total += float(np.einsum("ij,ij->", part @ block, part, dtype=np.float64))
    return total


def _share(sums: Sequence[float | None], whole: float) -> OutputChange:
    plain, other = (None if s is None else (max(s, 0.0) / whole) ** 0.5 for s in sums)
    return OutputChange(plain, other)
