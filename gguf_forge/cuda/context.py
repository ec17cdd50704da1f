"""A device's primary context, and what is owned in it: memory, pinned memory, streams, events.

Each is given back when its object is let go, whatever happened in between; what the driver says to that is not heard,
for a device that is lost takes all of it along. Knows no kernels.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.cuda.declarations import (
    CAPABILITY_MAJOR,
    CAPABILITY_MINOR,
    CAPTURE_RELAXED,
    CAPTURING,
    EVENT_BLOCKING_SYNC,
    EVENT_NO_TIMING,
    LAUNCH_OUT_OF_RESOURCES,
    OUT_OF_MEMORY,
    STREAM_NON_BLOCKING,
)
from gguf_forge.cuda.driver import CudaError, Driver


class Context:
    """The primary context of device `ordinal`, which torch, CuPy and JAX use, too; retained until it is let go.

    Attributes: name of the device; capability, as in (9, 0); total memory in bytes.
    Raises CudaError where there is no such device, or it cannot be used.
    """

    def __init__(self, driver: Driver, ordinal: int) -> None:
        self.driver, self.ordinal = driver, ordinal
        self._refused: list[tuple[str, Any]] = []
        count = driver.device_count()
        if not 0 <= ordinal < count:
            seen = f"{count} are seen: cuda:0 to cuda:{count - 1}" if count > 1 else f"{count or 'none'} is seen"
            raise CudaError(f"there is no device cuda:{ordinal}; {seen}")
        ffi = driver.ffi
        device, text, total = ffi.new("CUdevice *"), ffi.new("char[256]"), ffi.new("size_t *")
        driver.call("cuDeviceGet", device, ordinal)
        driver.call("cuDeviceGetName", text, 256, device[0])
        driver.call("cuDeviceTotalMem_v2", total, device[0])
        self.name = ffi.string(text).decode("utf-8", "replace")
        self.capability = (self._attribute(device[0], CAPABILITY_MAJOR), self._attribute(device[0], CAPABILITY_MINOR))
        self.total = int(total[0])
        held = ffi.new("CUcontext *")
        driver.call("cuDevicePrimaryCtxRetain", held, device[0])
        self.handle = held[0]
        weakref.finalize(self, driver.quietly, "cuDevicePrimaryCtxRelease_v2", device[0])

    def __repr__(self) -> str:
        return f"<cuda:{self.ordinal}, {self.name}>"

    def _attribute(self, device: int, which: int) -> int:
        value = self.driver.ffi.new("int *")
        self.driver.call("cuDeviceGetAttribute", value, which, device)
        return int(value[0])

    @contextmanager
    def current(self) -> Iterator[None]:
        """Within, the context is the calling thread's."""
        self.driver.call("cuCtxPushCurrent_v2", self.handle)
        try:
            yield
        finally:
            self.driver.quietly("cuCtxPopCurrent_v2", self.driver.ffi.new("CUcontext *"))

    def call(self, name: str, *args: Any) -> None:
        """Calls a function of the driver in this context. Raises CudaError."""
        with self.current():
            self.driver.call(name, *args)

    def make(self, name: str, *args: Any) -> None:
        """Calls a function that makes something, also while another stream is captured. Raises CudaError."""
        with self.current(), self._beside_captures():
            refused, self._refused = self._refused, []
            for function, handle in refused:
                self._let_go(function, handle)
            self.driver.call(name, *args)

    @contextmanager
    def _beside_captures(self) -> Iterator[None]:
        """Within, this thread may make and free memory while any stream of the process is captured into a graph."""
        mode = self.driver.ffi.new("int *", CAPTURE_RELAXED)
        self.driver.quietly("cuThreadExchangeStreamCaptureMode", mode)
        try:
            yield
        finally:
            self.driver.quietly("cuThreadExchangeStreamCaptureMode", mode)

    def free(self) -> int:
        """Bytes of the device's memory that are free."""
        free, total = self.driver.ffi.new("size_t *"), self.driver.ffi.new("size_t *")
        self.call("cuMemGetInfo_v2", free, total)
        return int(free[0])

    def own(self, owner: object, function: str, handle: Any) -> None:
        """Has `function` give `handle` back when `owner` is let go. Holds the context until then."""
        weakref.finalize(owner, self._give_back, function, handle)

    def _give_back(self, function: str, handle: Any) -> None:
        if self.driver.forked:
            return
        pushed = self.driver.quietly("cuCtxPushCurrent_v2", self.handle)
        with self._beside_captures():
            self._let_go(function, handle)  # handles know their context: of one that is lost they are let go, too
        if pushed:
            self.driver.quietly("cuCtxPopCurrent_v2", self.driver.ffi.new("CUcontext *"))

    def _let_go(self, function: str, handle: Any) -> None:
        """Gives back; what a capture forbids is tried again when something is made."""
        if self.driver.result(function, handle) in CAPTURING:
            self._refused.append((function, handle))

    def no_memory(self, asked: int, where: str, error: CudaError) -> CudaError:
        """The error of an allocation: with what was asked for, and what is free, if it was out of memory."""
        if error.code != OUT_OF_MEMORY:
            return error
        told = f"cuda:{self.ordinal}: out of {where}: {_size(asked)} were asked for, {self._free()}"
        return CudaError(told, error.code)

    def no_room(self, kernel: str, error: CudaError) -> CudaError:
        """The error of a launch: with what is free, if that was too little for its stack."""
        if error.code not in (OUT_OF_MEMORY, LAUNCH_OUT_OF_RESOURCES):
            return error
        return CudaError(f"cuda:{self.ordinal}: out of device memory for {kernel}'s stack: {self._free()}", error.code)

    def _free(self) -> str:
        try:
            return f"{_size(self.free())} of {_size(self.total)} are free on the device"
        except CudaError:
            return "what is free is not known"


class Memory:
    """Memory of a device; size in bytes, at least 1. Raises CudaError, out of memory with what is free."""

    def __init__(self, context: Context, size: int) -> None:
        self.context, self.size = context, size
        at = context.driver.ffi.new("CUdeviceptr *")
        try:
            context.make("cuMemAlloc_v2", at, size)
        except CudaError as error:
            raise context.no_memory(size, "device memory", error) from None
        self.address = int(at[0])
        context.own(self, "cuMemFree_v2", at[0])


class Pinned:
    """Memory of the host that the device reads and writes by itself. `bytes`: uint8 (size,), valid while this lives."""

    def __init__(self, context: Context, size: int) -> None:
        ffi = context.driver.ffi
        at = ffi.new("void **")
        try:
            context.make("cuMemHostAlloc", at, size, 0)
        except CudaError as error:
            raise context.no_memory(size, "pinned memory of the host", error) from None
        self.pointer = at[0]
        context.own(self, "cuMemFreeHost", at[0])
        self.bytes: NDArray[np.uint8] = np.frombuffer(ffi.buffer(self.pointer, size), np.uint8)


class Event:
    """A point in a stream's work. asleep: whoever waits for it leaves the processor to others."""

    def __init__(self, context: Context, asleep: bool = False) -> None:
        made = context.driver.ffi.new("CUevent *")
        context.make("cuEventCreate", made, EVENT_NO_TIMING | EVENT_BLOCKING_SYNC * asleep)
        self.handle = made[0]
        context.own(self, "cuEventDestroy_v2", made[0])


class Stream:
    """Work done in order, beside that of other streams."""

    def __init__(self, context: Context) -> None:
        self.context = context
        made = context.driver.ffi.new("CUstream *")
        context.make("cuStreamCreate", made, STREAM_NON_BLOCKING)
        self.handle = made[0]
        context.own(self, "cuStreamDestroy_v2", made[0])

    def wait(self) -> None:
        """Waits until all its work is done. Raises CudaError for work that failed."""
        self.context.call("cuStreamSynchronize", self.handle)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
