"""`out=` of quantize, dequantize and a tensor's dequantize: the same values in the caller's array, or one line."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gguf_forge
from gguf_forge import _native
from gguf_forge.errors import QuantError, UnsupportedError
from gguf_forge.format import reader
from gguf_forge.quant import codec
from gguf_forge.quant.codec import dequantize, quantize
from gguf_forge.types import TENSOR_TYPES
from gguf_forge.whole.edit import Edits, edit_file

RNG = np.random.default_rng(7)
X = RNG.standard_normal((3, 5, 512)).astype(np.float32)
X[0, 0, :6] = [0, -0.0, 1e-8, -6e-5, 65519, 3e38]  # zeros, subnormals of F16, what rounds below and above its range
WEIGHTS = RNG.random(512, np.float32) + np.float32(0.01)
KINDS = [t for t in TENSOR_TYPES.values() if t.encodes and t.decodes]
TARGETS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
PLAIN = {"F32": "f4", "F16": "f2", "F64": "f8", "I8": "i1", "I16": "i2", "I32": "i4", "I64": "i8"}


def room(dtype: str, shape: tuple[int, ...] = X.shape) -> NDArray[Any]:
    """An array to decode to, of bits that no result has."""
    made = np.empty(shape, np.uint16 if dtype == "bfloat16" else dtype)
    made.view(np.uint8)[:] = 0xFF
    return made


def bits(x: NDArray[Any]) -> NDArray[np.uint8]:
    return x.reshape(-1).view(np.uint8)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_results_lie_in_the_array_that_is_given(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = WEIGHTS if kind.needs_weights else None
    x = X / 1e35 if kind.quantized else X
    blocks = quantize(x, kind, weights)
    for threads in (1, 2, 5):
        own = np.full_like(blocks, 0xA5)
        assert quantize(x, kind, weights, threads, out=own) is own
        np.testing.assert_array_equal(own, blocks)
    monkeypatch.setattr(codec, "STREAMED", 2 * 512)
    for dtype, name in TARGETS.items():
        expected = room(dtype)
        status, _ = _native.convert(kind.id, blocks, TENSOR_TYPES[name].id, expected, 15, 512)
        assert status == _native.OK
        for threads in (1, 2, 5):
            for given in (dtype, None):  # by name, or the array's own
                own = room(dtype)
                assert dequantize(blocks, kind, given, threads, out=own) is own
                np.testing.assert_array_equal(bits(own), bits(expected))
        np.testing.assert_array_equal(bits(dequantize(blocks, kind, dtype)), bits(expected))


@pytest.mark.parametrize("shape", [(0, 256), (3, 0), (0,), (2, 0, 256), (256,)])
def test_shapes_without_elements_or_rows(shape: tuple[int, ...]) -> None:
    blocks = np.empty((*shape[:-1], shape[-1] // 256 * 144), np.uint8)
    assert quantize(np.ones(shape, np.float32), "Q4_K", out=blocks) is blocks
    values = room("float32", shape)
    assert dequantize(blocks, "Q4_K", out=values) is values
    np.testing.assert_array_equal(values, dequantize(blocks, "Q4_K"))


def test_views_are_read_as_they_look() -> None:
    wide = np.concatenate([X, X + 1], axis=2) / np.float32(1e35)
    for view in (wide[..., 512:], wide[::2, ::-1, :512], wide.transpose(1, 0, 2), wide[:, 1, ::2]):
        blocks = quantize(view.copy(), "Q5_K")
        own = np.empty_like(blocks)
        np.testing.assert_array_equal(quantize(view, "Q5_K", out=own), blocks)
        double = np.repeat(blocks, 2, axis=0)
        values = room("float32", view.shape)
        np.testing.assert_array_equal(dequantize(double[::2], "Q5_K", out=values), dequantize(blocks, "Q5_K"))


def test_arrays_off_their_boundaries_will_do() -> None:
    blocks = quantize(X[0, 1:], "Q8_0")
    values = np.empty(4 * 512 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(4, 512)
    np.testing.assert_array_equal(dequantize(blocks, "Q8_0", out=values), dequantize(blocks, "Q8_0"))


def overlapping(x: NDArray[np.float32]) -> NDArray[np.uint8]:
    return x.reshape(-1).view(np.uint8)[: 15 * 288].reshape(3, 5, 288)


def frozen(x: NDArray[Any]) -> NDArray[Any]:
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (np.empty((3, 5, 287), np.uint8), r"out must have shape \(3, 5, 288\), found \(3, 5, 287\)"),
        (np.empty((15, 288), np.uint8), r"out must have shape \(3, 5, 288\), found \(15, 288\)"),
        (np.empty((3, 5, 288), np.int8), "out must be of uint8, found int8"),
        (np.empty((3, 5, 576), np.uint8)[..., ::2], "out must be C-contiguous"),
        (np.empty((3, 5, 288), np.uint8, order="F"), "out must be C-contiguous"),
        (frozen(np.empty((3, 5, 288), np.uint8)), "out must be writable, found a read-only array"),
        (bytearray(15 * 288), "out must be a NumPy array, found bytearray"),
        (overlapping(X), "out must not overlap the input"),
    ],
)
def test_encoding_refuses_other_arrays_in_a_line(own: Any, said: str) -> None:
    before = X.copy()
    with pytest.raises(QuantError, match=f"^{said}$"):
        quantize(X, "Q4_K", out=own)
    np.testing.assert_array_equal(X, before)


def test_encoding_refuses_the_memory_of_the_importance() -> None:
    weights = WEIGHTS.copy()
    with pytest.raises(QuantError, match="out must not overlap the input"):
        quantize(X[0, 1, :256], "Q4_K", weights[:256], out=weights[64:100].view(np.uint8))


@pytest.mark.parametrize(
    ("dtype", "own", "said"),
    [
        (None, np.empty((3, 5, 511), np.float32), r"out must have shape \(3, 5, 512\), found \(3, 5, 511\)"),
        (None, np.empty((3, 5, 512), np.int32), "cannot decode to int32; .*"),
        (None, np.empty((3, 5, 512), ">f4"), "cannot decode to >f4; .*"),
        ("float16", np.empty((3, 5, 512), np.float32), "out must be of float16, found float32"),
        ("bfloat16", np.empty((3, 5, 512), np.float16), "out must be of uint16, found float16"),
        (None, np.empty((3, 5, 1024), np.float32)[..., ::2], "out must be C-contiguous"),
        (None, frozen(np.empty((3, 5, 512), np.float32)), "out must be writable, found a read-only array"),
        (None, [0.0], "out must be a NumPy array, found list"),
    ],
)
def test_decoding_refuses_other_arrays_in_a_line(dtype: Any, own: Any, said: str, tmp_path: Path) -> None:
    blocks = np.zeros((3, 5, 288), np.uint8)
    with gguf_forge.GGUFWriter(tmp_path / "a.gguf", {"general.architecture": "llama"}) as writer:
        writer.add_tensor("a", blocks, type="Q4_K")
    with gguf_forge.open(tmp_path / "a.gguf") as file:
        for call in (
            lambda: dequantize(blocks, "Q4_K", dtype, out=own),
            lambda: file.tensors["a"].dequantize(dtype, out=own),
        ):
            with pytest.raises(QuantError, match=f"^{said}$"):
                call()


def test_decoding_refuses_its_own_blocks_memory() -> None:
    memory = np.zeros(512 * 4, np.uint8)
    with pytest.raises(QuantError, match="out must not overlap the input"):
        dequantize(memory[-288:], "Q4_K", out=memory.view(np.float32))


def test_a_refused_number_is_said_as_without_and_the_array_serves_again() -> None:
    x = X[:, 1:] / 2
    x[1, 2, 9] = np.nan
    own = np.empty((3, 4, 288), np.uint8)
    for threads in (1, 2):
        with pytest.raises(QuantError, match=r"^Q4_K cannot hold NaN or infinity, found at row 6, column 9$"):
            quantize(x, "Q4_K", threads=threads, out=own)
    x[1, 2, 9] = 0
    np.testing.assert_array_equal(quantize(x, "Q4_K", out=own), quantize(x, "Q4_K"))


def test_nothing_of_the_size_of_the_result_is_made() -> None:
    x = np.ones((2048, 1024), np.float16)
    blocks, values = np.empty((2048, 1088), np.uint8), np.empty(x.shape, np.float32)
    tracemalloc.start()
    try:
        quantize(x, "Q8_0", threads=1, out=blocks)
        dequantize(blocks, "Q8_0", threads=1, out=values)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 100_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[gguf_forge.GGUFFile]]:
    """One model in either byte order, with blocks of several types and all plain numbers."""
    folder = tmp_path_factory.mktemp("out")
    numbers = X[:, 1:] * np.float32(30)
    with gguf_forge.GGUFWriter(folder / "a.gguf", {"general.architecture": "llama"}) as writer:
        for name in ("Q4_0", "Q4_K", "Q6_K", "IQ4_XS", "TQ1_0", "BF16"):
            writer.add_tensor(name, quantize(numbers, name), type=name)
        for name, code in PLAIN.items():
            writer.add_tensor(name, numbers.astype(code), type=name)
        writer.add_tensor("row", quantize(numbers[0, 0], "Q8_0"), type="Q8_0")
    edit_file(folder / "a.gguf", folder / "b.gguf", Edits(endian="big"))
    with gguf_forge.open(folder / "a.gguf") as little, gguf_forge.open(folder / "b.gguf") as big:
        yield [little, big]


@pytest.mark.parametrize("piece", [512, 1 << 20])
def test_tensors_of_either_order_are_decoded_into_it(
    piece: int, files: list[gguf_forge.GGUFFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_PIECE", piece)
    assert [file.endian for file in files] == ["little", "big"]
    for file in files:
        for tensor in file.tensors.values():
            plain = tensor.dequantize()
            assert plain.dtype == np.float32
            for dtype, name in TARGETS.items():
                expected = quantize(plain, name).reshape(-1)
                for threads in (None, 2):
                    own = room(dtype, tensor.shape)
                    assert tensor.dequantize(threads=threads, out=own) is own
                    np.testing.assert_array_equal(bits(own), expected, err_msg=f"{tensor.name} to {dtype}")
                    made = tensor.dequantize(dtype, threads)
                    assert (made.dtype, made.shape) == (own.dtype, tensor.shape)
                    np.testing.assert_array_equal(bits(made), expected)


def test_without_a_decoder_only_new_float32_is_made(files: list[gguf_forge.GGUFFile]) -> None:
    with reader.open(files[0].path) as file:
        tensor = file.tensors["I8"]
        assert tensor.dequantize().dtype == np.float32
        with pytest.raises(UnsupportedError, match="no decoder for I8"):
            tensor.dequantize("float16")
