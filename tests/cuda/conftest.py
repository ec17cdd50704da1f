"""What the tests of the CUDA kernels ask for."""

from __future__ import annotations

import os

import pytest

from tests.cuda import host


@pytest.fixture(autouse=True)
def _emulated(request: pytest.FixtureRequest) -> None:
    if request.path.name == "test_driver.py":  # asks for itself
        return
    if not os.environ.get("CUDA_HOST"):
        pytest.skip("compiles the kernels for the host, which takes a minute: make test-cuda-host, or CUDA_HOST=1")
    if host.compiler() is None:
        pytest.skip("no C++ compiler: the kernels cannot be compiled for the host")
