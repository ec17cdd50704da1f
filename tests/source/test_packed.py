"""Weights that other tools quantized, against what their own libraries read from them (fixtures/packed)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_forge.errors import ForgeError
from gguf_forge.source.checkpoint import open_checkpoint
from gguf_forge.source.packed import PackedTensor, unpacked
from gguf_forge.source.packed.bits import across, dense, planar, spaced, turned

PACKED = Path(__file__).resolve().parents[2] / "fixtures/packed"
TRUTH: dict[str, dict[str, Any]] = json.loads((PACKED / "truth.json").read_text())
NAME = "model.layers.0.self_attn.k_proj.weight"
CASES = sorted(TRUTH)
#: Whose scale is a float32 sum of torch's, in an order of its own: a unit in the last place away.
NEAR = {"bitnet-autobitlinear-online"}


def hash_of(values: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, np.float32).tobytes()).hexdigest()


@pytest.mark.parametrize("case", CASES)
def test_values_are_the_librarys_to_the_bit(case: str) -> None:
    with open_checkpoint(PACKED / case) as checkpoint:
        found = unpacked(checkpoint)
        assert list(found) == [NAME]
        weight = found[NAME]
        assert isinstance(weight, PackedTensor)
        assert list(weight.shape) == TRUTH[case]["shape"]
        whole = weight.read()
        assert hash_of(whole) == TRUTH[case]["sha256"]
        edges = [0, 1, 5, 37, 64, 65, 127, 128]
        pieces = [weight.rows(a, b) for a, b in pairwise(edges)]
        assert np.array_equal(np.concatenate(pieces), whole)


ZOO = os.environ.get("QUANT_ZOO")


@pytest.mark.skipif(ZOO is None, reason="QUANT_ZOO names no folder of quantized checkpoints (truth.json, NAME/)")
def test_every_tensor_of_a_folder_of_checkpoints() -> None:
    folder = Path(str(ZOO))
    truth = json.loads((folder / "truth.json").read_text())
    wrong = []
    for case in sorted(truth):
        source = folder / case
        if not source.is_dir():
            continue
        odd = source / "output.safetensors"
        with open_checkpoint(odd if odd.exists() else source) as checkpoint:
            found = unpacked(checkpoint)
            for module, said in truth[case]["tensors"].items():
                weight = found.get(f"{module}.weight")
                if not isinstance(weight, PackedTensor):
                    continue
                if case in NEAR:
                    at, values = np.array(said["samples"]).T
                    same = np.allclose(weight.read().reshape(-1)[at.astype(int)], values, rtol=2.0**-23, atol=0)
                else:
                    same = hash_of(weight.read()) == said["sha256_f32"]
                if not same:
                    wrong.append(f"{case}: {module}")
    assert not wrong


@pytest.mark.parametrize("bits", range(1, 9))
def test_fields_come_back(bits: int) -> None:
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 1 << bits, (3, 96), dtype=np.uint8)
    single = (codes[..., None] >> np.arange(bits, dtype=np.uint8) & 1).astype(np.uint8)
    words = np.packbits(single.reshape(3, -1), axis=1, bitorder="little").view("<u4")
    assert np.array_equal(dense(words, bits), codes)
    per = 32 // bits
    loose = codes[:, : 96 // per * per].reshape(3, -1, per).astype(np.uint64)
    packed = (loose << (np.arange(per, dtype=np.uint64) * np.uint64(bits))).sum(axis=-1).astype(np.uint32)
    assert np.array_equal(spaced(packed, bits), codes[:, : 96 // per * per])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 17), (8, 16), (21, 40), (144, 33)])
def test_words_and_their_nibbles_are_turned(height: int, width: int) -> None:
    rng = np.random.default_rng(height)
    words = rng.integers(0, 2**32, (height, width + 5), dtype=np.uint32)[:, 2 : 2 + width]
    order = (0, 4, 1, 5, 2, 6, 3, 7)
    assert np.array_equal(turned(words), words.T)
    fields = dense(np.ascontiguousarray(words), 4).reshape(height, width, 8)[..., list(order)]
    found = dense(across(words, order), 4)
    assert np.array_equal(found[:, :height], fields.reshape(height, -1).T)
    assert not found[:, height:].any()


def test_planes_hold_the_lowest_bits_first() -> None:
    codes = np.arange(32, dtype=np.uint8)[None] % 8
    low = np.packbits((codes[..., None] & 3) >> np.arange(2, dtype=np.uint8) & 1, bitorder="little")
    high = np.packbits(codes >> 2 & 1, bitorder="little")
    assert np.array_equal(planar(np.concatenate([low, high]).view("<u4")[None], 3), codes)


Edit = Callable[[dict[str, Any]], None]


def _copy(case: str, into: Path) -> Path:
    shutil.copytree(PACKED / case, into / case)
    return into / case


def _edit_header(folder: Path, edit: Edit) -> None:
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    edit(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])


def _reshaped(name: str, shape: list[int]) -> Edit:
    def edit(header: dict[str, Any]) -> None:
        header[f"model.layers.0.self_attn.k_proj.{name}"]["shape"] = shape

    return edit


def _renamed(name: str, other: str) -> Edit:
    def edit(header: dict[str, Any]) -> None:
        header[f"model.layers.0.self_attn.{other}"] = header.pop(f"model.layers.0.self_attn.k_proj.{name}")

    return edit


@pytest.mark.parametrize(
    ("case", "edit", "said"),
    [
        ("gptq-4b-g128-asym", _reshaped("qweight", [64, 64]), r"k_proj.qweight.*scales say 128 outputs"),
        ("gptq-4b-g128-asym", _reshaped("qzeros", [4, 8]), r"k_proj.qzeros.*scales say 2 groups"),
        ("gptq-4b-g128-asym", _reshaped("g_idx", [16, 16]), r"k_proj.g_idx.*the group of each of 256 inputs"),
        ("gptq-4b-g128-asym", _renamed("scales", "k_proj.other"), r"k_proj lacks scales"),
        ("awq-gemm-g32", _reshaped("qzeros", [4, 32]), r"k_proj.qzeros.*must be \[8, 16\]"),
        ("awq-gemm-g32", _renamed("qzeros", "k_proj.other"), r"k_proj lacks qzeros/scaled_zeros"),
        ("ct-int4-g128-asym", _reshaped("weight_packed", [256, 16]), r"k_proj.weight_packed.*4 bits of \[128, 256\]"),
        ("ct-int4-g128-asym", _reshaped("weight_scale", [64, 4]), r"k_proj.weight_scale.*must have 128 rows"),
        ("mlx-affine-4b-g64", _reshaped("weight", [64, 64]), r"k_proj.weight"),
        ("mlx-affine-4b-g64", _renamed("biases", "k_proj.other"), r"k_proj.weight.*needs biases"),
        ("ct-mxfp4a16", _reshaped("weight_scale", [64, 16]), r"k_proj.weight_scale.*must be \[128, 8\]"),
        ("ct-nvfp4", _reshaped("weight_scale", [64, 32]), r"k_proj.weight_scale.*must be \[128, 16\]"),
        ("fp8-block128-ue8m0", _reshaped("weight_scale_inv", [2, 1]), r"k_proj.weight_scale_inv.*wants \[1, 2\]"),
        ("bnb-nf4-dq", _reshaped("weight", [8192, 2]), None),
        ("bnb-int8-bf16-qwen2", _reshaped("SCB", [2, 64]), r"k_proj.SCB.*a scale for each of 128 rows"),
        ("exl2-mixed", _reshaped("q_invperm", [16, 16]), r"k_proj"),
        ("quanto-int4", _reshaped("weight._scale", [64, 4]), None),
        ("hqq-hf-4b-g64-ax1", _reshaped("shape", [1, 2]), r"k_proj"),
    ],
)
def test_tensors_that_contradict_each_other(case: str, edit: Edit, said: str | None, tmp_path: Path) -> None:
    folder = _copy(case, tmp_path)
    _edit_header(folder, edit)
    with open_checkpoint(folder) as checkpoint:
        if said is None:  # as many numbers under another shape say the same
            assert hash_of(_only(unpacked(checkpoint))) == TRUTH[case]["sha256"]
            return
        with pytest.raises(ForgeError, match=said) as caught:
            unpacked(checkpoint)
    assert "\n" not in str(caught.value)


def _only(found: Any) -> Any:
    return found[NAME].read()


@pytest.mark.parametrize(
    ("case", "change", "said"),
    [
        ("gptq-4b-g128-asym", {"bits": 8}, r"k_proj.qzeros.*holds 4 bits, and the configuration says 8"),
        ("gptq-4b-g128-asym", {"checkpoint_format": "marlin"}, r"the layout 'marlin' of GPTQ is not read"),
        ("awq-gemm-g32", {"bits": 8}, r"k_proj.qweight.*holds 4 bits, and the configuration says 8"),
        ("ct-int4-g128-asym", {"transform_config": {"config_groups": {"R1": {}}}}, r"asks for rotations"),
        ("ct-int4-g128-asym", {"format": "marlin-24"}, r"marlin-24"),
        ("gptq-4b-g128-asym", {"quant_method": "exl3"}, r"quantized by exl3.*trellis"),
        ("gptq-4b-g128-asym", {"quant_method": "another"}, r"quantized by another.*which is not read"),
    ],
)
def test_a_configuration_that_says_something_else(
    case: str, change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = _copy(case, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"].update(change)
    (folder / "config.json").write_text(json.dumps(config))
    with open_checkpoint(folder) as checkpoint, pytest.raises(ForgeError, match=said):
        unpacked(checkpoint)
