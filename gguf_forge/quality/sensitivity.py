"""How much a model's answers change with each tensor: one is made coarse, the others stay, and a text is evaluated.

Knows a model in llama.cpp's library, and how its weights are exchanged in memory; must not know types' costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.quality.lockstep import SOURCES, exchange
from gguf_forge.quality.session import Model, Session, Tokens
from gguf_forge.types import TensorType, tensor_type

Floats = NDArray[np.float32]


class Weights(Session):
    """A session whose model's weights can be exchanged; the model is loaded `writable`.

    windows: (count, context) tokens; what is judged is the second half of each, as llama-perplexity does.
    """

    def __init__(self, model: Model, windows: Tokens, *, threads: int | None = None) -> None:
        self._found: dict[str, Any] = {}
        self._looking = True
        super().__init__(model, windows.shape[1], threads=threads, observe=lambda product: None)
        self._windows = windows
        self._base = [self._log_probabilities(part) for part in self._parts()]
        self._looking = False

    def known(self, name: str) -> bool:
        """Whether the model computes with a weight of this name, in memory that can be written."""
        return name in self._found

    def divergence(self) -> float:
        """The mean Kullback-Leibler divergence, in nats a token, from the model as it was to what it is now."""
        total, count = 0.0, 0
        for part, base in zip(self._parts(), self._base, strict=True):
            now = self._log_probabilities(part)
            total += float(np.sum(np.exp(base) * (base - now), dtype=np.float64))
            count += base.shape[0] * base.shape[1]
        return max(total / max(count, 1), 0.0)

    @contextmanager
    def exchanged(self, name: str, values: Floats) -> Iterator[None]:
        """While it lasts, a weight has these values, float32 (rows, width), rounded to the type it has in memory."""
        tensor = self._found[name]
        memory = self.library.ffi.buffer(tensor.data, self.library.ggml_nbytes(tensor))
        before = bytes(memory)
        exchange(self, tensor, values)
        try:
            yield
        finally:
            memory[:] = before

    def kind(self, name: str) -> TensorType:
        """The type a weight has in memory."""
        return tensor_type(int(self._found[name].type))

    def _parts(self) -> Iterator[Tokens]:
        for start in range(0, len(self._windows), self.sequences):
            yield self._windows[start : start + self.sequences]

    def _log_probabilities(self, windows: Tokens) -> Floats:
        logits = self.evaluate(windows, first=windows.shape[1] // 2)
        assert logits is not None
        shifted = logits - logits.max(axis=-1, keepdims=True)
        found: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        return found

    def _see(self, tensor: Any, ask: bool, data: Any) -> bool:
        """Of each operation that is planned, its weights are noted; no result is asked for."""
        if self._looking:
            ffi, lib = self.library.ffi, self.library
            for i in range(SOURCES):
                source = tensor.src[i]
                if source != ffi.NULL and source.op == 0 and source.data != ffi.NULL:
                    name = ffi.string(source.name).decode("utf-8", "replace")
                    if name.endswith(".weight") and lib.ggml_backend_buffer_is_host(source.buffer):
                        self._found.setdefault(name, source)
        return False
