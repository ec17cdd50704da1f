"""Layouts of which no library wrote a fixture: written here, element by element, and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_forge.errors import CheckpointError
from gguf_forge.source.checkpoint import open_checkpoint
from gguf_forge.source.dtypes import DTYPES
from gguf_forge.source.packed import PackedTensor, unpacked
from tests.source.containers import safetensors_of

Arrays = Mapping[str, tuple[str, np.ndarray[Any, Any]]]
RNG = np.random.default_rng(11)


def checkpoint_of(folder: Path, tensors: Arrays, settings: Mapping[str, Any], **config: Any) -> Path:
    (folder / "model.safetensors").write_bytes(safetensors_of(tensors))
    (folder / "config.json").write_text(json.dumps({"quantization_config": dict(settings), **config}))
    return folder


def read(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    with open_checkpoint(folder) as checkpoint:
        found = unpacked(checkpoint)
        whole = {name: np.asarray(tensor.read()) for name, tensor in found.items()}
        for name, tensor in found.items():
            if isinstance(tensor, PackedTensor):
                count = int(np.prod(tensor.shape[:-1]))
                pieces = [tensor.rows(a, min(a + 3, count)) for a in range(0, count, 3)]
                assert np.array_equal(np.concatenate(pieces), whole[name].reshape(count, -1))
        return whole


@pytest.mark.parametrize(("linear", "divides"), [("bitlinear", True), ("autobitlinear", False)])
def test_bitnets_scale_divides_or_multiplies(linear: str, divides: bool, tmp_path: Path) -> None:
    codes = RNG.integers(-1, 2, (16, 8))
    fields = (codes + 1).reshape(4, 4, 8)  # output r + 4 k is field k of row r
    packed = np.bitwise_or.reduce([fields[k] << 2 * k for k in range(4)]).astype(np.uint8)
    scale = np.array([0.75], np.float32)
    tensors: Arrays = {"a.weight": ("U8", packed), "a.weight_scale": ("F32", scale)}
    found = read(checkpoint_of(tmp_path, tensors, {"quant_method": "bitnet", "linear_class": linear}))
    assert np.array_equal(found["a.weight"], (codes / 0.75 if divides else codes * 0.75).astype(np.float32))


@pytest.mark.parametrize("before", [False, True])
def test_modelopts_four_bits(before: bool, tmp_path: Path) -> None:
    codes = RNG.integers(-8, 8, (6, 32))
    packed = ((codes[0::2] & 15) | (codes[1::2] & 15) << 4).astype(np.uint8)
    scales = RNG.uniform(0.5, 1, (6, 2)).astype(np.float32)
    tensors: dict[str, tuple[str, np.ndarray[Any, Any]]] = {}
    tensors |= {"a.weight": ("U8", packed), "a.weight_scale": ("F32", scales)}
    values = (codes.reshape(6, 2, 16) * scales[..., None]).astype(np.float32).reshape(6, 32)
    if before:
        factors = RNG.uniform(0.5, 2, 32).astype(np.float32)
        tensors["a.pre_quant_scale"] = ("F32", factors)
        values = values * factors
    found = read(checkpoint_of(tmp_path, tensors, {"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"}))
    assert np.array_equal(found["a.weight"], values)


def test_compressed_tensors_groups_of_inputs_that_lie_apart(tmp_path: Path) -> None:
    codes, order = RNG.integers(-8, 8, (4, 64)), RNG.permutation(np.arange(64) // 32)
    words = ((codes.reshape(4, 8, 8) + 8) << 4 * np.arange(8)).sum(axis=2).astype(np.uint32).view(np.int32)
    scales = RNG.uniform(0.5, 1, (4, 2)).astype(np.float32)
    tensors: Arrays = {
        "a.weight_packed": ("I32", words),
        "a.weight_scale": ("F32", scales),
        "a.weight_shape": ("I64", np.array([4, 64])),
        "a.weight_g_idx": ("I32", order.astype(np.int32)),
    }
    found = read(checkpoint_of(tmp_path, tensors, {"quant_method": "compressed-tensors", "format": "pack-quantized"}))
    assert np.array_equal(found["a.weight"], codes.astype(np.float32) * scales[:, order])


@pytest.mark.parametrize("shape", [(1,), (4,), (4, 1)])
def test_8_bits_beside_one_scale_or_one_a_row(shape: tuple[int, ...], tmp_path: Path) -> None:
    codes, scales = RNG.integers(-128, 128, (4, 32)).astype(np.int8), RNG.uniform(0.5, 1, shape).astype(np.float32)
    tensors: Arrays = {"a.weight": ("I8", codes), "a.weight_scale": ("F32", scales)}
    found = read(checkpoint_of(tmp_path, tensors, {"quant_method": "compressed-tensors", "format": "int-quantized"}))
    assert np.array_equal(found["a.weight"], codes.astype(np.float32) * scales.reshape(-1, 1))


def test_hqqs_groups_across_rows(tmp_path: Path) -> None:
    out, width, group = 8, 16, 32
    across = out * width // group
    codes = RNG.integers(0, 16, (group, across))
    packed = (codes[: group // 2] << 4 | codes[group // 2 :]).astype(np.uint8)
    scale, zero = RNG.uniform(0.1, 1, (1, across)), RNG.uniform(0, 15, (1, across))
    scale, zero = scale.astype(np.float32), zero.astype(np.float32)
    said = {"nbits": 4, "group_size": group, "axis": 0}
    tensors: dict[str, tuple[str, np.ndarray[Any, Any]]] = {
        "a.W_q": ("U8", packed),
        "a.scale": ("F32", scale),
        "a.zero": ("F32", zero),
        "a.shape": ("I64", np.array([out, width])),
        **{f"a.{key}": ("I32", np.array(value, np.int32)) for key, value in said.items()},
    }
    found = read(checkpoint_of(tmp_path, tensors, {"quant_method": "hqq"}))
    exact = (codes - zero.astype(np.float64)) * scale
    assert np.array_equal(found["a.weight"], exact.reshape(out, width).astype(np.float32))


def test_mlxs_stacks_become_experts(tmp_path: Path) -> None:
    codes = RNG.integers(0, 16, (3, 4, 64)).astype(np.uint32)
    words = (codes.reshape(3, 4, 8, 8) << (4 * np.arange(8, dtype=np.uint32))).sum(axis=3).astype(np.uint32)
    scales, biases = RNG.uniform(-1, 1, (2, 3, 4, 2)).astype(np.float16)
    tensors = {
        "m.mlp.switch_mlp.up_proj.weight": ("U32", words),
        "m.mlp.switch_mlp.up_proj.scales": ("F16", scales),
        "m.mlp.switch_mlp.up_proj.biases": ("F16", biases),
    }
    said = {"group_size": 32, "bits": 4}
    found = read(checkpoint_of(tmp_path, tensors, said, quantization=said))
    assert list(found) == [f"m.mlp.experts.{number}.up_proj.weight" for number in range(3)]
    by_group = codes.reshape(3, 4, 2, 32) * scales[..., None].astype(np.float64) + biases[..., None]
    for number, values in enumerate(found.values()):
        assert np.array_equal(values, by_group[number].reshape(4, 64).astype(np.float32))


@pytest.mark.parametrize("kind", ["one", "rows", "tiles"])
def test_stacks_of_8_bit_floats(kind: str, tmp_path: Path) -> None:
    table = np.asarray(DTYPES["F8_E4M3"].table)
    codes = RNG.integers(0, 0x7E, (2, 12, 40), dtype=np.uint8)
    shape = {"one": (2, 1), "rows": (2, 12, 1), "tiles": (2, 2, 3)}[kind]
    scales = RNG.uniform(0.1, 1, shape).astype(np.float32)
    tensors: Arrays = {"m.experts.down_proj": ("F8_E4M3", codes), "m.experts.down_proj_scale_inv": ("F32", scales)}
    settings = {"quant_method": "fp8", "weight_block_size": [8, 16]}
    found = read(checkpoint_of(tmp_path, tensors, settings))
    assert list(found) == ["m.experts.down_proj"]
    tall, broad = {"one": (12, 40), "rows": (1, 40), "tiles": (8, 16)}[kind]
    wide = np.repeat(np.repeat(scales.reshape(2, -1, -(-40 // broad)), tall, axis=1)[:, :12], broad, axis=2)[..., :40]
    assert np.array_equal(found["m.experts.down_proj"], table[codes] * wide)


def test_8_bit_floats_without_a_scale_are_refused_unless_a_family_reads_its_own(tmp_path: Path) -> None:
    alone: Arrays = {"a.weight": ("F8_E4M3", np.full((4, 8), 0x38, np.uint8))}
    beside: Arrays = {**alone, "a.scale": ("F32", np.ones((1, 1), np.float32))}
    (tmp_path / "alone").mkdir()
    (tmp_path / "beside").mkdir()
    with open_checkpoint(checkpoint_of(tmp_path / "beside", beside, {"quant_method": "fp8"})) as checkpoint:
        assert set(unpacked(checkpoint)) == set(beside)
    with (
        open_checkpoint(checkpoint_of(tmp_path / "alone", alone, {"quant_method": "fp8"})) as checkpoint,
        pytest.raises(CheckpointError, match=r'"a\.weight".*need a scale'),
    ):
        unpacked(checkpoint)


def test_scales_of_activations_are_left_out_and_said(tmp_path: Path) -> None:
    one = np.array([1.0], np.float32)
    tensors: Arrays = {
        "a.weight": ("F8_E4M3", np.full((4, 8), 0x38, np.uint8)),
        "a.weight_scale": ("F32", one),
        "a.input_scale": ("F32", one),
        "attn.k_scale": ("F32", one),
        "attn.v_scale": ("F32", one),
    }
    folder = checkpoint_of(tmp_path, tensors, {"quant_method": "fp8"})
    with open_checkpoint(folder) as checkpoint:
        assert list(unpacked(checkpoint)) == ["a.weight"]
        assert any("2 scales of activations" in note for note in checkpoint.notes)


def test_llm_awqs_zeros_are_minima(tmp_path: Path) -> None:
    """Four outputs, in the words that its packer writes (llm-awq, quantize/qmodule.py: pack_intweight)."""
    codes = RNG.integers(0, 16, (4, 128)).astype(np.int32)
    by_eight = codes.reshape(4, 4, 4, 4, 2).transpose(0, 1, 3, 2, 4).reshape(4, 4, 4, 4, 2)
    by_four = by_eight.transpose(0, 1, 2, 4, 3).reshape(1, 4, 2, 64).transpose(0, 2, 1, 3).reshape(1, 2, 64, 4)
    packed = (by_four[..., 0] | by_four[..., 1] << 4 | by_four[..., 2] << 8 | by_four[..., 3] << 12).reshape(1, 128)
    scales, zeros = RNG.uniform(-1, 1, (2, 8, 4)).astype(np.float16)
    tensors = {
        "a.qweight": ("I16", packed.astype(np.uint16).view(np.int16)),
        "a.scales": ("F16", scales),
        "a.scaled_zeros": ("F16", zeros),
    }
    found = read(checkpoint_of(tmp_path, tensors, {"quant_method": "awq", "backend": "llm-awq", "group_size": 128}))
    exact = codes * scales[0].astype(np.float64)[:, None] + zeros[0].astype(np.float64)[:, None]
    assert np.array_equal(found["a.weight"], exact.astype(np.float32))


@pytest.mark.parametrize(
    ("tensors", "settings", "said"),
    [
        (
            {"a.qweight": ("I32", np.zeros((4, 8), np.int32))},
            {"quant_method": "gptq", "bits": 4},
            "lacks qzeros, scales",
        ),
        (
            {"a.weight": ("I8", np.zeros((4, 8), np.int8)), "a.weight.absmax": ("F32", np.zeros(1, np.float32))},
            {"quant_method": "eetq"},
            "interleaved for one kernel",
        ),
        (
            {
                "a.qweight": ("I64", np.zeros((4, 8), np.int64)),
                "a.qzeros": ("I64", np.zeros((1, 1), np.int64)),
                "a.scales": ("F16", np.zeros((1, 8), np.float16)),
            },
            {"quant_method": "gptq", "bits": 4},
            "must be words of 32 bits",
        ),
    ],
)
def test_layouts_that_are_not_read(tensors: Arrays, settings: Mapping[str, Any], said: str, tmp_path: Path) -> None:
    folder = checkpoint_of(tmp_path, tensors, settings)
    with open_checkpoint(folder) as checkpoint, pytest.raises(CheckpointError, match=said):
        unpacked(checkpoint)
