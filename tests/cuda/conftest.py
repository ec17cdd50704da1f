"""What the tests of the CUDA kernels ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from gguf_forge import cuda
from tests.cuda import host
from tests.cuda.stub import Stub

#: Tests of the driver's side, which ask for the emulated GPU where they need it.
DRIVERS = {"test_driver.py", "test_device_arrays.py", "test_dlpack.py", "test_offload.py", "test_report.py"}
DRIVERS |= {"test_wheel.py"}
SLOW = "compiles the kernels for the host, which takes a minute: make test-cuda-host, or CUDA_HOST=1"


@pytest.fixture(autouse=True)
def _emulated(request: pytest.FixtureRequest) -> None:
    if request.path.name in DRIVERS:
        return
    if not os.environ.get("CUDA_HOST"):
        pytest.skip(SLOW)
    if host.compiler() is None:
        pytest.skip("no C++ compiler: the kernels cannot be compiled for the host")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Stub:
    if os.name == "nt" or host.compiler() is None:
        pytest.skip("needs a C++ compiler for the library in the driver's place")
    return Stub(tmp_path_factory.mktemp("stub"))


@pytest.fixture
def stub(compiled: Stub) -> Iterator[Stub]:
    compiled.reset()
    yield compiled
    assert compiled.torn() == 0, "memory was given back while a copy still waited for it"


@pytest.fixture
def emulated(stub: Stub) -> cuda.Device:
    if not os.environ.get("CUDA_HOST"):
        pytest.skip(SLOW)
    stub.reset(emulated=True)
    return stub.device()
