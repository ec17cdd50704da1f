"""The arrays that decoding and encoding give their results in: of which dtype, and whether a caller's own will do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gguf_forge.errors import QuantError

#: The types whose elements arrays of these dtypes hold; bfloat16 is its bits.
DTYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "uint16": "BF16"}


def float_dtype(dtype: DTypeLike | str | None, out: NDArray[Any] | None) -> np.dtype[Any]:
    """The dtype to decode to, uint16 for bfloat16. None: that of `out`, or float32. Raises QuantError."""
    if dtype is None:
        found = getattr(out, "dtype", np.dtype(np.float32))
        dtype = "bfloat16" if found == np.uint16 else found
    if isinstance(dtype, str) and dtype.lower() in {"bf16", "bfloat16"}:
        return np.dtype(np.uint16)
    known = np.dtype(dtype)
    if known.name not in {"float32", "float16", "float64"} or not known.isnative:
        raise QuantError(f"cannot decode to {known}; choose float32, float16, float64 or 'bfloat16'")
    return known


def fitting(out: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any], *inputs: NDArray[Any]) -> NDArray[Any]:
    """`out`, when a result of that shape and dtype made of these inputs can be written to it. Raises QuantError."""
    if not isinstance(out, np.ndarray):
        raise QuantError(f"out must be a NumPy array, found {type(out).__name__}")
    if out.dtype != dtype:
        raise QuantError(f"out must be of {dtype}, found {out.dtype}")
    if out.shape != shape:
        raise QuantError(f"out must have shape {shape}, found {out.shape}")
    if not out.flags.c_contiguous:
        raise QuantError("out must be C-contiguous")
    if not out.flags.writeable:
        raise QuantError("out must be writable, found a read-only array")
    if any(np.may_share_memory(out, given) for given in inputs):
        raise QuantError("out must not overlap the input")
    return out
