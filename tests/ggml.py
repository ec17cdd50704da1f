"""ggml's own codecs, from the libggml-base that pywhispercpp brings. A peer to compare with and to measure."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_forge.types import TensorType, tensor_type

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
_ToFloat = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class _Traits(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("size", ctypes.c_size_t),
        ("quantized", ctypes.c_bool),
        ("to_float", _ToFloat),
        ("from_float", ctypes.c_void_p),
    )


@cache
def library() -> Any:
    """libggml-base. Raises ImportError when pywhispercpp is not installed."""
    package = Path(str(import_module("pywhispercpp").__file__)).parent
    for folder in (package.parent / "pywhispercpp.libs", package.parent):
        for path in sorted(folder.glob("libggml-base*.so*")):
            found = ctypes.CDLL(str(path))
            found.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
            found.ggml_quantize_chunk.restype = ctypes.c_size_t
            found.ggml_quantize_chunk.argtypes = (
                ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64,
                ctypes.c_void_p,
            )  # fmt: skip
            return found
    raise ImportError("pywhispercpp brings no libggml-base here")


def knows(kind: TensorType) -> bool:
    """Whether this ggml has the type, with blocks of the size we know."""
    traits = library().ggml_get_type_traits(kind.id).contents
    # Sizes first: past the end of its table, ggml's name is no string.
    if (traits.block, traits.size) != (kind.block_size, kind.block_bytes):
        return False
    return bool(traits.name.decode().upper() == kind.name)


def encode(x: Floats, which: str | TensorType, weights: Floats | None = None) -> Bytes:
    """Rows (n, width) to blocks (n, row bytes) by ggml_quantize_chunk. Weights: (width,)."""
    kind = tensor_type(which)
    rows, width = x.shape
    x = np.ascontiguousarray(x, np.float32)
    out = np.empty((rows, kind.row_bytes(width)), np.uint8)
    pointer = None if weights is None else np.ascontiguousarray(weights, np.float32).ctypes.data
    written = library().ggml_quantize_chunk(kind.id, x.ctypes.data, out.ctypes.data, 0, rows, width, pointer)
    assert written == out.nbytes
    return out


def decode(data: Bytes, which: str | TensorType) -> Floats:
    """Blocks (n, row bytes) to rows (n, width) by the type's to_float."""
    kind = tensor_type(which)
    width = data.shape[1] // kind.block_bytes * kind.block_size
    out = np.empty((len(data), width), np.float32)
    data = np.ascontiguousarray(data)
    library().ggml_get_type_traits(kind.id).contents.to_float(data.ctypes.data, out.ctypes.data, out.size)
    return out
