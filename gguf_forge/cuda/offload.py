"""Runs of rows encoded on GPUs, for the threads that read and write them: see `gguf_forge.quant.encoders`.

A thread takes a lane of whichever device has one free, copies its rows into its pinned memory and waits: reading,
upload, encoding, download and writing go on side by side in as many threads as there are lanes and processors, and
devices share the rows as they get done with them. All memory is made at the start. Knows no files.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.cuda.device import LANE, Device, Lane, device_of
from gguf_forge.cuda.driver import CudaError, driver
from gguf_forge.cuda.encoding import Encoding, HostRows, require_encodable
from gguf_forge.quant import codec
from gguf_forge.types import TensorType

#: Lanes of a device: enough that kernels of two follow each other while a third is filled and a fourth emptied.
LANES = 4
#: Elements of a run: a lane's bytes as float32, less a sixteenth for importances.
RUN_ELEMENTS = LANE // 4 * 15 // 16


@contextmanager
def offload(device: str) -> Iterator[Offload]:
    """What encodes on "cuda", which is all devices, on "cuda:N", or with "auto" on those that can be used, if any.

    Raises CudaError where a device was asked for and cannot be used, or there is no memory for its lanes.
    """
    found, reasons = _devices(device)
    made = Offload(found, falls_back=device == "auto", reasons=reasons)
    try:
        yield made
    finally:
        made.close()


def _devices(device: str) -> tuple[list[Device], list[str]]:
    """The devices meant, ready for work, and why others are not."""
    optional = device == "auto"
    try:
        count = driver().device_count()
        names = [f"cuda:{i}" for i in range(count)] if device in {"auto", "cuda"} else [device]
    except CudaError as error:
        if not optional:
            raise
        return [], [str(error)]
    found, reasons = [], []
    for name in names:
        try:
            one = device_of(name)
            one.kernels.load()
            found.append(one)
        except CudaError as error:
            if not optional:
                raise
            reasons.append(f"{name}: {error}")
    return found, reasons


class Offload:
    """An encoder that has devices. falls_back: what one of them fails at is done by others, at last by the processors.

    Raises CudaError for memory that there is not, unless it falls back.
    """

    run_elements = RUN_ELEMENTS

    def __init__(self, devices: list[Device], *, falls_back: bool, reasons: list[str]) -> None:
        self._falls_back, self._reasons = falls_back, reasons
        self._changed = threading.Condition()
        self._devices: list[Device] = []
        self._done: Counter[str] = Counter()
        made: list[list[tuple[Device, Lane]]] = []
        for device in devices:
            try:
                lanes = [(device, _lane(device)) for _ in range(LANES)]
            except CudaError as error:
                if not falls_back:
                    raise
                reasons.append(f"cuda:{device.context.ordinal}: {error}")
                continue
            self._devices.append(device)
            made.append(lanes)
        self._idle = [lane for lanes in zip(*made, strict=True) for lane in lanes]  # devices take turns
        self.workers = len(self._idle)

    def close(self) -> None:
        """Gives the lanes back."""
        with self._changed:
            self._idle.clear()
            self._devices.clear()
            self._changed.notify_all()

    def takes(self, kind: TensorType) -> bool:
        """Block types; of floats the processors make others in less time than they take to a device."""
        return bool(self._devices) and kind.quantized and kind.encodes

    def encode_rows(
        self,
        src: NDArray[Any],
        src_type: TensorType,
        dst_type: TensorType,
        weights: NDArray[np.float32] | None = None,
        first_row: int = 0,
        strict: bool = False,
    ) -> NDArray[np.uint8]:
        """As `codec.encode_rows`. Raises also CudaError, unless it falls back."""
        width = codec.encodable_width(src, src_type, dst_type)
        if not self.takes(dst_type) or not src_type.decodes or not src.size:
            return self._by_processor(src, src_type, dst_type, weights, first_row, strict)
        given = None if weights is None else codec.checked_importance(weights, width, dst_type)
        require_encodable(dst_type, width, given)
        rows = HostRows(np.ascontiguousarray(src), src_type, width)
        out = np.empty((rows.count, codec.row_bytes(dst_type, width)), np.uint8)
        while (taken := self._take()) is not None:
            device, lane = taken
            try:
                _encode(Encoding(device, dst_type, rows, given, strict, first_row), lane, out)
            except CudaError as error:
                self._lose(device, error)
                continue
            except BaseException:  # others may be waiting for the lane
                self._put(device, lane)
                raise
            self._put(device, lane)
            self._count(f"cuda:{device.context.ordinal} ({device.context.name})", rows.count * width)
            return out
        return self._by_processor(src, src_type, dst_type, weights, first_row, strict)

    def said(self) -> list[str]:
        """How many weights each device encoded, and why one did not, or no more."""
        with self._changed:
            counts = [f"{count} on {place}" for place, count in sorted(self._done.items())]
            return [*self._reasons, f"weights encoded: {', '.join(counts) or 'none'}"]

    def _by_processor(self, src: NDArray[Any], *how: Any) -> NDArray[np.uint8]:
        made, kind = codec.encode_rows(src, *how), how[0]
        self._count("the processors", src.nbytes // kind.block_bytes * kind.block_size)
        return made

    def _count(self, place: str, elements: int) -> None:
        with self._changed:
            self._done[place] += elements

    def _take(self) -> tuple[Device, Lane] | None:
        """A free lane, waited for; None where there are no devices any more."""
        with self._changed:
            while self._devices and not self._idle:
                self._changed.wait()
            return self._idle.pop(0) if self._devices else None

    def _put(self, device: Device, lane: Lane) -> None:
        with self._changed:
            if device in self._devices:
                self._idle.append((device, lane))
                self._changed.notify()

    def _lose(self, device: Device, error: CudaError) -> None:
        """Does without a device from now on. Raises the error unless it falls back."""
        with self._changed:
            if device in self._devices:
                self._devices.remove(device)
                self._idle = [one for one in self._idle if one[0] is not device]
                self._reasons.append(f"cuda:{device.context.ordinal}: {error}; others went on from there")
            self._changed.notify_all()
        if not self._falls_back:
            raise error


def _lane(device: Device) -> Lane:
    """A lane with all its memory, whose thread sleeps while it waits."""
    lane = Lane(device.context, LANE, asleep=True)
    lane.room(0)
    return lane


def _encode(encoding: Encoding, lane: Lane, out: NDArray[np.uint8]) -> None:
    """Encodes all rows into `out`, a piece after the other; the lane is done with all when this ends."""
    context, size = encoding.device.context, encoding.lane_size
    with context.current():
        lane = lane if size <= lane.size else Lane(context, size, asleep=True)
        try:
            step = encoding.rows_at_a_time(lane)
            for first in range(0, len(out), step):
                part = out[first : first + step]
                lane.fetch(encoding.encode(lane, first, first + len(part)), part.size)
                lane.wait()
                part[...] = lane.pinned.bytes[: part.size].reshape(part.shape)
        except BaseException:  # the lane goes to others, who must not meet this one's work
            lane.drain()
            raise
