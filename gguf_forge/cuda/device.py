"""A device ready for work: its context, its kernels, and the lanes that data go through. Knows no types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge import _native
from gguf_forge.cuda.context import Context, Event, Memory, Pinned, Stream
from gguf_forge.cuda.declarations import MEMORY_DEVICE
from gguf_forge.cuda.driver import CudaError, Driver, driver
from gguf_forge.cuda.kernels import Kernels, find_kernels

#: Bytes that a lane takes at a time: 16 MiB cross the bus in some 0.3 ms, against which starting a kernel is nothing.
LANE = 16 << 20
#: Bytes behind those, for keys of failures, and bytes of a key.
TAIL, KEY = 256, 8
#: Lanes that are kept for the next call at most.
IDLE = 8
#: How often a lane's bytes fit into its further device memory: values as float32, blocks, and columns apart.
ROOM = 4


def aligned(size: int) -> int:
    """Up to the next boundary that every kernel is content with."""
    return -(-size // 256) * 256


class Lane:
    """A stream, pinned memory and device memory of `size` bytes each: what a piece of data goes through.

    Several of them take turns: while the kernel of one runs, the host fills another, and its bytes cross the bus. Of a
    piece, all that the device is to have is staged first, then sent in one copy; `room` is for what kernels make of it.
    asleep: whoever waits for it leaves the processor to others. Its context is current wherever it is used.
    """

    def __init__(self, context: Context, size: int, asleep: bool = False) -> None:
        self.context, self.size = context, size
        self.stream = Stream(context)
        self._event: Event | None = None
        self._end = Event(context, asleep=True) if asleep else None
        self.pinned = Pinned(context, size + TAIL)
        self.memory = Memory(context, size + TAIL)
        self._scratch: Memory | None = None
        self._after: Callable[[], None] | None = None
        self._staged = self._roomy = 0

    def begin(self) -> None:
        """A new piece: the lane is waited for, and what it held is no longer needed."""
        self._staged = self._roomy = 0

    def stage(self, size: int) -> tuple[NDArray[np.uint8], int]:
        """The next `size` bytes of the pinned memory, to be filled, and where `send` puts them on the device."""
        at, self._staged = self._staged, self._staged + aligned(size)
        assert self._staged <= self.size
        return self.pinned.bytes[at : at + size], self.memory.address + at

    def send(self, to: int | None = None, size: int | None = None) -> None:
        """Sends what was staged on its way to the lane's device memory, or the first `size` bytes of it to another."""
        size = self._staged if size is None else size
        if size:
            to = self.memory.address if to is None else to
            self._do("cuMemcpyHtoDAsync_v2", to, self.pinned.pointer, size)

    def room(self, size: int) -> int:
        """The address of `size` more bytes on the device; ROOM times the lane's in all, made when first asked for."""
        if self._scratch is None:
            self._scratch = Memory(self.context, ROOM * self.size)
        at, self._roomy = self._roomy, self._roomy + aligned(size)
        assert self._roomy <= ROOM * self.size
        return self._scratch.address + at

    def mark(self) -> int:
        """How much of the room is taken, for `back_to`."""
        return self._roomy

    def back_to(self, mark: int) -> None:
        """What was taken since can be taken again, by work that is started from now on."""
        self._roomy = mark

    def copy(self, to: int, source: int, size: int) -> None:
        """Copies bytes within the device's memory."""
        self._do("cuMemcpyDtoDAsync_v2", to, source, size)

    def copy_rows(self, to: tuple[int, int], source: tuple[int, int], size: int, rows: int) -> None:
        """Copies the first `size` bytes of each row within the device's memory; to, source: address, bytes of a row."""
        copy = self.context.driver.ffi.new("CUDA_MEMCPY2D *")
        copy.srcMemoryType = copy.dstMemoryType = MEMORY_DEVICE
        copy.srcDevice, copy.srcPitch = source
        copy.dstDevice, copy.dstPitch = to
        copy.WidthInBytes, copy.Height = size, rows
        self._do("cuMemcpy2DAsync_v2", copy)

    def fetch(self, source: int, size: int) -> None:
        """Sends bytes on their way to the beginning of the pinned memory, over what was staged there."""
        assert size <= self.size
        self._do("cuMemcpyDtoHAsync_v2", self.pinned.pointer, source, size)

    def clear_key(self) -> int:
        """Sets a failure's key, and another behind it, to all ones; returns the first one's address on the device."""
        self._do("cuMemsetD8Async", self.memory.address + self.size, 0xFF, 2 * KEY)
        return self.memory.address + self.size

    def fetch_key(self) -> None:
        """Sends the key on its way back."""
        at = self.context.driver.ffi.cast("char *", self.pinned.pointer) + self.size
        self._do("cuMemcpyDtoHAsync_v2", at, self.memory.address + self.size, KEY)

    def key(self) -> int:
        """The failure's key, of the work that is done."""
        return int(self.pinned.bytes[self.size : self.size + KEY].view(np.uint64)[0])

    def then(self, after: Callable[[], None]) -> None:
        """Has `after` called when the work is done and waited for."""
        self._after = after

    def wait(self) -> None:
        """Waits for the lane's work, and calls what was to be called then. Raises CudaError, and what that raises."""
        after, self._after = self._after, None
        self._wait()
        if after is not None:
            after()

    def drain(self) -> bool:
        """Waits for the lane's work, whatever comes of it; says whether the lane can be used again."""
        self._after = None
        try:
            self._do("cuStreamSynchronize")
        except CudaError:  # the one that is being raised, or the device is lost
            return False
        return True

    def mark_after(self, stream: Any) -> Event:
        """A point behind the work so far of another stream, by its handle; valid until the next call."""
        if self._event is None:
            self._event = Event(self.context)
        driver = self.context.driver
        driver.call("cuEventRecord", self._event.handle, driver.ffi.cast("CUstream", stream))
        return self._event

    def follow(self, event: Event) -> None:
        """Has the lane's further work wait for the point that an event marks now."""
        self.context.driver.call("cuStreamWaitEvent", self.stream.handle, event.handle, 0)

    def _wait(self) -> None:
        if self._end is None:
            self._do("cuStreamSynchronize")
        else:
            self._do("cuEventRecord", self._end.handle)
            self.context.driver.call("cuEventSynchronize", self._end.handle)

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
        self._idle: list[Lane] = []
        self._lattices: dict[str, Memory] = {}
        self._entry: Stream | None = None

    def __repr__(self) -> str:
        return f"<Device cuda:{self.context.ordinal}, {self.context.name}>"

    @property
    def entry(self) -> Stream:
        """The stream that whoever gives an array in the device's memory is asked to make it readable for."""
        with self._lock:
            if self._entry is None:
                self._entry = Stream(self.context)
            return self._entry

    @contextmanager
    def lanes(self, size: int, *after: Any, count: int = 2) -> Iterator[list[Lane]]:
        """So many lanes of at least `size` bytes, the context being current; they are done with all when this ends.

        after: handles of streams whose work so far comes first, or None. Lanes larger than LANE are not kept, nor is
        one of which a call failed, nor more than IDLE.
        """
        keep = size <= LANE
        with self._lock:
            lanes = [self._idle.pop() for _ in range(min(count, len(self._idle)))] if keep else []
        try:
            with self.context.current():
                try:
                    while len(lanes) < count:
                        lanes.append(Lane(self.context, max(LANE, aligned(size))))
                    for handle in after:
                        if handle is not None:
                            event = lanes[0].mark_after(handle)
                            for lane in lanes:
                                lane.follow(event)
                    yield lanes
                    for lane in lanes:
                        lane.wait()
                except BaseException:
                    drained = [lane.drain() for lane in lanes]
                    keep = keep and all(drained)
                    raise
        except CudaError:
            keep = False
            raise
        finally:
            if keep:
                with self._lock:
                    self._idle += lanes[: max(0, IDLE - len(self._idle))]

    def turns(self, lanes: list[Lane], count: int) -> Iterator[tuple[int, Lane]]:
        """Numbers 0 to count - 1, each with the lane whose turn it is, free; earlier ones are then done with."""
        for i in range(count):
            lane = lanes[i % len(lanes)]
            lane.wait()
            yield i, lane
        if count % len(lanes):  # the older piece is waited for first
            lanes.reverse()

    def lattice(self, name: str, lane: Lane) -> Memory:
        """A lattice as the kernels read it, in device memory, sent by the lane's stream when first asked for."""
        with self._lock:
            if name not in self._lattices:
                size = _native.lattice_image(name)
                made, image = Memory(self.context, size), Pinned(self.context, size)
                _native.lattice_image(name, made.address, image.bytes)
                driver, stream = self.context.driver, lane.stream
                driver.call("cuMemcpyHtoDAsync_v2", made.address, image.pointer, size, stream.handle)
                stream.wait()
                self._lattices[name] = made
            return self._lattices[name]


def _driver() -> Driver:
    return driver()


_making = Lock()


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
    with _making:
        return _device(which)
