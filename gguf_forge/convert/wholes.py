"""Weights quantized beside a scale of the whole tensor: NVFP4, of whose blocks the scales alone have too short a range.

Knows numbers and the tensors of a file; must not know recipes, nor how blocks are encoded.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gguf_forge.convert.job import Job
from gguf_forge.convert.model import Model
from gguf_forge.convert.view import F32, Array, View
from gguf_forge.quant.codec import encode_rows
from gguf_forge.quant.recipe import Choice, ModelFacts
from gguf_forge.quant.scales import has_scale, scale_name
from gguf_forge.types import tensor_type

NVFP4 = tensor_type("NVFP4")
#: What the largest weight of a tensor becomes: 6 is the largest of E2M1, and 240 the largest scale of a block that is
#: used. E4M3 goes on to 448, by which others divide; but ggml writes 448 for whatever is 256 or more, so that there
#: the error of a trained model is 2 to 5 % larger.
MOST = 6.0 * 240
#: The largest number that blocks hold, and the least scale: one of its products is no subnormal number.
_HELD, _LEAST = 6.0 * 448, np.float32(2.0**-100)
#: Elements looked at together.
_RUN = 1 << 20


class Whole:
    """The scales of a tensor, float32: one, or one for each matrix of a stack. The weights are read for them once."""

    def __init__(self, view: View, matrices: int) -> None:
        self._view = view
        self._height = view.count // matrices if matrices else 0
        self._matrices = matrices
        self._lock = threading.Lock()
        self._scales: npt.NDArray[np.float32] | None = None

    def scales(self) -> npt.NDArray[np.float32]:
        """The largest weight's magnitude over MOST; 1 where there is none, or it is no number that blocks alone hold.

        Divided by what is far too large for a weight, all others would be zeros, and nobody told.
        """
        with self._lock:
            if self._scales is None:
                most = np.array([self._largest(number) for number in range(self._matrices)], np.float32)
                held = (most > 0) & (most <= _HELD)
                self._scales = np.where(held, np.maximum(most / np.float32(MOST), _LEAST), np.float32(1))
            return self._scales

    def _largest(self, number: int) -> float:
        step, most = max(1, _RUN // max(1, self._view.width)), 0.0
        stop = (number + 1) * self._height
        for start in range(number * self._height, stop, step):
            rows = _floats(self._view.rows(start, min(stop, start + step)), self._view)
            most = max(most, float(rows.max(initial=0)), -float(rows.min(initial=0)))
        return most

    def divided(self, rows: Array, start: int) -> npt.NDArray[np.float32]:
        """Rows of the tensor, from row `start` on, over the scales of their matrices."""
        scales = self.scales()
        number = np.arange(start, start + len(rows)) // max(1, self._height)
        found: npt.NDArray[np.float32] = _floats(rows, self._view) / scales[number, None]
        return found

    def view(self, name: str) -> View:
        """The scales as a tensor of its own."""
        return View(name, (self._matrices,), F32, lambda _start, _stop: self.scales()[None].copy(), vector=True)


def _floats(rows: Array, view: View) -> npt.NDArray[np.float32]:
    return encode_rows(rows, view.type, F32).view(np.float32)


def with_wholes(job: Job, model: Model) -> Job:
    """The job with scales beside the weights that become NVFP4, where llama.cpp multiplies by them."""
    made = [c for c in job.choices if c.type is NVFP4 and c.type is not c.source and c.name not in job.packs]
    if not made:
        return job
    facts = ModelFacts.from_metadata(job.metadata)
    names = {choice.name for choice in job.choices}
    views = {view.name: view for view in model.views}
    wholes = {c.name: Whole(views[c.name], _matrices(c)) for c in made if _scaled(c, facts, names)}
    scales = {name: whole.view(scale_name(name)) for name, whole in wholes.items()}
    choices: list[Choice] = []
    for choice in job.choices:
        choices.append(choice)
        if choice.name in scales:
            scale = scales[choice.name]
            choices.append(Choice(scale.name, scale.shape, F32, F32, F32, "scale of a whole tensor"))
    return replace(job, choices=choices, wholes=wholes, scales={**job.scales, **scales})


def _scaled(choice: Choice, facts: ModelFacts, names: Collection[str]) -> bool:
    """Whether there is a place for a scale, and none is there yet."""
    layers = facts.layers - facts.extra_layers
    return scale_name(choice.name) not in names and has_scale(facts.arch, choice.name, names, layers)


def _matrices(choice: Choice) -> int:
    return choice.shape[0] if len(choice.shape) > 2 else 1
