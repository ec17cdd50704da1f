"""The lattice types, and the small ones beside them, against independent decoders and against ggml on made-up data."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge import _native
from gguf_forge.types import TENSOR_TYPES
from tests.native.conftest import F32, ISAS, encode
from tests.native.lattice_oracle import Case, judge
from tests.reference_iq import lattice

OURS = [
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4"),
    *("TQ1_0", "TQ2_0", "Q1_0", "Q2_0", "Q8_1", "Q8_K"),
]
LATTICE = [name for name in OURS if name[:3] in ("IQ1", "IQ2", "IQ3")]
ALWAYS_WEIGHTED = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS")


def test_lattices_have_distinct_points_in_order() -> None:
    sizes = {"IQ2_XXS": 256, "IQ2_XS": 512, "IQ2_S": 1024, "IQ1": 2048, "IQ3_XXS": 256, "IQ3_S": 512}
    for name, size in sizes.items():
        points = lattice(name)
        codes = points @ (1 << (3 if points.shape[1] == 4 else 2) * np.arange(points.shape[1]))
        assert len(codes) == size
        assert (np.diff(codes) > 0).all()
        assert points.max() == (7 if points.shape[1] == 4 else 2)


@pytest.mark.parametrize("name", ALWAYS_WEIGHTED)
def test_types_that_need_importance_say_so(name: str) -> None:
    kind, x = TENSOR_TYPES[name], np.ones((1, 256), np.float32)
    out = np.zeros((1, kind.block_bytes), np.uint8)
    assert kind.needs_weights
    assert _native.convert(F32.id, x, kind.id, out, 1, 256)[0] == _native.E_WEIGHTS


def made_up(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Rows of one of a dozen kinds, from plain to nasty."""
    x = rng.standard_normal(shape)
    groups = x.reshape(shape[0], -1, 32)
    pick = int(rng.integers(0, 12))
    if pick == 1:
        x *= 10.0 ** rng.uniform(-30, 15)
    elif pick == 2:
        x *= np.exp(3 * rng.standard_normal(shape))
    elif pick == 3:
        x = np.round(2 * x)
    elif pick == 4:
        x[rng.random(shape) < 0.9] = 0
    elif pick == 5:
        groups[:] = groups[..., :1]
    elif pick == 6:
        x *= 2.0 ** rng.integers(-30, 30, shape)
    elif pick == 7:
        x = rng.choice([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 3.0], shape)
    elif pick == 8:
        x *= 10.0 ** rng.uniform(-45, -8)
    elif pick == 9:
        x = np.abs(x)
    elif pick == 10:
        x[rng.random(shape) < 0.02] *= 1000
    elif pick == 11:
        groups[rng.random(groups.shape[:2]) < 0.3] = 0
    return x.astype(np.float32)


def made_up_weights(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    w = rng.random(n)
    pick = int(rng.integers(0, 5))
    if pick == 1:
        w[rng.random(n) < 0.5] = 0
    elif pick == 2:
        w = w**8 * 1e6
    elif pick == 3:
        w.reshape(-1, 32)[rng.random(n // 32) < 0.3] = 0
    elif pick == 4:
        w[:] = 1
    return w.astype(np.float32)


@pytest.mark.long
@pytest.mark.peer
@pytest.mark.parametrize("name", LATTICE)
def test_encode_as_ggml_does(name: str) -> None:
    kind = TENSOR_TYPES[name]
    rng = np.random.default_rng(11)
    cases: list[Case] = []
    for i in range(48):
        shape = (int(rng.integers(1, 5)), 256 * int(rng.integers(1, 4)))
        weighted = kind.needs_weights or i % 2 == 1
        cases.append((made_up(rng, shape), made_up_weights(rng, shape[1]) if weighted else None))
    expected = judge(kind, cases)
    given_up = sum(e is None for e in expected)
    assert given_up < 12
    for (x, w), blocks in zip(cases, expected, strict=True):
        alone = encode(x, kind, w, "scalar")
        for isa in ISAS:
            np.testing.assert_array_equal(encode(x, kind, w, isa), alone if blocks is None else blocks, err_msg=isa)
