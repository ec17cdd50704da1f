"""What `GGUFWriter.add_tensor` takes, and as what it is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from gguf_forge.errors import InvalidError
from gguf_forge.format.writer import GGUFWriter


class Wrapped:
    """An array of another library, as NumPy sees it."""

    dtype = "its own"

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return np.array([1.5, 2.5], np.float16)


GRID = np.arange(24, dtype=np.float32).reshape(4, 6)
#: What is given, with which type, the type it is stored as, and its values.
TAKEN: list[tuple[Any, str | None, str, Any]] = [
    ([[1.0]], None, "F32", [[1]]),
    ([[1, 2.5], (3, 4)], None, "F32", [[1, 2.5], [3, 4]]),
    ([1, -2], None, "I32", [1, -2]),
    ([2**31 - 1], None, "I32", [2**31 - 1]),
    ([2**31], None, "I64", [2**31]),
    (7, None, "I32", 7),
    (0.5, None, "F32", 0.5),
    (float("inf"), None, "F32", np.inf),
    ([], None, "F32", []),
    ([[], []], None, "F32", [[], []]),
    (np.float64(0.1), None, "F64", 0.1),
    (np.int16(3), None, "I16", 3),
    ([np.float16(1), np.float16(2)], None, "F16", [1, 2]),
    ([np.zeros(2), np.ones(2)], None, "F64", [[0, 0], [1, 1]]),
    (Wrapped(), None, "F16", [1.5, 2.5]),
    (GRID.T, None, "F32", GRID.T),
    (GRID[::2, ::-3], None, "F32", GRID[::2, ::-3]),
    (GRID.astype(">f4"), None, "F32", GRID),
    (np.broadcast_to(np.int8(1), (2, 3)), None, "I8", np.ones((2, 3))),
    ([[0.1, 2]], "F64", "F64", [[0.1, 2]]),
    ([1, 2], "f16", "F16", [1, 2]),
    ([127, -128], "I8", "I8", [127, -128]),
    (np.array([0x3F80], np.uint16), "BF16", "BF16", [1]),
]


@pytest.mark.parametrize(("data", "given", "stored", "values"), TAKEN, ids=lambda value: str(value)[:20])
def test_taken(data: Any, given: str | None, stored: str, values: Any, tmp_path: Path) -> None:
    with GGUFWriter(tmp_path / "a.gguf") as out:
        out.add_tensor("t", data, given)
    with gguf_forge.open(tmp_path / "a.gguf") as file:
        tensor = file.tensors["t"]
        assert (tensor.type.name, tensor.shape) == (stored, np.shape(values))
        assert (tensor.dequantize() == np.asarray(values, np.float32)).all()


@pytest.mark.parametrize(
    ("data", "given", "text"),
    [
        ([[1, 2], [3]], None, "no array can be made of it"),
        (["a"], None, "needs a tensor type"),
        ([True, False], None, "dtype bool needs a tensor type"),
        ([1j], None, "dtype complex128 needs a tensor type"),
        ([None], None, "dtype object needs a tensor type"),
        ([2**63], None, "dtype uint64 needs a tensor type"),
        ([1e39], None, "from 1e+39 to 1e+39 do not fit F32"),
        ([70000.0], "F16", "do not fit F16"),
        ([128], "I8", "from 128 to 128 do not fit I8"),
        ([1.5], "I32", "do not fit I32"),
        ([1.0], "BF16", "an array of float64 is not stored as BF16"),
        ([[1, 2]], "Q8_0", "an array of int64 is not stored as Q8_0"),
        (GRID, "F16", "an array of float32 is not stored as F16"),
        (np.zeros(4, np.uint16), None, "dtype uint16 needs a tensor type"),
        (np.zeros((2, 33), np.uint8), "Q8_0", "rows of 33 bytes are no whole 34-byte blocks of Q8_0"),
        ({"a": 1}, None, "dtype object needs a tensor type"),
    ],
)
def test_refused(data: Any, given: str | None, text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidError) as caught, GGUFWriter(tmp_path / "a.gguf") as out:
        out.add_tensor("t", data, given)
    assert str(caught.value).startswith(f'{tmp_path}/a.gguf: tensor "t": ')
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
