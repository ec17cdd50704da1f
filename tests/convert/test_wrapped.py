"""Text models within models in parts that no family serves by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import gguf_forge
from gguf_forge.convert.registry import select
from gguf_forge.convert.wrapped import unwrapped
from gguf_forge.errors import ConversionError
from gguf_forge.source.checkpoint import open_checkpoint

MODEL = Path(__file__).resolve().parents[2] / "fixtures/models/PyLlama-7M"


@pytest.fixture
def wrapper(tmp_path: Path) -> Path:
    """PyLlama-7M as the text model of a model that sees."""
    folder = tmp_path / "wrapper"
    shutil.copytree(MODEL, folder)
    with open_checkpoint(MODEL) as checkpoint:
        plain = {name: np.asarray(tensor.read()) for name, tensor in checkpoint.tensors.items()}
    (folder / "model.safetensors").unlink()
    bits = {n: (v.astype(np.uint32) << 16).view(np.float32) for n, v in plain.items()}
    inside = {f"language_model.{name}": values for name, values in bits.items()}
    names = "vision_tower.blocks.0.weight", "multi_modal_projector.weight"
    seeing = dict.fromkeys(names, np.ones((4, 4), np.float32))
    save_file({**inside, **seeing}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    whole = {"architectures": ["SeeingForConditionalGeneration"], "model_type": "seeing", "text_config": config}
    (folder / "config.json").write_text(json.dumps(whole))
    return folder


def test_the_text_model_of_an_unknown_wrapper_converts(wrapper: Path, tmp_path: Path) -> None:
    plan = gguf_forge.convert_checkpoint(wrapper, tmp_path / "text.gguf", "f32")[0]
    gguf_forge.convert_checkpoint(MODEL, tmp_path / "plain.gguf", "f32")
    assert sorted(plan.dropped) == ["multi_modal_projector.weight", "vision_tower.blocks.0.weight"]
    with gguf_forge.open(tmp_path / "text.gguf") as text, gguf_forge.open(tmp_path / "plain.gguf") as plain:
        assert list(text.tensors) == list(plain.tensors)
        for name, tensor in plain.tensors.items():
            assert np.array_equal(tensor.dequantize(), text.tensors[name].dequantize())


def test_what_is_of_no_part_is_still_an_error(wrapper: Path, tmp_path: Path) -> None:
    path = wrapper / "model.safetensors"
    raw = path.read_bytes()
    path.unlink()
    path.write_bytes(raw.replace(b"multi_modal_projector.weight", b"something_else_here__.weight"))
    with pytest.raises(ConversionError, match="something_else_here_"):
        gguf_forge.convert_checkpoint(wrapper, tmp_path / "text.gguf", "f32")


def test_an_architecture_that_serves_the_whole_stays_as_it_is() -> None:
    arch = select({"architectures": ["LlamaForCausalLM"]})
    assert unwrapped(arch, {"architectures": ["LlamaForCausalLM"], "text_config": {}}) is arch
    assert unwrapped(arch, {"architectures": ["LlamaForCausalLM"]}) is arch
