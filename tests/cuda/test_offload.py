"""Files made on devices, against those that processors make: to the byte, whatever fails where that may be."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from gguf_forge import QuantError, Quantization
from gguf_forge.cli import main
from gguf_forge.cuda import device as devices
from gguf_forge.cuda import driver as drivers
from gguf_forge.cuda import offload
from gguf_forge.cuda.driver import CudaError
from gguf_forge.cuda.encoding import limit
from gguf_forge.format import values
from gguf_forge.quant.imatrix import Entry, Imatrix
from gguf_forge.types import TENSOR_TYPES
from tests.convert.eight_bits import store_in_fp8
from tests.cuda.conftest import SLOW
from tests.cuda.stub import Stub

MODEL = Path(__file__).resolve().parents[2] / "fixtures/models/PyLlama-7M"
META = {"general.architecture": values.string("llama"), "llama.block_count": values.u32(1)}
NAMES = ["token_embd.weight", "blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.ffn_down.weight"]
X = np.random.default_rng(4).standard_normal((24, 512)).astype(np.float32)


@pytest.fixture
def installed(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """The library in the driver's place as the installed one, with two devices that only count."""
    monkeypatch.setenv("GGUF_FORGE_CUDA", str(stub.path))
    monkeypatch.setenv("GGUF_FORGE_KERNELS", str(stub.kernels))
    stub.reset(devices=2)
    forget()
    yield stub
    forget()


@pytest.fixture
def working(installed: Stub) -> Stub:
    """Two devices that encode."""
    if not os.environ.get("CUDA_HOST"):
        pytest.skip(SLOW)
    installed.reset(devices=2, emulated=True)
    return installed


def forget() -> None:
    """Lets go of what is made once a process."""
    devices._device.cache_clear()
    drivers.driver.cache_clear()


def source(folder: Path, kind: str = "F32", first: Any = X) -> Path:
    """A small model of one layer, of blocks or floats; `first`: the values of its first tensor."""
    path = folder / f"{kind}.gguf"
    with gguf_forge.GGUFWriter(path, META) as out:
        for i, name in enumerate(NAMES):
            rows = np.roll(X, i, 0) if i else first
            out.add_tensor(name, rows if kind == "F32" else gguf_forge.quantize(rows, kind), kind)
    return path


def importances() -> Imatrix:
    """With columns of which nothing is known, some of them whole blocks."""
    entries = {}
    for i, name in enumerate(NAMES):
        row = np.random.default_rng(i).random((1, 512)).astype(np.float32)
        row[:, : 256 if i == 1 else 32] = 0
        entries[name] = Entry(row, np.array([1]))
    return Imatrix("some", entries)


@pytest.mark.parametrize("recipe", ["Q8_0", "Q4_K_M", "Q5_1", "q8_0", "Q2_K,Q6_K", "IQ4_XS", "TQ2_0", "MXFP4_MOE"])
def test_a_checkpoint(working: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    """Both devices take part; several files come of one reading."""
    monkeypatch.setattr(offload.Offload, "run_elements", 1 << 17)
    how = Quantization(imatrix=MODEL / "imatrix.gguf")
    for device in ("cpu", "cuda"):
        template = tmp_path / device / "{ftype}.gguf"
        template.parent.mkdir()
        made = gguf_forge.convert_checkpoint(MODEL, template, recipe, quantization=how, threads=2, device=device)
    assert len(made) == len(recipe.split(","))
    for path in (tmp_path / "cpu").iterdir():
        assert path.read_bytes() == (tmp_path / "cuda" / path.name).read_bytes()
    launches = [working.library.stub_launches(i) for i in (0, 1)]
    assert min(launches) > 0
    assert any("on cuda:0 (Stub)" in note and "on cuda:1 (Stub)" in note for note in made[0].notes)


@pytest.mark.parametrize("stored", ["F32", "F16", "BF16", "Q8_0", "Q4_K", "Q6_K"])
@pytest.mark.parametrize("recipe", ["Q4_K_M", "Q4_0", "IQ3_S", "IQ2_XXS", "F16", "Q5_K_S"])
def test_a_file(working: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str, recipe: str) -> None:
    """From floats and from blocks, with importances of which some are 0, in pieces of few rows."""
    monkeypatch.setattr(offload, "LANE", 24 << 10)
    made = {}
    for device in ("cpu", "cuda:1"):
        how = Quantization(imatrix=importances())
        path = tmp_path / f"{device.partition(':')[0]}.gguf"
        options: dict[str, Any] = {"quantization": how, "allow_requantize": True, "device": device}
        gguf_forge.quantize_file(source(tmp_path, stored), path, recipe, **options)
        made[device] = path.read_bytes()
    assert made["cpu"] == made["cuda:1"]
    assert working.library.stub_launches(0) == 0
    assert (working.library.stub_launches(1) > 0) == (recipe != "F16")


def test_eight_bit_floats(working: Stub, tmp_path: Path) -> None:
    checkpoint = store_in_fp8(MODEL, tmp_path / "fp8")
    for device in ("cpu", "cuda"):
        gguf_forge.convert_checkpoint(checkpoint, tmp_path / f"{device}.gguf", "Q4_K_M", device=device)
    assert (tmp_path / "cpu.gguf").read_bytes() == (tmp_path / "cuda.gguf").read_bytes()
    assert working.library.stub_launches(0) > 0


def test_a_row_longer_than_a_lane(working: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "LANE", 1 << 10)
    made = []
    for device in ("cpu", "cuda"):
        gguf_forge.quantize_file(source(tmp_path), tmp_path / "out.gguf", "Q4_K_S", device=device)
        made.append((tmp_path / "out.gguf").read_bytes())
    assert made[0] == made[1]


def test_memory_is_made_once(working: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As much for a model of many runs as for one of few."""
    calls = []
    for elements in (1 << 13, 1 << 16):
        monkeypatch.setattr(offload.Offload, "run_elements", elements)
        before = [working.library.stub_calls(name) for name in (b"cuMemHostAlloc", b"cuMemAlloc_v2")]
        gguf_forge.convert_checkpoint(MODEL, tmp_path / "out.gguf", "Q8_0", device="cuda", threads=1)
        after = [working.library.stub_calls(name) for name in (b"cuMemHostAlloc", b"cuMemAlloc_v2")]
        calls.append([b - a for a, b in zip(before, after, strict=True)])
    assert calls[0][0] == calls[1][0] == 2 * offload.LANES
    assert max(calls[0][1], calls[1][1]) <= 2 * 2 * offload.LANES


def test_in_order_and_in_parts(working: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a stream, by four lanes that are done when they are; and one half by a device, the other by processors."""
    monkeypatch.setattr(offload.Offload, "run_elements", 1 << 12)
    path, out, stream = source(tmp_path), tmp_path / "out.gguf", io.BytesIO()
    gguf_forge.quantize_file(path, out, "Q4_K_S")
    gguf_forge.quantize_file(path, stream, "Q4_K_S", device="cuda", threads=1)
    assert stream.getvalue() == out.read_bytes()
    for part, device in ((1, "cuda"), (2, "cpu")):
        gguf_forge.quantize_file(path, tmp_path / "joined.gguf", "Q4_K_S", part=(part, 2), device=device)
    gguf_forge.join(tmp_path / "joined.gguf", sorted(tmp_path.glob("*.part")))
    assert (tmp_path / "joined.gguf").read_bytes() == out.read_bytes()
    assert working.library.stub_launches(1) > 0


@pytest.mark.parametrize("value", [np.nan, np.float32(2.0**30)])
def test_refused_as_by_processors(working: Stub, tmp_path: Path, value: Any) -> None:
    x = X.copy()
    x[20, 100] = value
    path, said = source(tmp_path, first=x), []
    for device in ("cpu", "cuda", "auto"):
        with pytest.raises(QuantError) as refused:
            gguf_forge.quantize_file(path, tmp_path / "out.gguf", "Q4_K_S", device=device, threads=1)
        said.append(str(refused.value))
    assert "at row 20, column 100" in said[0]
    assert {*said} == {said[0]}
    assert not (tmp_path / "out.gguf").exists()


def test_what_is_too_large_is_the_cores_word() -> None:
    """Types with a power of two for a scale take any number, the others none above 2^29, where that is asked for."""
    for kind in TENSOR_TYPES.values():
        if kind.encodes:
            assert limit(kind, False) == float(np.finfo(np.float32).max)
            reach = 2.0**29 if kind.quantized and kind.name != "MXFP4" else float(np.finfo(np.float32).max)
            assert limit(kind, True) == reach, kind


FAILURES = ["cuLaunchKernel", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize", "cuMemHostAlloc"]
FAILURES += ["cuMemAlloc_v2", "cuModuleLoadData", "cuStreamCreate", "cuDevicePrimaryCtxRetain"]


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("k", [1, 2, 7])
@pytest.mark.parametrize("stays", [False, True])
def test_a_failure(working: Stub, tmp_path: Path, name: str, k: int, stays: bool) -> None:
    """Of a device that was asked for it is an error, without a file; auto goes on, to the same bytes, and says so."""
    path, out = source(tmp_path), tmp_path / "out.gguf"

    def make(device: str) -> gguf_forge.Planned:
        forget()
        working.reset(devices=2, emulated=True)
        if device != "cpu":
            working.fail(name, k, 719, stays)
        return gguf_forge.quantize_file(path, out, "Q4_K_S", device=device, threads=2)

    make("cpu")
    wanted = out.read_bytes()
    out.unlink()
    notes = make("auto").notes
    assert out.read_bytes() == wanted
    out.unlink()
    happened = working.library.stub_calls(name.encode()) >= k
    assert any("CUDA: " in note for note in notes) == happened
    if happened:
        with pytest.raises(CudaError):
            make("cuda")
        assert [file.name for file in tmp_path.iterdir()] == [path.name]
    working.reset()
    forget()
    assert working.live() == 0


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing() -> drivers.Driver:
        raise CudaError("NVIDIA's driver is not installed")

    monkeypatch.setattr(offload, "driver", missing)
    path = source(tmp_path)
    made = gguf_forge.quantize_file(path, tmp_path / "out.gguf", "Q8_0", device="auto")
    assert "NVIDIA's driver is not installed" in made.notes
    with pytest.raises(CudaError, match="not installed"):
        gguf_forge.quantize_file(path, tmp_path / "none.gguf", "Q8_0", device="cuda")
    assert not (tmp_path / "none.gguf").exists()


def test_from_the_command_line(
    working: Stub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, out = str(source(tmp_path)), str(tmp_path / "out.gguf")
    assert main(["quantize", path, out, "Q4_K_S", "--device", "cuda:1"]) == 0
    assert "weights encoded: 49152 on cuda:1 (Stub)" in capfd.readouterr().err
    assert main(["quantize", path, out, "Q4_K_S", "--device", "cuda:5"]) == 1
    assert "there is no device cuda:5; 2 are seen" in capfd.readouterr().err
    assert main(["quantize", path, out, "Q4_K_S", "--device", "gpu"]) == 2
    assert "'gpu' is no device; cpu, cuda, cuda:N or auto is" in " ".join(capfd.readouterr().err.split())
    found = []
    for device in ("cpu", "cuda"):
        assert main(["roundtrip", path, "--types", "Q4_K,Q8_0,IQ4_NL", "--json", "--device", device]) == 0
        found.append(json.loads(capfd.readouterr().out))
    assert found[0] == found[1]
    assert working.library.stub_launches(0) > 0


def test_round_trips(working: Stub) -> None:
    wanted = gguf_forge.roundtrip(X, "Q5_K")
    assert gguf_forge.roundtrip(X, "Q5_K", device="cuda") == wanted
    assert working.library.stub_launches(0) > 0


def test_memory_is_made_at_the_start(installed: Stub) -> None:
    """All of a lane, so that a card that is nearly full says so at once."""
    device = devices.device_of(0)
    device.kernels.load()
    installed.fail("cuMemAlloc_v2", 2 * offload.LANES, 2)
    with pytest.raises(CudaError, match=r"67\.1 MB were asked for, 1\.50 GB"), offload.offload("cuda:0"):
        pass


def test_threads_wait_asleep(installed: Stub) -> None:
    with offload.offload("cuda:0") as encoder:
        encoder.encode_rows(X, TENSOR_TYPES["F32"], TENSOR_TYPES["Q8_0"])
    assert installed.calls("cuEventSynchronize") == 1
    assert installed.calls("cuStreamSynchronize") == 0
