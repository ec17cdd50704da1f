"""The views of an open file: lazy, and safe when the file changes or is closed."""

from __future__ import annotations

import os
import re
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from gguf_forge.errors import (
    ChangedInputError,
    ForgeError,
    FormatError,
    InputError,
    InvalidError,
    TruncatedError,
    UnsupportedError,
)
from gguf_forge.format import part, reader, values
from gguf_forge.format.findings import findings
from gguf_forge.format.foreign import FOREIGN_TYPES
from gguf_forge.format.layout import ValueType
from gguf_forge.format.parse import parse
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.types import REMOVED, known_type
from tests.conftest import PLATFORM, descriptors, make_pipe, undecodable
from tests.format.notation import ARR, I32, OK, Q4_K, STR, U16, a, h, kv, pad, s, ti, u64


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    with GGUFWriter(path, {"general.architecture": values.string("llama")}) as out:
        out.add("tokenizer.ggml.tokens", [f"token {i}" for i in range(100)])
        out.add("tokenizer.ggml.scores", np.arange(100, dtype=np.float32))
        out.add_tensor("w", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
        out.add_tensor("s", np.array(7, np.int32))
        out.add_tensor("e", np.zeros((0, 4), np.float32))
        out.add_tensor("q", np.arange(2 * 34, dtype=np.uint8).reshape(2, 34), "Q8_0")
    return path


def test_metadata_is_a_mapping_with_types(model: Path) -> None:
    with gguf_forge.open(model) as file:
        found = file.metadata
        assert list(found) == ["general.architecture", "tokenizer.ggml.tokens", "tokenizer.ggml.scores"]
        assert len(found) == 3
        assert "tokenizer.ggml.tokens" in found
        assert "absent" not in found
        assert found.get("absent") is None
        with pytest.raises(KeyError):
            found["absent"]
        assert found.type_of("general.architecture") is ValueType.STRING
        assert found.element_type_of("general.architecture") is None
        assert found.type_of("tokenizer.ggml.scores") is ValueType.ARRAY
        assert found.element_type_of("tokenizer.ggml.scores") is ValueType.FLOAT32
        assert found.count_of("tokenizer.ggml.tokens") == 100
        assert found["tokenizer.ggml.tokens"] == [f"token {i}" for i in range(100)]
        assert found["tokenizer.ggml.tokens"] is found["tokenizer.ggml.tokens"]
        assert found["tokenizer.ggml.scores"].dtype == np.float32
        assert "3 keys" in repr(found)
        assert "4 tensors" in repr(file)


def test_tensors_are_views(model: Path) -> None:
    with gguf_forge.open(model) as file:
        w, scalar, empty, q = file.tensors.values()
        assert (w.name, w.type.name, w.shape, w.nbytes, w.rows, w.row_bytes) == ("w", "F32", (2, 3, 4), 96, 6, 16)
        assert w.data.shape == (2, 3, 16)
        assert w.data.dtype == np.uint8
        assert not w.data.flags.writeable
        assert w.data.tobytes() == model.read_bytes()[w.offset : w.offset + 96]
        assert np.array_equal(w.dequantize(), np.arange(24).reshape(2, 3, 4))
        assert np.array_equal(w.read_rows(2, 5).view(np.float32), np.arange(8, 20).reshape(3, 4))
        assert scalar.shape == ()
        assert scalar.data.shape == (4,)
        assert scalar.dequantize() == 7
        assert scalar.read_rows(0, 1).shape == (1, 4)
        assert empty.data.shape == (0, 16)
        assert empty.dequantize().shape == (0, 4)
        assert empty.read_rows(0, 0).shape == (0, 16)
        assert q.shape == (2, 32)
        assert q.data.shape == (2, 34)
        assert repr(w) == '<Tensor "w" F32 (2, 3, 4)>'
        for start, stop in ((-1, 1), (0, 7), (3, 2)):
            with pytest.raises(InvalidError, match="of 6"):
                w.read_rows(start, stop)


def test_without_a_decoder_blocks_are_not_decoded(model: Path) -> None:
    with reader.open(model) as file:
        with pytest.raises(UnsupportedError, match='tensor "q": no decoder for Q8_0'):
            file.tensors["q"].dequantize()
        assert file.tensors["s"].dequantize() == 7


def test_arrays_outlive_the_file(model: Path) -> None:
    with gguf_forge.open(model) as file:
        data = file.tensors["w"].data
        tensor, metadata = file.tensors["w"], file.metadata
    assert data.view(np.float32).sum() == sum(range(24))
    with pytest.raises(InputError, match="closed"):
        tensor.data  # noqa: B018
    with pytest.raises(InputError, match="closed"):
        tensor.read_rows(0, 1)
    with pytest.raises(InputError, match="closed"):
        metadata["general.architecture"]
    file.close()


def test_no_descriptor_is_left_open(model: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(OK[:-20])
    before = descriptors()
    for _ in range(5):
        gguf_forge.open(model).close()
        with pytest.raises(FormatError):
            gguf_forge.open(bad)
    assert descriptors() == before


@pytest.mark.parametrize("change", ["cut", "append", "edit"])
def test_a_file_that_changes_is_noticed(change: str, model: Path) -> None:
    if change == "cut" and PLATFORM == "win32":
        pytest.skip("what is mapped cannot be cut")
    with gguf_forge.open(model) as file:
        size = model.stat().st_size
        if change == "edit":
            with model.open("r+b") as other:
                other.write(b"GGUF")
            os.utime(model, ns=(1, 1))
        else:
            os.truncate(model, 100 if change == "cut" else size + 1)
        for touch in (
            lambda: file.tensors["w"].data,
            lambda: file.tensors["w"].read_rows(0, 1),
            lambda: file.metadata["general.architecture"],
        ):
            with pytest.raises(ChangedInputError):
                touch()


def test_a_short_read_is_a_change(model: Path) -> None:
    with gguf_forge.open(model) as file:
        part = file.parts[0]
        with pytest.raises(ChangedInputError, match="cut"):
            part.read_into(np.empty(100, np.uint8), part.size - 50)


@pytest.mark.skipif(PLATFORM == "win32", reason="what is mapped cannot be replaced")
def test_a_file_replaced_by_name_stays_readable(model: Path, tmp_path: Path) -> None:
    with gguf_forge.open(model) as file:
        other = tmp_path / "other"
        other.write_bytes(OK)
        other.replace(model)
        assert file.metadata["general.architecture"] == "llama"
        assert file.tensors["w"].dequantize().sum() == sum(range(24))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    make_pipe(fifo)
    for path in (fifo, tmp_path, Path("/dev/null")):
        assert not stat.S_ISREG(path.stat().st_mode)
        with pytest.raises(InvalidError, match="not a regular file"):
            gguf_forge.open(path)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No such file|cannot find"):
        gguf_forge.open(tmp_path / "absent.gguf")
    with pytest.raises(InputError):
        gguf_forge.open("nul\0byte")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(InputError):
        gguf_forge.open(loop)


def test_names_are_never_paths_and_never_raw(tmp_path: Path) -> None:
    path = undecodable(tmp_path, b"f\x1b[2J.gguf")
    path.write_bytes(OK[:-20])
    with pytest.raises(FormatError) as caught:
        gguf_forge.open(path)
    assert "\x1b" not in str(caught.value)
    assert r"f\x1b[2J.gguf" in str(caught.value)


def test_a_sparse_terabyte_opens(tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"
    path.write_bytes(pad(h(1, 0) + ti("a", [2**38])))
    os.truncate(path, path.stat().st_size + 2**40)
    with gguf_forge.open(path) as file:
        tensor = file.tensors["a"]
        assert tensor.nbytes == 2**40
        assert tensor.data.nbytes == 2**40
        assert tensor.data[-4:].sum() == 0


def test_rows_past_four_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"
    width, rows = 2**16, 2**17  # 8 GiB of Q4_K would be 4.5 GiB: offsets above 2^32
    head = pad(h(1, 0) + ti("a", [width, rows], Q4_K))
    row = width // 256 * 144
    path.write_bytes(head)
    os.truncate(path, len(head) + row * rows)
    with path.open("r+b") as out:
        out.seek(len(head) + row * (rows - 1))
        out.write(bytes(range(144)))
    with gguf_forge.open(path) as file:
        tensor = file.tensors["a"]
        assert tensor.read_rows(rows - 1, rows)[0, :144].tolist() == list(range(144))
        assert tensor.data[-1, :144].tolist() == list(range(144))


def test_threads_read_rows_at_once(model: Path) -> None:
    with gguf_forge.open(model) as file:
        tensor = file.tensors["w"]
        seen: list[bytes] = []
        threads = [threading.Thread(target=lambda: seen.append(tensor.read_rows(1, 5).tobytes())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == 8 * [tensor.data.reshape(6, 16)[1:5].tobytes()]


@pytest.mark.parametrize("long_at", [None, 0, 70_000, 99_999])
@pytest.mark.parametrize("order", ["little", "big"])
def test_long_arrays_of_strings(long_at: int | None, order: str, tmp_path: Path) -> None:
    """Lengths above 255, wherever they are, and more strings than are walked at a time."""
    words = [f"{i:x}" * (i % 3) for i in range(100_000)]
    if long_at is not None:
        words[long_at] = "é" * 1000
    assert_read_back(words, tmp_path / "f.gguf", order)


def assert_read_back(words: list[str], path: Path, order: str) -> None:
    with GGUFWriter(path, endian=order) as out:
        out.add("a.words", words)
        out.add("a.after", 7)
    with gguf_forge.open(path) as file:
        assert file.metadata["a.after"] == 7
        assert file.metadata["a.words"] == words


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(
    "pattern",
    [[""], ["", "", "abc"], ["x" * 290, ""], ["\0" * 12], ["a\0\0", "é", ""], ["\1" + "\0" * 7], ["\udcff", "ok"]],
)
def test_strings_that_look_like_lengths(pattern: list[str], order: str, tmp_path: Path) -> None:
    assert_read_back(pattern * 3000, tmp_path / "f.gguf", order)


def test_a_long_string_at_the_end_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"
    good = h(0, 1) + kv("k", ARR, a(STR, 2) + s("x") + s("y" * 256))
    path.write_bytes(good)
    with gguf_forge.open(path) as file:
        assert file.metadata["k"] == ["x", "y" * 256]
    path.write_bytes(h(0, 1) + kv("k", ARR, a(STR, 2) + s("x") + u64(257) + b"y" * 256))
    with pytest.raises(FormatError, match="string 1 of 2 needs 257 bytes, 256 left"):
        gguf_forge.open(path)


def test_public_names() -> None:
    for name in dir(gguf_forge):
        getattr(gguf_forge, name)
    assert gguf_forge.GGUFWriter is GGUFWriter
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        gguf_forge.absent  # noqa: B018


def foreign(folder: Path, type_id: int, data: int = 32, dims: list[int] | None = None) -> Path:
    """A file of three tensors, the second of a type that is not read; `data` bytes are left for it and the third."""
    records = ti("a", [4]) + ti("b", dims or [256, 2], type_id, 32) + ti("c", [4], 0, 32 + data)
    path = folder / "foreign.gguf"
    path.write_bytes(pad(h(3, 1) + kv("general.name", STR, s("Mine")) + records) + bytes(64 + data))
    return path


@pytest.mark.parametrize(
    ("type_id", "whose"),
    [
        (156, "IQ3_KS of ik_llama.cpp"),
        (340, "IQ5_K_R4 of ik_llama.cpp"),
        (4, "Q4_2 of an older llama.cpp"),
        (31, "Q4_0_4_4 of an older llama.cpp"),
        (36, "I2_S of BitNet or IQ4_NL_4_4 of an older llama.cpp"),
        (142, "IQ2_TN of ik_llama.cpp or PQ2_0 of PrismML's llama.cpp"),
        (1000, None),
        (2**32 - 1, None),
    ],
)
def test_a_type_of_another_program_hides_nothing_else_where_that_is_asked_for(
    type_id: int, whose: str | None, tmp_path: Path
) -> None:
    path = foreign(tmp_path, type_id)
    with pytest.raises(UnsupportedError) as caught:
        gguf_forge.open(path)
    assert caught.value.text == f"unknown tensor type id {type_id}" + (f", probably {whose}" if whose else "")
    with gguf_forge.open(path, unknown_types=True) as file:
        assert file.metadata["general.name"] == "Mine"
        assert list(file.tensors) == ["a", "c"]
        assert (file.tensors["c"].dequantize() == 0).all()
        (unknown,) = file.unknown.values()
        assert (unknown.name, unknown.type_id, unknown.probably) == ("b", type_id, whose)
        assert (unknown.shape, unknown.offset, unknown.path) == ((2, 256), file.tensors["a"].offset + 32, path)
        assert not hasattr(unknown, "data")
        assert [tensor.name for tensor in file.listing()] == ["a", "b", "c"]
        assert repr(unknown) == f'<UnknownTensor "b" of type {type_id} (2, 256)>'
        assert [finding.rule for finding in findings(file)] == []


def test_numbers_of_types_that_are_read_are_no_other_programs() -> None:
    assert [number for number in FOREIGN_TYPES if known_type(number) is not None] == []
    assert REMOVED.keys() <= FOREIGN_TYPES.keys()


@pytest.mark.parametrize(
    ("data", "dims", "error", "text"),
    [
        (0, [256], InvalidError, "overlaps"),
        (-32, [256], InvalidError, "overlaps"),
        (1, [256], InvalidError, "not a multiple of the alignment"),
        (2**20, [2**32, 2**32], InvalidError, "dims product 2^64"),
        (2**20, [2**64 - 1], InvalidError, "dim 2^64-1"),
    ],
)
def test_a_tensor_of_unknown_size_keeps_the_other_rules(
    data: int, dims: list[int], error: type[ForgeError], text: str, tmp_path: Path
) -> None:
    records = ti("b", dims, 156) + ti("c", [4], 0, max(data, 0))
    path = tmp_path / "f.gguf"
    path.write_bytes(pad(h(2, 0) + records) + bytes(64 + max(data, 0)))
    with pytest.raises(error, match=re.escape(text)):
        gguf_forge.open(path, unknown_types=True)


def test_a_tensor_of_unknown_size_starts_within_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"
    path.write_bytes(pad(h(1, 0) + ti("b", [256], 156, 64)) + bytes(64))
    with pytest.raises(TruncatedError, match="1 byte at data offset 64, the file has 0 there"):
        gguf_forge.open(path, unknown_types=True)
    path.write_bytes(pad(h(1, 0) + ti("b", [256, 0], 156, 64)) + bytes(64))
    with gguf_forge.open(path, unknown_types=True) as file:
        assert file.unknown["b"].shape == (0, 256)


def test_a_set_with_types_of_another_program(tmp_path: Path) -> None:
    paths = [tmp_path / f"m-0000{i + 1}-of-00002.gguf" for i in range(2)]
    for i, path in enumerate(paths):
        keys = kv("split.no", U16, bytes([i, 0])) + kv("split.count", U16, bytes([2, 0]))
        keys += kv("split.tensors.count", I32, bytes([2, 0, 0, 0]))
        path.write_bytes(pad(h(1, 3) + keys + ti(f"t{i}", [256], 156 + i)) + bytes(32))
    with gguf_forge.open(paths[1], unknown_types=True) as file:
        assert [(t.name, t.path) for t in file.listing()] == [("t0", paths[0]), ("t1", paths[1])]
        assert not file.tensors


def test_a_file_that_is_cut_while_its_header_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a header is read from a map: what is not in memory any more would end the process."""
    path = tmp_path / "long.gguf"
    with GGUFWriter(path, {"general.architecture": values.string("llama")}) as out:
        out.add("long", values.strings([f"{i:09}" for i in range(100_000)]))

    def cut(*given: Any) -> Any:
        os.truncate(path, 0)
        return parse(*given)

    monkeypatch.setattr(part, "parse", cut)
    with pytest.raises(ChangedInputError, match=r"was cut while it was opened|was changed"):
        reader.open(path)
