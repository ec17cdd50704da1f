"""Which covariance the rows of a tensor are fitted against: the calibration's, or for embeddings the first layer's.

Knows tensors' names and a calibration file; the arithmetic is in quant/fit.py. Covariances are read and factored when
the first rows of a tensor come, and the last few are kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from gguf_forge.convert.view import F32, View
from gguf_forge.quant.calibration import Calibration
from gguf_forge.quant.codec import encode_rows
from gguf_forge.quant.fit import FITTED, Floats, Layout, Metric, shrunk, surrogate
from gguf_forge.types import TensorType

EMBEDDING, FIRST_NORM = "token_embd.weight", "blk.0.attn_norm.weight"
#: What multiplies the first layer's normalised input, as far as a model has it.
FIRST_MATRICES = tuple(
    f"blk.0.{name}.weight" for name in ("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_q_a", "attn_kv_a_mqa")
)
#: Factors held at a time: those of one layer's distinct inputs.
HELD = 4


class Metrics:
    """The metric of each tensor that can be fitted."""

    def __init__(self, views: Sequence[View], calibration: Calibration | None) -> None:
        self._views: Mapping[str, View] = {view.name: view for view in views}
        self.calibration = calibration
        self._held: OrderedDict[tuple[str, int, Layout], Metric | None] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, name: str, matrix: int, kind: TensorType) -> Metric | None:
        """The metric of a matrix of a tensor, or None where its rows are encoded as without one."""
        if kind.name not in FITTED or name not in self._views or self._views[name].width % 32:
            return None
        with self._lock:  # one thread factors, the others need what it makes
            layout = Layout.of(kind)
            source = *self._source(name, matrix), layout
            if source not in self._held:
                self._held[source] = self._made(name, matrix, layout)
            self._held.move_to_end(source)
            while len(self._held) > HELD:
                self._held.popitem(last=False)
            found = self._held[source]
        return found if found is not None and found.fits(kind) else None

    def may_fit(self, name: str, kind: TensorType) -> bool:
        """Whether rows of a tensor would be fitted in this type, as far as headers tell; no weights are read."""
        if kind.name not in FITTED or name not in self._views or self._views[name].width % 32:
            return False
        if name == EMBEDDING:
            return FIRST_NORM in self._views and any(matrix in self._views for matrix in FIRST_MATRICES)
        return self.calibration is not None and self.calibration.source(name) is not None

    def _source(self, name: str, matrix: int) -> tuple[str, int]:
        shared = None if name == EMBEDDING or self.calibration is None else self.calibration.source(name)
        return shared or name, matrix

    def _made(self, name: str, matrix: int, layout: Layout) -> Metric | None:
        found = self.moments(name, matrix)
        return None if found is None else Metric(self._views[name].width, found, layout)

    def moments(self, name: str, matrix: int) -> list[tuple[int, Floats]] | None:
        """What a matrix's errors are weighed with: blocks on the diagonal, (first column, float32 (b, b)), or None."""
        width = self._views[name].width
        if name == EMBEDDING:
            found = self._embedding(width)
            return None if found is None else [(0, found)]
        covariance = None if self.calibration is None else self.calibration.covariance(name, matrix)
        if covariance is None or covariance.width != width:
            return None
        return [(start, shrunk(block, covariance.tokens)) for start, block in covariance.blocks]

    def _embedding(self, width: int) -> Floats | None:
        """The first layer's; where the embedding is the output matrix, too, also the covariance of that one's input."""
        matrices = [self._read(name) for name in FIRST_MATRICES if name in self._views]
        if FIRST_NORM not in self._views or not matrices or any(m.shape[-1] != width for m in matrices):
            return None
        norm = self._read(FIRST_NORM).reshape(-1)
        if norm.shape != (width,):
            return None
        found = surrogate(matrices, norm)
        output = None if self.calibration is None else self.calibration.covariance(EMBEDDING)
        if output is None or output.width != width:
            return found
        whole = np.zeros((width, width), np.float32)
        for start, block in output.blocks:
            whole[start : start + len(block), start : start + len(block)] = shrunk(block, output.tokens)
        mean = float(np.trace(whole)) / width
        return found if mean <= 0 else found + whole / np.float32(mean)

    def _read(self, name: str) -> Floats:
        view = self._views[name]
        rows = encode_rows(view.rows(0, view.count), view.type, F32).view(np.float32)
        return rows.reshape(-1, view.width)
