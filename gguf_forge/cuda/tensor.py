"""Tensors of open files to a GPU: read into the memory that they are sent from. Knows the reader's tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gguf_forge.cuda.array import DeviceArray
from gguf_forge.cuda.codec import decode_bytes, handle, output, result, send_bytes, upload
from gguf_forge.cuda.device import Device, device_of
from gguf_forge.errors import UnsupportedError, escaped
from gguf_forge.format.orders import swapped
from gguf_forge.format.reader import Tensor


def to_cuda(
    tensor: Tensor,
    dtype: DTypeLike | str | None = None,
    *,
    device: int | str | Device = 0,
    stream: Any = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """A tensor's values, or without a dtype its blocks, in a GPU's memory, as `Tensor.to_cuda` of the reader says."""
    found, kind = device_of(device), tensor.type
    if dtype is None:
        out = output(found, (*tensor.shape[:-1], tensor.row_bytes), "uint8", out)
        send_bytes(_Reading(tensor).fill, out, handle(stream), kind.block_bytes)
        return out
    name = result(dtype)
    if not kind.decodes and kind.quantized:
        field = f'tensor "{escaped(tensor.name)}"'
        raise UnsupportedError(f"no decoder for {kind.name}", path=tensor.path, field=field)
    if not kind.decodes:  # integers
        values = tensor.dequantize(name)
        return upload(values, name, device=found, stream=stream, out=out)
    out = output(found, tensor.shape, name, out)
    decode_bytes(_Reading(tensor).fill, tensor.nbytes, kind, out, handle(stream))
    return out


class _Reading:
    """Bytes of a tensor, numbers in this machine's order."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def fill(self, to: NDArray[np.uint8], start: int) -> None:
        """Fills `to` with whole blocks from byte `start` on."""
        self._tensor.read_bytes(to, start)
        if self._tensor.order == ">":
            to[:] = swapped(to, self._tensor.type).reshape(-1)
