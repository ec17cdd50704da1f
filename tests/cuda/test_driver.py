"""The driver's side of the kernels against a library in the driver's place: failures, leaks, and bytes."""

from __future__ import annotations

import ctypes
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from gguf_forge import QuantError, cuda
from gguf_forge.cli import main
from gguf_forge.cuda import device as devices
from gguf_forge.cuda import driver as drivers
from gguf_forge.cuda.device import IDLE
from gguf_forge.cuda.driver import CudaError, Driver
from gguf_forge.types import TENSOR_TYPES
from tests.cuda.stub import Stub

TYPES = [t for t in TENSOR_TYPES.values() if t.encodes]
X = np.random.default_rng(0).standard_normal((5, 768)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).random(768).astype(np.float32)


class Beside:
    """The numbers of an array but the first, which lie on no boundary that products want."""

    def __init__(self, array: cuda.DeviceArray) -> None:
        about, self.array = array.__cuda_array_interface__, array
        self.__cuda_array_interface__ = {**about, "shape": (768,), "data": (about["data"][0] + 4, False), "stream": 1}


def work(stub: Stub) -> None:
    """Every kind of thing that is made: lanes, a result, importances, squares, a lattice, scratch memory, an event."""
    device = stub.device()
    weights = WEIGHTS.copy()
    weights[256:512] = 0
    cuda.quantize(X, "Q4_0", weights, device=device, stream=1)
    cuda.quantize(X, "IQ3_S", device=device)
    blocks = gguf_forge.quantize(X, "Q4_K")
    made = cuda.dequantize(blocks, "Q4_K", device=device)
    made.numpy()
    there = cuda.quantize(made, "Q4_K")
    beside = cuda.upload(np.zeros(769, np.float32), device=device)
    cuda.matvec(there, Beside(beside), "Q4_K")


def failure_of(stub: Stub) -> tuple[str, int | None] | None:
    try:
        work(stub)
    except CudaError as error:
        return str(error), error.code
    return None


FUNCTIONS = ["cuMemAlloc_v2", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate", "cuModuleLoadData", "cuLaunchKernel"]
FUNCTIONS += ["cuMemcpyDtoDAsync_v2", "cuPointerGetAttribute", "cuThreadExchangeStreamCaptureMode"]
FUNCTIONS += ["cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuMemcpy2DAsync_v2", "cuMemsetD8Async", "cuEventRecord"]
FUNCTIONS += ["cuStreamSynchronize", "cuStreamWaitEvent", "cuModuleGetFunction", "cuCtxPushCurrent_v2"]


def tried(count: int) -> list[int]:
    """Which of a function's calls are made to fail: all with CUDA_HOST=1, else half a dozen.

    Every try does all the work anew: all of them together take minutes, more than the rest of the suite.
    """
    if os.environ.get("CUDA_HOST") or count <= 6:
        return list(range(1, count + 1))
    return sorted({1, 2, count, *range(3, count, -(-(count - 3) // 3))})


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_is_kept_after_a_failure(stub: Stub, name: str, stays: bool) -> None:
    work(stub)
    count = stub.library.stub_calls(name.encode())
    assert count
    assert stub.live() == 0
    for k in tried(count):
        stub.reset()
        stub.fail(name, k, 719 if stays else 2, stays)
        told = failure_of(stub)
        assert told is None or ("\n" not in told[0] and told[1] == (719 if stays else 2))
        assert stub.live() == 0, f"call {k}"


def test_out_of_memory_says_how_much(stub: Stub) -> None:
    device = stub.device()
    stub.fail("cuMemAlloc_v2", 1, 2)
    with pytest.raises(CudaError, match=r"cuda:0: out of device memory: .* asked for, 1.50 GB of 80.00 GB are free"):
        cuda.quantize(X, "Q8_0", device=device)
    assert cuda.quantize(X, "Q8_0", device=device).shape == (5, 816)


def test_what_is_missing_is_one_line(stub: Stub, tmp_path: Path) -> None:
    with pytest.raises(CudaError, match="cannot be loaded"):
        Driver(str(tmp_path / "none.so"))
    with pytest.raises(CudaError, match="there is no device cuda:3; 1 is seen"):
        stub.device(3)
    with pytest.raises(CudaError, match=r"kernels.json: cannot be read"):
        cuda.Device(0, Driver(str(stub.path)), tmp_path)
    stub.reset(version=12040)
    with pytest.raises(CudaError, match=r"too old for these kernels: it knows CUDA 12.4, they need 13.0"):
        stub.device().kernels.load()
    stub.reset()
    stub.fail("cuModuleLoadData", 1, 209)
    with pytest.raises(CudaError, match=r"no code for Stub, of compute capability 9.0"):
        stub.device().kernels.load()
    stub.reset(devices=0)
    with pytest.raises(CudaError, match="no NVIDIA GPU is seen"):
        Driver(str(stub.path))


def test_nothing_is_made_in_a_steady_state(stub: Stub) -> None:
    device = stub.device()
    blocks = gguf_forge.quantize(X, "Q4_K")
    out = cuda.dequantize(blocks, "Q4_K", device=device)
    before = stub.library.stub_calls(b"cuMemAlloc_v2")
    assert cuda.dequantize(blocks, "Q4_K", device=device, out=out) is out
    assert stub.library.stub_calls(b"cuMemAlloc_v2") == before


def test_arrays_are_given_without_a_copy(stub: Stub) -> None:
    out = cuda.dequantize(gguf_forge.quantize(X, "Q4_K"), "Q4_K", "bfloat16", device=stub.device())
    about = out.__cuda_array_interface__
    assert (about["shape"], about["typestr"], about["data"]) == ((5, 768), "<u2", (out.address, False))
    capsule = out.__dlpack__()
    del out
    assert stub.live() > 0
    del capsule
    assert stub.live() == 0


def test_importances_are_looked_at_first(stub: Stub) -> None:
    device, bad = stub.device(), WEIGHTS.copy()
    bad[3] = -1
    for kind, weights in (("Q4_K", bad), ("IQ2_XS", None)):
        with pytest.raises(QuantError) as wanted:
            gguf_forge.quantize(X, kind, weights)
        with pytest.raises(QuantError) as found:
            cuda.quantize(X, kind, weights, device=device)
        assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize("kind", TYPES, ids=lambda t: t.name)
def test_bytes_are_the_cores(emulated: cuda.Device, kind: Any) -> None:
    some = WEIGHTS.copy()
    some[256:512] = 0
    for weights in (None, WEIGHTS, some):
        if weights is None and kind.needs_weights:
            continue
        wanted = gguf_forge.quantize(X, kind, weights)
        assert (cuda.quantize(X, kind, weights, device=emulated).numpy() == wanted).all()
    made = gguf_forge.quantize(X, kind, WEIGHTS)
    for dtype in ("float32", "float16", "bfloat16"):
        found = cuda.dequantize(made, kind, dtype, device=emulated).numpy()
        assert (found == gguf_forge.dequantize(made, kind, dtype)).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_refused_with_its_place(emulated: cuda.Device, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    monkeypatch.setattr("gguf_forge.cuda.codec.LANE", 768 * 4)
    x = X.astype(dtype)
    assert (cuda.quantize(x, "Q4_K", device=emulated).numpy() == gguf_forge.quantize(x, "Q4_K")).all()
    x[3, 700] = x[4, 1] = np.nan
    with pytest.raises(QuantError, match="Q4_K cannot hold NaN or infinity, found at row 3, column 700"):
        cuda.quantize(x, "Q4_K", device=emulated)


def test_doctor(stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    driver = Driver(str(stub.path))
    monkeypatch.setattr("gguf_forge.cuda.driver.driver", lambda: driver)
    monkeypatch.setenv("GGUF_FORGE_KERNELS", str(stub.kernels))
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["cuda"]
    device = {"device": "cuda:0", "name": "Stub", "capability": "9.0", "free": 1500000000, "memory": 80000000000}
    assert told == {"driver": "13.0", "missing": None, "devices": [{**device, "missing": None}]}
    monkeypatch.setenv("GGUF_FORGE_KERNELS", "")
    assert main(["doctor"]) == 0
    assert "kernels are" in " ".join(capsys.readouterr().out.split())
    assert stub.live() == 0


def test_doctor_without_a_driver(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing() -> Driver:
        raise CudaError("NVIDIA's driver is not installed")

    monkeypatch.setattr("gguf_forge.cuda.driver.driver", missing)
    assert main(["doctor"]) == 0
    assert "GPUs: none: NVIDIA's driver is not installed" in capsys.readouterr().out


def test_the_library_in_the_drivers_place_works_no_sooner_than_it_must(stub: Stub) -> None:
    """So that code which waits too little is seen: copies are made when their stream is waited for, or one after it."""
    device, library = stub.device(), stub.library
    context = int(device.context.driver.ffi.cast("size_t", device.context.handle))
    assert library.cuCtxPushCurrent_v2(ctypes.c_void_p(context)) == 0
    one, other, event = (ctypes.c_void_p() for _ in range(3))
    for made, name in ((one, "cuStreamCreate"), (other, "cuStreamCreate"), (event, "cuEventCreate")):
        assert getattr(library, name)(ctypes.byref(made), 0) == 0
    source, between, found = (ctypes.create_string_buffer(byte, 1) for byte in (b"a", b"b", b"c"))
    at = ctypes.c_uint64(ctypes.addressof(between))
    library.cuMemcpyHtoDAsync_v2(at, source, ctypes.c_size_t(1), one)
    library.cuEventRecord(event, one)
    library.cuMemcpyHtoDAsync_v2(at, found, ctypes.c_size_t(1), one)
    library.cuStreamWaitEvent(other, event, 0)
    library.cuMemcpyDtoHAsync_v2(found, at, ctypes.c_size_t(1), other)
    source.raw = b"d"
    assert (between.raw, found.raw) == (b"b", b"c")
    library.cuStreamSynchronize(other)
    assert (between.raw, found.raw) == (b"d", b"d")
    library.cuStreamSynchronize(one)
    assert between.raw == b"d"
    for made, name in ((one, "cuStreamDestroy_v2"), (other, "cuStreamDestroy_v2"), (event, "cuEventDestroy_v2")):
        assert getattr(library, name)(made) == 0
    assert library.cuCtxPopCurrent_v2(None) == 0
    assert library.cuCtxPopCurrent_v2(None) == 201
    assert library.cuStreamSynchronize(None) == 201


def test_an_old_driver_is_not_asked(stub: Stub) -> None:
    stub.reset(version=12080)
    with pytest.raises(CudaError, match=r"knows CUDA 12.8, they need 13.0 \(driver 580 or newer\)"):
        cuda.quantize(X, "Q8_0", device=stub.device())
    assert stub.calls("cuModuleLoadData") == 0


def test_every_kernel_is_fetched(stub: Stub, tmp_path: Path) -> None:
    device = stub.device()
    device.kernels.load()
    assert stub.calls("cuModuleGetFunction") == len(device.kernels.launches)
    listed = json.loads((stub.kernels / "kernels.json").read_text())
    listed["forge_none"] = listed["forge_row_mean_squares"]
    (tmp_path / "kernels.json").write_text(json.dumps(listed))
    (tmp_path / "all.fatbin").write_bytes((stub.kernels / "all.fatbin").read_bytes())
    with pytest.raises(CudaError, match="no such kernel"):
        cuda.Device(0, Driver(str(stub.path)), tmp_path).kernels.load()


@pytest.mark.parametrize("code", [2, 701])
def test_a_launch_without_memory_says_what_is_free(stub: Stub, code: int) -> None:
    device = stub.device()
    stub.fail("cuLaunchKernel", 1, code)
    with pytest.raises(CudaError, match=r"out of device memory for forge_encode_q8_0's stack: 1.50 GB of 80.00 GB"):
        cuda.quantize(X, "Q8_0", device=device)


def test_lanes_are_kept(stub: Stub) -> None:
    """After an error that is none of the device's, but no more than a few."""
    device = stub.device()

    def fail() -> None:
        with device.lanes(1):
            raise KeyError

    for _ in range(3):
        with pytest.raises(KeyError):
            fail()
    assert stub.calls("cuStreamCreate") == 2
    with ExitStack() as many:
        for _ in range(2 * IDLE):
            many.enter_context(device.lanes(1))
    made = stub.calls("cuStreamCreate")
    with ExitStack() as many:
        for _ in range(IDLE // 2):
            many.enter_context(device.lanes(1))
        assert stub.calls("cuStreamCreate") == made
        many.enter_context(device.lanes(1))
    assert stub.calls("cuStreamCreate") == made + 2


def test_while_a_stream_is_captured(stub: Stub) -> None:
    """Memory is made and freed all the same; a free that is refused is tried again."""
    device = stub.device()
    stub.library.stub_capture(1)
    made = cuda.quantize(X, "Q8_0", device=device)
    device.kernels.load()
    del made
    stub.library.stub_capture(0)
    made, before = cuda.quantize(X, "Q8_0", device=device), stub.live()
    stub.fail("cuMemFree_v2", 1, 906)
    del made
    assert stub.live() == before
    made = cuda.quantize(X, "Q8_0", device=device)
    assert stub.live() == before
    del made, device
    assert stub.live() == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_in_a_forked_process(stub: Stub) -> None:
    """A call says so, and nothing is given back that is the parent's."""
    fork = getattr(os, "fork", None)
    if fork is None:
        pytest.skip("no fork")
    made, freed = cuda.quantize(X, "Q8_0", device=stub.device()), stub.calls("cuMemFree_v2")
    child = fork()
    if not child:
        try:
            cuda.dequantize(made, "Q8_0")
        except CudaError as error:
            del made
            said = "does not survive a fork" in str(error) and "\n" not in str(error)
            os._exit(0 if said and stub.calls("cuMemFree_v2") == freed else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert made.numpy().shape == (5, 816)


def test_a_device_is_made_once(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGUF_FORGE_CUDA", str(stub.path))
    monkeypatch.setenv("GGUF_FORGE_KERNELS", str(stub.kernels))
    devices._device.cache_clear()
    drivers.driver.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        assert len({id(device) for device in pool.map(devices.device_of, [0] * 32)}) == 1
    assert stub.calls("cuDevicePrimaryCtxRetain") == 1
    devices._device.cache_clear()
    drivers.driver.cache_clear()
