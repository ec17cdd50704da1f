"""Arrays in a device's memory, which torch, CuPy and JAX take without a copy. Knows no types of tensors."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.cuda import dlpack
from gguf_forge.cuda.context import Memory
from gguf_forge.cuda.device import LANE, Device, Lane

#: Kinds of elements by name: NumPy's dtype for their bits.
DTYPES: dict[str, Any] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": np.uint16,
    "uint8": np.uint8,
}


class DeviceArray:
    """An array in a device's memory, C-contiguous. It owns the memory, which is freed with the last user of it.

    shape; dtype: "float32", "float16", "bfloat16" or "uint8"; device. What made it is done: it can be read by any
    stream. `__cuda_array_interface__` (bfloat16 as uint16, which has no other name there) and `__dlpack__`.
    Raises CudaError, out of memory with what is free.
    """

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: str) -> None:
        self.device, self.shape, self.dtype = device, shape, dtype
        self._numpy = np.dtype(DTYPES[dtype])
        self.nbytes = self._numpy.itemsize
        for dim in shape:
            self.nbytes *= dim
        self._memory = Memory(device.context, self.nbytes) if self.nbytes else None

    def __repr__(self) -> str:
        return f"<DeviceArray {self.dtype} {self.shape} on cuda:{self.device.context.ordinal}>"

    @property
    def address(self) -> int:
        """The address of the first byte; 0 where there is none."""
        return self._memory.address if self._memory else 0

    def numpy(self) -> NDArray[Any]:
        """A copy on the host; bfloat16 as its bits, uint16."""
        out = np.empty(self.shape, self._numpy)
        if not self.nbytes:
            return out
        flat = out.reshape(-1).view(np.uint8)
        with self.device.lanes(LANE, count=min(2, -(-self.nbytes // LANE))) as lanes:
            for i, lane in self.device.turns(lanes, -(-self.nbytes // LANE)):
                part = flat[i * LANE : (i + 1) * LANE]
                lane.fetch(self.address + i * LANE, part.size)
                lane.then(partial(_copy, lane, part))
        return out

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of the protocol; nothing is left to wait for."""
        return {
            "shape": self.shape,
            "typestr": self._numpy.str,
            "data": (self.address, False),
            "strides": None,
            "stream": None,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's name for the device."""
        return dlpack.CUDA, self.device.context.ordinal

    def __dlpack__(self, *, stream: Any = None, **wishes: Any) -> Any:
        """The array as a capsule of DLPack, without a copy. Raises BufferError where one is wished."""
        if wishes.get("dl_device") not in {None, self.__dlpack_device__()} or wishes.get("copy"):
            raise BufferError("a device's array is given as it is: without a copy, on its own device")
        element = dlpack.ELEMENTS[self.dtype]
        versioned = (wishes.get("max_version") or (0, 0))[0] >= 1
        return dlpack.capsule(self, self.address, self.__dlpack_device__(), self.shape, element, versioned)


def _copy(lane: Lane, to: NDArray[np.uint8]) -> None:
    to[:] = lane.pinned.bytes[: to.size]
