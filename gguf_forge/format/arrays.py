"""What is given as a tensor's data: arrays, and what NumPy makes arrays of; and the tensor type it is stored as.

Knows dtypes and the sizes of blocks; must not know files, nor how blocks are encoded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gguf_forge.errors import InvalidError, escaped
from gguf_forge.types import TensorType, tensor_type

#: What a NumPy dtype is stored as when no type is given.
STORED = {"f4": "F32", "f2": "F16", "f8": "F64", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64"}
_DTYPES = {name: np.dtype(code) for code, name in STORED.items()}


def as_array(data: ArrayLike, type: TensorType | str | None) -> tuple[NDArray[Any], TensorType, tuple[int, ...]]:
    """The array, the type it is stored as, and the tensor's shape in NumPy order (() of a scalar).

    Without `type` an array's dtype says: float32, float16, float64, int8 to int64. Python's own numbers, and lists of
    them, are F32, or if all are integers I32, or I64 where they must. With `type`, lists are turned to it where its
    values are plain numbers and hold them; an array must be of its very dtype (uint16 for the bits of BF16), or uint8
    blocks of shape (..., row bytes). Raises InvalidError for all else.
    """
    array = _made(data)
    if not hasattr(data, "dtype") and _is_written_out(data):
        array = _narrowed(array, "" if type is None else tensor_type(type).name)
    return (array, *_type_and_shape(array, type))


def _made(data: ArrayLike) -> NDArray[Any]:
    try:
        return np.asarray(data)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise InvalidError(f"no array can be made of it: {escaped(str(error))}") from error


def _is_written_out(data: Any) -> bool:
    """Whether the data are Python's own numbers, whose dtype NumPy chose and nobody else."""
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, (int, float, list, tuple)) and not hasattr(data, "dtype")


def _narrowed(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Numbers from Python, float64 or int64, as the type of this name or the usual one; InvalidError if one is lost."""
    if not name:
        fits = array.dtype.kind == "i" and _holds(np.dtype("i4"), array)
        name = "F32" if array.dtype.kind == "f" else "I32" if fits else ""
    dtype = _DTYPES.get(name)
    if dtype is None or array.dtype.kind not in "if":
        return array
    if not _holds(dtype, array):
        raise InvalidError(f"numbers of {array.dtype} from {array.min()} to {array.max()} do not fit {name}")
    return array.astype(dtype)


def _holds(dtype: np.dtype[Any], array: NDArray[Any]) -> bool:
    """Whether a dtype holds all these numbers: integers exactly, others rounded, but none as an infinity it is not."""
    if not array.size:
        return True
    if dtype.kind == "i":
        bounds = np.iinfo(dtype)
        return array.dtype.kind == "i" and bool(bounds.min <= array.min() and array.max() <= bounds.max)
    with np.errstate(over="ignore"):
        rounded = array.astype(dtype)
    return bool((np.isfinite(rounded) == np.isfinite(array)).all())


def _type_and_shape(data: NDArray[Any], given: TensorType | str | None) -> tuple[TensorType, tuple[int, ...]]:
    code = data.dtype.str[1:]
    if given is None:
        stored = STORED.get(code)
        if stored is None:
            raise InvalidError(f"dtype {data.dtype} needs a tensor type")
        return tensor_type(stored), data.shape
    kind = tensor_type(given)
    if STORED.get(code) == kind.name or (code == "u2" and kind.name == "BF16"):
        return kind, data.shape
    if code != "u1" or not data.ndim:
        raise InvalidError(f"an array of {data.dtype} is not stored as {kind.name}")
    blocks, rest = divmod(data.shape[-1], kind.block_bytes)
    if rest:
        raise InvalidError(f"rows of {data.shape[-1]} bytes are no whole {kind.block_bytes}-byte blocks of {kind.name}")
    return kind, (*data.shape[:-1], blocks * kind.block_size)
