"""Arrays that others hold in a device's memory, as DLPack or `__cuda_array_interface__` tell of them.

Knows the two protocols; not what the elements mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from gguf_forge.cuda import dlpack
from gguf_forge.cuda.array import DeviceArray
from gguf_forge.cuda.declarations import POINTER_DEVICE
from gguf_forge.cuda.device import Device, device_of
from gguf_forge.cuda.driver import driver
from gguf_forge.errors import QuantError

_NAMES = {element: name for name, element in dlpack.ELEMENTS.items()}
_BYTES = {name: bits // 8 for name, (_, bits) in dlpack.ELEMENTS.items()}


@dataclass(frozen=True)
class Given:
    """A C-contiguous array in a device's memory, for as long as this lives.

    dtype: "float64", "float32", "float16", "bfloat16", "uint16" or "uint8". after: the handle of the stream whose work
    so far makes it readable, or None. held: what keeps its memory.
    """

    address: int
    shape: tuple[int, ...]
    dtype: str
    after: Any
    held: object

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return _BYTES[self.dtype]

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return self.itemsize * prod(self.shape)


def on_device(x: object) -> bool:
    """Whether an array's elements are in a device's memory, as far as it says."""
    if isinstance(x, np.ndarray):
        return False
    named = getattr(x, "__dlpack_device__", None)
    if named is not None:
        return named()[0] in {dlpack.CUDA, dlpack.CUDA_MANAGED}
    return hasattr(x, "__cuda_array_interface__")


def place(device: int | str | Device | None, *arrays: Any) -> Device:
    """The device to work on: the one named; without one that of the first array that is on any, or the first of all.

    Raises CudaError.
    """
    if device is not None:
        return device_of(device)
    for x in arrays:
        if isinstance(x, DeviceArray):
            return x.device
        if on_device(x):
            return device_of(_ordinal(x))
    return device_of(0)


def given(x: Any, device: Device) -> Given:
    """An array that is on a device, as it lies there, without a copy. Raises QuantError for another device's, for one
    that is not C-contiguous or not on a boundary of its elements, and for elements that are no floats and no bytes.
    """
    found = _by_dlpack(x, device) if hasattr(x, "__dlpack__") else _by_interface(x, device)
    if found.address % found.itemsize and found.nbytes:
        raise QuantError(f"the array does not lie on a boundary of {found.itemsize} bytes, as {found.dtype} has to")
    return found


def _by_dlpack(x: Any, device: Device) -> Given:
    kind, ordinal = x.__dlpack_device__()
    if kind == dlpack.CUDA:
        _require_here(ordinal, device)
    entry = device.entry.handle
    capsule = x.__dlpack__(stream=int(device.context.driver.ffi.cast("uintptr_t", entry)))
    found = dlpack.described(capsule)
    name = _NAMES.get(found.element)
    if name is None:
        raise QuantError(f"an array of DLPack's code {found.element[0]}, {found.element[1]} bits: no floats, no bytes")
    if found.strides is not None:
        _require_contiguous(found.shape, found.strides, dlpack.steps_of(found.shape))
    return Given(found.address, found.shape, name, entry, capsule)


def _by_interface(x: Any, device: Device) -> Given:
    about = x.__cuda_array_interface__
    dtype, shape = np.dtype(about["typestr"]), tuple(about["shape"])
    if dtype.name not in dlpack.ELEMENTS or not dtype.isnative:
        raise QuantError(f"an array of {dtype} on a device: no floats, no bytes")
    if about.get("strides") is not None:
        steps = [step * dtype.itemsize for step in dlpack.steps_of(shape)]
        _require_contiguous(shape, tuple(about["strides"]), tuple(steps))
    address, stream = about["data"][0] or 0, about.get("stream")
    found = Given(address, shape, dtype.name, stream, x)
    if found.nbytes:
        _require_here(_ordinal(x, device), device)
    return found


def _ordinal(x: Any, device: Device | None = None) -> int:
    """The number of the device whose memory an array is in; the driver knows where a protocol does not say."""
    if hasattr(x, "__dlpack_device__"):
        return int(x.__dlpack_device__()[1])
    opened = driver() if device is None else device.context.driver
    value, address = opened.ffi.new("int *"), x.__cuda_array_interface__["data"][0]
    if address:
        opened.call("cuPointerGetAttribute", value, POINTER_DEVICE, address)
    return int(value[0])


def _require_here(ordinal: int, device: Device) -> None:
    if ordinal != device.context.ordinal:
        raise QuantError(f"the array is on cuda:{ordinal}, and the work is to be done on cuda:{device.context.ordinal}")


def _require_contiguous(shape: tuple[int, ...], strides: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Strides count only of axes along which there is a next element."""
    apart = [i for i, dim in enumerate(shape) if dim > 1 and strides[i] != wanted[i]]
    if apart and 0 not in shape:
        raise QuantError(f"the array is not C-contiguous: strides {strides} of shape {shape}")
