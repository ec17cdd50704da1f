"""What training leaves around a model: names of wrappers, which are left out, and adapters, which are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gguf_forge.convert.files import convert_checkpoint
from gguf_forge.errors import CheckpointError
from gguf_forge.source import open_checkpoint
from gguf_forge.source.wrappers import is_adapter, unwrap
from tests import manifest
from tests.source.containers import safetensors_bytes

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
MODEL = FIXTURES / "models" / "PyLlama-7M"
GOLDEN = manifest.load(FIXTURES / "golden" / "PyLlama-7M.json.xz")
PLAIN = ["lm_head.weight", "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"]


def renamed(folder: Path, rename: str) -> Path:
    """A copy of the trained model whose tensors' names are `rename` with the name for {}."""
    shutil.copytree(MODEL, folder)
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header = {name if name == "__metadata__" else rename.format(name): e for name, e in header.items()}
    path.write_bytes(safetensors_bytes(header, raw[8 + size :]))
    return folder


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "base_model.model.", "module._orig_mod.", "_orig_mod.module."]
)
def test_a_wrapped_model_is_converted_as_the_model_itself(prefix: str, tmp_path: Path) -> None:
    folder = renamed(tmp_path / "PyLlama-7M", prefix + "{}")
    (plan,) = convert_checkpoint(folder, tmp_path / "a.gguf", "Q4_K_M")
    assert manifest.differences(tmp_path / "a.gguf", GOLDEN["PyLlama-7M.Q4_K_M"]) == []
    said = [note for note in plan.notes if "read without it" in note]
    parts = [part for part in ("module.", "_orig_mod.", "base_model.model.") if part in prefix]
    assert len(said) == len(parts)
    assert all(any(f"'{part}'" in note for note in said) for part in parts)


@pytest.mark.parametrize(
    ("names", "notes"),
    [
        (PLAIN, 0),
        ([f"module.{name}" for name in PLAIN], 1),
        ([name.replace("layers.0.", "layers.0._orig_mod.") for name in PLAIN], 1),
        ([name.replace("model.", "model._fsdp_wrapped_module._checkpoint_wrapped_module.") for name in PLAIN], 2),
        ([f"_forward_module.module.{name}" for name in PLAIN], 2),
    ],
)
def test_names_of_wrappers_are_left_out(names: list[str], notes: int) -> None:
    found, said = unwrap({name: number for number, name in enumerate(names)}, Path("x"))
    assert found == {name: number for number, name in enumerate(PLAIN)}
    assert len(said) == notes


@pytest.mark.parametrize(
    "names",
    [
        [*PLAIN, "module.norm.weight"],
        ["model.module.weight", "model.my_orig_mod.weight"],
        ["modules.a", "module"],
        [],
    ],
)
def test_other_names_stay(names: list[str]) -> None:
    assert unwrap(dict.fromkeys(names, 0), Path("x")) == (dict.fromkeys(names, 0), [])


def test_two_tensors_of_one_name_without_wrappers_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"'a\.w' and 'a\._orig_mod\.w' both stand for 'a\.w'"):
        unwrap({"a.w": 0, "a._orig_mod.w": 1}, Path("x"))


def adapter(folder: Path, weights: str, settings: object) -> Path:
    folder.mkdir()
    header = {
        f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight": {
            "dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]
        }
        for i, side in enumerate("AB")
    }  # fmt: skip
    (folder / weights).write_bytes(safetensors_bytes(header, bytes(8)))
    if settings is not None:
        (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "LORA", "base_model_name_or_path": "org/Base-1B"}, "LoRA adapter of 'org/Base-1B', not a model"),
        ({"peft_type": "IA3", "base_model_name_or_path": None}, "IA3 adapter, not a model: merge it into its base"),
        ({"fine_tune_type": "dora", "model": "mlx/Base"}, "DoRA adapter of 'mlx/Base', not a model"),
        ({}, ": adapter, not a model"),
        ([], ": adapter, not a model"),
    ],
)
@pytest.mark.parametrize("weights", ["adapter_model.safetensors", "adapters.safetensors", "model.safetensors"])
def test_an_adapter_is_refused_with_the_model_it_is_of(
    tmp_path: Path, weights: str, settings: object, said: str
) -> None:
    folder = adapter(tmp_path / "a", weights, settings)
    for path in (folder, folder / weights):
        with pytest.raises(CheckpointError) as caught:
            convert_checkpoint(path, tmp_path / "out.gguf")
        assert said in str(caught.value)
        assert "merge_and_unload" in str(caught.value)
    assert not (tmp_path / "out.gguf").exists()


def test_an_adapters_own_names_can_be_read(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", "adapter_model.safetensors", None)
    with open_checkpoint(folder / "adapter_model.safetensors") as checkpoint:
        assert is_adapter(checkpoint.tensors.keys())
        assert all(name.startswith("base_model.model.") for name in checkpoint.tensors)


def test_a_model_with_tensors_named_as_an_adapters_is_one() -> None:
    assert not is_adapter([*PLAIN, "model.layers.0.self_attn.q_proj.lora_A"])
    assert is_adapter(["base_model.model.model.norm.weight", "base_model.model.model.q_proj.base_layer.weight"])
