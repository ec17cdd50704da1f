"""A device ready for work: its context, its kernels, and the lanes that data go through. Knows no types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from gguf_forge import _native
from gguf_forge.cuda.context import Context, Event, Memory, Pinned, Stream
from gguf_forge.cuda.driver import CudaError, Driver, driver
from gguf_forge.cuda.kernels import Kernels, find_kernels

#: Bytes that a lane takes at a time: 16 MiB cross the bus in some 0.3 ms, against which starting a kernel is nothing.
LANE = 16 << 20
#: Bytes behind those, for the key of a failure.
TAIL = 256


class Lane:
    """A stream, pinned memory and device memory of `size` bytes each: what a piece of data goes through.

    Two of them take turns: while the kernel of one runs, the host fills the other, and its bytes cross the bus.
    """

    def __init__(self, context: Context, size: int) -> None:
        self.context, self.size = context, size
        self.stream = Stream(context)
        self.pinned = Pinned(context, size + TAIL)
        self.memory = Memory(context, size + TAIL)
        self._scratch: Memory | None = None
        self._after: Callable[[], None] | None = None

    @property
    def scratch(self) -> Memory:
        """As much device memory again, made when first asked for."""
        if self._scratch is None:
            self._scratch = Memory(self.context, self.size)
        return self._scratch

    def upload(self, size: int) -> None:
        """Sends the first `size` bytes of the pinned memory on their way to the device's."""
        assert size <= self.size
        self._do("cuMemcpyHtoDAsync_v2", self.memory.address, self.pinned.pointer, size)

    def clear_key(self) -> int:
        """Sets the failure's key to all ones; returns its address on the device."""
        self._do("cuMemsetD8Async", self.memory.address + self.size, 0xFF, 8)
        return self.memory.address + self.size

    def fetch_key(self) -> None:
        """Sends the key on its way back."""
        at = self.context.driver.ffi.cast("char *", self.pinned.pointer) + self.size
        self._do("cuMemcpyDtoHAsync_v2", at, self.memory.address + self.size, 8)

    def key(self) -> int:
        """The failure's key, of the work that is done."""
        return int(self.pinned.bytes[self.size : self.size + 8].view(np.uint64)[0])

    def then(self, after: Callable[[], None]) -> None:
        """Has `after` called when the work is done and waited for."""
        self._after = after

    def wait(self) -> None:
        """Waits for the lane's work, and calls what was to be called then. Raises CudaError, and what that raises."""
        after, self._after = self._after, None
        self.stream.wait()
        if after is not None:
            after()

    def drain(self) -> None:
        """Waits for the lane's work, whatever comes of it."""
        self._after = None
        try:
            self.stream.wait()
        except CudaError:  # the one that is being raised, or the device is lost
            return

    def _do(self, name: str, *args: Any) -> None:
        self.context.driver.call(name, *args, self.stream.handle)


class Device:
    """A GPU and the kernels on it, for any number of threads. Lanes that were used once are kept for the next call.

    ordinal: as the driver numbers what it sees. driver: None for the installed one. kernels: the folder that
    `make cuda` made; None for the one that GGUF_FORGE_KERNELS names.
    Raises CudaError: no driver, no such device, no kernels.
    """

    def __init__(self, ordinal: int = 0, driver: Driver | None = None, kernels: Path | None = None) -> None:
        self.context = Context(driver or _driver(), ordinal)
        self.kernels = Kernels(self.context, kernels or find_kernels())
        self._lock = Lock()
        self._idle: list[list[Lane]] = []
        self._lattices: dict[str, Memory] = {}

    def __repr__(self) -> str:
        return f"<Device cuda:{self.context.ordinal}, {self.context.name}>"

    @contextmanager
    def lanes(self, size: int, after: int | None = None) -> Iterator[list[Lane]]:
        """Two lanes of at least `size` bytes, the context being current; they are done with all when this ends.

        after: the handle of a stream whose work so far comes first. Lanes larger than LANE are not kept.
        """
        with self._lock:
            lanes = self._idle.pop() if size <= LANE and self._idle else None
        with self.context.current():
            if lanes is None:
                lanes = [Lane(self.context, max(LANE, -(-size // TAIL) * TAIL)) for _ in range(2)]
            try:
                if after is not None:
                    self._follow(lanes, after)
                yield lanes
                for lane in lanes:
                    lane.wait()
            finally:
                for lane in lanes:
                    lane.drain()
        if size <= LANE:
            with self._lock:
                self._idle.append(lanes)

    def turns(self, lanes: list[Lane], count: int) -> Iterator[tuple[int, Lane]]:
        """Numbers 0 to count - 1, each with the lane whose turn it is, free; earlier ones are then done with."""
        for i in range(count):
            lane = lanes[i % 2]
            lane.wait()
            yield i, lane
        if count % 2:  # the older piece is waited for first
            lanes.reverse()

    def lattice(self, name: str, lane: Lane) -> Memory:
        """A lattice as the kernels read it, in device memory."""
        with self._lock:
            if name not in self._lattices:
                size = _native.lattice_image(name)
                made = Memory(self.context, size)
                lane.wait()
                _native.lattice_image(name, made.address, lane.pinned.bytes)
                driver, stream = self.context.driver, lane.stream
                driver.call("cuMemcpyHtoDAsync_v2", made.address, lane.pinned.pointer, size, stream.handle)
                lane.wait()
                self._lattices[name] = made
            return self._lattices[name]

    def _follow(self, lanes: list[Lane], after: int) -> None:
        event = Event(self.context)
        driver = self.context.driver
        driver.call("cuEventRecord", event.handle, driver.ffi.cast("CUstream", after))
        for lane in lanes:
            driver.call("cuStreamWaitEvent", lane.stream.handle, event.handle, 0)


def _driver() -> Driver:
    return driver()


@cache
def _device(ordinal: int) -> Device:
    return Device(ordinal)


def device_of(which: int | str | Device) -> Device:
    """The device of a number, of "cuda", or of "cuda:N"; made once a process. Raises CudaError."""
    if isinstance(which, Device):
        return which
    if isinstance(which, str):
        name, _, number = which.partition(":")
        if name != "cuda" or not (number.isdecimal() or which == "cuda"):
            raise CudaError(f"unknown device {which!r}; say cuda or cuda:N")
        which = int(number or 0)
    return _device(which)
