"""Whether a file's tensors are those of a source: what our own encoding makes of each is held beside what the file has.

Stands in for a writer: rows come as `run` makes them, and are compared, not written. Knows blocks and errors; must not
know where a source came from.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_forge.convert.view import View
from gguf_forge.format.reader import Floats, GGUFFile, Tensor
from gguf_forge.quant.codec import dequantize, encode_rows
from gguf_forge.types import tensor_type

Array = npt.NDArray[Any]
F32 = tensor_type("F32")
#: How much more than our own encoder's a file's error may be, as a factor, before it is another tensor's: other
#: encoders and importance matrices trade it for what they hold to be worth more. So may fitted rows, more so.
USUAL, FITTED = 1.6, 4.0
#: A row is foreign where its squared error is, of its weights' squares, this share above our own encoder's. Fitted rows
#: may err more in columns whose inputs are small, up to `SCATTERED`, where they have the weights themselves once, give
#: or take `ASTRAY`: rows of one matrix can be as like to each other, so that others are held to the first.
FOREIGN, SCATTERED, ASTRAY = 0.6, 2.0, 0.5


@dataclass
class Tally:
    """What was seen of one tensor. Sums of squares are over the runs that are not equal: of errors in the file, of our
    own encoding's, and of the weights. `differing`: rows whose bytes differ; `foreign`: those that hold something else.
    """

    blocks: int = 0
    equal: int = 0
    file: float = 0.0
    own: float = 0.0
    weights: float = 0.0
    differing: list[int] = field(default_factory=list)
    foreign: list[int] = field(default_factory=list)
    count_differing: int = 0
    count_foreign: int = 0

    @property
    def same(self) -> bool:
        """Whether all bytes are equal."""
        return self.blocks == self.equal

    @property
    def error(self) -> float:
        """The file's relative error, where it is not equal to our own encoding."""
        return math.sqrt(self.file / self.weights) if self.weights else 0.0

    @property
    def usual(self) -> float:
        """That of our own encoding there."""
        return math.sqrt(self.own / self.weights) if self.weights else 0.0


class Comparer:
    """Takes the place of a file's writer: every row that would be written is compared with the file's.

    `views` are the source's tensors by name; `fitted`: whether the file says that its rows were fitted to a
    calibration. Safe from several threads.
    """

    def __init__(self, file: GGUFFile, views: Mapping[str, View], fitted: bool) -> None:
        self.endian = file.endian
        self.tallies: dict[str, Tally] = {}
        self._file = file
        self._views = views
        self._fitted = fitted
        self._lock = threading.Lock()

    def write(self, name: str, rows: Array, start: int) -> None:
        """Rows of a tensor as they would be written, from row `start` on."""
        tensor = self._file.tensors[name]
        made = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
        stored = tensor.read_rows(start, start + len(rows))
        size = tensor.type.block_bytes
        found = Tally(made.nbytes // size)
        unequal = (made != stored).any(axis=1).nonzero()[0] if not np.array_equal(made, stored) else np.empty(0, int)
        blocks = (made[unequal].reshape(-1, size) != stored[unequal].reshape(-1, size)).any(axis=1)
        found.equal = found.blocks - int(blocks.sum())
        if len(unequal):
            found.differing = (unequal[:1] + start).tolist()
            found.count_differing = len(unequal)
            if tensor.type.quantized and tensor.type.decodes:
                self._weigh(found, tensor, (made, stored), start)
        with self._lock:
            _add(self.tallies.setdefault(name, Tally()), found)

    def _weigh(self, found: Tally, tensor: Tensor, blocks: tuple[Array, Array], start: int) -> None:
        view = self._views[tensor.name]
        stop = start + len(blocks[0])
        values = encode_rows(view.rows(start, stop), view.type, F32).view(np.float32).reshape(stop - start, -1)
        errors = [dequantize(part, tensor.type) - values for part in blocks]
        own, file = (_squares(error) for error in errors)
        weights = _squares(values)
        with np.errstate(invalid="ignore", over="ignore"):
            near = file <= own + FOREIGN * weights
            if self._fitted:
                along = np.abs(np.einsum("ij,ij->i", errors[1], values, dtype=np.float64))
                near |= (along <= ASTRAY * weights) & (file <= own + SCATTERED * weights)
            foreign = (~near).nonzero()[0]
        found.file, found.own, found.weights = float(file.sum()), float(own.sum()), float(weights.sum())
        found.foreign = (foreign[:1] + start).tolist()
        found.count_foreign = len(foreign)


def _squares(rows: Floats) -> npt.NDArray[np.float64]:
    with np.errstate(over="ignore", invalid="ignore"):
        squares: npt.NDArray[np.float64] = np.square(rows, dtype=np.float64).sum(axis=1)
    return squares


def _add(into: Tally, one: Tally) -> None:
    into.blocks += one.blocks
    into.equal += one.equal
    into.file += one.file
    into.own += one.own
    into.weights += one.weights
    into.count_differing += one.count_differing
    into.count_foreign += one.count_foreign
    into.differing = sorted(into.differing + one.differing)[:1]
    into.foreign = sorted(into.foreign + one.foreign)[:1]
