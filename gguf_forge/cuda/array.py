"""Arrays in a device's memory, which torch, CuPy and JAX take without a copy. Knows no types of tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.cuda.context import Memory, Pinned, Stream
from gguf_forge.cuda.device import Device

#: Kinds of elements by name: NumPy's dtype for their bits, and DLPack's code and bits.
DTYPES: dict[str, tuple[Any, int, int]] = {
    "float32": (np.float32, 2, 32),
    "float16": (np.float16, 2, 16),
    "bfloat16": (np.uint16, 4, 16),
    "uint8": (np.uint8, 1, 8),
}
#: DLPack's number for CUDA devices.
DLPACK_CUDA = 2
#: Bytes that are fetched at a time.
PIECE = 16 << 20


class DeviceArray:
    """An array in a device's memory, C-contiguous. It owns the memory, which is freed with the last user of it.

    shape; dtype: "float32", "float16", "bfloat16" or "uint8"; device. What made it is done: it can be read by any
    stream. `__cuda_array_interface__` (bfloat16 as uint16, which has no other name there) and `__dlpack__`.
    Raises CudaError, out of memory with what is free.
    """

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: str) -> None:
        self.device, self.shape, self.dtype = device, shape, dtype
        self._numpy = np.dtype(DTYPES[dtype][0])
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
        flat, context = out.reshape(-1).view(np.uint8), self.device.context
        pinned, stream = Pinned(context, min(PIECE, self.nbytes)), Stream(context)
        for at in range(0, self.nbytes, PIECE):
            size = min(PIECE, self.nbytes - at)
            context.call("cuMemcpyDtoHAsync_v2", pinned.pointer, self.address + at, size, stream.handle)
            stream.wait()
            flat[at : at + size] = pinned.bytes[:size]
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
        return DLPACK_CUDA, self.device.context.ordinal

    def __dlpack__(self, *, stream: Any = None, **wishes: Any) -> Any:
        """The array as a capsule of DLPack, without a copy. Raises BufferError where one is wished."""
        if wishes.get("dl_device") not in {None, self.__dlpack_device__()} or wishes.get("copy"):
            raise BufferError("a device's array is given as it is: without a copy, on its own device")
        _, code, bits = DTYPES[self.dtype]
        return _capsule(self, self.address, self.__dlpack_device__(), self.shape, (code, bits))


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("manager", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


#: What capsules that are in use hold, by the address of their structure.
_held: dict[int, tuple[Any, ...]] = {}
_NAME = b"dltensor"


def _done(managed: int) -> None:
    _held.pop(managed, None)


def _untaken(capsule: int) -> None:
    """A capsule that no one took gives back what it holds; a taken one has another name."""
    if ctypes.pythonapi.PyCapsule_IsValid(ctypes.c_void_p(capsule), _NAME):
        get: Callable[..., int] = ctypes.pythonapi.PyCapsule_GetPointer
        _held.pop(get(ctypes.c_void_p(capsule), _NAME), None)


_Callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_deleter, _unused = _Callback(_done), _Callback(_untaken)
ctypes.pythonapi.PyCapsule_GetPointer.restype = ctypes.c_void_p
ctypes.pythonapi.PyCapsule_New.restype = ctypes.py_object
ctypes.pythonapi.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


def _capsule(
    owner: object, address: int, device: tuple[int, int], shape: tuple[int, ...], element: tuple[int, int]
) -> Any:
    """A DLManagedTensor in a capsule; it holds `owner` until whoever took it has done with it."""
    sizes = (ctypes.c_int64 * max(len(shape), 1))(*shape)
    steps = (ctypes.c_int64 * max(len(shape), 1))()
    step = 1
    for i in reversed(range(len(shape))):
        steps[i], step = step, step * shape[i]
    tensor = _Tensor(
        address, *device, len(shape), *element, 1, ctypes.cast(sizes, ctypes.POINTER(ctypes.c_int64)),
        ctypes.cast(steps, ctypes.POINTER(ctypes.c_int64)), 0,
    )  # fmt: skip
    managed = _Managed(tensor, None, ctypes.cast(_deleter, ctypes.c_void_p))
    at = ctypes.addressof(managed)
    _held[at] = (managed, owner, sizes, steps)
    return ctypes.pythonapi.PyCapsule_New(at, _NAME, ctypes.cast(_unused, ctypes.c_void_p))
