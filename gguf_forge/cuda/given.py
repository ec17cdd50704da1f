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
from gguf_forge.cuda.declarations import INVALID_VALUE, POINTER_DEVICE, STREAM_FIRST, STREAM_LEGACY
from gguf_forge.cuda.device import Device, device_of
from gguf_forge.cuda.driver import CudaError
from gguf_forge.errors import QuantError, printable

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
    if isinstance(x, DeviceArray):
        _require_here(x.device.context.ordinal, device)
        return Given(x.address, x.shape, x.dtype, None, x)
    found = _by_dlpack(x, device) if hasattr(x, "__dlpack__") else _by_interface(x, device)
    if found.address % found.itemsize and found.nbytes:
        raise QuantError(f"the array does not lie on a boundary of {found.itemsize} bytes, as {found.dtype} has to")
    return found


def _by_dlpack(x: Any, device: Device) -> Given:
    _require_here(_ordinal(x), device)
    entry = device.entry.handle
    try:
        with device.context.current():  # torch gives none of a device that is not current
            capsule = x.__dlpack__(stream=int(device.context.driver.ffi.cast("uintptr_t", entry)))
        found = dlpack.described(capsule)
    except (BufferError, ValueError) as error:
        why = printable(str(error))
        raise QuantError(f"the array is not given by its owner ({why}): give a plain one, as .detach() makes") from None
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
    after = STREAM_LEGACY if stream is None else stream_handle(stream)  # whose work our streams do not wait for
    found = Given(address, shape, dtype.name, after, x)
    if found.nbytes:
        _require_here(_ordinal(x, device), device)
    return found


def _ordinal(x: Any, device: Device | None = None) -> int:
    """The number of the device whose memory an array is in; the driver knows where a protocol does not say."""
    if hasattr(x, "__dlpack_device__"):
        return int(x.__dlpack_device__()[1])
    address = x.__cuda_array_interface__["data"][0]
    if not address:
        return 0
    context = (device or device_of(0)).context
    value = context.driver.ffi.new("int *")
    try:
        context.call("cuPointerGetAttribute", value, POINTER_DEVICE, address)
    except CudaError as error:
        if error.code != INVALID_VALUE:
            raise
        raise QuantError(f"the array's address, {address:#x}, is in no device's memory") from None
    return int(value[0])


def stream_handle(stream: Any) -> int:
    """A stream's handle, which is a number of the driver's or an address. Raises QuantError for what cannot be one."""
    if not isinstance(stream, int):
        raise QuantError(f"a stream is a handle, or an object of torch or CuPy; found {stream!r:.60}")
    if not 0 <= stream < 1 << 64 or 2 < stream < STREAM_FIRST:
        raise QuantError(f"{stream} is no handle of a stream")
    return int(stream)


def _require_here(ordinal: int, device: Device) -> None:
    if ordinal != device.context.ordinal:
        raise QuantError(f"the array is on cuda:{ordinal}, and the work is to be done on cuda:{device.context.ordinal}")


def _require_contiguous(shape: tuple[int, ...], strides: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Strides count only of axes along which there is a next element."""
    apart = [i for i, dim in enumerate(shape) if dim > 1 and strides[i] != wanted[i]]
    if apart and 0 not in shape:
        raise QuantError(f"the array is not C-contiguous: strides {strides} of shape {shape}")
