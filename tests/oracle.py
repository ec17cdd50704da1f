"""ggml itself, as the judge of our bytes: libggml-base out of the pywhispercpp wheel, called through ctypes."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.types import TensorType

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
_TO_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class _Traits(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("bytes", ctypes.c_size_t),
        ("quantized", ctypes.c_bool),
        ("to_float", _TO_FLOAT),
        ("from_float", ctypes.c_void_p),
    )


def library() -> Path | None:
    """Where the wheel put libggml-base; None when it is not installed."""
    try:
        found = [Path(str(f.locate())) for f in files("pywhispercpp") or () if "libggml-base" in f.name]
    except PackageNotFoundError:
        return None
    return next((path for path in found if path.exists()), None)


def _known_types(path: Path) -> set[str]:
    """Names of the types of a libggml, in capitals; found in another process, because asking for one more ends it."""
    code = (
        "import ctypes, itertools, sys; lib = ctypes.CDLL(sys.argv[1]); lib.ggml_type_name.restype = ctypes.c_char_p\n"
        "for i in itertools.count(): print((lib.ggml_type_name(i) or b'').decode(), flush=True)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=False, timeout=60)
    return {name.upper() for name in run.stdout.decode(errors="replace").split()}


class Oracle:
    """Encodes and decodes as ggml does, one thread."""

    def __init__(self, path: Path) -> None:
        self._lib: Any = ctypes.CDLL(str(path))
        self._lib.ggml_quantize_chunk.restype = ctypes.c_size_t
        self._lib.ggml_quantize_chunk.argtypes = [
            *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
            *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
        ]
        self._lib.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
        self._lib.ggml_get_type_traits.argtypes = [ctypes.c_int]
        self._known = _known_types(path)

    def knows(self, kind: TensorType) -> bool:
        """Whether this ggml is new enough for the type."""
        return kind.name in self._known

    def encode(self, x: Floats, kind: TensorType, weights: Floats | None = None) -> Bytes:
        """x: contiguous (rows, width)."""
        out = np.zeros((x.shape[0], kind.row_bytes(x.shape[1])), np.uint8)
        self._lib.ggml_quantize_chunk(
            kind.id, x.ctypes.data, out.ctypes.data, 0, *x.shape, None if weights is None else weights.ctypes.data
        )
        return out

    def decode(self, data: Bytes, kind: TensorType) -> Floats:
        """data: contiguous (rows, row bytes)."""
        y = np.zeros((data.shape[0], data.shape[1] // kind.block_bytes * kind.block_size), np.float32)
        self.decode_into(y, data, kind)
        return y

    def decode_into(self, y: Floats, data: Bytes, kind: TensorType) -> None:
        """y: contiguous, as many elements as data has."""
        self._lib.ggml_get_type_traits(kind.id).contents.to_float(data.ctypes.data, y.ctypes.data, y.size)
