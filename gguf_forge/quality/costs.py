"""What types cost a model: as usual for the tensor's role; by errors on calibrated inputs; by its answers to a text.

Knows where weights are read; must not know how types are chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from gguf_forge.convert.metrics import EMBEDDING, Metrics
from gguf_forge.format.reader import GGUFFile, Tensor
from gguf_forge.quality.choose import Costs
from gguf_forge.quality.errors_of_types import MATRICES, ROWS, USUAL, Encode, Floats, relative_errors, sampled
from gguf_forge.quality.roles import sensitivity
from gguf_forge.quality.sensitivity import Weights
from gguf_forge.quant.codec import dequantize
from gguf_forge.types import TensorType, tensor_type

#: The type that a tensor is made of to see how the answers change: coarse enough to be seen, not so coarse that the
#: change is no longer in proportion to the error. Of widths that it does not fit, the next.
COARSE = ("Q3_K", "IQ4_NL", "Q8_0")


def usual(layers: int, *, tied: bool) -> Costs:
    """Costs without a look at the weights: usual errors of types times the sensitivity of the role."""

    def costs(name: str, shape: Sequence[int], kinds: Sequence[TensorType]) -> Mapping[str, float]:
        factor = sensitivity(name, layers, outputs=False, tied=tied)
        return {kind.name: factor * USUAL.get(kind.name, USUAL["Q2_K"]) for kind in kinds}

    return costs


def measured(file: GGUFFile, layers: int, encode: Encode, metrics: Metrics, answers: Weights | None = None) -> Costs:
    """Costs of the weights in a GGUF file: errors of sampled rows, times the sensitivity that its answers show.

    metrics: say what the errors are weighed with. answers: a session of the same file's model; without it, or for a
    tensor that it does not compute with, the role's sensitivity.
    """
    tied = "output.weight" not in file.tensors

    def costs(name: str, shape: Sequence[int], kinds: Sequence[TensorType]) -> Mapping[str, float]:
        tensor = file.tensors[name]
        known = name != EMBEDDING and metrics.moments(name, 0) is not None
        coarse = next(k for k in map(tensor_type, COARSE) if shape[-1] % k.block_size == 0)
        asked = list({kind.name: kind for kind in (*kinds, coarse)}.values())
        errors = relative_errors(name, _samples(tensor), asked, encode, metrics.moments)
        factor = sensitivity(name, layers, outputs=known, tied=tied)
        if answers is not None and answers.known(name) and errors[coarse.name] > 0:
            values = _rows(tensor, 0, math.prod(tensor.shape[:-1]))
            with answers.exchanged(name, _coarse(name, tensor, values, coarse, encode)):
                factor = answers.divergence() / errors[coarse.name]
        return {kind.name: factor * errors[kind.name] for kind in kinds}

    return costs


def _coarse(name: str, tensor: Tensor, values: Floats, kind: TensorType, encode: Encode) -> Floats:
    matrices = tensor.shape[0] if len(tensor.shape) > 2 else 1
    parts = np.array_split(values, matrices)
    made = [np.asarray(dequantize(encode(name, i, part, kind), kind), np.float32) for i, part in enumerate(parts)]
    return np.concatenate(made).reshape(values.shape)


def _samples(tensor: Tensor) -> list[Floats]:
    """Rows of the first matrices, evenly spread."""
    height = tensor.shape[-2] if len(tensor.shape) > 1 else 1
    matrices = min(MATRICES, math.prod(tensor.shape[:-2]))
    picked = sampled(height, max(ROWS // matrices, 32))
    starts = [matrix * height for matrix in range(matrices)]
    return [np.concatenate([_rows(tensor, start + i, start + i + 1) for i in picked]) for start in starts]


def _rows(tensor: Tensor, start: int, stop: int) -> Floats:
    raw = tensor.read_rows(start, stop)
    return np.asarray(dequantize(raw, tensor.type), np.float32).reshape(stop - start, tensor.shape[-1])
