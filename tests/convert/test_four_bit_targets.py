"""MXFP4 and NVFP4 made of floats and of 8-bit floats, dense models and mixtures of experts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gguf_forge
from gguf_forge.convert.job import Quantization
from tests.convert.eight_bits import store_in_fp8
from tests.convert.test_imported import FIXTURES, MODEL

MIXTURE = FIXTURES / "models/Micro-Mixtral-4x100K"


def _alike(first: Path, second: Path) -> None:
    """Asserts that two files have the same tensors, bit for bit."""
    with gguf_forge.open(first) as a, gguf_forge.open(second) as b:
        assert set(a.tensors) == set(b.tensors)
        for name, tensor in a.tensors.items():
            assert tensor.type is b.tensors[name].type, name
            assert np.array_equal(tensor.data, b.tensors[name].data), name


@pytest.mark.parametrize("by_row", [False, True], ids=["one scale", "rows"])
@pytest.mark.parametrize("kind", ["NVFP4", "MXFP4_MOE"])
@pytest.mark.parametrize("model", [MODEL, MIXTURE], ids=["dense", "mixture"])
def test_eight_bit_floats_become_what_their_values_do(model: Path, kind: str, by_row: bool, tmp_path: Path) -> None:
    source = store_in_fp8(model, tmp_path / "fp8", by_row=by_row)
    (made,) = gguf_forge.convert_checkpoint(source, tmp_path / "made.gguf", kind)
    (floats,) = gguf_forge.convert_checkpoint(source, tmp_path / "floats.gguf", "f32")
    gguf_forge.quantize_file(floats.path, tmp_path / "again.gguf", kind)
    _alike(made.path, tmp_path / "again.gguf")
    kinds = {choice.name: choice.type.name for choice in made.choices}
    experts = [name for name in kinds if "_exps.weight" in name]
    if kind == "NVFP4" and model is MODEL:
        assert sum(name.endswith(".scale") for name in kinds) == 42
    if kind == "MXFP4_MOE":
        assert {kinds[name] for name in experts} <= {"MXFP4"}
        assert kinds["blk.0.attn_q.weight"] == "Q8_0"
    assert all(one.rmse is not None and 0 < one.rmse < 0.2 for one in made.imports)


def test_a_dense_model_in_mxfp4(tmp_path: Path) -> None:
    how = Quantization(pure=True, token_embedding_type="Q8_0", output_tensor_type="Q8_0")
    (made,) = gguf_forge.convert_checkpoint(MODEL, tmp_path / "made.gguf", "MXFP4_MOE", quantization=how)
    (plain,) = gguf_forge.convert_checkpoint(MODEL, tmp_path / "plain.gguf", "f32")
    kinds = {choice.name: choice.type.name for choice in made.choices}
    assert kinds["token_embd.weight"] == kinds["output.weight"] == "Q8_0"
    with gguf_forge.open(made.path) as file, gguf_forge.open(plain.path) as floats:
        blocks = [name for name, kind in kinds.items() if kind == "MXFP4"]
        assert len(blocks) == 42
        for name in blocks:
            values = floats.tensors[name].dequantize()
            assert np.linalg.norm(file.tensors[name].dequantize() - values) < 0.13 * np.linalg.norm(values)
