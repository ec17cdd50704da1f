"""Values and tensors' bytes as a file has them, written again; plans and values at their edges."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from gguf_forge import system
from gguf_forge.errors import (
    FormatError,
    InputError,
    InvalidError,
    LimitError,
    OutputError,
    TruncatedError,
    UnsupportedError,
)
from gguf_forge.format import reader, values
from gguf_forge.format.cursor import Cursor
from gguf_forge.format.layout import ALIGNMENT_KEY, Limits, ValueType
from gguf_forge.format.plan import Declared, plan_file
from gguf_forge.format.values import StoredValue, Value, array, encode, encode_string, scalar, typed
from gguf_forge.format.words import read_strings, skip_strings
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.types import TENSOR_TYPES
from tests.format.notation import ARR, BOOL, F32, F64, STR, U8, U16, U32, Order, a, big, k, little, pad, s, t, ti

F32_TYPE, I8_TYPE = TENSOR_TYPES["F32"], TENSOR_TYPES["I8"]


def _keys(o: Order) -> bytes:
    """Values that decoding and encoding would change: payloads of NaNs, bools of 2, and what both orders tell apart."""
    nan32, nan64 = o.u32(0x7F800001), o.u64(0x7FF0000000000001)
    strings = o.a(STR, 2) + o.s("é") + o.s("")
    nested = o.a(ARR, 2) + o.a(U16, 1) + (b"\2\1" if o is little else b"\1\2") + o.a(STR, 1) + o.s("b")
    rows = [("a", F32, nan32), ("b", F64, nan64), ("c", BOOL, b"\2"), ("d", STR, o.s(b"\xff\0x")), ("e", U8, b"\7")]
    rows += [("f", ARR, o.a(F32, 2) + nan32 + o.u32(1)), ("g", ARR, o.a(BOOL, 3) + b"\0\2\1"), ("h", ARR, strings)]
    rows += [("i", ARR, nested), ("j", ARR, o.a(U8, 0))]
    return o.h(0, len(rows)) + b"".join(o.kv(key, kind, value) for key, kind, value in rows)


@pytest.mark.parametrize("o", [little, big], ids=["little", "big"])
@pytest.mark.parametrize("to", [little, big], ids=["to little", "to big"])
def test_what_is_stored_is_written_to_the_bit(o: Order, to: Order, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(pad(_keys(o)))
    with reader.open(path) as file:
        stored = {key: file.metadata.stored(key) for key in file.metadata}
        plan = plan_file(stored, [], endian="big" if to is big else "little")
        for key, value in stored.items():
            assert value == file.metadata.stored(key)
            assert repr(value) == repr(file.metadata.value(key))
            assert isinstance(value, StoredValue)
            assert np.array_equal(value.value, file.metadata.value(key).value, equal_nan=key in "abf")
    assert plan.header == pad(_keys(to))
    assert repr(plan) == f"<FilePlan: 0 tensors, {len(pad(_keys(to)))} bytes>"


def test_values_beside_other_objects() -> None:
    assert values.u32(1) != 1
    assert (values.u32(1) == 1) is False
    assert repr(values.u32(7)) == "<Value: UINT32 7>"
    assert repr(values.strings(["a", "b"])) == "<Value: 2 of STRING>"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: scalar(ValueType.ARRAY, [1]), "an array needs an element type"),
        (lambda: typed({1: 2}), "metadata key 1 is no string"),  # type: ignore[dict-item]
        (lambda: typed({"k": object()}), "has no GGUF type"),
        (lambda: encode_string("\ud800"), r"'\\ud800' holds a lone surrogate"),
        (lambda: encode(Value(ValueType.UINT8, 256)), "256 does not fit UINT8"),
        (lambda: encode(Value(ValueType.FLOAT32, 1e300)), "does not fit FLOAT32"),
        (lambda: array(ValueType.UINT8, np.array([0, 256])), "an array from 0 to 256 does not fit UINT8"),
        (lambda: array(ValueType.INT8, np.array([-129, 0])), "an array from -129 to 0 does not fit INT8"),
        (lambda: plan_file({}, [], endian="middle"), "endian must be 'little' or 'big', found 'middle'"),
        (lambda: plan_file({ALIGNMENT_KEY: values.u64(32)}, []), "must be UINT32, found UINT64"),
        (lambda: plan_file({ALIGNMENT_KEY: values.u32(64)}, [], alignment=32), "the metadata say 64, the caller 32"),
        (lambda: plan_file({"k": Value(ValueType.UINT8, -1)}, []), "-1 does not fit UINT8"),
    ],
)
def test_what_does_not_fit(make: object, text: str) -> None:
    assert callable(make)
    with pytest.raises(InvalidError, match=text):
        make()


def test_errors_name_the_key() -> None:
    with pytest.raises(InvalidError) as caught:
        typed({"k": object()})
    assert caught.value.field == 'key "k"'
    with pytest.raises(InvalidError) as caught:
        plan_file({"k": Value(ValueType.UINT8, -1)}, [], path="out.gguf")
    assert (caught.value.field, caught.value.path) == ('key "k"', "out.gguf")


def test_arrays_of_wider_numbers_that_fit() -> None:
    for kind, low, high in ((ValueType.UINT8, 0, 255), (ValueType.INT8, -128, 127)):
        found = array(kind, np.array([low, high], np.int64))
        assert found.value.tolist() == [low, high]
        assert encode(found)[12:] == struct.pack("<2" + ("B" if low == 0 else "b"), low, high)


def test_arrays_of_numbers_that_are_rounded_or_none() -> None:
    assert encode(array(ValueType.UINT8, np.array([], np.int64))) == struct.pack("<IQ", 0, 0)
    assert encode(array(ValueType.FLOAT32, np.array([0.1])))[12:] == struct.pack("<f", 0.1)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (0, ValueType.UINT32),
        (2**32 - 1, ValueType.UINT32),
        (2**32, ValueType.UINT64),
        (2**64 - 1, ValueType.UINT64),
        (-1, ValueType.INT32),
        (-(2**31), ValueType.INT32),
        (-(2**31) - 1, ValueType.INT64),
        ([2**31 - 1], ValueType.INT32),
        ([2**31], ValueType.INT64),
        ([-(2**31), 0], ValueType.INT32),
        ([2**63 - 1], ValueType.INT64),
        ([2**63], ValueType.UINT64),
    ],
)
def test_the_narrowest_type_of_integers(number: int | list[int], kind: ValueType) -> None:
    found = typed({"k": number})["k"]
    assert (found.element or found.type) is kind


def test_a_stated_alignment_is_taken() -> None:
    for alignment in (None, 64):
        assert plan_file({ALIGNMENT_KEY: values.u32(64)}, [], alignment=alignment).alignment == 64
    assert plan_file({}, [], alignment=32).header == plan_file({}, []).header
    with pytest.raises(InvalidError, match="alignment 48 is not a power of two"):
        plan_file({}, [], alignment=48)


def test_a_file_of_more_than_all_bytes() -> None:
    half = Declared("a", (2**62,), I8_TYPE)
    with pytest.raises(InvalidError, match=r"the file would exceed 2\^63-1 bytes") as caught:
        plan_file({}, [half, Declared("b", (2**62,), I8_TYPE)])
    assert caught.value.field == 'tensor "b"'
    assert plan_file({}, [half, Declared("b", (2**62 - 4096,), I8_TYPE)]).size < 2**63


def test_names_and_shapes_that_are_not_written() -> None:
    plan_file({}, [Declared("n" * 63, (1,), F32_TYPE)])
    with pytest.raises(LimitError, match="name of 64 bytes, ggml reads at most 63"):
        plan_file({}, [Declared("é" * 32, (1,), F32_TYPE)])
    for shape in ((-1,), (2**63,)):
        with pytest.raises(InvalidError, match="is out of range"):
            plan_file({}, [Declared("a", shape, F32_TYPE)])


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(t(ti("a", [4])))

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with reader.open(path) as file:
        monkeypatch.setattr(system, "read_at", fail)
        with pytest.raises(InputError, match="Input/output error") as caught:
            file.tensors["a"].read_rows(0, 1)
        assert caught.value.offset == file.tensors["a"].offset


def test_bytes_of_tensors_are_copied_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with GGUFWriter(path) as out:
        out.declare("a", (2, 3), "F32")
        plan = out.begin()
        assert out.plan() is plan
        for start, data in ((5, bytes(19)), (0, b"\1\2\3\4\5")):
            out.write_bytes("a", data, start)
        for start, size in ((-1, 1), (24, 1), (20, 5)):
            with pytest.raises(InvalidError, match=rf"{size} bytes at byte {start} do not fit 24 bytes") as caught:
                out.write_bytes("a", bytes(size), start)
            assert caught.value.field == 'tensor "a"'
    with reader.open(path) as file:
        assert file.tensors["a"].data.tobytes() == b"\1\2\3\4\5" + bytes(19)


def test_a_written_file_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    out = GGUFWriter(path, {"k": 1})
    before = out.begun
    out.begin()
    assert (before, out.begun) == (False, True)
    out.take_back()
    assert os.listdir(tmp_path) == []
    out = GGUFWriter(path, {"k": 1})
    out.commit()
    assert path.exists()
    out.take_back()
    assert os.listdir(tmp_path) == []


def test_a_writer_that_is_closed_within_its_block(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with GGUFWriter(path) as out:
        out.commit()
    assert path.exists()
    path.unlink()
    with GGUFWriter(path) as out:
        out.abort()
    assert os.listdir(tmp_path) == []


def test_a_writer_takes_nothing_out_of_turn(tmp_path: Path) -> None:
    out = GGUFWriter(tmp_path / "a.gguf")
    out.declare("a", (1,), "I8")
    out.begin()
    for late in (out.begin, lambda: out.declare("b", (1,), "I8"), lambda: out.add("k", 1)):
        with pytest.raises(OutputError, match="the file is laid out already"):
            late()
    with pytest.raises(OutputError, match="0 of 1 bytes written"):
        out.seal()
    out.write("a", b"\1")
    out.commit()
    for late in (out.begin, out.commit, lambda: out.declare("b", (1,), "I8")):
        with pytest.raises(OutputError, match="the writer is closed"):
            late()
    with pytest.raises(OutputError, match="write before begin, or after the end"):
        out.write("a", b"\1")


def test_a_tensor_without_bytes_is_written_by_nobody(tmp_path: Path) -> None:
    with GGUFWriter(tmp_path / "a.gguf") as out:
        out.declare("a", (0, 4), "F32")
    with reader.open(tmp_path / "a.gguf") as file:
        assert file.tensors["a"].shape == (0, 4)


def test_added_keys_with_types(tmp_path: Path) -> None:
    out = GGUFWriter(tmp_path / "a.gguf")
    out.add("a", [1, 2], ValueType.UINT8)
    out.add("b", np.array([1.5]), ValueType.FLOAT64)
    out.add("c", 1, ValueType.UINT64)
    out.add("d", values.u8(3), ValueType.UINT64)  # a Value has its own
    kinds = [(value.type, value.element) for value in out.metadata.values()]
    assert kinds[:2] == [(ValueType.ARRAY, ValueType.UINT8), (ValueType.ARRAY, ValueType.FLOAT64)]
    assert kinds[2:] == [(ValueType.UINT64, None), (ValueType.UINT8, None)]
    with pytest.raises(InvalidError, match="256 does not fit UINT8") as caught:
        out.add("e", [256], ValueType.UINT8)
    assert caught.value.field == 'key "e"'
    out.abort()


def test_numbers_count_for_no_strings(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(pad(little.h(0, 2) + little.kv("a", U8, b"\1") + little.kv("b", ARR, a(U8, 3) + b"\1\2\3")))
    reader.open(path, limits=Limits(string_bytes=0)).close()


def test_a_safetensors_file_of_nothing_but_a_brace(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(little.u64(1) + b"{")
    with pytest.raises(FormatError, match="a safetensors file"):
        reader.open(path)
    path.write_bytes(little.u64(10) + b"{")
    with pytest.raises(FormatError, match="starts with"):
        reader.open(path)


def test_an_empty_string_after_another() -> None:
    """Whose length looks like the end of the one before."""
    for texts in (["", "a"], ["a", "", "", "b"], ["", ""], [""]):
        for o in (little, big):
            data = b"".join(o.s(text) for text in texts)
            assert read_strings(Cursor(data, "f", order=o.mark), len(texts)) == texts


def test_strings_at_the_end_of_the_bytes() -> None:
    """Fewer than eight bytes left where a length should be."""
    data = s("ab") + bytes(7)
    with pytest.raises(TruncatedError, match=r"length of string 1 of 2 needs 8 bytes, 7 left") as caught:
        skip_strings(Cursor(data, "f"), 2)
    assert caught.value.offset == 10
    assert skip_strings(Cursor(data, "f"), 1) == 2
    for many in (0, 600):  # some hundreds are taken at once, and what follows is looked at in the same way
        data = s("ab") * many + bytes(7)
        with pytest.raises(TruncatedError, match=rf"length of string {many} of {many + 1} needs 8 bytes") as caught:
            skip_strings(Cursor(data, "f"), many + 1)
        assert caught.value.offset == 10 * many


@pytest.mark.parametrize("before", [0, 1, 600])
@pytest.mark.parametrize("o", [little, big], ids=["little", "big"])
def test_a_short_string_that_is_not_all_there(before: int, o: Order) -> None:
    data = o.s("ab") * before + o.u64(200) + b"x" * 199
    with pytest.raises(TruncatedError, match=rf"string {before} of {before + 1} needs 200 bytes, 199 left") as caught:
        skip_strings(Cursor(data, "f", order=o.mark), before + 1)
    assert caught.value.offset == 10 * before
    cursor = Cursor(data + b"x", "f", order=o.mark)
    assert skip_strings(cursor, before + 1) == 200
    assert cursor.pos == len(data) + 1


@pytest.mark.parametrize("texts", [["a\0b"], ["ab", "c\0"], ["\0"], ["x" * 256], ["x" * 300, "y", ""], []])
@pytest.mark.parametrize("o", [little, big], ids=["little", "big"])
def test_strings_that_hold_what_separates_them(texts: list[str], o: Order) -> None:
    data = b"".join(o.s(text) for text in texts) + b"\7" * 9
    cursor = Cursor(data, "f", order=o.mark)
    assert read_strings(cursor, len(texts)) == texts
    assert cursor.pos == len(data) - 9
    again = Cursor(data, "f", order=o.mark)
    assert skip_strings(again, len(texts)) == max(map(len, texts), default=0)
    assert again.pos == cursor.pos


def test_a_tensor_without_elements_that_no_array_has_the_shape_of(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(pad(little.h(1, 0) + ti("a", [0, 2**61], 1)) + bytes(32))
    with reader.open(path) as file:
        assert file.tensors["a"].data.nbytes == 0
        with pytest.raises(UnsupportedError, match="no array of float32 has shape") as caught:
            file.tensors["a"].dequantize()
    assert caught.value.field == 'tensor "a"'
    path.write_bytes(pad(little.h(1, 0) + ti("a", [0, 2**60], 1)) + bytes(32))
    with reader.open(path) as file:
        assert file.tensors["a"].dequantize().shape == (2**60, 0)


def test_nested_arrays_are_written_in_the_other_order(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(k(ARR, a(ARR, 1) + a(U32, 1) + little.u32(5)))
    with reader.open(path) as file:
        header = plan_file({"k": file.metadata.stored("k")}, [], endian="big").header
    assert header == pad(big.h(0, 1) + big.kv("k", ARR, big.a(ARR, 1) + big.a(U32, 1) + big.u32(5)))
