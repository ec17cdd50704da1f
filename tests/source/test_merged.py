"""Adapters merged on the way: what the sum is, which adapters are, and what is said of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from gguf_forge.convert.facts import Options
from gguf_forge.convert.files import convert_checkpoint
from gguf_forge.errors import CheckpointError
from gguf_forge.source.checkpoint import open_checkpoint
from gguf_forge.source.merged import merge_adapter

PLAIN = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "bias": "none"}
NAME = "model.layers.0.self_attn.q_proj"
LLAMA = Path(__file__).resolve().parents[2] / "fixtures" / "models" / "PyLlama-7M"
Array = npt.NDArray[np.float32]
rng = np.random.default_rng(5)


def normal(*shape: int) -> Array:
    return rng.normal(size=shape).astype(np.float32)


def adapter(folder: Path, tensors: dict[str, Array], **settings: Any) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(PLAIN | settings), encoding="utf-8")
    return folder


def pair(place: str = f"base_model.model.{NAME}", rows: int = 8, columns: int = 6) -> dict[str, Array]:
    return {f"{place}.lora_A.weight": normal(2, columns), f"{place}.lora_B.weight": normal(rows, 2)}


def base(folder: Path, stored: str = f"{NAME}.weight") -> Path:
    folder.mkdir()
    save_file({stored: normal(8, 6), "model.norm.weight": normal(6)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(("settings", "scale"), [({}, 1.5), ({"use_rslora": True}, 3 / 2**0.5)])
@pytest.mark.parametrize("stored", [f"{NAME}.weight", f"model.language_{NAME}.weight", f"{NAME[6:]}.weight"])
def test_a_weight_gets_what_the_adapter_adds(
    settings: dict[str, Any], scale: float, stored: str, tmp_path: Path
) -> None:
    parts = pair()
    down, up = (parts[f"base_model.model.{NAME}.lora_{x}.weight"].astype(np.float64) for x in "AB")
    with open_checkpoint(base(tmp_path / "base", stored)) as model:
        own, norm = model.tensors[stored].read(), model.tensors["model.norm.weight"]
        merge_adapter(model, adapter(tmp_path / "adapter", parts, **settings))
        merged = model.tensors[stored]
        assert (merged.dtype, merged.shape) == ("F32", (8, 6))
        assert np.allclose(merged.read(), own + scale * (up @ down), rtol=1e-6, atol=1e-6)
        assert all(np.array_equal(merged.rows(n, n + 1), merged.read()[n : n + 1]) for n in range(8))
        assert model.tensors["model.norm.weight"] is norm
        assert model.folders == (tmp_path / "adapter", tmp_path / "base")
        assert any("1 weights are merged" in note for note in model.notes)


@pytest.mark.parametrize(
    ("tensors", "settings", "said"),
    [
        (pair(), {"use_dora": True}, "only a plain LoRA can be merged, and use_dora is True"),
        (pair(), {"bias": "all"}, "only a plain LoRA can be merged, and bias is 'all'"),
        (pair(), {"peft_type": "IA3"}, "only a plain LoRA can be merged, and peft_type is 'IA3'"),
        (pair(), {"rank_pattern": {"q_proj": 4}}, "and rank_pattern is"),
        (pair(), {"r": "2"}, "r and lora_alpha must be numbers"),
        (pair("base_model.model.model.layers.1.self_attn.q_proj"), {}, "is no weight of"),
        (pair(rows=4), {}, r"\[4, 2\] by \[2, 6\] cannot be added to '.*q_proj.weight', \[8, 6\]"),
        ({f"{NAME}.lora_A.weight": normal(2, 6)}, {}, "has only one of its two matrices"),
        ({**pair(), f"{NAME}.bias": normal(8)}, {}, "is no matrix of a LoRA"),
    ],
)
def test_what_cannot_be_merged_is_said(
    tensors: dict[str, Array], settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with open_checkpoint(base(tmp_path / "base")) as model, pytest.raises(CheckpointError, match=said):
        merge_adapter(model, adapter(tmp_path / "adapter", tensors, **settings))


def test_weights_that_have_scales_are_not_merged(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    entry = {"dtype": "F8_E4M3", "shape": [8, 6], "data_offsets": [0, 48]}
    header = json.dumps({f"{NAME}.weight": entry}).encode()
    file = len(header).to_bytes(8, "little") + header + bytes(48)
    (tmp_path / "base" / "model.safetensors").write_bytes(file)
    with open_checkpoint(tmp_path / "base") as model, pytest.raises(CheckpointError, match="is F8_E4M3, and only"):
        merge_adapter(model, adapter(tmp_path / "adapter", pair()))


def test_a_folder_without_an_adapter_is_said(tmp_path: Path) -> None:
    with open_checkpoint(base(tmp_path / "base")) as model:
        with pytest.raises(CheckpointError, match=r"no adapter_config\.json, so no adapter"):
            merge_adapter(model, tmp_path)
        (tmp_path / "adapter_config.json").write_text(json.dumps(PLAIN), encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"no adapter: looked for adapter_model\.safetensors"):
            merge_adapter(model, tmp_path)


def test_a_model_is_converted_with_its_adapter_and_under_the_adapters_name(tmp_path: Path) -> None:
    with open_checkpoint(LLAMA) as model:
        shape = model.tensors[f"{NAME}.weight"].shape
    folder = adapter(tmp_path / "Tuned-Llama", pair(rows=shape[0], columns=shape[1]))
    (plain,) = convert_checkpoint(LLAMA, tmp_path / "plain.gguf", "f32")
    (tuned,) = convert_checkpoint(folder, None, "f32", options=Options(base=LLAMA))
    assert tuned.path.parent == folder
    assert tuned.metadata["general.name"].value == "Tuned Llama"
    assert [c.name for c in tuned.choices] == [c.name for c in plain.choices]
    assert tuned.path.read_bytes()[-1000:] == plain.path.read_bytes()[-1000:]
    differs = _tensors(tuned.path), _tensors(plain.path)
    assert {name for name, data in differs[0].items() if data != differs[1][name]} == {"blk.0.attn_q.weight"}


def _tensors(path: Path) -> dict[str, bytes]:
    from gguf_forge.format import reader

    with reader.open(path) as file:
        return {name: tensor.data.tobytes() for name, tensor in file.tensors.items()}
