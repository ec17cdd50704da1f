"""Arrays that are on the device already, tensors brought there, and products, against the driver's stub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gguf_forge
from gguf_forge import QuantError, cuda
from gguf_forge.cuda import dlpack
from gguf_forge.types import TENSOR_TYPES
from tests.cuda import host
from tests.cuda.stub import Stub

TYPES = [t for t in TENSOR_TYPES.values() if t.encodes and t.quantized]
X = np.random.default_rng(0).standard_normal((5, 768)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).random(768).astype(np.float32)
WEIGHTS[256:512] = 0


class ByInterface:
    """Memory of the stub's device as CuPy tells of it."""

    stub: Stub

    def __init__(self, x: NDArray[Any], stream: int | None = None) -> None:
        self.x = x
        self.stub.adopt(x)
        self.__cuda_array_interface__ = {**x.__array_interface__, "stream": stream, "version": 3}


class ByDlpack:
    """The same as torch tells of it; remembers the stream that was asked for."""

    def __init__(self, x: NDArray[Any], dtype: str | None = None, ordinal: int = 0) -> None:
        self.x, self.dtype, self.device, self.stream = x, dtype or x.dtype.name, (dlpack.CUDA, ordinal), None

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: Any = None) -> Any:
        self.stream = stream
        assert ByInterface.stub.library.stub_current() == self.device[1]
        return dlpack.capsule(self, self.x.ctypes.data, self.device, self.x.shape, dlpack.ELEMENTS[self.dtype])


@pytest.fixture(autouse=True)
def _stub(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ByInterface, "stub", stub, raising=False)


GIVEN = [ByInterface, ByDlpack]


def as_dtype(x: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Its numbers; bfloat16 as bits."""
    return (x.view(np.uint32) >> 16).astype(np.uint16) if dtype == "uint16" else x.astype(dtype)


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("kind", TYPES, ids=lambda t: t.name)
def test_encoded_where_they_are(emulated: cuda.Device, given: Any, kind: Any) -> None:
    for weights in (None, WEIGHTS):
        if weights is not None or not kind.needs_weights:
            made = cuda.quantize(given(X), kind, weights, device=emulated)
            assert (made.numpy() == gguf_forge.quantize(X, kind, weights)).all()


@pytest.mark.parametrize("dtype", ["float16", "float64", "uint16"])
@pytest.mark.parametrize("kind", ["Q4_K", "Q5_1", "F16", "F32", "BF16"])
def test_other_floats(emulated: cuda.Device, kind: str, dtype: str) -> None:
    x = as_dtype(X, dtype)
    wanted = gguf_forge.quantize(x, kind, WEIGHTS)
    for given in (x, ByInterface(x), ByDlpack(x)):
        assert (cuda.quantize(given, kind, WEIGHTS, device=emulated).numpy() == wanted).all()


@pytest.mark.parametrize("given", GIVEN)
def test_pieces_and_places(emulated: cuda.Device, monkeypatch: pytest.MonkeyPatch, given: Any) -> None:
    """Rows that need several pieces, with columns encoded apart, and a value that is refused in the last."""
    monkeypatch.setattr("gguf_forge.cuda.device.LANE", 4096)
    monkeypatch.setattr("gguf_forge.cuda.codec.LANE", 4096)
    x = np.tile(X, (9, 1)).astype(np.float16)
    for kind in ("Q4_K", "Q4_0"):
        made = cuda.quantize(given(x), kind, WEIGHTS, device=emulated)
        assert (made.numpy() == gguf_forge.quantize(x, kind, WEIGHTS)).all()
    x[44, 767] = np.inf
    with pytest.raises(QuantError, match="Q4_K cannot hold NaN or infinity, found at row 44, column 767"):
        cuda.quantize(given(x), "Q4_K", device=emulated)


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("kind", ["Q4_K", "Q8_0", "IQ3_S", "BF16"])
def test_decoded_where_they_are(emulated: cuda.Device, given: Any, kind: str) -> None:
    blocks = gguf_forge.quantize(X, kind)
    for dtype in ("float32", "float16", "bfloat16"):
        found = cuda.dequantize(given(blocks), kind, dtype, device=emulated)
        assert (found.numpy() == gguf_forge.dequantize(blocks, kind, dtype)).all()
    ours = cuda.quantize(X, kind, device=emulated)
    assert (cuda.dequantize(ours, kind).numpy() == gguf_forge.dequantize(blocks, kind)).all()


def test_no_copy_to_the_host(stub: Stub) -> None:
    device = stub.device()
    blocks = cuda.quantize(X, "Q4_K", device=device)
    before = [stub.library.stub_calls(name) for name in (b"cuMemcpyHtoDAsync_v2", b"cuMemcpyDtoHAsync_v2")]
    cuda.dequantize(blocks, "Q4_K")
    cuda.dequantize(ByDlpack(np.zeros((5, 432), np.uint8)), "Q4_K", device=device)
    after = [stub.library.stub_calls(name) for name in (b"cuMemcpyHtoDAsync_v2", b"cuMemcpyDtoHAsync_v2")]
    assert after == before


def test_the_stream_that_made_them_comes_first(stub: Stub) -> None:
    device = stub.device()

    def waits() -> int:
        return int(stub.library.stub_calls(b"cuStreamWaitEvent"))

    before = waits()
    for i in range(3):  # without a stream it may be the default one, whose work others of ours do not wait for
        cuda.quantize(ByInterface(X, stream=i or None), "Q8_0", device=device)
        assert waits() == before + 2 * (i + 1)  # of two lanes
    given = ByDlpack(X)
    cuda.quantize(given, "Q8_0", device=device, stream=1)
    assert waits() == before + 10
    assert given.stream == int(device.context.driver.ffi.cast("uintptr_t", device.entry.handle))


def test_what_is_refused(stub: Stub) -> None:
    stub.reset(devices=2)
    device, blocks = stub.device(), gguf_forge.quantize(X, "Q4_K")
    for x, why in (
        (ByDlpack(X, ordinal=1), "the array is on cuda:1, and the work is to be done on cuda:0"),
        (ByInterface(X[:, ::2]), "not C-contiguous"),
        (ByInterface(X.astype(np.int64)), "int64 on a device"),
        (ByInterface(np.frombuffer(b"0" * 1025, np.uint8)[1:].view(np.float32)), "boundary of 4 bytes"),
        (ByDlpack(blocks), "cannot encode an array of uint8"),
    ):
        with pytest.raises(QuantError, match=why):
            cuda.quantize(x, "Q8_0", device=device)
    with pytest.raises(QuantError, match="blocks must be uint8, found float32"):
        cuda.dequantize(ByDlpack(X), "Q4_K", device=device)
    with pytest.raises(QuantError, match="must be a multiple of 144 bytes"):
        cuda.dequantize(ByDlpack(blocks[:, :100].copy()), "Q4_K", device=device)
    same = cuda.upload(blocks, device=device)
    with pytest.raises(QuantError, match="overlap"):
        cuda.quantize(cuda.upload(np.zeros((4, 256), np.float32), device=device), "F32", out=_over(device))
    assert same.numpy().tobytes() == blocks.tobytes()
    del same, device
    assert stub.live() == 0


def _over(device: cuda.Device) -> Any:
    """An array of the whole address space."""
    out = cuda.DeviceArray(device, (4, 1024), "uint8")
    object.__setattr__(out, "nbytes", 1 << 62)
    out._memory.address = 0  # type: ignore[union-attr]
    return out


@pytest.mark.parametrize("endian", ["little", "big"])
def test_tensors_of_files(emulated: cuda.Device, tmp_path: Path, endian: str) -> None:
    path = tmp_path / "m.gguf"
    with gguf_forge.GGUFWriter(path, {}, endian=endian) as writer:
        kinds = ["Q4_K", "Q6_K", "IQ2_XS", "F16", "F32"]
        for kind in kinds:
            writer.declare(kind, X.shape, TENSOR_TYPES[kind])
        writer.declare("i", (3,), TENSOR_TYPES["I32"])
        writer.begin()
        for kind in kinds:
            blocks = gguf_forge.quantize(X, kind, np.ones(768, np.float32))
            writer.write(kind, _stored(blocks, kind, endian))
        writer.write("i", np.arange(3, dtype="<i4" if endian == "little" else ">i4"))
    with gguf_forge.open(path) as model:
        for name, tensor in model.tensors.items():
            for dtype in ("float32", "float16", "bfloat16"):
                found = tensor.to_cuda(dtype, device=emulated)
                assert found.shape == tensor.shape
                assert (found.numpy() == tensor.dequantize(dtype)).all()
            if name in TENSOR_TYPES:
                wanted = gguf_forge.quantize(X, name, np.ones(768, np.float32))
                assert (tensor.to_cuda(device=emulated).numpy() == wanted).all()


def _stored(blocks: NDArray[np.uint8], kind: str, endian: str) -> NDArray[np.uint8]:
    from gguf_forge.format.orders import swapped

    return blocks if endian == "little" else swapped(blocks, TENSOR_TYPES[kind]).reshape(blocks.shape)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", host.PRODUCTS)
def test_products(emulated: cuda.Device, kind: str, dtype: str) -> None:
    """Against float64 sums of what the core decodes, from the host and from the device, at any address."""
    rng = np.random.default_rng(3)
    blocks = gguf_forge.quantize(rng.standard_normal((37, 768)).astype(np.float32), kind.upper())
    exact = gguf_forge.dequantize(blocks, kind.upper()).astype(np.float64)
    there = cuda.upload(blocks, device=emulated)
    for shape in ((768,), (1, 768), (6, 768)):
        x = rng.standard_normal(shape).astype(dtype)
        true = x.astype(np.float64) @ exact.T
        size = np.abs(x.astype(np.float64)) @ (np.abs(exact) + 2 * np.abs(exact).max(axis=1, keepdims=True)).T
        made = cuda.matvec(there, x, kind.upper())
        assert made.shape == true.shape
        assert (np.abs(made.numpy() - true) <= (768 / 32 + 16) * 2.0**-24 * size).all()
        moved = np.empty(x.size + 16, x.dtype)[1 : x.size + 1].reshape(shape)
        moved[...] = x
        for given in (ByInterface(moved), ByDlpack(x)):
            out = cuda.matvec(ByDlpack(blocks), given, kind.upper(), device=emulated, out=made)
            assert (out.numpy() == cuda.matvec(blocks, x, kind.upper(), device=emulated).numpy()).all()


def test_products_that_are_not(stub: Stub, tmp_path: Path) -> None:
    device, blocks = stub.device(), gguf_forge.quantize(X, "Q4_K")
    with pytest.raises(QuantError, match="no products with Q3_K; with Q4_0, Q8_0, Q4_K, Q5_K, Q6_K, IQ4_XS, MXFP4"):
        cuda.matvec(gguf_forge.quantize(X, "Q3_K"), X[0], "Q3_K", device=device)
    with pytest.raises(QuantError, match="the type of the blocks"):
        cuda.matvec(blocks, X[0], device=device)
    for x in (X[0, :512], X.astype(np.float64)[0], X.reshape(5, 1, 768)):
        with pytest.raises(QuantError, match="vectors for 5 rows of 768 are float32 or float16"):
            cuda.matvec(blocks, x, "Q4_K", device=device)
    with pytest.raises(QuantError, match="uint8 of two axes, and whole blocks of 144 bytes"):
        cuda.matvec(blocks[0], X[0], "Q4_K", device=device)


class Refused(ByDlpack):
    """A tensor that torch gives no one."""

    def __dlpack__(self, *, stream: Any = None) -> Any:
        raise BufferError("Can't export tensors that require gradient")


def test_what_its_owner_does_not_give(stub: Stub) -> None:
    with pytest.raises(QuantError, match=r"that require gradient\): give a plain one, as \.detach\(\) makes"):
        cuda.quantize(Refused(X), "Q8_0", device=stub.device())


def test_an_address_that_is_no_devices(stub: Stub) -> None:
    x = ByInterface(X)
    x.__cuda_array_interface__["data"] = (4096, False)
    with pytest.raises(QuantError, match="0x1000, is in no device's memory"):
        cuda.quantize(x, "Q8_0", device=stub.device())


@pytest.mark.parametrize("stream", [-1, 3, 4095, 1 << 64, "1", 1.0])
def test_no_stream(stub: Stub, stream: Any) -> None:
    with pytest.raises(QuantError, match="stream"):
        cuda.quantize(X, "Q8_0", device=stub.device(), stream=stream)
    with pytest.raises(QuantError, match="stream"):
        cuda.quantize(ByInterface(X, stream), "Q8_0", device=stub.device())


def test_a_stream_of_another_device(stub: Stub) -> None:
    stub.reset(devices=2)
    one, other = stub.device(), stub.device(1)
    stream = int(other.context.driver.ffi.cast("uintptr_t", other.entry.handle))
    with pytest.raises(cuda.CudaError, match="is another device's"):
        cuda.quantize(X, "Q8_0", device=one, stream=stream)


def test_products_wait_once_and_make_nothing(stub: Stub) -> None:
    device = stub.device()
    matrix, x = cuda.upload(gguf_forge.quantize(X, "Q4_K"), device=device), cuda.upload(X[0], device=device)
    out = cuda.matvec(matrix, x, "Q4_K")
    made = ("cuMemAlloc_v2", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate")
    before = [stub.calls(name) for name in ("cuStreamSynchronize", *made)]
    cuda.matvec(matrix, x, "Q4_K", out=out)
    assert [stub.calls(name) for name in ("cuStreamSynchronize", *made)] == [before[0] + 1, *before[1:]]


def test_fetched_through_the_lanes(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    device, x = stub.device(), np.arange(5000, dtype=np.float32)
    there = cuda.upload(x, device=device)
    before = stub.calls("cuMemHostAlloc")
    for piece in (1 << 24, 4096, 20000):
        monkeypatch.setattr("gguf_forge.cuda.array.LANE", piece)
        assert (there.numpy() == x).all()
    assert stub.calls("cuMemHostAlloc") == before


def test_no_launch_takes_too_long(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows on the device, which need no staging, either."""
    device, x = stub.device(), ByDlpack(X)
    for most, launches in ((1 << 27, 1), (2 * 768, 3), (1, 5)):
        monkeypatch.setattr("gguf_forge.cuda.encoding.MOST", most)
        before = stub.library.stub_launches(0)
        cuda.quantize(x, "Q8_0", device=device)
        assert stub.library.stub_launches(0) == before + launches
