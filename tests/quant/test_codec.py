"""quantize, dequantize and encode_rows as their callers see them: shapes, dtypes, threads and messages."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge.errors import QuantError, UnsupportedError
from gguf_forge.quant import codec
from gguf_forge.quant.codec import dequantize, encode_rows, quantize
from gguf_forge.types import TENSOR_TYPES
from tests.conftest import interrupter

F16, F32, BF16, Q4_K, Q8_0 = (TENSOR_TYPES[name] for name in ("F16", "F32", "BF16", "Q4_K", "Q8_0"))
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 512)).astype(np.float32)
WEIGHTS = RNG.random(512, np.float32)


def brain(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    return quantize(x, "BF16").view(np.uint16)


def test_leading_dimensions_are_kept() -> None:
    blocks = quantize(X, "Q4_K")
    assert blocks.dtype == np.uint8
    assert blocks.shape == (2, 3, 288)
    assert dequantize(blocks, "Q4_K").shape == X.shape
    assert quantize(X[0, 0], "q8_0").shape == (544,)
    assert dequantize(quantize(X[0, 0], Q8_0), Q8_0).shape == (512,)


@pytest.mark.parametrize("shape", [(0, 256), (3, 0), (0,), (2, 0, 256)])
def test_empty(shape: tuple[int, ...]) -> None:
    blocks = quantize(np.zeros(shape, np.float32), "Q4_K")
    assert blocks.shape == (*shape[:-1], shape[-1] // 256 * 144)
    assert dequantize(blocks, "Q4_K").shape == shape


def test_threads_and_chunks_do_not_change_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    x = RNG.standard_normal((67, 256)).astype(np.float32)
    w = WEIGHTS[:256]
    whole, weighted = quantize(x, "Q4_K", threads=1), quantize(x, "Q4_0", w, threads=1)
    monkeypatch.setattr(codec, "CHUNK", 5 * 256)
    for threads in (1, 2, 3, 16, None):
        np.testing.assert_array_equal(quantize(x, "Q4_K", threads=threads), whole)
        np.testing.assert_array_equal(quantize(x, "Q4_0", w, threads=threads), weighted)
        np.testing.assert_array_equal(dequantize(whole, "Q4_K", threads=threads), dequantize(whole, "Q4_K"))


def test_results_are_decoded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = quantize(RNG.standard_normal((7, 512)).astype(np.float32), "Q6_K")
    whole = dequantize(blocks, "Q6_K", np.float16)
    for piece in (1, 2 * 512):
        monkeypatch.setattr(codec, "PIECE", piece)
        np.testing.assert_array_equal(dequantize(blocks, "Q6_K", np.float16, threads=2), whole)


def test_of_several_bad_rows_the_first_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    x = RNG.standard_normal((64, 256)).astype(np.float32)
    x[[11, 12, 13, 40], 3] = np.nan
    monkeypatch.setattr(codec, "CHUNK", 256)
    for threads in (1, 2, 5):
        with pytest.raises(QuantError, match="found at row 11, column 3"):
            quantize(x, "Q4_0", threads=threads)


def test_an_interrupt_lets_no_more_rows_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    interrupt = interrupter()

    def slowly(*args: Any) -> None:
        taken.append(1)
        if len(taken) == 10:
            interrupt()
        time.sleep(0.01)

    monkeypatch.setattr(codec, "CHUNK", 512)
    monkeypatch.setattr(codec, "_checked", slowly)
    with pytest.raises(KeyboardInterrupt):
        quantize(np.zeros((1000, 512), np.float32), "Q8_0", threads=2)
    seen = len(taken)
    time.sleep(0.1)
    assert len(taken) <= seen + 2 < 500


def test_views_are_read_as_they_look() -> None:
    wide = RNG.standard_normal((6, 1024)).astype(np.float32)
    for view in (wide[::2], wide[:, 512:], wide[:, ::2], wide[::-1, :512]):
        np.testing.assert_array_equal(quantize(view, "Q5_K"), quantize(view.copy(), "Q5_K"))


@pytest.mark.parametrize("imatrix", [None, WEIGHTS])
def test_source_dtypes(imatrix: NDArray[np.float32] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "STAGE", 1024)  # several stages
    for dtype in (np.float16, np.float64):
        x = X.astype(dtype)
        expected = quantize(x.astype(np.float32), "Q4_K", imatrix)
        np.testing.assert_array_equal(quantize(x, "Q4_K", imatrix), expected)
    bits = brain(X)
    floats = (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(quantize(bits, "Q4_K", imatrix), quantize(floats, "Q4_K", imatrix))


def test_misaligned_source_with_importance() -> None:
    room = np.zeros(X.nbytes + 1, np.uint8)
    room[1:] = X.reshape(-1).view(np.uint8)
    odd = room[1:].view(np.float32).reshape(X.shape)
    assert not odd.flags.aligned
    np.testing.assert_array_equal(quantize(odd, "Q4_K", WEIGHTS), quantize(X, "Q4_K", WEIGHTS))


def test_result_dtypes() -> None:
    blocks = quantize(X, "Q6_K")
    y = dequantize(blocks, "Q6_K")
    np.testing.assert_array_equal(dequantize(blocks, "Q6_K", np.float16), y.astype(np.float16))
    np.testing.assert_array_equal(dequantize(blocks, "Q6_K", "float64"), y.astype(np.float64))
    np.testing.assert_array_equal(dequantize(blocks, "Q6_K", "bfloat16"), brain(y))


def test_encode_rows() -> None:
    x = X.reshape(6, 512)
    np.testing.assert_array_equal(encode_rows(x, F32, Q4_K), quantize(x, "Q4_K"))
    np.testing.assert_array_equal(encode_rows(x, F32, Q4_K, WEIGHTS), quantize(x, "Q4_K", WEIGHTS))
    half = x.astype(np.float16)
    np.testing.assert_array_equal(encode_rows(half, F16, Q4_K, WEIGHTS), quantize(half, "Q4_K", WEIGHTS))
    np.testing.assert_array_equal(encode_rows(brain(x), BF16, F16), quantize(brain(x), "F16"))
    blocks = quantize(x, "Q8_0")
    again = dequantize(blocks, "Q8_0")
    np.testing.assert_array_equal(encode_rows(blocks, Q8_0, Q4_K), quantize(again, "Q4_K"))
    np.testing.assert_array_equal(encode_rows(blocks, Q8_0, Q4_K, WEIGHTS), quantize(again, "Q4_K", WEIGHTS))
    np.testing.assert_array_equal(encode_rows(blocks, Q8_0, F32).view(np.float32), again)


def bad(value: float, place: tuple[int, ...] = (1, 2, 7)) -> NDArray[np.float32]:
    x = X.copy()
    x[place] = value
    return x


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: quantize(X[..., :300], "Q4_K"),
            "row of 300 elements is not a multiple of the 256-element block of Q4_K",
        ),
        (lambda: quantize(bad(np.nan), "Q4_K"), "Q4_K cannot hold NaN or infinity, found at row 5, column 7"),
        (
            lambda: quantize(bad(np.inf), "Q8_0", threads=1),
            "Q8_0 cannot hold NaN or infinity, found at row 5, column 7",
        ),
        (lambda: quantize(bad(-np.inf), "Q4_K", WEIGHTS), "Q4_K cannot hold NaN or infinity, found at row 5, column 7"),
        (lambda: quantize(X.astype(np.int8), "Q4_K"), "cannot encode an array of int8"),
        (lambda: quantize(X.astype(">f4"), "Q4_K"), "cannot encode an array of >f4"),
        (lambda: quantize(np.ones((), np.float32), "Q4_K"), "a scalar has no rows"),
        (
            lambda: quantize(X, "Q4_K", WEIGHTS[:-1]),
            r"importance vector must have shape \(512,\) like a row, found \(511,\)",
        ),
        (
            lambda: quantize(X, "Q4_K", -WEIGHTS),
            "importance values must be finite and not negative, found -0.* at column 0",
        ),
        (lambda: quantize(X, "IQ2_XS"), "IQ2_XS needs an importance matrix"),
        (lambda: quantize(X, "I8"), "encoding I8 is not supported"),
        (lambda: quantize(X, "Q4_K", threads=0), "threads must be a whole number of at least 1, found 0"),
        (lambda: dequantize(X, "Q4_K"), "blocks must be uint8, found float32"),
        (lambda: dequantize(np.zeros((2, 145), np.uint8), "Q4_K"), r"multiple of 144 bytes, found shape \(2, 145\)"),
        (lambda: dequantize(np.zeros(144, np.uint8), "Q4_K", np.int8), "cannot decode to int8"),
        (lambda: dequantize(np.zeros(144, np.uint8), "I8"), "decoding I8 is not supported"),
        (lambda: encode_rows(X, F32, Q4_K), r"rows must be a 2-D array, found shape \(2, 3, 512\)"),
        (lambda: encode_rows(X[0], F16, Q4_K), "an array of float32 cannot hold F16"),
        (lambda: encode_rows(np.zeros((1, 35), np.uint8), Q8_0, Q4_K), "rows must be a multiple of 34 bytes, found 35"),
        (
            lambda: encode_rows(np.zeros((1, 34), np.uint8), Q8_0, Q4_K),
            "row of 32 elements is not a multiple of the 256",
        ),
    ],
)
def test_errors_say_what_and_where(call: Any, message: str) -> None:
    with pytest.raises(QuantError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_unknown_type() -> None:
    with pytest.raises(UnsupportedError, match="unknown tensor type 'Q9_K'"):
        quantize(X, "Q9_K")
