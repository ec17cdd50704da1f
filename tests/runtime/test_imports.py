"""Imported checkpoints in llama.cpp: with the codes that were kept it computes what it computes with the values.

`make test-imports QUANT_ZOO=folder` converts each quantized checkpoint of the folder to floats and to what its codes
become, and compares the logits. llama.cpp rounds activations to 8 bits beside blocks and not beside floats: that much
they differ, whoever made the blocks.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import gguf_forge
from gguf_forge.convert.files import convert_checkpoint
from gguf_forge.convert.job import Quantization
from gguf_forge.errors import ForgeError
from tests.convert.eight_bits import store_in_fp8
from tests.convert.stored_as import MODEL, gptq, store
from tests.convert.test_act_order import down_only
from tests.convert.test_bitnet import ONLINE, checkpoint
from tests.convert.test_four_bit_targets import MIXTURE
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


def _with_values(made: Path, plain: Path) -> Path:
    """The file with floats for its blocks: their values, times the scales beside them."""
    with gguf_forge.open(made) as file, gguf_forge.GGUFWriter(plain) as writer:
        for key in file.metadata:
            writer.add(key, file.metadata.value(key))
        for name, tensor in file.tensors.items():
            scale = file.tensors.get(f"{name.removesuffix('.weight')}.scale")
            if not name.endswith(".scale"):
                writer.add_tensor(name, tensor.dequantize() * (1 if scale is None else scale.dequantize()))
    return plain


#: How far the logits may be from the source's, of their norm; what was measured is 0.11 for NVFP4, 0.14 for MXFP4 (and
#: 0.10 for Q4_0).
NEAR = 0.2


def _source(name: str, folder: Path) -> Path:
    """A model as floats, as FP8 beside a scale of each matrix, or as compressed-tensors' FP8, a scale for each row."""
    model = MIXTURE if name.startswith("mixture") else MODEL
    return model if name.endswith("floats") else store_in_fp8(model, folder, by_row=name.endswith("rows"))


@pytest.mark.parametrize(
    ("name", "kind", "pure"),
    [
        ("dense floats", "NVFP4", False),
        ("dense fp8", "NVFP4", False),
        ("dense rows", "NVFP4", False),
        ("dense floats", "MXFP4_MOE", True),
        ("dense fp8", "MXFP4_MOE", True),
        ("mixture floats", "MXFP4_MOE", False),
        ("mixture fp8", "MXFP4_MOE", False),
        ("mixture rows", "MXFP4_MOE", False),
    ],
)
def test_four_bit_floats_compute_what_their_values_do(name: str, kind: str, pure: bool, tmp_path: Path) -> None:
    """A file made NVFP4 or MXFP4: against one of its values as floats, and against its source."""
    source = _source(name, tmp_path / "source")
    how = Quantization(pure=pure, token_embedding_type="Q8_0", output_tensor_type="Q8_0") if pure else Quantization()
    (made,) = convert_checkpoint(source, tmp_path / "made.gguf", kind, quantization=how)
    (plain,) = convert_checkpoint(source, tmp_path / "source.gguf", "f32")
    kinds = {choice.type.name for choice in made.choices}
    assert kind.removesuffix("_MOE") in kinds
    blocks = llama.logits(made.path, TOKENS)
    floats = llama.logits(_with_values(made.path, tmp_path / "plain.gguf"), TOKENS)
    assert np.linalg.norm(blocks - floats) <= TOLERANCE * np.linalg.norm(floats)
    wanted = llama.logits(plain.path, TOKENS)
    assert np.linalg.norm(blocks - wanted) <= NEAR * np.linalg.norm(wanted)


@pytest.mark.parametrize("form", ["online", "packed", "floats", "divided", "llama"])
def test_bitnets_three_values_compute_what_floats_do(form: str, tmp_path: Path) -> None:
    """Blocks beside scales against the same values as floats; and a llama whose projections are rounded so."""
    if form == "llama":
        folder = tmp_path / form
        shutil.copytree(MODEL, folder)
        config = json.loads((folder / "config.json").read_text()) | {"quantization_config": ONLINE}
        (folder / "config.json").write_text(json.dumps(config))
    else:
        folder = checkpoint(tmp_path / form, form)
    (kept,) = convert_checkpoint(folder, tmp_path / "kept.gguf", "auto", quantization=Quantization(require="lossless"))
    (plain,) = convert_checkpoint(folder, tmp_path / "plain.gguf", "f32")
    assert sum(choice.name.endswith(".scale") for choice in kept.choices) == len(kept.imports) > 0
    floats, blocks = llama.logits(plain.path, TOKENS), llama.logits(kept.path, TOKENS)
    assert np.linalg.norm(blocks - floats) <= TOLERANCE * np.linalg.norm(floats)
