"""Imported checkpoints in llama.cpp: with the codes that were kept it computes what it computes with the values.

`make test-imports QUANT_ZOO=folder` converts each quantized checkpoint of the folder to floats and to what its codes
become, and compares the logits. llama.cpp rounds activations to 8 bits beside blocks and not beside floats: that much
they differ, whoever made the blocks.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import gguf_forge
from gguf_forge.convert.files import convert_checkpoint
from gguf_forge.convert.job import Quantization
from gguf_forge.errors import ForgeError
from tests.convert.stored_as import MODEL, gptq, store
from tests.convert.test_act_order import down_only
from tests.runtime import llama

pytest.importorskip("xllamacpp", reason="needs xllamacpp")
pytestmark = pytest.mark.runtime

ZOO = Path(os.environ.get("QUANT_ZOO", ""))
NAMES = sorted(p.name for p in ZOO.iterdir() if (p / "config.json").exists()) if os.environ.get("QUANT_ZOO") else []
TOKENS = [1, 5, 9, 33, 77, 20, 101, 64]
#: Of the logits' norm; the largest of the checkpoints that were tried is 0.01.
TOLERANCE = 0.02


@pytest.mark.skipif(not NAMES, reason="QUANT_ZOO names no folder of quantized checkpoints")
@pytest.mark.parametrize("name", NAMES)
def test_codes_compute_what_values_compute(name: str, tmp_path: Path) -> None:
    odd = ZOO / name / "output.safetensors"
    source = odd if odd.exists() else ZOO / name
    try:
        (floats,) = convert_checkpoint(source, tmp_path / "floats.gguf", "f32")
    except ForgeError as error:
        pytest.skip(f"does not convert: {error}")
    (kept,) = convert_checkpoint(source, tmp_path / "kept.gguf", "auto")
    plain, held = llama.logits(floats.path, TOKENS), llama.logits(kept.path, TOKENS)
    assert np.linalg.norm(held - plain) <= TOLERANCE * np.linalg.norm(plain)


def test_inputs_that_change_places_compute_the_same(tmp_path: Path) -> None:
    """With floats it is the same file but for the order of sums; with codes as close as any."""
    source = store(tmp_path / "model", gptq(order=down_only))
    (floats,) = convert_checkpoint(source, tmp_path / "floats.gguf", "f32")
    (kept,) = convert_checkpoint(source, tmp_path / "kept.gguf", "auto", quantization=Quantization(require="lossless"))
    assert sum(one.moved for one in kept.imports) == 18
    moved = tmp_path / "moved.gguf"
    with gguf_forge.open(kept.path) as file, gguf_forge.GGUFWriter(moved) as writer:
        for key in file.metadata:
            writer.add(key, file.metadata.value(key))
        for name, tensor in file.tensors.items():
            writer.add_tensor(name, tensor.dequantize())
    plain, same, held = (llama.logits(path, TOKENS) for path in (floats.path, moved, kept.path))
    assert np.linalg.norm(same - plain) <= 1e-5 * np.linalg.norm(plain)
    assert np.linalg.norm(held - plain) <= TOLERANCE * np.linalg.norm(plain)


def test_nvfp4_beside_scales_computes_what_its_values_compute(tmp_path: Path) -> None:
    """A file made NVFP4, against one of floats with the products of its blocks and scales."""
    (made,) = convert_checkpoint(MODEL, tmp_path / "made.gguf", "NVFP4")
    plain = tmp_path / "plain.gguf"
    with gguf_forge.open(made.path) as file, gguf_forge.GGUFWriter(plain) as writer:
        for key in file.metadata:
            writer.add(key, file.metadata.value(key))
        for name, tensor in file.tensors.items():
            scale = file.tensors.get(f"{name.removesuffix('.weight')}.scale")
            if not name.endswith(".scale"):
                writer.add_tensor(name, tensor.dequantize() * (1 if scale is None else scale.dequantize()))
    floats, blocks = llama.logits(plain, TOKENS), llama.logits(made.path, TOKENS)
    assert np.linalg.norm(blocks - floats) <= TOLERANCE * np.linalg.norm(floats)
