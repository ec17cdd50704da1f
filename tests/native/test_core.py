"""The core's edges: the type table, statuses, and the choice of an instruction set."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from gguf_forge import _native
from gguf_forge.errors import ForgeError
from gguf_forge.types import TENSOR_TYPES
from tests.native.conftest import F32, ISAS

Q4_K, Q4_0, IQ2_XS, I8 = (TENSOR_TYPES[name].id for name in ("Q4_K", "Q4_0", "IQ2_XS", "I8"))
X = np.ones((2, 256), np.float32)
ROOM = np.zeros(4096, np.uint8)


def status(src_type: int = 0, dst_type: int = Q4_K, width: int = 256, weights: object = None) -> tuple[int, int]:
    return _native.convert(src_type, X, dst_type, ROOM, 2, width, weights)


def test_ids_ascend_and_sizes_fill_the_table() -> None:
    rows = _native.type_rows()
    assert [r.id for r in rows] == list(range(43))
    assert all((r.block > 0) == (r.bytes > 0) for r in rows)
    assert {r.name for r in rows if not r.block} >= {"Q4_2", "IQ4_NL_8_8"}


def test_a_float_width_that_is_no_whole_number_of_blocks() -> None:
    assert status(width=255) == (_native.E_WIDTH, -1)
    assert status(src_type=Q4_0, dst_type=F32.id, width=33) == (_native.E_WIDTH, -1)


@pytest.mark.parametrize(("src", "dst"), [(99, Q4_K), (0, 99), (0, -1), (I8, Q4_K), (0, I8), (4, 0)])
def test_types_without_a_codec(src: int, dst: int) -> None:
    assert status(src, dst) == (_native.E_TYPE, -1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 255, 256, 300, 511])
@pytest.mark.parametrize("isa", ISAS)
def test_the_first_element_that_is_not_finite(isa: str, place: int, value: float) -> None:
    x = np.ones((2, 256), np.float32)
    x.reshape(-1)[place] = value
    x.reshape(-1)[place + 1 :] = np.nan
    for weights in (None, np.ones(256, np.float32)):
        found = _native.convert(0, x, Q4_K, ROOM, 2, 256, weights, isa)
        assert found == (_native.E_NOT_FINITE, place)
    assert _native.convert(0, x, TENSOR_TYPES["F16"].id, ROOM, 2, 256, None, isa)[0] == _native.OK


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, -1e-30])
def test_importance_that_is_no_importance(value: float) -> None:
    w = np.ones(256, np.float32)
    w[7] = value
    assert status(weights=w) == (_native.E_WEIGHTS, 7)


def test_importance_is_asked_for_and_needs_floats() -> None:
    assert status(dst_type=IQ2_XS)[0] == _native.E_WEIGHTS
    half = _native.convert(1, X.astype(np.float16), Q4_K, ROOM, 2, 256, np.ones(256, np.float32))
    assert half == (_native.E_SOURCE, -1)


def test_nothing_to_do() -> None:
    assert _native.convert(0, X, Q4_K, ROOM, 0, 256) == (_native.OK, -1)
    assert _native.convert(0, X, Q4_K, ROOM, 2, 0) == (_native.OK, -1)


def test_plain_c_is_always_there_and_last() -> None:
    assert ISAS[-1] == "scalar"
    if platform.machine().lower() in {"aarch64", "arm64"}:
        assert "neon" in ISAS


def test_an_instruction_set_this_machine_lacks_is_refused() -> None:
    with pytest.raises(ForgeError, match=r"'mmx' is not available here; available: .*scalar"):
        _native.backend("mmx")


@pytest.mark.parametrize("isa", [*ISAS, "sse9"])
def test_the_environment_forces_one(isa: str) -> None:
    code = "import gguf_forge._native as n; print(n.ISA)"
    env = {**os.environ, "GGUF_FORGE_ISA": isa}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    if isa == "sse9":
        assert run.returncode
        assert "instruction set 'sse9' is not available here" in run.stderr
    else:
        assert run.stdout.strip() == isa, run.stderr
