"""BitNet: weights of -1, 0 and 1 beside one scale, as transformers packs them, or rounds them while it runs.

`weight` U8 (out / 4, in): bits 2 k and 2 k + 1 of row r are output r + k * out / 4, plus 1. `weight_scale` (1) divides
in layers of class bitlinear and multiplies in those of autobitlinear. Of the latter the weight may be floats: -1, 0 and
1 beside the scale, or, in mode online, any, which the running model rounds: w over its mean magnitude (1e-5 or more) to
the nearest of the three, times that mean. transformers takes the mean by a float32 sum, whose last bit depends on the
machine, and rounds the products to the model's type; here the mean is rounded once, to float32, and they are exact.
Read off transformers (integrations/bitnet.py, quantizers/quantizers_utils.py).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gguf_forge.errors import CheckpointError
from gguf_forge.source.packed.form import Array, Grid, PackedTensor, Part, Rows, float_values, floats, require
from gguf_forge.source.tensor import SourceTensor

ENDINGS = ("weight", "weight_scale")
METHOD = "BitNet, three values"
_FLOATS = ("F32", "F16", "BF16")
#: Elements looked at together; the least mean.
_RUN, _LEAST = 1 << 20, np.float32(1e-5)


def packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor | None:
    """One layer's weight; None where it is plain. CheckpointError where its scale cannot be one."""
    weight, scale = parts["weight"], parts.get("weight_scale")
    auto = config.get("linear_class", "bitlinear") == "autobitlinear"
    made: PackedTensor | None = None
    if weight.dtype == "U8":
        if scale is None:
            raise CheckpointError(f"{module} lacks weight_scale", path=weight.file.path)
        made = _of_fields(module, weight, scale, divides=not auto)
    elif auto and scale is not None:
        made = _of_floats(module, weight, scale)
    elif auto and config.get("quantization_mode") == "online" and _is_linear(module, weight, config):
        made = _online(module, weight)
    require(
        made is None or not config.get("use_rms_norm"),
        weight,
        "use_rms_norm: its inputs are normalized once more, for which llama.cpp has no place",
    )
    return made


def _is_linear(module: str, weight: SourceTensor, config: Mapping[str, Any]) -> bool:
    """Whether transformers makes such a layer of a module: a matrix of the layers, or of the head if that is listed as
    none that stays.
    """
    own = module.rpartition(".")[2]
    if len(weight.shape) != 2 or weight.type.name not in _FLOATS or "embed" in own:
        return False
    kept = config.get("modules_to_not_convert")
    if any(_names(str(key), module) for key in kept or ()):
        return False
    return re.search(r"\.\d+\.", module) is not None or (kept is not None and own == "lm_head")


def _names(key: str, module: str) -> bool:
    """Whether a key means a module: from its start to a dot, as a regular expression too, or as its end."""
    try:
        found = re.match(rf"(?:{key})(?:(?<=\.)|(?=\.|$))", module)
    except re.error:
        found = None
    return found is not None or module.endswith(key)


def _factor(scale: SourceTensor, divides: bool) -> float:
    require(scale.size == 1, scale, "must be one number")
    number = float(float_values(scale).reshape(()))
    require(np.isfinite(number) and number > 0, scale, "must be positive and finite")
    return 1 / number if divides else number


def _of_fields(module: str, weight: SourceTensor, scale: SourceTensor, *, divides: bool) -> PackedTensor:
    """Of fields of two bits."""
    factor = _factor(scale, divides)
    require(len(weight.shape) == 2 and weight.size > 0, weight, "must be a matrix")
    quarter, width = weight.shape

    def codes(start: int, stop: int) -> Array:
        found = np.empty((stop - start, width), np.int8)
        at = start
        while at < stop:
            field, inner = divmod(at, quarter)
            take = min(stop - at, quarter - inner)
            stored = weight.stored_rows(inner, inner + take)
            found[at - start : at - start + take] = (stored >> (2 * field) & 3).view(np.int8) - 1
            at += take
        return found

    grid = _grid(codes, lambda: factor, width)
    return PackedTensor(f"{module}.weight", (quarter * 4, width), METHOD, weight, grid.values, scale.dtype, grid=grid)


def _of_floats(module: str, weight: SourceTensor, scale: SourceTensor) -> PackedTensor:
    """Of floats beside a scale, which are to be -1, 0 and 1, and are all looked at for it."""
    floating = weight.type.name in _FLOATS
    require(floating and len(weight.shape) == 2 and weight.size > 0, weight, "must be a matrix of bytes or floats")
    factor, read = _factor(scale, divides=False), floats(weight)

    def values(start: int, stop: int) -> Array:
        return read(start, stop) * np.float32(factor)

    three = all(np.isin(rows, (-1, 0, 1)).all() for rows in _runs(weight, read))
    grid = _grid(lambda start, stop: read(start, stop).astype(np.int8), lambda: factor, weight.shape[1])
    why = "" if three else "floats beside a scale that are not all -1, 0 or 1"
    name = f"{module}.weight"
    return PackedTensor(name, weight.shape, METHOD, weight, values, weight.dtype, grid=grid if three else None, why=why)


def _online(module: str, weight: SourceTensor) -> PackedTensor:
    """Of floats that the running model rounds."""
    read, mean = floats(weight), _Mean(weight)

    def rounded(start: int, stop: int) -> Array:
        found: Array = np.clip(np.rint(read(start, stop) * (np.float32(1) / mean.get())), -1, 1)
        return found

    def values(start: int, stop: int) -> Array:
        return rounded(start, stop) * mean.get()

    grid = _grid(lambda start, stop: rounded(start, stop).astype(np.int8), mean.get, weight.shape[1])
    method = "BitNet, rounded to three values while it runs"
    return PackedTensor(f"{module}.weight", weight.shape, method, weight, values, weight.dtype, grid=grid)


def _grid(codes: Rows, factor: Any, width: int) -> Grid:
    """Of codes and what gives their one scale."""
    return Grid(Part(width, codes), Part(1, lambda start, stop: np.full((stop - start, 1), factor())), width, -1, 1)


class _Mean:
    """The mean magnitude of a tensor, float32, when it is asked for: summed in float64, so that no order matters."""

    def __init__(self, weight: SourceTensor) -> None:
        self._weight = weight
        self._lock = threading.Lock()
        self._mean: np.float32 | None = None

    def get(self) -> np.float32:
        """The mean. CheckpointError where it is no number."""
        with self._lock:
            if self._mean is None:
                rows = _runs(self._weight, floats(self._weight))
                total = sum(float(np.abs(run).sum(dtype=np.float64)) for run in rows)
                mean = np.float32(total / max(1, self._weight.size))
                require(bool(np.isfinite(mean)), self._weight, "must be finite")
                self._mean = max(mean, _LEAST)
            return self._mean


def _runs(weight: SourceTensor, read: Rows) -> Iterator[Array]:
    step = max(1, _RUN // max(1, weight.shape[1]))
    for start in range(0, weight.shape[0], step):
        yield read(start, min(weight.shape[0], start + step))
