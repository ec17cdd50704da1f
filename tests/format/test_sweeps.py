"""No bytes whatever make the reader raise anything but a ForgeError, or open a file whose data is not there."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gguf_forge.errors import ForgeError, TruncatedError, UnsupportedError
from gguf_forge.format import reader
from gguf_forge.format.findings import findings
from gguf_forge.format.layout import LIMITS
from gguf_forge.format.parse import parse
from gguf_forge.format.reader import GGUFFile
from gguf_forge.format.validate import validate
from gguf_forge.format.values import decode
from tests.format.notation import (
    ARR,
    BOOL,
    F64,
    OK,
    Q4_K,
    STR,
    U8,
    U32,
    Order,
    a,
    arch,
    big,
    h,
    kv,
    little,
    pad,
    s,
    ti,
    u32,
)
from tests.format.recipes import HEADERS, KEYS, ODD, TENSORS, Opens, Refused


def _rich() -> bytes:
    keys = (
        arch()
        + kv("a.tokens", ARR, a(STR, 4) + s("x") + s("") + s("y" * 300) + s("é"))
        + kv("a.nested", ARR, a(ARR, 2) + a(U8, 2) + b"\1\2" + a(STR, 1) + s("q"))
        + kv("a.flags", ARR, a(BOOL, 2) + b"\0\1")
        + kv("a.double", F64, bytes(8))
        + kv("general.alignment", U32, u32(64))
    )
    infos = ti("a", [3, 2]) + ti("b", [256, 2], Q4_K, 64) + ti("c", [5], 24, 384)
    return pad(h(3, 6) + keys + infos, 64) + bytes(384) + bytes(64)


SEEDS = {"ok": OK, "big": big.ok(), "rich": _rich()}
#: Where the last byte of the last tensor's data is; prefixes that end before it must not open.
LAST = {"ok": len(OK) - 16, "big": len(OK) - 16, "rich": len(_rich()) - 64 + 5}


def use(file: GGUFFile) -> None:
    """Touches all that an open file offers."""
    for key in file.metadata:
        file.metadata[key]
        file.metadata.value(key)
    for tensor in file.tensors.values():
        assert tensor.data.nbytes == tensor.nbytes
        tensor.read_rows(0, min(tensor.rows, 4))
    for finding in findings(file):
        assert str(finding).isprintable()


def try_bytes(data: bytes) -> bool:
    """Parses, validates and decodes bytes as a file's; True when they are accepted. Lets only ForgeErrors pass."""
    try:
        parsed = parse(data, len(data), "f")
        header = validate(parsed, LIMITS).header
    except UnsupportedError as error:
        message = str(error)
        with contextlib.suppress(ForgeError):
            assert validate(parsed, LIMITS, unknown_types=True).unsized
    except ForgeError as error:
        message = str(error)
    else:
        message = ""
    assert message.isprintable()
    if message:
        return False
    for e in header.entries:
        decode(data, header.order, e.start, e.type, element=e.element, count=e.count)
    return True


@pytest.mark.parametrize("seed", SEEDS)
def test_every_prefix_is_refused_until_the_data_is_there(seed: str) -> None:
    data = SEEDS[seed]
    for length in range(len(data)):
        assert try_bytes(data[:length]) == (length >= LAST[seed]), length


@pytest.mark.parametrize("seed", SEEDS)
def test_prefixes_say_truncated(seed: str) -> None:
    data = SEEDS[seed]
    for length in range(4, LAST[seed]):
        with pytest.raises(TruncatedError):
            validate(parse(data[:length], length, "f"))


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
def test_every_bit_flip_of_the_header(seed: str, tmp_path: Path) -> None:
    data = SEEDS[seed]
    path = tmp_path / "f.gguf"
    header_end = parse(data, len(data), "f").end
    accepted = 0
    for bit in range(8 * header_end):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        if try_bytes(bytes(flipped)):
            accepted += 1
            path.write_bytes(flipped)
            with reader.open(path) as file:
                use(file)
    assert accepted  # letters of names may change; were none accepted, nothing would be tested


@pytest.mark.parametrize("case", [*HEADERS, *KEYS, *TENSORS, *ODD], ids=lambda c: c.id)
def test_prefixes_of_the_catalogue(case: Refused | Opens) -> None:
    for length in range(min(len(case.data), 400)):
        try_bytes(case.data[:length])


@settings(max_examples=400)
@given(st.binary(max_size=200), st.sampled_from([little, big]), st.integers(0, 3), st.integers(0, 3))
def test_any_bytes_after_a_head(tail: bytes, order: Order, tensors: int, keys: int) -> None:
    try_bytes(order.h(tensors, keys) + tail)


@settings(max_examples=400)
@given(
    st.sampled_from(sorted(SEEDS)),
    st.lists(st.tuples(st.integers(4, 400), st.binary(min_size=1, max_size=9)), max_size=3),
)
def test_overwritten_headers(seed: str, patches: list[tuple[int, bytes]]) -> None:
    data = bytearray(SEEDS[seed])
    for at, patch in patches:
        data[at : at + len(patch)] = patch
    try_bytes(bytes(data))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.sampled_from(sorted(SEEDS)), at=st.integers(0, 5000), patch=st.binary(min_size=1, max_size=8))
def test_overwritten_files_are_opened_and_used(seed: str, at: int, patch: bytes, tmp_path: Path) -> None:
    data = bytearray(SEEDS[seed])
    at %= len(data)
    data[at : at + len(patch)] = patch
    path = tmp_path / "f.gguf"
    path.write_bytes(data)
    try:
        file = reader.open(path)
    except ForgeError:
        return
    with file:
        use(file)
