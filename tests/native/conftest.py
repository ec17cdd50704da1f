"""One call into the core on a chosen instruction set, and the types and instruction sets there are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge import _native
from gguf_forge.types import TENSOR_TYPES, TensorType

F32 = TENSOR_TYPES["F32"]
ISAS = _native.isa_names()
BLOCK_TYPES = [t for t in TENSOR_TYPES.values() if t.quantized]


def encode(
    x: NDArray[Any], kind: TensorType, weights: NDArray[np.float32] | None, isa: str, source: TensorType = F32
) -> NDArray[np.uint8]:
    """x: contiguous (rows, width) of `source`; the call must succeed."""
    out = np.empty((x.shape[0], kind.row_bytes(x.shape[1])), np.uint8)
    status = _native.convert(source.id, x, kind.id, out, x.shape[0], x.shape[1], weights, isa)
    assert status == (_native.OK, -1), f"{kind.name} on {isa}: status {status}"
    return out


def decode(data: NDArray[np.uint8], kind: TensorType, isa: str) -> NDArray[np.float32]:
    """data: contiguous (rows, row bytes)."""
    width = data.shape[1] // kind.block_bytes * kind.block_size
    y = np.empty((data.shape[0], width), np.float32)
    assert _native.convert(kind.id, data, F32.id, y, y.shape[0], y.shape[1], None, isa) == (_native.OK, -1)
    return y


def same_floats(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    """The same bits, or both NaN."""
    return bool(((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))).all())
