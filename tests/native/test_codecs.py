"""What golden rows do not show: rows that do not fill the lanes, odd addresses, other source types, other decoders."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge import _native
from gguf_forge.types import TENSOR_TYPES, TensorType
from tests.native.conftest import BLOCK_TYPES, F32, ISAS, decode, encode, same_floats
from tests.reference_iq import DECODERS

ENCODED = [t for t in BLOCK_TYPES if t.encodes]
ALIGN = 64


def by_name(kind: TensorType) -> str:
    return kind.name


def sample(rows: int, width: int, seed: int = 1) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, width), np.float32) * np.float32(0.02)


def importance(kind: TensorType, width: int) -> NDArray[np.float32] | None:
    return np.random.default_rng(2).random(width, np.float32) if kind.weighted else None


def at_odd_address(data: NDArray[np.uint8], offset: int) -> NDArray[np.uint8]:
    """A copy of the bytes that starts `offset` past an aligned address."""
    room = np.empty(data.size + ALIGN + offset, np.uint8)
    start = -room.ctypes.data % ALIGN + offset
    view = room[start : start + data.size]
    view[:] = data.reshape(-1)
    return view


@pytest.mark.parametrize("name", sorted(DECODERS))
@pytest.mark.parametrize("isa", ISAS)
def test_decoder_follows_the_drawing(name: str, isa: str) -> None:
    kind = TENSOR_TYPES[name]
    blocks = np.random.default_rng(3).integers(0, 256, (300, kind.block_bytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        assert same_floats(decode(blocks, kind, isa), DECODERS[name](blocks))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ENCODED, ids=by_name)
def test_each_row_is_encoded_by_itself(kind: TensorType, isa: str) -> None:
    """Rows share vector lanes; 1 to 35 rows of one and of three blocks leave every number of lanes over."""
    for width in (kind.block_size, 3 * kind.block_size):
        x, w = sample(35, width), importance(kind, width)
        alone = np.concatenate([encode(x[i : i + 1], kind, w, "scalar") for i in range(35)])
        for rows in (*range(1, 20), 35):
            np.testing.assert_array_equal(encode(x[:rows], kind, w, isa), alone[:rows])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ENCODED, ids=by_name)
def test_nothing_is_written_outside(kind: TensorType, isa: str) -> None:
    x = sample(3, kind.block_size)
    for weights in (None, importance(kind, kind.block_size)):
        if weights is None and kind.needs_weights:
            continue
        room = np.full(3 * kind.block_bytes + 2 * ALIGN, 0xA5, np.uint8)
        inner = room[ALIGN:-ALIGN]
        _native.convert(F32.id, x, kind.id, inner, x.shape[0], x.shape[1], weights, isa)
        assert (room[:ALIGN] == 0xA5).all()
        assert (room[-ALIGN:] == 0xA5).all()
        floats = np.full(3 * kind.block_size + 32, 7, np.float32)
        _native.convert(kind.id, inner, F32.id, floats[16:-16], x.shape[0], x.shape[1], None, isa)
        assert (floats[:16] == 7).all()
        assert (floats[-16:] == 7).all()


@pytest.mark.parametrize("offset", [1, 2, 3, 5])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", [t for t in ENCODED if not t.needs_weights], ids=by_name)
def test_any_address(kind: TensorType, isa: str, offset: int) -> None:
    x = sample(5, 2 * kind.block_size)
    expected = encode(x, kind, None, isa)
    source = at_odd_address(x.view(np.uint8), offset)
    out = at_odd_address(np.zeros(expected.size, np.uint8), offset)
    assert _native.convert(F32.id, source, kind.id, out, x.shape[0], x.shape[1], None, isa)[0] == _native.OK
    np.testing.assert_array_equal(out, expected.reshape(-1))
    y = at_odd_address(np.zeros(x.nbytes, np.uint8), offset)
    assert _native.convert(kind.id, out, F32.id, y, x.shape[0], x.shape[1], None, isa)[0] == _native.OK
    assert y.tobytes() == decode(expected, kind, isa).tobytes()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", [t for t in ENCODED if not t.needs_weights], ids=by_name)
def test_other_sources_are_floats_first(kind: TensorType, isa: str) -> None:
    """Long enough for several of the core's tiles of 4096 elements, the last one short."""
    x = sample(9, 4096 // 8 * 2 + kind.block_size)
    for name, dtype in (("F16", np.float16), ("F64", np.float64)):
        source = x.astype(dtype)
        expected = encode(source.astype(np.float32), kind, None, isa)
        np.testing.assert_array_equal(encode(source, kind, None, isa, TENSOR_TYPES[name]), expected)
    brain = (x.view(np.uint32) >> 16).astype(np.uint16)
    expected = encode((brain.astype(np.uint32) << 16).view(np.float32), kind, None, isa)
    np.testing.assert_array_equal(encode(brain, kind, None, isa, TENSOR_TYPES["BF16"]), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", [t for t in BLOCK_TYPES if t.decodes], ids=by_name)
def test_large_results_are_the_small_ones(kind: TensorType, isa: str) -> None:
    """From 2 MiB on results bypass the caches; the same bytes must arrive, at any address."""
    blocks = np.random.default_rng(5).integers(
        0, 256, (1, kind.block_bytes * (6000 // kind.block_size)), dtype=np.uint8
    )
    small = decode(blocks, kind, isa)
    large = at_odd_address(np.zeros(small.nbytes * 100, np.uint8), 4).view(np.float32).reshape(100, -1)
    many = np.repeat(blocks, 100, axis=0)
    assert _native.convert(kind.id, many, F32.id, large, large.shape[0], large.shape[1], None, isa)[0] == _native.OK
    assert same_floats(large, np.repeat(small, 100, axis=0))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_half_precision_covers_every_value(name: str, isa: str) -> None:
    kind = TENSOR_TYPES[name]
    every = np.arange(65536, dtype=np.uint16)
    y = decode(every.view(np.uint8).reshape(1, -1), kind, isa)
    wide = every.astype(np.uint32) << 16
    expected = every.view(np.float16).astype(np.float32) if name == "F16" else wide.view(np.float32)
    assert same_floats(y, expected.reshape(1, -1))
    number = ~np.isnan(y)
    assert (encode(y, kind, None, isa).view(np.uint16)[number] == every[number[0]]).all()


@pytest.mark.parametrize("isa", ISAS)
def test_half_precision_rounds_to_even(isa: str) -> None:
    step = np.arange(0, 2**32 - 2**16, 65521, dtype=np.uint32)
    x = np.concatenate([step, step & ~np.uint32(0x1FFF) | 0x1000, step & 0xFFFF0000 | 0x8000]).view(np.float32)
    with np.errstate(all="ignore"):
        half = x.astype(np.float16).view(np.uint16)
    nan = np.isnan(x)
    made = encode(x.reshape(1, -1), TENSOR_TYPES["F16"], None, isa).view(np.uint16)[0]
    np.testing.assert_array_equal(made[~nan], half[~nan])
    assert set(made[nan]) <= {0x7E00, 0xFE00}
    bits = x.view(np.uint32).astype(np.uint64)
    brain = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    made = encode(x.reshape(1, -1), TENSOR_TYPES["BF16"], None, isa).view(np.uint16)[0]
    np.testing.assert_array_equal(made[~nan], brain[~nan].astype(np.uint16))
    assert np.isnan((made[nan].astype(np.uint32) << 16).view(np.float32)).all()
