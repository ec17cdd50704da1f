"""Importance matrices: both forms, what llama-quantize makes of them, and everything that can be wrong with one."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.errors import ForgeError, InputError, InvalidError, RecipeError, TruncatedError
from gguf_forge.format import values
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.quant.imatrix import Imatrix, coverage, load_imatrix, matrix_runs, save_imatrix

MODEL = Path(__file__).parents[2] / "fixtures" / "models" / "PyLlama-7M"
GGUF, DAT = MODEL / "imatrix.gguf", MODEL / "imatrix.dat"


def write(path: Path, tensors: dict[str, object], *leave_out: str) -> Path:
    metadata = {
        "general.type": values.string("imatrix"),
        "imatrix.datasets": values.strings(["text"]),
        "imatrix.chunk_count": values.u32(2),
        "imatrix.chunk_size": values.u32(512),
    }
    with GGUFWriter(path, {k: v for k, v in metadata.items() if k not in leave_out}) as out:
        for name, data in tensors.items():
            array = np.asarray(data)
            out.add_tensor(name, array.astype(np.float32) if array.dtype == np.float64 else array)
    return path


def experts(path: Path) -> Imatrix:
    """Three experts of width two, the second without data."""
    return load_imatrix(
        write(
            path / "m.gguf",
            {
                "blk.0.ffn_up_exps.weight.in_sum2": [[1.0, 2.0], [0.0, 0.0], [9.0, 5.0]],
                "blk.0.ffn_up_exps.weight.counts": [[3.0], [0.0], [7.0]],
                "token_embd.weight.in_sum2": [4.0, 8.0],
                "token_embd.weight.counts": [4.0],
            },
        )
    )


def test_both_forms_give_the_same_weights() -> None:
    new, old = load_imatrix(GGUF), load_imatrix(DAT)
    assert new.entries.keys() == old.entries.keys()
    assert len(new.entries) == 42
    for name in new.entries:
        np.testing.assert_array_equal(new.weights(name), old.weights(name))
    assert (new.datasets, new.chunks, new.chunk_size) == (("calibration.txt",), 585, 256)
    assert (old.datasets, old.chunks, old.chunk_size, old.legacy) == (("calibration.txt",), 585, 0, True)


def test_saving_gives_the_files_of_llama_imatrix(tmp_path: Path) -> None:
    matrix = load_imatrix(GGUF)
    save_imatrix(matrix, tmp_path / "a.gguf")
    save_imatrix(matrix, tmp_path / "a.dat", legacy=True)
    save_imatrix(load_imatrix(DAT), tmp_path / "b.dat", legacy=True)
    assert (tmp_path / "a.gguf").read_bytes() == GGUF.read_bytes()
    assert (tmp_path / "a.dat").read_bytes() == DAT.read_bytes()
    assert (tmp_path / "b.dat").read_bytes() == DAT.read_bytes()


def test_experts_are_saved_too(tmp_path: Path) -> None:
    matrix = experts(tmp_path)
    save_imatrix(matrix, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() != b""
    again = load_imatrix(tmp_path / "again.gguf")
    for name in matrix.entries:
        np.testing.assert_array_equal(again.weights(name), matrix.weights(name))


def test_weights_are_sums_divided_in_single_precision(tmp_path: Path) -> None:
    weights = experts(tmp_path).weights("blk.0.ffn_up_exps.weight", (3, 4, 2))
    third = np.float32(1) / np.float32(3)
    assert weights is not None
    assert weights.dtype == np.float32
    expected = np.array(
        [[third, np.float32(2) / np.float32(3)], [1, 1], [9 / np.float32(7), 5 / np.float32(7)]], dtype=np.float32
    )
    np.testing.assert_array_equal(weights, expected)


@given(count=st.integers(1, 2**31 - 1), total=st.floats(0, 2.0**100, width=32))
def test_division_is_that_of_c(count: int, total: float) -> None:
    from gguf_forge.quant.imatrix import Entry

    entry = Entry(np.full((1, 1), total, dtype=np.float32), np.array([count]))
    assert entry.weights()[0] == np.float32(total) / np.float32(count)


def test_one_count_serves_all_experts(tmp_path: Path) -> None:
    tensors: dict[str, object] = {"a.weight.in_sum2": [2.0, 4.0, 6.0, 8.0], "a.weight.counts": [2.0]}
    weights = load_imatrix(write(tmp_path / "m.gguf", tensors)).weights("a.weight", (2, 9, 2))
    np.testing.assert_array_equal(weights, [[1, 2], [3, 4]])


def test_counts_are_rounded_half_up(tmp_path: Path) -> None:
    tensors: dict[str, object] = {"a.weight.in_sum2": [3.0], "a.weight.counts": [2.5]}
    assert load_imatrix(write(tmp_path / "m.gguf", tensors)).weights("a.weight") == np.array([1], dtype=np.float32)


def test_what_it_has_nothing_for(tmp_path: Path) -> None:
    assert experts(tmp_path).weights("output.weight", (4, 2)) is None


def test_a_wrong_width_is_refused_by_name_except_in_embeddings(tmp_path: Path) -> None:
    matrix = experts(tmp_path)
    with pytest.raises(RecipeError, match=r'entry "blk.0.ffn_up_exps.weight": 6 values, but the tensor has 4 x 2 inp'):
        matrix.weights("blk.0.ffn_up_exps.weight", (4, 9, 2))
    assert matrix.weights("token_embd.weight", (100, 3)) is None


def test_coverage_names_what_is_amiss(tmp_path: Path) -> None:
    found = coverage(
        experts(tmp_path),
        {"blk.0.ffn_up_exps.weight": (3, 4, 2), "blk.0.attn_q.weight": (4, 2), "token_embd.weight": (9, 3)},
    )
    assert found.covered == ("blk.0.ffn_up_exps.weight",)
    assert found.missing == ("blk.0.attn_q.weight",)
    assert found.partial == (("blk.0.ffn_up_exps.weight", 1, 3),)
    assert found.unused == ()
    assert found.lines() == [
        "importance matrix covers 1 of 3 tensors",
        "importance matrix: not in it: blk.0.attn_q.weight",
        "importance matrix: some experts have no data: blk.0.ffn_up_exps.weight (1 of 3)",
        "token_embd.weight: 2 values for 3 inputs, ignored",
    ]
    assert coverage(experts(tmp_path), {}).lines()[-1].startswith(
        "importance matrix: for no tensor here: blk.0.ffn_up_exps.weight, tok"
    )


def test_an_entry_without_data_covers_nothing_and_many_names_are_cut(tmp_path: Path) -> None:
    names = [f"blk.{i}.attn_q.weight" for i in range(20)]
    stored: dict[str, object] = {}
    for name in names:
        stored |= {f"{name}.in_sum2": [0.0, 0.0], f"{name}.counts": [0.0]}
    found = coverage(load_imatrix(write(tmp_path / "m.gguf", stored)), dict.fromkeys(names, (4, 2)))
    assert (found.covered, found.empty, found.partial) == ((), tuple(names), ())
    assert found.lines(2) == [
        "importance matrix covers 0 of 20 tensors",
        f"importance matrix: in it without data, so that all inputs count alike: {names[0]}, {names[1]} and 18 more",
    ]


def test_entries_can_be_chosen(tmp_path: Path) -> None:
    matrix = experts(tmp_path)
    assert list(matrix.only(["exps"]).entries) == ["blk.0.ffn_up_exps.weight"]
    assert list(matrix.without(["blk.", "nothing"]).entries) == ["token_embd.weight"]


def test_rows_are_cut_where_experts_meet() -> None:
    assert list(matrix_runs((3, 4, 2), 3, 10)) == [(0, 3, 4), (1, 4, 8), (2, 8, 10)]
    assert list(matrix_runs((4, 2), 1, 3)) == [(0, 1, 3)]


GOOD: dict[str, object] = {"a.weight.in_sum2": [1.0, 2.0], "a.weight.counts": [1.0]}


@pytest.mark.parametrize(
    ("tensors", "leave_out", "message"),
    [
        ({"a.weight.in_sum2": [1.0]}, "", r'entry "a.weight": .counts is missing'),
        ({"a.weight.counts": [1.0]}, "", r'entry "a.weight": .in_sum2 is missing'),
        ({"a.weight": [1.0]}, "", "no importance matrix: no tensor ends in .in_sum2"),
        (GOOD | {"a.weight.counts": np.array([1], dtype=np.float16)}, "", ".counts is F16, not F32"),
        (GOOD | {"a.weight.counts": [1.0] * 3}, "", "2 sums and 3 counts"),
        (GOOD | {"a.weight.in_sum2": [1.0, np.nan]}, "", 'entry "a.weight.in_sum2": value 1 of 2 is nan, not finite'),
        (GOOD | {"a.weight.in_sum2": [np.inf, 1.0]}, "", "value 0 of 2 is inf, not finite"),
        (GOOD | {"a.weight.in_sum2": [1.0, -2.0]}, "", "value 1 of 2 is -2.0, negative; 1 such"),
        (GOOD | {"a.weight.counts": [-1.0]}, "", 'entry "a.weight.counts": value 0 of 1 is -1.0, negative'),
        (GOOD | {"a.weight.counts": [np.nan]}, "", "is nan, not finite"),
        (GOOD | {"a.weight.counts": [1e30]}, "", "a count of 1[.]0"),
        (GOOD, "imatrix.chunk_size", "no importance matrix: imatrix.chunk_size missing"),
        (GOOD, "imatrix.datasets", "no importance matrix: imatrix.datasets missing"),
    ],
)
def test_a_bad_matrix_is_refused_by_name(
    tmp_path: Path, tensors: dict[str, object], leave_out: str, message: str
) -> None:
    path = write(tmp_path / "m.gguf", tensors, leave_out)
    with pytest.raises(RecipeError, match=message):
        load_imatrix(path)


def test_keys_of_another_type_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", GOOD)
    path.write_bytes(path.read_bytes().replace(b"chunk_size\x04", b"chunk_size\x05"))
    with pytest.raises(RecipeError, match=r'key "imatrix.chunk_size": INT32, not UINT32'):
        load_imatrix(path)


def dat(name: bytes = b"a.weight", calls: int = 2, floats: tuple[float, ...] = (4.0, 6.0), entries: int = 1) -> bytes:
    return b"".join(
        (
            struct.pack("<ii", entries, len(name)),
            name,
            struct.pack("<ii", calls, len(floats)),
            struct.pack(f"<{len(floats)}f", *floats),
        )
    )


def test_dat_files_may_end_after_the_entries(tmp_path: Path) -> None:
    path = tmp_path / "m.dat"
    path.write_bytes(dat())
    matrix = load_imatrix(path)
    np.testing.assert_array_equal(matrix.weights("a.weight"), [2, 3])
    assert (matrix.chunks, matrix.datasets) == (0, ())
    path.write_bytes(dat(calls=0) + struct.pack("<i", 7))
    matrix = load_imatrix(path)
    np.testing.assert_array_equal(matrix.weights("a.weight"), [4, 6])
    assert (matrix.chunks, matrix.datasets) == (7, ())


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", TruncatedError, "number of entries: 4 bytes expected, 0 left"),
        (struct.pack("<i", 0), InvalidError, "no importance matrix: 0 entries"),
        (struct.pack("<i", -1), InvalidError, "no importance matrix: -1 entries"),
        (struct.pack("<i", 2**31 - 1), InvalidError, "2147483647 entries in 0 bytes"),
        (struct.pack("<ii", 1, 2**31 - 1) + bytes(20), InvalidError, "entry 0: a name of 2147483647 bytes"),
        (struct.pack("<ii", 1, -5) + bytes(20), InvalidError, "entry 0: a name of -5 bytes"),
        (struct.pack("<ii", 1, 2) + b"\0a" + bytes(20), InvalidError, "entry 0: a name that begins with NUL"),
        (struct.pack("<ii", 1, 4000) + bytes(20), TruncatedError, "name of entry 0: 4000 bytes expected, 20 left"),
        (dat()[:-1], TruncatedError, "values of a.weight: 8 bytes expected, 7 left"),
        (dat(floats=()) + bytes(9), InvalidError, 'entry "a.weight": 0 values'),
        (dat().replace(b"\2\0\0\0\2\0\0\0", b"\2\0\0\0\xff\xff\xff\x7f"), TruncatedError, "8589934588 bytes expected"),
        (dat(floats=(1.0, float("nan"))), RecipeError, 'entry "a.weight": value 1 of 2 is nan, not finite'),
        (dat(floats=(-1.0,)), RecipeError, "value 0 of 1 is -1.0, negative"),
        (dat(entries=2) + dat()[4:], InvalidError, 'entry "a.weight": a second entry of this name'),
        (dat() + b"\1\0", TruncatedError, "number of chunks: 4 bytes expected, 2 left"),
        (dat() + struct.pack("<ii", 1, 9) + b"abc", TruncatedError, "data set's name: 9 bytes expected, 3 left"),
    ],
)
def test_a_bad_dat_file_is_refused(tmp_path: Path, data: bytes, error: type[ForgeError], message: str) -> None:
    path = tmp_path / "m.dat"
    path.write_bytes(data)
    with pytest.raises(error, match=message):
        load_imatrix(path)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "m.dat"
    path.write_bytes(data)
    try:
        load_imatrix(path)
    except ForgeError as error:
        refused = str(error)
    else:
        return
    assert str(path) in refused
    assert "\n" not in refused


@given(at=st.integers(0, len(dat()) - 1), byte=st.integers(0, 255))
def test_a_damaged_byte_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, at: int, byte: int) -> None:
    data = bytearray(dat() + struct.pack("<ii", 3, 4) + b"text")
    data[at] = byte
    path = tmp_path_factory.mktemp("one") / "m.dat"
    path.write_bytes(data)
    try:
        matrix = load_imatrix(path)
    except ForgeError:
        return
    for name in matrix.entries:
        weights = matrix.weights(name)
        assert weights is not None
        assert np.isfinite(weights).all()


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No such file|cannot find"):
        load_imatrix(tmp_path / "none.gguf")


def test_a_model_is_no_importance_matrix(tmp_path: Path) -> None:
    with GGUFWriter(tmp_path / "m.gguf", {"general.architecture": values.string("llama")}) as out:
        out.add_tensor("output.weight", np.zeros((2, 2), dtype=np.float32))
    with pytest.raises(RecipeError, match=r"no importance matrix: imatrix.datasets, imatrix.chunk_count, im"):
        load_imatrix(tmp_path / "m.gguf")
