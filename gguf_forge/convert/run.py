"""Carries out plans: reads runs of rows once, encodes them for every file wanted, writes them at their offsets.

Knows threads and memory: a thread holds one run of about a million elements, so memory depends on the number of
threads and the longest row, never on the model. Must not know where rows come from or why a type was chosen.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gguf_forge import system
from gguf_forge.convert.blemish import Blemish
from gguf_forge.convert.encoding import Made, Rows, Run, Weights, encode, made_of
from gguf_forge.convert.finished import Finished, Log, Piece
from gguf_forge.convert.metrics import Metrics
from gguf_forge.convert.view import F32, Array, View
from gguf_forge.errors import QuantError, escaped
from gguf_forge.format.orders import swapped
from gguf_forge.format.stream import RowStream
from gguf_forge.quant.codec import thread_count
from gguf_forge.quant.encoders import PROCESSORS, Encoder
from gguf_forge.types import TensorType

#: Elements of a run: 4 MiB as float32, which keeps a run in cache and the share of Python small.
RUN_ELEMENTS = 1 << 20
#: The same of weights that are stored in codes: those are at most a byte, and take less time each.
PACKED_RUN_ELEMENTS = 1 << 21

class Divided(Protocol):
    """Makes of a tensor's rows, from a number on, those that are encoded: float32, over scales that go beside them."""

    def divided(self, rows: Array, start: int) -> npt.NDArray[np.float32]:
        """Rows as read, the first of them row `start`, as they are encoded."""


Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Target:
    """A file to be made: a begun writer, the type of every tensor, and the importance of its columns, by name.

    `weights` holds float32 arrays of shape (matrices, width): one row, or one for each matrix of a stack. `strict`:
    a NaN or infinity is an error; else `blemishes` receives the first one of each tensor that has any, by name.
    `packs` make the blocks of tensors that are imported from codes: `pack(start, stop)`, by name. `moved` are views
    whose rows this file has in place of those read for the others, by name. Those in `wholes` are
    divided by scales first. Of the tensors in `measured`, `errors` receives the sums of squared errors and of squared
    weights. `metrics`: the covariances that rows are fitted against; without, they are encoded as ggml does. `written`:
    tensors that the file holds already; `finished`: rows that it holds from an earlier run. `log` is told of all rows
    that are written.
    """

    writer: Sink
    types: Mapping[str, TensorType]
    weights: Mapping[str, Weights]
    strict: bool = True
    blemishes: dict[str, Blemish] = field(default_factory=dict)
    packs: Mapping[str, Callable[[int, int], Array]] = field(default_factory=dict)
    moved: Mapping[str, View] = field(default_factory=dict)
    wholes: Mapping[str, Divided] = field(default_factory=dict)
    measured: Collection[str] = ()
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)
    metrics: Metrics | None = None
    written: set[str] = field(default_factory=set)
    finished: Finished = field(default_factory=Finished)
    log: Log | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def blemish(self, name: str, found: Blemish) -> None:
        """Raises QuantError for what was found in a tensor, or keeps it where it is the first."""
        if self.strict:
            raise QuantError(f"{found.text} (--allow-nonfinite writes it)", field=f'tensor "{escaped(name)}"')
        with self._lock:
            self.blemishes[name] = min(found, self.blemishes.get(name, found))

    def weights_of(self, name: str) -> Weights | None:
        """The importance of a tensor's columns, where its type takes any."""
        kind = self.types[name]
        return self.weights.get(name) if kind.weighted or kind.needs_weights else None

    def write(self, name: str, rows: Array, start: int) -> None:
        """Writes rows of a tensor in its type, from row `start` on, in the file's byte order."""
        self.writer.write(name, _in_order(rows, self.types[name], self.writer.endian), start)

    def holds(self, taken: Run) -> bool:
        """Whether these rows are in the file, from an earlier run or because it has none of this tensor."""
        name = taken.view.name
        return name not in self.types or name in self.written or self.finished.covers(name, taken.start, taken.stop)

    def finish(self, taken: Run, blemish: Blemish | None = None, squares: tuple[float, float] | None = None) -> None:
        """Says that all of these rows are written, and what was found in them."""
        if self.log is not None:
            self.log.add(Piece(taken.view.name, taken.start, taken.stop, squares, blemish))

    def measure(self, name: str, squared_error: float, squared: float) -> None:
        """Adds what some rows of a tensor contribute to its error."""
        with self._lock:
            error, weight = self.errors.get(name, (0.0, 0.0))
            self.errors[name] = error + squared_error, weight + squared


class Sink(Protocol):
    """What rows are written to: a GGUFWriter, a SetWriter or a ShareWriter, whose methods these are."""

    endian: str

    @property
    def path(self) -> str | os.PathLike[str]:
        """The file that readers look for, or the first of a set."""

    def header_digest(self) -> str:
        """SHA-256 of what the file is besides its tensors' data."""

    def begin(self, keep: Callable[[], bool] | None = None) -> object:
        """Makes the file; `keep` says whether what an earlier run left of it stays."""

    def write(self, name: str, blocks: Array, row: int = 0) -> None:
        """Writes rows of a tensor."""

    def claim(self, name: str, start: int, stop: int) -> None:
        """Counts rows as written that are there."""

    def page_sum(self, name: str, start: int, stop: int) -> str:
        """A sum over rows as the file holds them."""

    def flush(self) -> None:
        """Waits until all that was written is on disk."""

    def spare(self, spared: bool = True) -> None:
        """Whether `abort` leaves what was written."""

    def seal(self) -> None:
        """Checks that all was written, and waits until it is on disk."""

    def publish(self) -> None:
        """Gives the sealed file its name."""

    def abort(self) -> None:
        """Removes what was written."""


class Pass(Protocol):
    """Writes tensors of a file before the others are, in an order of its own, and records which in `written`."""

    def write(self, views: Sequence[View], target: Target, threads: int, progress: Progress | None) -> None:
        """Writes those of the views that it has to do with. Raises ForgeError."""


def encoded(view: View, target: Target, threads: int) -> Iterator[tuple[int, Array]]:
    """All rows of a tensor that is not imported, as `run` would write them: run after run, with each its first row."""
    kind, strict = target.types[view.name], target.strict and target.types[view.name].quantized

    def made(taken: Run) -> tuple[int, Array]:
        rows = view.rows(taken.start, taken.stop)
        return taken.start, encode(rows, taken, kind, target.weights_of(view.name), strict, target.metrics)

    with ThreadPoolExecutor(threads) as pool:
        taken = _runs([Run(view, 0, view.count)])
        while several := [*islice(taken, threads)]:
            yield from pool.map(made, several)


def source_bytes(views: Iterable[View]) -> int:
    """Bytes that carrying out these views reads, as `progress` counts them."""
    return sum(v.count * v.type.row_bytes(v.width) for v in views)


def whole(views: Iterable[View]) -> list[Run]:
    """All rows of views."""
    return [Run(view, 0, view.count) for view in views]


def share(views: Sequence[View], number: int, count: int) -> list[Run]:
    """Share `number` of `count`, from 1 on, of the rows of views: what one machine of several does, as equal as can be.

    Cut between runs, of whose elements every share gets as many; all shares together are `whole(views)`, in order.
    """
    total = sum(view.elements for view in views)
    low, high = (number - 1) * total // count, number * total // count
    found: list[Run] = []
    at = 0
    for taken in _runs(whole(views)):
        if low <= at < high or (number == count and at >= high):
            if found and found[-1].view is taken.view:
                found[-1] = replace(found[-1], stop=taken.stop)
            else:
                found.append(taken)
        at += (taken.stop - taken.start) * taken.view.width
    return found


def run(
    views: Sequence[View],
    targets: Sequence[Target],
    *,
    rows: Sequence[Run] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    encoder: Encoder = PROCESSORS,
) -> None:
    """Computes every row of every view, or only these `rows`, once and writes it to every target that lacks it.

    `threads`: how many work; None for one a processor. `encoder` makes the blocks; threads that wait for it come on
    top, so that reading, encoding and writing go on side by side. `progress(done, total)` is called in bytes of source,
    from the working threads, one at a time. The first error stops all and is raised; the writers are left to their
    owner.
    """
    count = thread_count(threads) + encoder.workers
    rows = whole(views) if rows is None else rows
    work = _Work(rows, targets, progress, encoder)
    count = min(count, sum(1 for _ in islice(_runs(rows, encoder.run_elements), count)))
    if count <= 1:
        work.loop()
    else:
        _in_threads(work, count)
    if work.error is not None:
        raise work.error


class _Work:
    """The runs still to be taken, how many are in hand, and the first error."""

    def __init__(
        self, rows: Sequence[Run], targets: Sequence[Target], progress: Progress | None, encoder: Encoder
    ) -> None:
        self.targets = targets
        self.encoder = encoder
        self.error: BaseException | None = None
        self._progress = progress
        self._runs = _runs(rows, encoder.run_elements)
        self._total = sum(taken.nbytes for taken in rows)
        self._done = 0
        self._in_hand = 0
        self._stopped = False
        self._lock = threading.Lock()

    def loop(self) -> None:
        """Takes runs until there are none, or something stops the work."""
        try:
            while (taken := self._take()) is not None:
                try:
                    _carry_out(taken, self.targets, self.encoder)
                    self._report(taken)
                finally:
                    self._put_down()
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            with self._lock:
                self.error = self.error or error
                self._stopped = True
            for target in self.targets:
                if isinstance(target.writer, RowStream):
                    target.writer.stop()

    def stop(self) -> None:
        """Lets no more runs be taken, and waits until none is in hand, whoever presses Ctrl-C again meanwhile.

        Joining the threads would not do: Python takes a thread for ended once an interrupt has hit its `join`.
        """
        while True:
            try:
                with self._lock:
                    self._stopped = True
                    if not self._in_hand:
                        return
                time.sleep(0.005)
            except KeyboardInterrupt:
                continue

    def _take(self) -> Run | None:
        with self._lock:
            while (taken := None if self._stopped else next(self._runs, None)) is not None:
                if not self._passed_over(taken):
                    self._in_hand += 1
                    break
                self._done += taken.nbytes
        return taken

    def _passed_over(self, taken: Run) -> bool:
        """Whether every file holds these rows; what is of an earlier run is counted as written."""
        name = taken.view.name
        for target in self.targets:
            if target.finished.covers(name, taken.start, taken.stop):
                target.writer.claim(name, taken.start, taken.stop)
        return all(target.holds(taken) for target in self.targets)

    def _report(self, taken: Run) -> None:
        with self._lock:
            self._done += taken.nbytes
            if self._progress is not None:
                self._progress(self._done, self._total)

    def _put_down(self) -> None:
        with self._lock:
            self._in_hand -= 1


def _in_threads(work: _Work, count: int) -> None:
    threads = [threading.Thread(target=work.loop, name=f"rows-{i}") for i in range(count)]
    try:
        for thread in threads:
            thread.start()
        system.join(threads)
    except BaseException:
        work.stop()
        raise


def _runs(rows: Iterable[Run], elements: int | None = None) -> Iterator[Run]:
    wished = elements
    for one in rows:
        view = one.view
        elements = wished or (RUN_ELEMENTS if view.stored is None else PACKED_RUN_ELEMENTS)
        step = max(1, elements // max(1, view.width))
        for start in range(one.start, one.stop, step):
            yield Run(view, start, min(start + step, one.stop))


def _carry_out(taken: Run, targets: Iterable[Target], encoder: Encoder) -> None:
    view = taken.view
    packed: Array | None = None
    wanting = [target for target in targets if not target.holds(taken)]
    plain = [target for target in wanting if view.name not in target.packs]
    for target in wanting:
        if view.name in target.packs:
            packed = target.packs[view.name](taken.start, taken.stop) if packed is None else packed
            target.write(view.name, packed, taken.start)
            target.finish(taken)
    if not plain:
        return
    read: dict[int, Rows] = {}
    encoded: dict[tuple[int, TensorType, int, int, bool, int, bool], Made] = {}
    for target in plain:
        kind, whole = target.types[view.name], target.wholes.get(view.name)
        weights = target.weights_of(view.name)
        strict, looked = target.strict and kind.quantized, view.name in target.measured
        own = target.moved.get(view.name, view)
        rows = read.setdefault(id(own), Rows(own, taken.start, taken.stop))
        key = id(own), kind, id(weights), id(whole), strict, id(target.metrics), looked
        if key not in encoded:
            straight = whole is None and weights is None and target.metrics is None and rows.of_floats8
            if straight and not encoder.takes(kind):
                encoded[key] = rows.straight(kind, strict, looked)
            else:
                given, part = rows.values, taken
                if whole is not None:
                    given, part = whole.divided(given, taken.start), replace(taken, view=replace(view, type=F32))
                encoded[key] = made_of(given, part, kind, weights, strict, target.metrics, looked, encoder)
        made = encoded[key]
        if made.blemish is not None:
            target.blemish(view.name, made.blemish)
        if made.squares is not None:
            target.measure(view.name, *made.squares)
        target.write(view.name, made.blocks, taken.start)
        target.finish(taken, made.blemish, made.squares)


def _in_order(blocks: Array, kind: TensorType, endian: str) -> Array:
    """Numbers, and those within blocks, in the file's byte order; encoders make blocks little-endian."""
    if kind.quantized and endian == "big":
        return swapped(blocks.view(np.uint8), kind).reshape(blocks.shape)
    if kind.quantized or endian == sys.byteorder:
        return blocks
    return blocks.view(f"u{kind.block_bytes}").byteswap()
