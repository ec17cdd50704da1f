"""DLPack's structures in memory, and the capsules that carry them. Knows no devices and no types of tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: DLPack's numbers for kinds of memory: of CUDA devices, and what CUDA moves between them and the host by itself.
CUDA, CUDA_MANAGED = 2, 13
#: DLPack's code and bits of kinds of elements.
ELEMENTS: dict[str, tuple[int, int]] = {
    "float64": (2, 64),
    "float32": (2, 32),
    "float16": (2, 16),
    "bfloat16": (4, 16),
    "uint16": (1, 16),
    "uint8": (1, 8),
}


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


@dataclass(frozen=True)
class Described:
    """What a capsule carries. strides: in elements, None for those of a C-contiguous array."""

    address: int
    device: tuple[int, int]
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    element: tuple[int, int]


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


def capsule(
    owner: object, address: int, device: tuple[int, int], shape: tuple[int, ...], element: tuple[int, int]
) -> Any:
    """A DLManagedTensor in a capsule; it holds `owner` until whoever took it has done with it."""
    sizes = (ctypes.c_int64 * max(len(shape), 1))(*shape)
    steps = (ctypes.c_int64 * max(len(shape), 1))(*steps_of(shape))
    tensor = _Tensor(
        address, *device, len(shape), *element, 1, ctypes.cast(sizes, ctypes.POINTER(ctypes.c_int64)),
        ctypes.cast(steps, ctypes.POINTER(ctypes.c_int64)), 0,
    )  # fmt: skip
    managed = _Managed(tensor, None, ctypes.cast(_deleter, ctypes.c_void_p))
    at = ctypes.addressof(managed)
    _held[at] = (managed, owner, sizes, steps)
    return ctypes.pythonapi.PyCapsule_New(at, _NAME, ctypes.cast(_unused, ctypes.c_void_p))


def described(capsule: Any) -> Described:
    """What a capsule carries, which stays its own: whoever looks holds the capsule, and with it the memory.

    Raises ValueError for what is no capsule of DLPack, or was taken.
    """
    get: Callable[..., int] = ctypes.pythonapi.PyCapsule_GetPointer
    found = _Managed.from_address(get(ctypes.py_object(capsule), _NAME)).tensor
    sizes = tuple(found.shape[i] for i in range(found.ndim))
    steps = tuple(found.strides[i] for i in range(found.ndim)) if found.strides else None
    bits = found.bits if found.lanes == 1 else 0
    device = found.device_type, found.device_id
    return Described((found.data or 0) + found.byte_offset, device, sizes, steps, (found.code, bits))


def steps_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a C-contiguous array, in elements."""
    steps = [1] * len(shape)
    for i in range(len(shape) - 1, 0, -1):
        steps[i - 1] = steps[i] * shape[i]
    return tuple(steps)
