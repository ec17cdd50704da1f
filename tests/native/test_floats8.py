"""8-bit floats beside scales: every instruction set against tables in NumPy, and against encoding the products."""

from __future__ import annotations

import numpy as np
import pytest

from gguf_forge import _native
from gguf_forge.quant.codec import encode_rows
from gguf_forge.quant.floats8 import FORMATS, decode_floats8, encode_floats8
from gguf_forge.source.dtypes import DTYPES
from gguf_forge.types import TENSOR_TYPES, tensor_type
from tests.native.conftest import ISAS

F32 = tensor_type("F32")
ENCODED = sorted(t.name for t in TENSOR_TYPES.values() if t.encodes and not t.needs_weights)
FORMS = sorted(FORMATS)
#: Columns of a row, and how many of them share a scale: whole rows, tiles, tiles of which the last is cut off.
SHAPES = [(1, 1), (7, 7), (33, 5), (64, 32), (256, 128), (300, 128), (4099, 4099), (4352, 128)]


def converted(
    isa: str, form: str, codes: np.ndarray, scales: np.ndarray, group: int, kind: str, strict: bool = False
) -> tuple[int, int, np.ndarray, np.ndarray]:
    rows, width = codes.shape
    found, squares = np.empty((rows, tensor_type(kind).row_bytes(width)), np.uint8), np.zeros(2)
    status, where = _native.convert_floats8(
        _native.FLOATS8[form], codes, rows, width, group, scales, tensor_type(kind).id, found, squares, strict, isa
    )
    return status, where, found, squares


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", FORMS)
def test_each_code_is_its_value(isa: str, form: str) -> None:
    """To the bit: zeros and NaNs have their signs."""
    codes, one = np.arange(256, dtype=np.uint8)[None], np.ones((1, 1), np.float32)
    found = np.empty((1, 256), np.float32)
    status, _ = _native.convert_floats8(_native.FLOATS8[form], codes, 1, 256, 256, one, 0, found, isa=isa)
    assert status == 0
    table = np.asarray(DTYPES[form].table)
    assert np.array_equal(found[0].view(np.uint32), table.view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("width", "group"), SHAPES)
def test_values_are_products_rounded_once(isa: str, form: str, width: int, group: int) -> None:
    rng = np.random.default_rng(width)
    codes = rng.integers(0, 256, (5, width), dtype=np.uint8)
    scales = np.ldexp(rng.standard_normal((5, -(-width // group))), rng.integers(-140, 120, 1)).astype(np.float32)
    found = np.empty((5, width), np.float32)
    status, _ = _native.convert_floats8(_native.FLOATS8[form], codes, 5, width, group, scales, 0, found, isa=isa)
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = np.asarray(DTYPES[form].table)[codes] * np.repeat(scales, group, axis=1)[:, :width]
    assert status == 0
    assert np.array_equal(found.view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ENCODED)
def test_rows_are_what_encoding_the_values_makes(isa: str, name: str) -> None:
    kind, rng = tensor_type(name), np.random.default_rng(1)
    codes = rng.integers(0, 0x7F, (9, 768), dtype=np.uint8) | rng.integers(0, 2, (9, 768), dtype=np.uint8) << 7
    scales = rng.uniform(1e-4, 1e-2, (9, 6)).astype(np.float32)
    values = decode_floats8(codes, "F8_E4M3", scales, 128)
    status, _, found, squares = converted(isa, "F8_E4M3", codes, scales, 128, name)
    assert status == 0
    assert np.array_equal(found, encode_rows(values, F32, kind))
    again = encode_rows(found, kind, F32).view(np.float32) if kind.quantized else None
    if again is not None:
        error, whole = float(((again - values) ** 2).sum(dtype=np.float64)), float((values**2).sum(dtype=np.float64))
        assert squares == pytest.approx([error, whole], rel=1e-4)


@pytest.mark.parametrize("isa", ISAS)
def test_sums_of_squares_are_the_same_on_every_instruction_set(isa: str) -> None:
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 0x7F, (3, 4480), dtype=np.uint8)
    scales = rng.uniform(1e-4, 1e-2, (3, 35)).astype(np.float32)
    plain, found = (converted(name, "F8_E4M3", codes, scales, 128, "Q8_0")[3] for name in ("scalar", isa))
    assert plain.tobytes() == found.tobytes()
    assert converted(isa, "F8_E4M3", codes, scales, 128, "F32")[3][0] == 0


@pytest.mark.parametrize("isa", ISAS)
def test_numbers_that_no_block_holds_are_refused(isa: str) -> None:
    codes, scales = np.full((2, 8192), 0x38, np.uint8), np.ones((2, 64), np.float32)
    codes[1, 5000] = 0x7F
    assert converted(isa, "F8_E4M3", codes, scales, 128, "Q8_0")[:2] == (_native.E_NOT_FINITE, 8192 + 5000)
    assert converted(isa, "F8_E4M3", codes, scales, 128, "BF16")[0] == 0
    codes[1, 5000], scales[1, 39] = 0x38, 1e30
    assert converted(isa, "F8_E4M3", codes, scales, 128, "Q8_0", True)[:2] == (_native.E_TOO_LARGE, 8192 + 39 * 128)
    assert converted(isa, "F8_E4M3", codes, scales, 128, "Q8_0", False)[0] == 0


def test_what_is_no_row_of_8_bit_floats_is_refused() -> None:
    codes, scales = np.zeros((1, 40), np.uint8), np.ones((1, 1), np.float32)
    out = np.zeros(400, np.uint8)
    assert _native.convert_floats8(0, codes, 1, 40, 40, scales, 1, out)[0] == _native.E_TYPE
    assert _native.convert_floats8(5, codes, 1, 40, 40, scales, 1, out)[0] == _native.E_TYPE
    assert _native.convert_floats8(1, codes, 1, 40, 40, scales, 8, out)[0] == _native.E_WIDTH
    assert _native.convert_floats8(1, codes, 1, 40, 0, scales, 1, out)[0] == _native.E_WIDTH
    assert _native.convert_floats8(1, codes, 1, 0, 40, scales, 16, out)[0] == _native.E_WEIGHTS
    with pytest.raises(ValueError, match="scales"):
        encode_floats8(codes, "F8_E4M3", np.ones((1, 2), np.float32), 40, F32)
