"""The safetensors reader against the format's rules, the package's own writer, and files that break each rule."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from gguf_forge.errors import (
    ChangedInputError,
    ForgeError,
    FormatError,
    InvalidError,
    LimitError,
    TruncatedError,
    UnsupportedError,
)
from gguf_forge.source import open_checkpoint
from tests.source.containers import assert_a_checkpoint_or_an_error, entry, safetensors_bytes

FIXTURES = Path(__file__).parents[2] / "fixtures" / "safetensors"

BAD_FILES = {
    "S01_empty": (TruncatedError, "0 bytes"),
    "S02_7bytes": (TruncatedError, "7 bytes"),
    "S04_n_100m1": (LimitError, "100000001"),
    "S07_bad_utf8": (FormatError, "not UTF-8"),
    "S09_not_dict": (FormatError, "list"),
    "S12_missing_offsets": (InvalidError, "no data_offsets"),
    "S13_unknown_dtype": (UnsupportedError, "F37"),
    "S14_neg_shape": (InvalidError, "-4"),
    "S16_shape_wrap": (InvalidError, "2^63-1"),
    "S19_off_past_eof": (TruncatedError, "ends at byte 16"),
    "S21_gap": (InvalidError, "hole of 16 bytes"),
    "S26_meta_nonstr": (InvalidError, "__metadata__ 'a'"),
    "S27_deep_json": (LimitError, "nested"),
    "S32_f4_odd": (InvalidError, "whole number of bytes"),
}
ODD_FILES = {
    "S23_leading_space": "does not begin with '{'",
    "S31_off_unaligned_hdr": "not a multiple of 8",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_refused_by_name_of_the_rule(name: str) -> None:
    kind, text = BAD_FILES[name]
    with pytest.raises(ForgeError) as caught:
        open_checkpoint(FIXTURES / f"{name}.safetensors")
    assert type(caught.value) is kind
    assert text in str(caught.value)
    assert str(caught.value).startswith(str(FIXTURES / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_file_opens_with_a_note(name: str) -> None:
    with open_checkpoint(FIXTURES / f"{name}.safetensors") as checkpoint:
        assert any(ODD_FILES[name] in note for note in checkpoint.notes)
        assert checkpoint.tensors["w"].read().dtype == np.float32


def test_every_fixture_has_an_expectation() -> None:
    accepted = {"S24_zero_elem"}
    assert {path.stem for path in FIXTURES.glob("*.safetensors")} == BAD_FILES.keys() | ODD_FILES.keys() | accepted


def test_tensor_without_elements() -> None:
    with open_checkpoint(FIXTURES / "S24_zero_elem.safetensors") as checkpoint:
        assert checkpoint.tensors["w"].read().shape == (0, 4)
        assert checkpoint.notes == []


SIXTEEN = bytes(range(16))
RULES: dict[str, tuple[bytes, type[ForgeError], str]] = {
    "S03": (safetensors_bytes({}, length=2**64 - 1), LimitError, "18446744073709551615"),
    "S05": (safetensors_bytes({"w": entry()}, SIXTEEN, length=4000), TruncatedError, "4000"),
    "S06": (safetensors_bytes(b""), FormatError, "0 bytes"),
    "S08": (safetensors_bytes(b'{\n"w":'), FormatError, "line 2, column 5"),
    "S10": (safetensors_bytes({"w": entry(shape=[float("nan")])}, SIXTEEN), InvalidError, "NaN"),
    "S11": (
        safetensors_bytes(
            b'{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            b"1234",
        ),
        InvalidError,
        "'w' is given twice",
    ),
    "S11-field": (
        safetensors_bytes(b'{"w":{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}}', b"1234"),
        InvalidError,
        "'dtype' is given twice",
    ),
    "S15": (safetensors_bytes({"w": entry(shape=[4.0])}, SIXTEEN), InvalidError, "4.0"),
    "S15-bool": (safetensors_bytes({"w": entry(shape=[True, 4])}, SIXTEEN), InvalidError, "True"),
    "S17": (safetensors_bytes({"w": entry(shape=[8])}, SIXTEEN), InvalidError, "needs 32 bytes"),
    "S18": (safetensors_bytes({"w": entry(offsets=[16, 0])}, SIXTEEN), InvalidError, "-16"),
    "S20": (
        safetensors_bytes({"a": entry(), "b": entry()}, SIXTEEN),
        InvalidError,
        "overlaps tensor 'a' by 16 bytes",
    ),
    "S21": (
        safetensors_bytes({"a": entry(), "b": entry(offsets=[20, 36])}, SIXTEEN + bytes(20)),
        InvalidError,
        "hole of 4 bytes",
    ),
    "S22": (safetensors_bytes({"w": entry()}, SIXTEEN + b"x"), InvalidError, "1 trailing bytes"),
    "S22-no-tensors": (safetensors_bytes({}, b"PK\x03\x04"), InvalidError, "4 trailing bytes"),
    "S29": (safetensors_bytes({"w": entry(shape=[2**64])}, SIXTEEN), InvalidError, "18446744073709551616"),
    "S30": (safetensors_bytes({"w": entry(offsets=[-16, 0])}, SIXTEEN), InvalidError, "-16"),
    "S33": (
        safetensors_bytes({"w": entry(), "z": entry(shape=[0], offsets=[8, 8])}, SIXTEEN),
        InvalidError,
        "overlaps",
    ),
    "rank": (safetensors_bytes({"w": entry(shape=[1] * 17 + [4])}, SIXTEEN), LimitError, "18 dimensions"),
    "name": (safetensors_bytes({"": entry()}, SIXTEEN), InvalidError, "empty"),
    "name-nul": (safetensors_bytes({"a\0b": entry()}, SIXTEEN), InvalidError, "NUL"),
    "name-surrogate": (safetensors_bytes(b'{"\\ud800":{}}'), InvalidError, "not valid Unicode"),
    "metadata": (safetensors_bytes({"__metadata__": []}), InvalidError, "__metadata__"),
    "entry": (safetensors_bytes({"w": [1]}), InvalidError, "expected an object"),
    "offsets": (safetensors_bytes({"w": entry(offsets=[0, 8, 16])}, SIXTEEN), InvalidError, "3 numbers"),
    "offsets-text": (safetensors_bytes({"w": entry(offsets="0-16")}, SIXTEEN), InvalidError, "expected a list"),
    "dtype": (safetensors_bytes({"w": entry(dtype=4)}, SIXTEEN), UnsupportedError, "unknown dtype 4"),  # type: ignore[arg-type]
    "digits": (safetensors_bytes(b'{"w":' + b"9" * 5000 + b"}"), InvalidError, "5000 digits"),
    "exponent": (safetensors_bytes(b'{"w":1e400}'), InvalidError, "out of range"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", FormatError, "git lfs pull"),
}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_refuses(rule: str, tmp_path: Path) -> None:
    data, kind, text = RULES[rule]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ForgeError) as caught:
        open_checkpoint(path)
    assert type(caught.value) is kind
    assert text in str(caught.value)


def test_header_of_a_million_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = b",".join(b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range((1 << 18) + 1))
    path.write_bytes(safetensors_bytes(b"{" + tensors + b"}"))
    with pytest.raises(LimitError, match="262145 tensors"):
        open_checkpoint(path)


def test_unknown_field_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({"w": entry(extra={"a": [1]})}, SIXTEEN))
    with open_checkpoint(path) as checkpoint:
        assert any("unknown field 'extra'" in note for note in checkpoint.notes)


def test_every_prefix_is_refused(tmp_path: Path) -> None:
    """A file cut anywhere is an error, never another model."""
    whole = safetensors_bytes({"a": entry(), "b": entry("U8", [3], [16, 19])}, SIXTEEN + b"abc")
    path = tmp_path / "model.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError):
            open_checkpoint(path)
    path.write_bytes(whole)
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.tensors) == ["a", "b"]


def test_every_changed_bit_of_the_header_is_an_error_or_a_file(tmp_path: Path) -> None:
    whole = bytearray(safetensors_bytes({"a": entry(), "b": entry("U8", [3], [16, 19])}, SIXTEEN + b"abc"))
    path = tmp_path / "model.safetensors"
    for bit in range(8 * (len(whole) - 19)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert_a_checkpoint_or_an_error(path)


NUMPY_KINDS = ["<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "i1", "u1", "<u2", "<u4", "?"]
ARRAYS = st.sampled_from(NUMPY_KINDS).flatmap(
    lambda kind: hnp.arrays(np.dtype(kind), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__"
)


@settings(max_examples=60)
@given(st.dictionaries(NAMES, ARRAYS, min_size=1, max_size=6), st.data())
def test_reads_what_the_library_writes(arrays: dict[str, Any], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file(arrays, path)
        with open_checkpoint(folder) as checkpoint:
            assert list(checkpoint.tensors) == sorted(arrays)
            for name, tensor in checkpoint.tensors.items():
                expected = arrays[name]
                assert tensor.shape == expected.shape
                found = tensor.read()
                np.testing.assert_array_equal(found, expected)
                assert found.dtype.itemsize >= expected.dtype.itemsize
                if expected.ndim and expected.shape[0]:
                    start = data.draw(st.integers(0, expected.shape[0]))
                    stop = data.draw(st.integers(start, expected.shape[0]))
                    np.testing.assert_array_equal(tensor.rows(start, stop), expected[start:stop])


def test_rows_of_brain_floats_are_their_bits(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    bits = np.arange(24, dtype="<u2").reshape(6, 4)
    path.write_bytes(safetensors_bytes({"w": entry("BF16", [6, 4], [0, 48])}, bits.tobytes()))
    with open_checkpoint(path) as checkpoint:
        tensor = checkpoint.tensors["w"]
        assert tensor.type.name == "BF16"
        rows = tensor.rows(2, 5)
        np.testing.assert_array_equal(rows, bits[2:5])
        assert rows.dtype == np.uint16
        assert rows.flags.owndata
        assert rows.flags.c_contiguous
        for start, stop in [(-1, 2), (2, 7), (3, 2)]:
            with pytest.raises(ValueError, match="rows"):
                tensor.rows(start, stop)


def test_elements_smaller_than_a_byte_are_listed_but_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({"w": entry("F4", [2, 16], [0, 16])}, SIXTEEN))
    with open_checkpoint(path) as checkpoint:
        tensor = checkpoint.tensors["w"]
        assert tensor.nbytes == 16
        with pytest.raises(UnsupportedError, match="F4"):
            tensor.rows(0, 1)


def test_file_cut_while_open_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({"w": entry()}, SIXTEEN))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.unchanged()
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 1)
        with pytest.raises(ChangedInputError, match="changed while it was read"):
            checkpoint.tensors["w"].read()
        assert not checkpoint.unchanged()


def test_file_replaced_while_open_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({"w": entry()}, SIXTEEN))
    with open_checkpoint(path) as checkpoint:
        other = tmp_path / "other"
        shutil.copy(path, other)
        other.replace(path)
        np.testing.assert_array_equal(checkpoint.tensors["w"].read().view(np.uint8), list(SIXTEEN))
        assert not checkpoint.unchanged()
        with pytest.raises(ChangedInputError, match="changed"):
            checkpoint.require_unchanged()
