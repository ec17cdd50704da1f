"""Weights fitted layer after layer, each to the inputs that the quantized layers before it make.

Two copies of the model read the calibration's text side by side: the source, and one whose weights become the
quantized ones as they are met. Before a product the inputs X of the first are known and X^ of the second. What the
product shall give is X W', so what is quantized is not W but the matrix that comes nearest to that from X^,

    W + W (X - X^)'X^ (X^'X^)^-1,

against the covariance of X^; and where the product is added to a residual stream, r of the first and r^ of the second
copy, it makes up for half of r - r^ too, each token weighed by how little the stream is after it. This is the corrected
target of GPTAQ and of Qronos, with the fits of quant/fit.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.convert.encoding import named
from gguf_forge.convert.metrics import EMBEDDING
from gguf_forge.convert.run import Progress, Target, encoded, source_bytes
from gguf_forge.convert.view import F32, View
from gguf_forge.errors import InvalidError, RecipeError, RequestError, UnsupportedError, escaped
from gguf_forge.format import reader
from gguf_forge.quality.lockstep import LOGITS, Lockstep, Pair
from gguf_forge.quality.memory import Use, cache
from gguf_forge.quality.model_file import model_file
from gguf_forge.quality.moments import block_sizes
from gguf_forge.quality.session import MOST_SEQUENCES, Model, Tokens
from gguf_forge.quant.calibration import Calibration
from gguf_forge.quant.codec import encode_rows
from gguf_forge.quant.fit import ALIGNED, Floats, Layout, Metric, shrunk
from gguf_forge.types import TensorType

#: Bytes that what the model computes of the text may take, both copies together.
BUDGET = 8 << 30
#: Floats of a token that are in memory at a time: of the widest matrix, and of the state.
WIDEST, STATES = 3, 8
#: Of the difference that is in the residual stream already, how much a product makes up for.
RESIDUAL = 0.5
#: What is added to a token's size before it is divided by, of the median one.
LEAST = 0.1
#: Of the inputs' mean square, what is added to each square where a correction is solved for.
DAMPING = 0.01
#: Columns that are corrected together at most: an equation of as many unknowns is solved for them.
WIDTH = 8192
#: From so many tokens for each column on moments are those of the copy, though the calibration's are of more tokens.
#: With fewer the calibration's stand in, and nothing is corrected: what so few differ by is not what the model does.
MANY = 8
#: Tokens whose products are added up at a time.
PANEL = 4096
#: How often all columns of a row are looked at again.
AGAIN = 2
#: Numbers of rows that are fitted at a time in a thread.
FITTED_AT_ONCE = 1 << 20


class Sequential:
    """Fits the weights of one model layer after layer: `Quantization(effort="max", sequential=...)`.

    source: the model that is quantized, a GGUF file or a checkpoint's folder (which is converted for the time of this).
    budget: bytes that what the model computes of the text may take; a longer text is cut.
    """

    def __init__(self, source: str | Path, *, budget: int = BUDGET) -> None:
        self.source = Path(source)
        self._budget = budget

    def write(self, views: Sequence[View], target: Target, threads: int, progress: Progress | None) -> None:
        """Fits the tensors of a file that its model multiplies with, and writes them; others are left.

        Raises ForgeError: LibraryError, RecipeError for a calibration without its text, InvalidError for numbers that
        are not finite.
        """
        calibration = None if target.metrics is None else target.metrics.calibration
        if calibration is None:
            raise RequestError("effort max needs a calibration")
        if target.moved:
            raise UnsupportedError("effort max: columns of this model change places; effort high fits it")
        windows = calibration.windows()
        if windows is None:
            raise RecipeError("it does not hold its text: effort max needs one made anew", path=calibration.path)
        with ExitStack() as stack:
            path = stack.enter_context(model_file(self.source, floats=True))
            models = (stack.enter_context(Model(path)), stack.enter_context(Model(path, writable=True)))
            fitted = {view.name: view for view in views if _goes_through(view, target)}
            with reader.open(path) as file:
                text = self._that_fits(windows, views, file.metadata)
            work = _Work(fitted, target, calibration, threads, progress, source_bytes(views))
            stack.callback(work.close)
            Lockstep(models, text, wants=work.wants, meet=work.meet, pair=work.pair, threads=threads).run()

    def _that_fits(self, windows: Tokens, views: Sequence[View], metadata: Mapping[str, Any]) -> Tokens:
        """As many windows as the budget and the library allow."""
        matrices = [view for view in views if len(view.shape) > 1 and view.name.startswith("blk.")]
        widest = max((max(view.shape[-2:]) for view in matrices), default=1)
        words, state = next((view.shape for view in views if view.name == EMBEDDING), (1, 1))
        context = windows.shape[1]
        a_window = 2 * (4 * (WIDEST * widest + STATES * state) * context + cache(metadata, Use(context)).nbytes)
        count = max((self._budget - 8 * LOGITS) // a_window, self._budget // (a_window + 8 * context * words))
        return windows[: max(1, min(MOST_SEQUENCES, count))]


def _goes_through(view: View, target: Target) -> bool:
    """Whether the second copy shall have this tensor as the file will have it."""
    if view.name not in target.types or view.name in target.wholes or view.name in target.packs:
        return False
    return target.types[view.name].quantized and not view.type.quantized


class _Work:
    """What is done as the weights come."""

    def __init__(
        self, views: Mapping[str, View], target: Target, calibration: Calibration, threads: int,
        progress: Progress | None, total: int,
    ) -> None:  # fmt: skip
        self._views, self._target, self._calibration = views, target, calibration
        self._threads, self._progress = threads, progress
        self._pool = ThreadPoolExecutor(threads)
        self._inputs: tuple[int, _Inputs] | None = None
        self._done, self._total = 0, total

    def close(self) -> None:
        self._pool.shutdown()

    def wants(self, name: str) -> bool:
        """Whether a weight is corrected: a matrix whose inputs are known. Embeddings have none."""
        view = self._views.get(name)
        if view is None or name == EMBEDDING:
            return False
        return view.count == view.shape[0] and self._calibration.source(name) is not None

    def meet(self, name: str) -> Floats | None:
        """A weight that no product is paired for, token embeddings or experts: encoded as it would be otherwise."""
        view = self._views.get(name)
        if view is None or self.wants(name):
            return None
        blocks = []
        for start, rows in encoded(view, self._target, self._threads):
            self._target.write(name, rows, start)
            blocks.append(rows)
        return self._made(view, np.concatenate(blocks))

    def pair(self, pair: Pair) -> Floats:
        """A matrix before its product: fitted to what the product shall give."""
        view, target = self._views[pair.weight], self._target
        kind = target.types[view.name]
        weights = encode_rows(view.rows(0, view.count), view.type, F32).view(np.float32).reshape(view.count, view.width)
        if pair.residuals is not None:
            pair = relative(pair, weights)
        if self._inputs is None or self._inputs[0] != pair.key:
            seen = self._calibration.tokens(view.name)
            tokens, width = pair.inputs[1].shape
            few = 2 * tokens < seen and tokens < MANY * width
            known = target.metrics.moments(view.name, 0) if target.metrics and few else None
            self._inputs = pair.key, _Inputs.of(*pair.inputs, known)
        inputs = self._inputs[1]
        corrected = inputs.corrected(weights, pair)
        if not np.isfinite(corrected).all():
            raise InvalidError("the model computes numbers that are not finite", field=f'tensor "{escaped(view.name)}"')
        blocks = self._fitted(corrected, kind, inputs, view.name)
        target.write(view.name, blocks, 0)
        return self._made(view, blocks)

    def _fitted(self, weights: Floats, kind: TensorType, inputs: _Inputs, name: str) -> NDArray[np.uint8]:
        step, metric = max(1, FITTED_AT_ONCE // weights.shape[1]), inputs.metric(Layout.of(kind))
        importance = self._target.weights_of(name)

        def rows(start: int) -> NDArray[np.uint8]:
            part = weights[start : start + step]
            row = None if importance is None else importance[0]
            plain = partial(encode_rows, part, F32, kind, row, start, self._target.strict)
            with named(name):
                return metric.encode_or(part, kind, plain, AGAIN) if metric.fits(kind) else plain()

        return np.concatenate([*self._pool.map(rows, range(0, len(weights), step))])

    def _made(self, view: View, blocks: NDArray[np.uint8]) -> Floats:
        """What the file has of a tensor now, for the second copy."""
        self._target.written.add(view.name)
        self._done += source_bytes([view])
        if self._progress is not None:
            self._progress(self._done, self._total)
        values = encode_rows(blocks, self._target.types[view.name], F32).view(np.float32)
        return values.reshape(-1, view.width)


def relative(pair: Pair, weights: Floats) -> Pair:
    """A product that is added to a residual stream, each token by how little the stream is after it.

    The norm before the next layer divides by that size. Some tokens, often the first of a text, are many times as large
    as others, and what they compute hardly changes: unweighed, others would be given up for them.
    """
    (first, second), residuals = pair.inputs, pair.residuals
    assert residuals is not None
    squares = np.concatenate(
        [
            np.square(residuals[0][at : at + PANEL] + first[at : at + PANEL] @ weights.T).sum(axis=1)
            for at in range(0, len(first), PANEL)
        ]
    )
    if not np.isfinite(squares).all():  # said of the weight that comes of it
        return pair
    usual = max(float(np.median(squares)), 1e-30)
    factors = np.sqrt(usual / (squares + LEAST * usual))[:, None].astype(np.float32)
    return replace(
        pair,
        inputs=(first * factors, second * factors),
        residuals=(residuals[0] * factors, residuals[1] * factors),
    )


class _Inputs:
    """The moments of a product's inputs in both copies."""

    def __init__(self, blocks: Sequence[tuple[int, Floats]], cross: Floats | None, tokens: int, width: int) -> None:
        """blocks: X^'X^ / N, (first column, (b, b)); cross: (X - X^)'X^ / N (n, n), None for no correction."""
        self._metrics: dict[Layout, Metric] = {}
        self._blocks, self._cross, self._width = blocks, cross, width
        self._keep = tokens / (tokens + width)

    @classmethod
    def of(cls, first: Floats, second: Floats, known: Sequence[tuple[int, Floats]] | None) -> _Inputs:
        """Of inputs (tokens, width) in both copies. known: moments of more tokens, in place of the second copy's;
        nothing is corrected then.
        """
        tokens, width = second.shape
        if known is not None:
            return cls(known, None, tokens, width)
        cross = np.zeros((width, width), np.float32)
        for at in range(0, tokens, PANEL):
            mine = second[at : at + PANEL]
            cross += (first[at : at + PANEL] - mine).T @ mine
        return cls(_moments(second), cross / np.float32(tokens), tokens, width)

    def metric(self, layout: Layout) -> Metric:
        """What rows in such blocks are fitted against: the moments in the second copy, or those known."""
        if layout not in self._metrics:
            self._metrics[layout] = Metric(self._width, self._blocks, layout)
        return self._metrics[layout]

    def corrected(self, weights: Floats, pair: Pair) -> Floats:
        """The matrix (rows, width) that gives of the second copy's inputs what `weights` give of the first's."""
        if self._cross is None:
            return weights
        wanted = weights @ self._cross
        if pair.residuals is not None:
            first, second = pair.residuals
            tokens = len(second)
            for at in range(0, tokens, PANEL):
                apart = (first[at : at + PANEL] - second[at : at + PANEL]) * np.float32(RESIDUAL / tokens)
                wanted += apart.T @ pair.inputs[1][at : at + PANEL]
        out = weights.copy()
        for start, block in self._blocks:
            part = slice(start, start + len(block))
            damped = block.astype(np.float64)
            damped[np.diag_indices_from(damped)] += DAMPING * max(float(np.trace(damped)) / len(damped), 1e-30)
            change = np.linalg.solve(damped, wanted[:, part].T.astype(np.float64) * self._keep)
            out[:, part] += change.T.astype(np.float32)
        return out


def _moments(inputs: Floats) -> list[tuple[int, Floats]]:
    """Second moments of inputs (tokens, width), shrunk as so many tokens call for, in blocks on the diagonal.

    The inputs are those that the quantized layers make, with their errors: nothing is taken off for these.
    """
    tokens, width = inputs.shape
    blocks, start = [], 0
    for size in block_sizes(width, WIDTH // ALIGNED * ALIGNED):
        block = np.zeros((size, size), np.float32)
        for at in range(0, tokens, PANEL):
            part = np.ascontiguousarray(inputs[at : at + PANEL, start : start + size])
            block += part.T @ part
        blocks.append((start, shrunk(block / np.float32(tokens), tokens, 1.0)))
        start += size
    return blocks
