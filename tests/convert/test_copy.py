"""COPY: any GGUF file with some keys changed, whatever it holds; every tensor byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge import values
from gguf_forge.convert.files import quantize_file
from gguf_forge.convert.job import Quantization
from gguf_forge.format import reader
from gguf_forge.format.layout import ValueType
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.types import TENSOR_TYPES
from gguf_forge.values import Value
from tests.cli.conftest import Forge, forge  # noqa: F401 - a fixture

MODEL = Path(__file__).resolve().parents[2] / "fixtures" / "models" / "PyLlama-7M"
RNG = np.random.default_rng(4)
Tensors = dict[str, tuple[NDArray[np.generic], str]]


def floats(*shape: int) -> NDArray[np.float32]:
    return RNG.standard_normal(shape, np.float32)


def blocks(kind: str, rows: int, width: int) -> NDArray[np.uint8]:
    return np.zeros((rows, TENSOR_TYPES[kind].row_bytes(width)), np.uint8) + np.uint8(5)


#: Keys and tensors of files that are no model of llama.cpp's, or one it does not know.
FILES: dict[str, tuple[dict[str, Value], Tensors]] = {
    "an adapter": (
        {
            "general.architecture": values.string("llama"),
            "general.type": values.string("adapter"),
            "adapter.type": values.string("lora"),
            "adapter.lora.alpha": values.f32(16),
            "general.quantization_version": values.u32(2),
            "general.name": values.string("Old"),
        },
        {
            "blk.1.attn_q.weight.lora_a": (floats(1, 64), "F32"),  # of rank 1
            "blk.1.attn_q.weight.lora_b": (floats(96, 1), "F32"),
            "blk.0.attn_q.weight.lora_a": (floats(8, 64).astype(np.float16), "F16"),
        },
    ),
    "a control vector": (
        {
            "general.architecture": values.string("controlvector"),
            "general.name": values.string("Old"),
            "controlvector.model_hint": values.string("llama"),
            "controlvector.layer_count": values.i32(31),
        },
        {"direction.2": (floats(64), "F32"), "direction.1": (floats(64), "F32")},
    ),
    "an image model": (
        {"general.architecture": values.string("flux"), "general.name": values.string("Old")},
        {
            "double_blocks.0.img_attn.qkv.weight": (blocks("Q4_K", 6, 512), "Q4_K"),
            "double_blocks.0.img_attn.qkv.bias": (floats(6).view(np.uint16)[:6] & 0x3FFF, "BF16"),
            "img_in.weight": (floats(4, 1, 2, 3), "F32"),
        },
    ),
    "an importance matrix": (
        {
            "general.type": values.string("imatrix"),
            "imatrix.datasets": values.strings(["a.txt"]),
            "imatrix.chunk_count": values.u32(3),
            "imatrix.chunk_size": values.u32(512),
        },
        {
            "blk.0.attn_q.weight.in_sum2": (np.abs(floats(64)), "F32"),
            "blk.0.attn_q.weight.counts": (np.array([1], np.float32), "F32"),
        },
    ),
    "odds and ends": (
        {
            "general.architecture": values.string("?"),
            "general.file_type": values.u32(4711),
            "?.block_count": values.string("two"),
            "general.alignment": values.u32(64),
            "list": values.array(ValueType.UINT16, []),
        },
        {
            "z": (np.arange(7, dtype=np.int32), "I32"),
            "y": (np.arange(6, dtype=np.float64).reshape(2, 3), "F64"),
            "x": (np.arange(5, dtype=np.int8), "I8"),
            "empty": (np.zeros((0,), np.float32), "F32"),
            "no rows": (np.zeros((0, 256), np.float32), "F32"),
            "no columns": (np.zeros((3, 0), np.float32), "F32"),
            "one": (np.array([-1], np.int64), "I64"),
            "tokens.weight": (blocks("IQ2_XXS", 3, 256), "IQ2_XXS"),
            "b.weight": (blocks("Q8_K", 2, 256), "Q8_K"),
            "c.weight": (blocks("MXFP4", 2, 64), "MXFP4"),
        },
    ),
    "keys alone": ({"general.name": values.string("Old")}, {}),
    "nothing": ({}, {}),
}


def write(path: Path, what: str) -> Path:
    keys, tensors = FILES[what]
    with GGUFWriter(path, keys) as out:
        for name, (data, kind) in tensors.items():
            out.add_tensor(name, data, kind)
    return path


@pytest.mark.parametrize("what", FILES)
def test_a_key_is_changed_and_one_added(what: str, tmp_path: Path, forge: Forge) -> None:  # noqa: F811
    source = write(tmp_path / "in.gguf", what)
    words = ["--override-kv", "general.name=str:New", "--metadata", "my.key=u8:3"]
    done = forge("quantize", source, tmp_path / "out.gguf", "COPY", *words)
    assert done.code == 0, done.err
    keys, tensors = FILES[what]
    expected = keys | {"general.name": values.string("New"), "my.key": values.u8(3)}
    with reader.open(tmp_path / "out.gguf") as file, reader.open(source) as old:
        assert {key: file.metadata.value(key) for key in file.metadata} == expected
        assert list(file.metadata) == list(expected)
        assert list(file.tensors) == list(old.tensors) == list(tensors)
        for name, tensor in file.tensors.items():
            assert (tensor.type, tensor.shape) == (old.tensors[name].type, old.tensors[name].shape)
            np.testing.assert_array_equal(tensor.data, old.tensors[name].data)


@pytest.mark.parametrize("what", FILES)
def test_nothing_changed_is_the_same_file(what: str, tmp_path: Path) -> None:
    source = write(tmp_path / "in.gguf", what)
    assert quantize_file(source, tmp_path / "out.gguf", "COPY").notes == ()
    assert (tmp_path / "out.gguf").read_bytes() == source.read_bytes()


def test_the_importance_matrix_of_a_trained_model(tmp_path: Path) -> None:
    there, back = ({"imatrix.datasets": values.strings([name])} for name in ("b.txt", "calibration.txt"))
    quantize_file(MODEL / "imatrix.gguf", tmp_path / "out.gguf", "COPY", metadata=there)
    quantize_file(tmp_path / "out.gguf", tmp_path / "back.gguf", "COPY", metadata=back)
    assert (tmp_path / "out.gguf").read_bytes() != (MODEL / "imatrix.gguf").read_bytes()
    assert (tmp_path / "back.gguf").read_bytes() == (MODEL / "imatrix.gguf").read_bytes()


def test_shards_become_one_file(tmp_path: Path) -> None:
    for i, name in enumerate(("b", "a")):
        keys = {"split.no": values.u16(i), "split.count": values.u16(2), "split.tensors.count": values.i32(2)}
        first = {"general.architecture": values.string("flux")} if i == 0 else {}
        with GGUFWriter(tmp_path / f"in-{i + 1:05}-of-00002.gguf", first | keys) as out:
            out.add_tensor(name, np.full((2, 3), i, np.float32))
    quantize_file(tmp_path / "in-00001-of-00002.gguf", tmp_path / "out.gguf", "COPY")
    with reader.open(tmp_path / "out.gguf") as file:
        assert list(file.metadata) == ["general.architecture"]
        assert {name: float(t.dequantize().max()) for name, t in file.tensors.items()} == {"b": 0, "a": 1}


def test_numbers_of_a_big_endian_file_are_turned(tmp_path: Path) -> None:
    with GGUFWriter(tmp_path / "in.gguf", {"a": values.u32(1)}, endian="big") as out:
        out.add_tensor("x", np.arange(6, dtype=np.float32))
    quantize_file(tmp_path / "in.gguf", tmp_path / "out.gguf", "COPY")
    with reader.open(tmp_path / "out.gguf") as file:
        assert file.endian == "little"
        np.testing.assert_array_equal(file.tensors["x"].dequantize(), np.arange(6))


def test_an_importance_matrix_has_no_effect(tmp_path: Path) -> None:
    how = Quantization(imatrix=MODEL / "imatrix.gguf")
    source = write(tmp_path / "in.gguf", "a control vector")
    plan = quantize_file(source, tmp_path / "out.gguf", "COPY", quantization=how)
    assert plan.notes == ("COPY encodes nothing, so the importance matrix has no effect",)


def test_a_models_copy_is_llama_quantizes(tmp_path: Path) -> None:
    """In its order of tensors, with the version and the file type moved behind the other keys."""
    keys = {
        "general.architecture": values.string("llama"),
        "general.file_type": values.u32(4711),
        "llama.block_count": values.u32(1),
    }
    with GGUFWriter(tmp_path / "in.gguf", keys) as out:
        for name in ("output.weight", "blk.0.attn_q.weight", "a.weight"):
            out.add_tensor(name, floats(2, 32))
    plan = quantize_file(tmp_path / "in.gguf", tmp_path / "out.gguf", "copy", metadata={"general.name": "x"})
    with reader.open(plan.path) as file:
        assert [(key, file.metadata[key]) for key in file.metadata] == [
            ("general.architecture", "llama"),
            ("llama.block_count", 1),
            ("general.quantization_version", 2),
            ("general.file_type", 4711),
            ("general.name", "x"),
        ]
        assert list(file.tensors) == ["a.weight", "output.weight", "blk.0.attn_q.weight"]


def test_a_recipe_still_asks_what_it_depends_on(tmp_path: Path, forge: Forge) -> None:  # noqa: F811
    done = forge("quantize", write(tmp_path / "in.gguf", "an image model"), tmp_path / "out.gguf", "Q8_0")
    assert (done.code, "flux.block_count is missing" in done.err) == (1, True)
