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

from gguf_forge.convert.files import convert_checkpoint
from gguf_forge.errors import ForgeError
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
