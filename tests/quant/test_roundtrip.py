"""`gguf_forge.roundtrip` against plain NumPy formulas and what the block layouts promise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gguf_forge
from gguf_forge.errors import QuantError
from gguf_forge.quant import roundtrip as module
from gguf_forge.quant.codec import dequantize, encode_rows, quantize
from gguf_forge.quant.roundtrip import Errors, compare_rows, measure_rows
from gguf_forge.types import TENSOR_TYPES, tensor_type

F32 = tensor_type("F32")
PLAIN = ["Q8_0", "Q4_0", "IQ4_NL", "MXFP4", "F16", "BF16"]


@pytest.fixture(scope="module")
def x() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(5).standard_normal((3, 40, 512)).astype(np.float32)


@pytest.mark.parametrize("name", PLAIN)
def test_figures_are_the_formulas(name: str, x: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    found = gguf_forge.roundtrip(x, name)
    blocks = quantize(x, name)
    y = dequantize(blocks, name).astype(np.float64)
    e = y - x.astype(np.float64)
    power = np.mean(np.square(x, dtype=np.float64))
    assert found.type.name == name
    assert found.nbytes == blocks.nbytes
    assert found.bits_per_weight == 8 * blocks.nbytes / x.size
    assert found.rmse == pytest.approx(np.sqrt(np.mean(e**2)), rel=1e-12)
    assert found.relative_rmse == pytest.approx(np.sqrt(np.mean(e**2) / power), rel=1e-12)
    assert found.max_error == np.abs(e).max()
    assert found.snr_db == pytest.approx(10 * np.log10(power / np.mean(e**2)), rel=1e-12)
    cosine = np.sum(x * y) / np.linalg.norm(x.astype(np.float64)) / np.linalg.norm(y)
    assert found.cosine == pytest.approx(cosine, rel=1e-12)
    assert found.stable == np.array_equal(quantize(y.astype(np.float32), name), blocks)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_type_that_holds_the_values_loses_nothing(dtype: str) -> None:
    values = np.random.default_rng(1).standard_normal((7, 96)).astype(np.float32)
    x = (values.view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else values.astype(dtype)
    for name in ["F32", {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]]:
        found = gguf_forge.roundtrip(x, name)
        assert (found.rmse, found.relative_rmse, found.max_error) == (0, 0, 0)
        assert (found.snr_db, found.cosine, found.stable) == (math.inf, 1.0, True)


FINITE = hnp.arrays(np.float32, (3, 64), elements=st.floats(-1e4, 1e4, width=32))


@settings(max_examples=50)
@given(FINITE)
def test_q8_0_errs_by_half_a_step_at_most(x: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """A step is 1/127 of a block's largest value; its scale is rounded to f16, 1 part in 2048 (or 2^-25)."""
    largest = float(np.abs(x).max())
    found = gguf_forge.roundtrip(x, "Q8_0")
    bound = largest / 254 + largest / 2048 + 127 * 2.0**-25 + 1e-6 * largest
    assert found.max_error <= bound
    assert found.rmse <= found.max_error
    assert found.relative_rmse >= 0
    assert -1 <= found.cosine <= 1


def test_more_bits_err_less(x: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    order = ["F32", "F16", "BF16", "Q8_0", "Q4_0"]
    ratios = [gguf_forge.roundtrip(x, name).snr_db for name in order]
    assert ratios == sorted(ratios, reverse=True)


def test_sums_depend_on_neither_threads_nor_pieces(
    x: np.ndarray[Any, np.dtype[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gguf_forge.roundtrip(x, "Q4_0", threads=1)
    monkeypatch.setattr(module, "CHUNK", 7 * 512)
    one, four = (gguf_forge.roundtrip(x, "Q4_0", threads=threads) for threads in (1, 4))
    assert one == four
    assert one.errors.ee == pytest.approx(whole.errors.ee, rel=1e-12)
    assert (one.nbytes, one.max_error, one.stable) == (whole.nbytes, whole.max_error, whole.stable)


def test_importance_by_matrix(x: np.ndarray[Any, np.dtype[np.float32]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 16 * 512)
    weights = np.random.default_rng(2).random((3, 512)).astype(np.float32)
    apart = [gguf_forge.roundtrip(x[i], "IQ4_NL", imatrix=weights[i]) for i in range(3)]
    together = gguf_forge.roundtrip(x, "IQ4_NL", imatrix=weights)
    assert together.errors.ee == pytest.approx(sum(found.errors.ee for found in apart), rel=1e-12)
    assert together.errors.ee != gguf_forge.roundtrip(x, "IQ4_NL").errors.ee
    same = gguf_forge.roundtrip(x, "IQ4_NL", imatrix=weights[0])
    assert same.errors == gguf_forge.roundtrip(x, "IQ4_NL", imatrix=weights[:1]).errors
    with pytest.raises(QuantError, match="2 matrices"):
        gguf_forge.roundtrip(x, "IQ4_NL", imatrix=weights[:2])


def test_what_cannot_be_encoded(x: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    with pytest.raises(QuantError, match="int64"):
        gguf_forge.roundtrip(x.astype(np.int64), "Q4_0")
    with pytest.raises(QuantError, match="shape"):
        gguf_forge.roundtrip(np.array(1.0), "Q4_0")
    with pytest.raises(QuantError, match="block"):
        gguf_forge.roundtrip(x[..., :33], "Q4_0")
    with pytest.raises(QuantError, match="threads"):
        gguf_forge.roundtrip(x, "Q4_0", threads=0)
    broken = x.copy()
    broken[2, 3, 4] = np.nan
    with pytest.raises(QuantError, match="NaN"):
        gguf_forge.roundtrip(broken, "Q4_0")


def test_no_values() -> None:
    found = gguf_forge.roundtrip(np.empty((0, 64), np.float32), "Q8_0")
    assert (found.nbytes, found.bits_per_weight, found.rmse, found.stable) == (0, 8.5, 0, True)


ERRORS = st.builds(Errors.of, *[hnp.arrays(np.float64, 5, elements=st.integers(-9, 9).map(float))] * 2)


@given(ERRORS, ERRORS)
def test_sums_add(a: Errors, b: Errors) -> None:
    assert a + b == b + a
    assert (a + b).count == a.count + b.count
    assert min(a.rmse, b.rmse) - 1e-12 <= (a + b).rmse <= max(a.rmse, b.rmse) + 1e-12


def test_edges_of_the_figures() -> None:
    zero, one = np.zeros(4), np.ones(4)
    lost = Errors.of(one, zero)
    assert (lost.rmse, lost.relative_rmse, lost.snr_db, lost.cosine) == (1, 1, 0, 0)
    made = Errors.of(zero, one)
    assert (made.rmse, made.relative_rmse, made.snr_db, made.cosine) == (1, math.inf, -math.inf, 0)
    assert Errors.of(one, -one).cosine == -1


def test_compares_blocks_with_their_source(x: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    rows = x.reshape(-1, 512)
    kind = TENSOR_TYPES["Q4_0"]
    blocks = encode_rows(rows, F32, kind)
    changed = blocks.copy()
    changed[5, 2 * kind.block_bytes + 3] ^= 0x10

    def compare(data: np.ndarray[Any, np.dtype[np.uint8]]) -> module.Compared:
        return compare_rows(lambda a, b: data[a:b], kind, lambda a, b: rows[a:b], F32, x.shape)

    same, other = compare(blocks), compare(changed)
    assert same.equal_blocks == same.blocks == x.size // 32
    assert other.equal_blocks == other.blocks - 1
    assert same.trip.errors == measure_rows(lambda a, b: rows[a:b], F32, x.shape, [kind])[0].errors
    assert same.trip.stable


def test_compares_blocks_it_cannot_encode(x: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    kind = next((t for t in TENSOR_TYPES.values() if t.needs_weights and t.decodes), None)
    if kind is None:
        pytest.skip("every type that needs weights lacks a decoder in this build")
    blocks = np.zeros((120, kind.row_bytes(512)), np.uint8)
    rows = x.reshape(-1, 512)
    found = compare_rows(lambda a, b: blocks[a:b], kind, lambda a, b: rows[a:b], F32, x.shape)
    assert (found.equal_blocks, found.trip.stable) == (None, None)
    assert found.blocks == 120 * 2
