"""DLPack's structures in memory, and the capsules that carry them. Knows no devices and no types of tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gguf_forge import _native

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


@dataclass(frozen=True)
class Described:
    """What a capsule carries. strides: in elements, None for those of a C-contiguous array."""

    address: int
    device: tuple[int, int]
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    element: tuple[int, int]


def capsule(
    owner: object,
    address: int,
    device: tuple[int, int],
    shape: tuple[int, ...],
    element: tuple[int, int],
    versioned: bool = False,
) -> Any:
    """A DLManagedTensor in a capsule; it holds `owner` until whoever took it has done with it.

    versioned: the structure of DLPack 1, for those who ask for it.
    """
    return _native.dlpack_capsule(owner, (address, *device, *element), shape, steps_of(shape), versioned)


def described(capsule: Any) -> Described:
    """What a capsule carries, which stays its own: whoever looks holds the capsule, and with it the memory.

    Raises ValueError for what is no capsule of DLPack, or was taken.
    """
    found = _native.dlpack_tensor(capsule)
    if found is None:
        raise ValueError("no capsule of DLPack, or one that was taken")
    address, *device, code, bits, lanes = found[0]
    return Described(address, (device[0], device[1]), *found[1:], (code, bits if lanes == 1 else 0))


def steps_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a C-contiguous array, in elements."""
    steps = [1] * len(shape)
    for i in range(len(shape) - 1, 0, -1):
        steps[i - 1] = steps[i] * shape[i]
    return tuple(steps)
