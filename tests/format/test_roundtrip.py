"""What is written is what is read: every value type, every tensor type, both byte orders, any alignment."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import gguf_forge
from gguf_forge.errors import InvalidError, LimitError, OutputError, UnsupportedError
from gguf_forge.format import reader, values
from gguf_forge.format.layout import ALIGNMENT_KEY, ValueType
from gguf_forge.format.plan import Declared
from gguf_forge.format.values import Value
from gguf_forge.format.writer import GGUFWriter
from tests.format import strategies
from tests.format.notation import ARR, F32, OK, Q4_K, STR, U8, U32, Order, a, arch, big, h, kv, little, pad, s, ti, u32


def write(
    path: Path,
    metadata: dict[str, Value],
    tensors: list[tuple[Declared, NDArray[np.uint8]]],
    endian: str,
    alignment: int,
) -> None:
    with GGUFWriter(path, metadata, endian=endian, alignment=alignment) as out:
        for declared, _ in tensors:
            out.declare(declared.name, declared.shape, declared.type)
        out.begin()
        for declared, raw in reversed(tensors):
            for row in reversed(range(len(raw))):
                out.write(declared.name, raw[row], row)


@settings(max_examples=200)
@given(
    metadata=strategies.METADATA,
    tensors=strategies.tensors(),
    endian=st.sampled_from(["little", "big"]),
    alignment=st.sampled_from([1, 8, 32, 64, 4096]),
)
def test_write_then_read(
    tmp_path_factory: pytest.TempPathFactory,
    metadata: dict[str, Value],
    tensors: list[tuple[Declared, NDArray[np.uint8]]],
    endian: str,
    alignment: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "roundtrip.gguf"
    write(path, metadata, tensors, endian, alignment)
    first = path.read_bytes()
    with reader.open(path) as file:
        assert (file.version, file.endian, file.alignment) == (3, endian, alignment)
        assert [k for k in file.metadata if k != ALIGNMENT_KEY] == list(metadata)
        for key, value in metadata.items():
            assert file.metadata.value(key) == value
            assert file.metadata.type_of(key) is value.type
            assert file.metadata.element_type_of(key) is value.element
        assert list(file.tensors) == [d.name for d, _ in tensors]
        for declared, raw in tensors:
            tensor = file.tensors[declared.name]
            assert (tensor.type, tensor.shape) == (declared.type, declared.shape)
            assert tensor.offset % alignment == 0
            assert tensor.data.shape == (*declared.shape[:-1], raw.shape[1])
            assert tensor.data.tobytes() == raw.tobytes()
            assert tensor.read_rows(0, tensor.rows).tobytes() == raw.tobytes()
    assert len(first) % alignment == 0
    write(path, metadata, tensors, endian, alignment)
    assert path.read_bytes() == first


@pytest.mark.parametrize("o", [little, big])
def test_golden_bytes(o: Order, tmp_path: Path) -> None:
    """The writer's bytes against the layout written down by hand."""
    path = tmp_path / "f.gguf"
    endian = "little" if o is little else "big"
    with GGUFWriter(path, endian=endian, alignment=64) as out:
        out.add("general.architecture", "llama")
        out.add("a.numbers", [1, 2], ValueType.UINT32)
        out.add("a.words", ["x", ""])
        out.add("a.nested", [[1], ["y"]])
        out.add("a.half", 0.5)
        out.add_tensor("a", np.arange(6, dtype=np.float32).reshape(2, 3))
        out.add_tensor("b", np.array([0x3F80, 0x4000], np.uint16), "BF16")
    keys = (
        o.arch()
        + o.kv("a.numbers", ARR, o.a(U32, 2) + o.u32(1) + o.u32(2))
        + o.kv("a.words", ARR, o.a(STR, 2) + o.s("x") + o.s(""))
        + o.kv("a.nested", ARR, o.a(ARR, 2) + o.a(5, 1) + o.u32(1) + o.a(STR, 1) + o.s("y"))
        + o.kv("a.half", F32, struct.pack(o.mark + "f", 0.5))
        + o.kv("general.alignment", U32, o.u32(64))
    )
    infos = o.ti("a", [3, 2]) + o.ti("b", [2], 30, 64)
    data = pad(struct.pack(o.mark + "6f", *range(6)), 64) + pad(struct.pack(o.mark + "2H", 0x3F80, 0x4000), 64)
    assert path.read_bytes() == pad(o.h(2, 6) + keys + infos, 64) + data
    with gguf_forge.open(path) as file:
        assert file.tensors["a"].dequantize().tolist() == [[0, 1, 2], [3, 4, 5]]
        assert file.tensors["b"].dequantize().tolist() == [1, 2]
        assert file.metadata["a.nested"] == [[1], ["y"]]
        assert file.metadata["a.numbers"].dtype == np.uint32


def test_ok_file_is_written_as_the_notation_says(tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"
    with GGUFWriter(path, {"general.architecture": values.string("llama")}) as out:
        out.add_tensor("a", np.zeros(4, np.float32))
    assert path.read_bytes() == OK


def test_nan_payloads_and_odd_bytes_survive(tmp_path: Path) -> None:
    raw = pad(
        h(0, 4)
        + kv("n", F32, u32(0x7FC00001))
        + kv("a", ARR, a(F32, 2) + u32(0x7FA00001) + u32(0xFFC12345))
        + kv("s", STR, s(b"\xc3\x28\xff\0"))
        + kv("e", ARR, a(U8, 0))
    )
    path, copy = tmp_path / "f.gguf", tmp_path / "g.gguf"
    path.write_bytes(raw)
    with reader.open(path) as file, GGUFWriter(copy, {k: file.metadata.value(k) for k in file.metadata}):
        pass
    assert copy.read_bytes() == raw


def test_bools_other_than_one_are_true_and_rewritten_as_one(tmp_path: Path) -> None:
    path, copy = tmp_path / "f.gguf", tmp_path / "g.gguf"
    path.write_bytes(pad(h(0, 2) + kv("b", 7, b"\2") + kv("a", ARR, a(7, 3) + b"\0\1\xff")))
    with reader.open(path) as file, GGUFWriter(copy, {k: file.metadata.value(k) for k in file.metadata}):
        assert file.metadata["b"] is True
        assert file.metadata["a"].tolist() == [False, True, True]
    assert copy.read_bytes() == pad(h(0, 2) + kv("b", 7, b"\1") + kv("a", ARR, a(7, 3) + b"\0\1\1"))


def test_decoded_plain_types(tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"
    numbers = np.array([[1, -2], [3, 100]])
    types = {"F32": "f4", "F16": "f2", "F64": "f8", "I8": "i1", "I16": "i2", "I32": "i4", "I64": "i8"}
    for endian in ("little", "big"):
        with GGUFWriter(path, endian=endian) as out:
            for name, dtype in types.items():
                out.add_tensor(name, numbers.astype(dtype))
        with gguf_forge.open(path) as file:
            for name in types:
                assert file.tensors[name].type.name == name
                decoded = file.tensors[name].dequantize()
                assert decoded.dtype == np.float32
                assert np.array_equal(decoded, numbers)


def test_big_endian_blocks_are_decoded_and_not_added(tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"
    block = b"\x3c\0\0\0" + b"\1" * 12 + b"\x22" * 128  # d 1, dmin 0
    path.write_bytes(pad(big.h(1, 0) + big.ti("a", [256], Q4_K)) + block.ljust(160, b"\0"))
    with gguf_forge.open(path) as file:
        assert (file.tensors["a"].dequantize()[:128] == 2).all()
    with pytest.raises(UnsupportedError, match="big-endian"):
        GGUFWriter(path, endian="big").add_tensor("a", np.zeros((1, 144), np.uint8), "Q4_K")


def test_the_writer_refuses_what_the_reader_would(tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"

    def plan(
        name: str = "a", shape: tuple[int, ...] = (4,), kind: str = "F32", key: str = "k", alignment: int = 32
    ) -> None:
        out = GGUFWriter(path, {key: values.u32(1)}, alignment=alignment)
        out.declare(name, shape, kind)
        out.begin()

    for error, text, kwargs in (
        (LimitError, "64 bytes", {"name": "n" * 64}),
        (InvalidError, "empty name", {"name": ""}),
        (InvalidError, "NUL", {"name": "a\0b"}),
        (InvalidError, "surrogate|UTF-8", {"name": "a\udcff"}),
        (InvalidError, "5 dimensions", {"shape": (1, 1, 1, 1, 1)}),
        (InvalidError, "out of range", {"shape": (-1,)}),
        (InvalidError, "2\\^63-1", {"shape": (2**62, 4)}),
        (InvalidError, "multiple of the 32", {"shape": (31,), "kind": "Q4_0"}),
        (InvalidError, "empty key", {"key": ""}),
        (LimitError, "65536 bytes", {"key": "k" * 65536}),
        (InvalidError, "power of two", {"alignment": 24}),
        (InvalidError, "power of two", {"alignment": 0}),
        (LimitError, "limit of 1048576", {"alignment": 2**21}),
    ):
        with pytest.raises(error, match=text):
            plan(**kwargs)
    assert list(tmp_path.iterdir()) == []


def test_misuse_of_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"
    out = GGUFWriter(path)
    out.add("k", 1)
    with pytest.raises(InvalidError, match="duplicate key"):
        out.add("k", 2)
    out.declare("a", (2, 4), "F32")
    with pytest.raises(InvalidError, match="duplicate tensor name"):
        out.declare("a", (2, 4), "F32")
    with pytest.raises(OutputError, match="before begin"):
        out.write("a", bytes(16))
    with pytest.raises(InvalidError, match="needs a tensor type"):
        out.add_tensor("u", np.zeros(4, np.uint16))
    with pytest.raises(InvalidError, match="not stored as Q4_0"):
        out.add_tensor("u", np.zeros(32, np.float32), "Q4_0")
    with pytest.raises(InvalidError, match="18-byte blocks"):
        out.add_tensor("u", np.zeros(17, np.uint8), "Q4_0")
    out.begin()
    with pytest.raises(OutputError, match="laid out already"):
        out.add("late", 1)
    for blocks, row in ((bytes(16), 2), (bytes(16), -1), (bytes(48), 0), (bytes(15), 0)):
        with pytest.raises(InvalidError, match="do not fit"):
            out.write("a", blocks, row)
    with pytest.raises(InvalidError, match="not declared"):
        out.write("b", bytes(16))
    with pytest.raises(InvalidError, match="C-contiguous"):
        out.write("a", np.zeros((4, 2), np.float32).T)
    out.write("a", bytes(16), 1)
    with pytest.raises(OutputError, match="16 of 32 bytes written"):
        out.commit()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="closed"):
        out.commit()


def test_values_that_do_not_fit() -> None:
    makers: list[Callable[[], Value]] = [
        lambda: values.u8(256),
        lambda: values.u8(-1),
        lambda: values.i32(2**31),
        lambda: values.u32("1"),  # type: ignore[arg-type]
        lambda: values.u32(1.5),  # type: ignore[arg-type]
        lambda: values.u32(True),
        lambda: values.f32(1e300),
        lambda: values.string(b"x"),  # type: ignore[arg-type]
        lambda: values.boolean(1),  # type: ignore[arg-type]
        lambda: values.strings(["a", 1]),  # type: ignore[list-item]
        lambda: values.array(ValueType.UINT8, [1, 256]),
        lambda: values.array(ValueType.UINT8, np.array([256])),
        lambda: values.array(ValueType.INT32, np.array([1.5])),
        lambda: values.array(ValueType.INT32, np.zeros((2, 2), np.int32)),
        lambda: values.array(ValueType.ARRAY, [1]),
        lambda: values.infer([]),
        lambda: values.infer([1, "a"]),
        lambda: values.infer(None),
        lambda: values.infer(2**64),
        lambda: values.infer(object()),
    ]
    for make in makers:
        with pytest.raises(InvalidError):
            make()


def test_inferred_types() -> None:
    kinds = {
        ValueType.BOOL: True,
        ValueType.UINT32: 7,
        ValueType.INT32: -7,
        ValueType.UINT64: 2**40,
        ValueType.INT64: -(2**40),
        ValueType.FLOAT32: 0.5,
        ValueType.STRING: "x",
        ValueType.UINT8: np.uint8(1),
        ValueType.FLOAT64: np.float64(1),
    }
    for kind, value in kinds.items():
        assert values.infer(value).type is kind
    elements = {
        ValueType.INT32: [1, 2],
        ValueType.INT64: [1, 2**40],
        ValueType.FLOAT32: [1, 2.5],
        ValueType.STRING: ["a"],
        ValueType.BOOL: [True, False],
        ValueType.ARRAY: [[1], [2]],
        ValueType.UINT16: np.array([1], np.uint16),
    }
    for kind, value in elements.items():
        assert values.infer(value).element is kind


def test_values_of_two_types_are_not_equal() -> None:
    assert values.u32(1) != values.i32(1)
    assert values.f32(float("nan")) == values.f32(float("nan"))
    assert values.f32(0.0) != values.f32(-0.0)
    assert values.strings(["a"]) == values.strings(["a"])
    assert len({values.u32(1), values.u32(1), values.u8(1)}) == 2


def test_version_2_is_read(tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"
    path.write_bytes(pad(h(1, 1, 2) + arch() + ti("a", [4])) + bytes(32))
    with reader.open(path) as file:
        assert file.version == 2
        assert dict(file.metadata) == {"general.architecture": "llama"}
