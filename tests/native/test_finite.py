"""The search for NaNs and infinities: what it finds in floats and blocks, against decoders and against ggml."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge import _native
from gguf_forge.types import TENSOR_TYPES, TensorType
from tests.native.conftest import BLOCK_TYPES, F32, ISAS, decode, encode
from tests.native.test_codecs import at_odd_address, by_name
from tests.oracle import Oracle

#: Bits of each float type: the largest number, its negative, infinities, and NaNs of either sign and kind.
FLOATS: dict[str, tuple[type[np.unsignedinteger], list[int], list[int]]] = {
    "F16": (np.uint16, [0x7BFF, 0xFBFF], [0x7C00, 0xFC00, 0x7C01, 0xFE00]),
    "BF16": (np.uint16, [0x7F7F, 0xFF7F], [0x7F80, 0xFF80, 0x7F81, 0xFFC0]),
    "F32": (np.uint32, [0x7F7FFFFF, 0xFF7FFFFF], [0x7F800000, 0xFF800000, 0x7F800001, 0xFFC00000]),
    "F64": (
        *(np.uint64, [0x7FEFFFFFFFFFFFFF, 0xFFEFFFFFFFFFFFFF]),
        [0x7FF0000000000000, 0xFFF0000000000000, 0x7FF0000000000001, 0xFFF8000000000000],
    ),
}


def found(data: NDArray[np.uint8], kind: TensorType) -> int:
    return _native.first_not_finite(kind.id, data, data.size // kind.block_bytes)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("place", [0, 1, 63, 64, 1023, 1024, 2500])
def test_the_first_float(name: str, place: int) -> None:
    kind, (word, finite, not_finite) = TENSOR_TYPES[name], FLOATS[name]
    for bits in not_finite:
        values = np.resize(np.array([*finite, 0, 1], word), 2501)
        assert found(values.view(np.uint8), kind) == 2501
        values[place] = bits
        values[place + 1 :] = not_finite[0]
        assert found(values.view(np.uint8), kind) == place
        assert found(at_odd_address(values.view(np.uint8), 1), kind) == place


@pytest.mark.parametrize("kind", [t for t in TENSOR_TYPES.values() if t.name.startswith("I") and t.block_size == 1])
def test_whole_numbers_are_finite(kind: TensorType) -> None:
    assert found(np.full(4000, 0xFF, np.uint8), kind) == 4000 // kind.block_bytes


def test_nothing_is_finite() -> None:
    assert all(_native.first_not_finite(t.id, b"", 0) == 0 for t in TENSOR_TYPES.values())
    assert _native.first_not_finite(4, b"\xff" * 8, 2) == 2  # a removed type


@pytest.mark.parametrize("kind", BLOCK_TYPES, ids=by_name)
def test_blocks_whose_values_are_not_finite(kind: TensorType, oracle: Oracle) -> None:
    """Random blocks: those are found whose weights decode to a NaN or infinity, and those that ggml refuses."""
    blocks = np.random.default_rng(1).integers(0, 256, (3000, kind.block_bytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        spoilt = ~np.isfinite(decode(blocks, kind, ISAS[0])).all(axis=1)
    alone = np.array([found(block, kind) == 0 for block in blocks])
    if kind.name == "Q8_1":  # ggml has no rule for it; its second number, a sum, is no factor of a weight
        assert (alone | ~spoilt).all()
        assert (alone & ~spoilt).any()
    else:
        assert (alone == [not oracle.accepts(block, kind) for block in blocks]).all()
    if kind.name not in {"Q8_1", "Q8_K", "MXFP4"}:  # of whose largest scales only large multiples are infinite
        assert (alone == spoilt).all()
    assert alone.any() == (kind.name != "NVFP4")
    first = int(np.argmax(alone)) if alone.any() else len(blocks)
    assert found(blocks, kind) == first
    assert found(at_odd_address(blocks, 1), kind) == first


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", [t for t in BLOCK_TYPES if t.encodes], ids=by_name)
def test_weights_too_large_for_their_scales(kind: TensorType, isa: str, oracle: Oracle) -> None:
    """Finite weights of every size: what the encoder writes is found wanting where ggml's check refuses it."""
    rng = np.random.default_rng(2)
    weights = np.ones(kind.block_size, np.float32) if kind.needs_weights else None
    refused = []
    for exponent in range(0, 38, 2):
        x = (rng.standard_normal((1, kind.block_size)) * 10.0**exponent).astype(np.float32)
        blocks = encode(x, kind, weights, isa)
        refused.append(found(blocks, kind) == 0)
        assert refused[-1] == (not oracle.accepts(blocks, kind))
    assert refused[0] is False
    assert any(refused) == (kind.name not in {"MXFP4", "NVFP4"})  # scales up to 2^127; scales that stop at 448


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", [t for t in BLOCK_TYPES if t.encodes], ids=by_name)
def test_numbers_far_above_all_scales(kind: TensorType, isa: str) -> None:
    """Infinities come of 1e7 or 1e9, but of 1e20 often zeros. When asked to be strict the encoder takes neither."""
    room = np.empty(2 * kind.block_bytes, np.uint8)

    def status(x: NDArray[np.float32], strict: bool) -> tuple[int, int]:
        return _native.convert(F32.id, x, kind.id, room, 1, x.size, weights, isa, strict)

    for value in (2.0**29, -(2.0**29), 1e10, -1e20, 3e38):
        for place in (0, kind.block_size + 1, 2 * kind.block_size - 1):
            x = np.full((1, 2 * kind.block_size), 0.5, np.float32)
            x[0, place] = value
            for weights in (None, np.ones(2 * kind.block_size, np.float32)):
                if weights is None and kind.needs_weights:
                    continue
                assert status(x, False) == (_native.OK, -1)
                taken = abs(value) == 2.0**29 or kind.name == "MXFP4"
                assert status(x, True) == ((_native.OK, -1) if taken else (_native.E_TOO_LARGE, place))
    x[0, 0] = np.nan
    assert status(x, True) == status(x, False) == (_native.E_NOT_FINITE, 0)


@pytest.mark.parametrize("kind", [t for t in BLOCK_TYPES if t.decodes and t.name not in {"MXFP4", "Q8_K"}], ids=by_name)
def test_no_block_holds_more(kind: TensorType) -> None:
    """Random blocks with the largest scales decode to less than the limit of 2^29."""
    blocks = np.random.default_rng(3).integers(0, 256, (20000, kind.block_bytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        values = np.abs(decode(blocks, kind, ISAS[0]))
    assert values[np.isfinite(values)].max() < 2.0**29
