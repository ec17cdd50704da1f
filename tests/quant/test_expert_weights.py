"""Each expert of a stack is encoded with its own weights, other matrices with theirs, through a whole file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gguf_forge.convert.files import quantize_file
from gguf_forge.convert.job import Quantization
from gguf_forge.format import reader, values
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.quant.codec import quantize

WIDTH, ROWS, EXPERTS = 256, 40, 3
NAME = "blk.0.ffn_up_exps.weight"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    metadata = {
        "general.architecture": values.string("llama"),
        "llama.block_count": values.u32(1),
        "llama.expert_count": values.u32(EXPERTS),
    }
    with GGUFWriter(tmp_path / "model.gguf", metadata) as out:
        out.add_tensor(NAME, rng.standard_normal((EXPERTS, ROWS, WIDTH), dtype=np.float32))
        out.add_tensor("token_embd.weight", rng.standard_normal((ROWS, WIDTH), dtype=np.float32))
    return tmp_path / "model.gguf"


@pytest.fixture
def imatrix(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    metadata = {
        "imatrix.datasets": values.strings(["text"]),
        "imatrix.chunk_count": values.u32(1),
        "imatrix.chunk_size": values.u32(512),
    }
    with GGUFWriter(tmp_path / "imatrix.gguf", metadata) as out:
        out.add_tensor(NAME + ".in_sum2", (rng.random((EXPERTS, WIDTH)) ** 4 * 100).astype(np.float32))
        out.add_tensor(NAME + ".counts", np.array([[7], [0], [300]], dtype=np.float32))
    return tmp_path / "imatrix.gguf"


@pytest.mark.parametrize("type", ["Q4_K_M", "Q2_K", "IQ4_XS"])
def test_each_expert_has_its_own_weights(tmp_path: Path, model: Path, imatrix: Path, type: str) -> None:
    quantize_file(model, tmp_path / "out.gguf", type, quantization=Quantization(imatrix=imatrix))
    with reader.open(imatrix) as recorded:
        sums = recorded.tensors[NAME + ".in_sum2"].dequantize()
    with reader.open(model) as before, reader.open(tmp_path / "out.gguf") as after:
        x, encoded = before.tensors[NAME].dequantize(), after.tensors[NAME]
        weights = [sums[0] / np.float32(7), np.ones(WIDTH, dtype=np.float32), sums[2] / np.float32(300)]
        for expert, own in enumerate(weights):
            expected = quantize(x[expert], encoded.type.name, imatrix=own)
            np.testing.assert_array_equal(encoded.data[expert], expected)
            other = quantize(x[expert], encoded.type.name, imatrix=weights[(expert + 1) % EXPERTS])
            assert (other != expected).any()
        embedding = before.tensors["token_embd.weight"].dequantize()
        plain = quantize(embedding, after.tensors["token_embd.weight"].type.name)
        np.testing.assert_array_equal(after.tensors["token_embd.weight"].data, plain)
