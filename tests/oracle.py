"""ggml itself, as the judge of our bytes: the libraries that two wheels bring, called through ctypes.

xllamacpp's is the judge. It knows every tensor type, and on x86-64 its encoders are the portable build that the golden
bytes are from: no FMA contraction, no vectors beyond SSE2. pywhispercpp's is an older ggml, for what only that can say:
that files made earlier hold the same bytes.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Wheel:
    """A wheel with a ggml in it: the package's name, and how the names of its files that hold ggml begin."""

    package: str
    file: str

    def library(self) -> Path:
        """Where the wheel put the library. Raises LookupError where it is not installed."""
        try:
            found = [Path(str(f.locate())) for f in files(self.package) or () if f.name.startswith(self.file)]
        except PackageNotFoundError:
            found = []
        there = next((path for path in found if path.exists()), None)
        if there is None:
            raise LookupError(f"{self.package}, whose ggml judges our bytes, is not installed; the extra `test` has it")
        return there


JUDGE = Wheel("xllamacpp", "xllamacpp.abi3")
OLDER = Wheel("pywhispercpp", "libggml-base")

#: Types whose blocks the judge cannot decode, and why.
NO_DECODER = {"Q8_1": "a type of activations, for which ggml has no decoder"}
#: Types whose bytes the older ggml does not confirm, and why.
NOT_AS_OLDER = {
    "IQ1_M": "it sums the splits of sixteen weights in another order, which a later version changed",
    "Q2_0": "it is older than the type",
}


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

    def __init__(self, wheel: Wheel) -> None:
        path = wheel.library()
        self._lib: Any = ctypes.CDLL(str(path))
        self._lib.ggml_quantize_chunk.restype = ctypes.c_size_t
        self._lib.ggml_quantize_chunk.argtypes = [
            *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
            *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
        ]
        self._lib.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
        self._lib.ggml_get_type_traits.argtypes = [ctypes.c_int]
        self._lib.ggml_validate_row_data.restype = ctypes.c_bool
        self._lib.ggml_validate_row_data.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
        self._known = _known_types(path)

    def knows(self, kind: TensorType) -> bool:
        """Whether this ggml is new enough for the type."""
        return kind.name in self._known

    def accepts(self, data: Bytes, kind: TensorType) -> bool:
        """Whether llama-quantize would take these blocks or floats: it asks this of all it reads and writes."""
        return bool(self._lib.ggml_validate_row_data(kind.id, data.ctypes.data, data.nbytes))

    def encode(self, x: Floats, kind: TensorType, weights: Floats | None = None) -> Bytes:
        """x: contiguous (rows, width)."""
        assert self.knows(kind), f"this ggml is older than {kind.name}"
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
        assert self.knows(kind), f"this ggml is older than {kind.name}"
        decode = self._lib.ggml_get_type_traits(kind.id).contents.to_float
        if not decode:  # a decoder the table of types does not name, as Q8_K's
            decode = _TO_FLOAT((f"dequantize_row_{kind.name[:-2].lower()}{kind.name[-2:]}", self._lib))
        decode(data.ctypes.data, y.ctypes.data, y.size)
