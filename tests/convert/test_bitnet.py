"""BitNet: whatever form the three values come in, the file holds those that the model computes with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from gguf_forge.convert.job import Quantization
from gguf_forge.errors import ForgeError
from tests.convert.test_grids import _bf16
from tests.convert.test_imported import MODEL, _floats
from tests.source.containers import safetensors_of

Floats = np.ndarray[Any, np.dtype[np.float32]]
Pieces = dict[str, tuple[str, np.ndarray[Any, Any]]]
HIDDEN, INNER, VOCABULARY = 256, 512, 320
SHAPES = {
    **dict.fromkeys((f"self_attn.{name}_proj" for name in "qkvo"), (HIDDEN, HIDDEN)),
    **dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), (INNER, HIDDEN)),
    "mlp.down_proj": (HIDDEN, INNER),
}
AUTO = {"quant_method": "bitnet", "linear_class": "autobitlinear", "modules_to_not_convert": ["lm_head"]}
ONLINE = {**AUTO, "quantization_mode": "online"}
OFFLINE = {**AUTO, "quantization_mode": "offline"}


def ternary(weight: Floats) -> tuple[np.ndarray[Any, np.dtype[np.int8]], np.float32]:
    """Codes and scale of a weight, as transformers' WeightQuant has them."""
    mean = np.float32(np.abs(weight).mean(dtype=np.float64))
    return np.clip(np.rint(weight * (np.float32(1) / mean)), -1, 1).astype(np.int8), mean


def _fields(codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    quarters = (codes + 1).astype(np.uint8).reshape(4, -1, codes.shape[1])
    return np.asarray(np.bitwise_or.reduce([quarters[k] << np.uint8(2 * k) for k in range(4)]))


def _pieces(form: str, weight: Floats) -> Pieces:
    """The tensors of a layer, by the ends of their names."""
    codes, scale = ternary(weight)
    if form in ("plain", "online"):
        return {"weight": ("BF16", _bf16(weight))}
    if form == "floats":
        return {"weight": ("BF16", _bf16(codes)), "weight_scale": ("F32", np.array([scale]))}
    number = np.float32(1) / scale if form == "divided" else scale
    return {"weight": ("U8", _fields(codes)), "weight_scale": ("F32", np.array([number]))}


SETTINGS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "online": ONLINE,
    "packed": OFFLINE,
    "floats": OFFLINE,
    "divided": {"quant_method": "bitnet", "linear_class": "bitlinear"},
}


def checkpoint(folder: Path, form: str, **settings: Any) -> Path:
    """A BitNet of one layer whose weights are stored in some form; the same weights whatever it is."""
    folder.mkdir()
    rng = np.random.default_rng(8)
    pieces: Pieces = {"model.embed_tokens.weight": ("F32", _weights(rng, (VOCABULARY, HIDDEN)) * 10)}
    names = ("input_layernorm", "post_attention_layernorm", "self_attn.{}", "mlp.{}")
    plain = form == "plain"
    norms = [name.format("inner_attn_ln" if plain else "attn_sub_norm") for name in names[:3]]
    norms.append(names[3].format("ffn_layernorm" if plain else "ffn_sub_norm"))
    for norm, width in zip(norms, (HIDDEN, HIDDEN, HIDDEN, INNER), strict=True):
        pieces[f"model.layers.0.{norm}.weight"] = ("F32", np.ones(width, np.float32))
    for name, shape in SHAPES.items():
        weight = _rounded(_weights(rng, shape))
        for end, piece in _pieces(form, weight).items():
            pieces[f"model.layers.0.{name}.{end}"] = piece
    pieces["model.norm.weight"] = ("F32", np.ones(HIDDEN, np.float32))
    (folder / "model.safetensors").write_bytes(safetensors_of(pieces))
    config = {
        "architectures": ["BitnetForCausalLM" if plain else "BitNetForCausalLM"],
        "model_type": "bitnet",
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "max_position_embeddings": 512,
        "num_attention_heads": 4,
        "num_hidden_layers": 1,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "vocab_size": VOCABULARY,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    own = SETTINGS[form]
    if own is not None:
        config["quantization_config"] = {**own, **settings}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.model", "tokenizer_config.json"):
        source = MODEL / name
        if source.exists():
            shutil.copy(source, folder)
    return folder


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return rng.normal(0, 0.03, shape).astype(np.float32)


def _rounded(values: Floats) -> Floats:
    return (_bf16(values).astype(np.uint32) << 16).view(np.float32)


def _convert(source: Path, into: Path, types: str, **how: Any) -> gguf_forge.Planned:
    return gguf_forge.convert_checkpoint(source, into, types, quantization=Quantization(**how))[0]


def _matrices(path: Path) -> dict[str, Floats]:
    """The values of the matrices of a file, times the scales beside them."""
    found = {}
    with gguf_forge.open(path) as file:
        for name, tensor in file.tensors.items():
            if name.startswith("blk.") and "norm" not in name and name.endswith(".weight"):
                scale = file.tensors.get(f"{name.removesuffix('weight')}scale")
                found[name] = np.asarray(tensor.dequantize() * (1 if scale is None else scale.dequantize()))
    return found


@pytest.mark.parametrize("form", ["online", "packed", "floats", "divided"])
def test_every_form_holds_what_the_plain_model_computes_with(form: str, tmp_path: Path) -> None:
    plain = _matrices(_convert(checkpoint(tmp_path / "plain", "plain"), tmp_path / "plain.gguf", "f32").path)
    source = checkpoint(tmp_path / form, form)
    kept = _convert(source, tmp_path / "kept.gguf", "auto", require="lossless")
    assert {(one.status, one.kind) for one in kept.imports} == {("lossless", "TQ2_0")}
    assert len(kept.imports) == len(SHAPES)
    floats = _matrices(_convert(source, tmp_path / "floats.gguf", "f32").path)
    for name, values in _matrices(kept.path).items():
        assert np.array_equal(values, floats[name]), name
        # BitNet's own code divides by the float32 inverse of the mean: a unit in the last place.
        assert np.allclose(values, plain[name], rtol=2.0**-22, atol=0), name


def test_the_three_values_of_the_plain_model_are_found(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "plain", "plain")
    found = _convert(source, tmp_path / "found.gguf", "auto", detect_grid=True, require="lossless")
    assert {one.kind for one in found.imports} == {"TQ2_0"}
    floats = _matrices(_convert(source, tmp_path / "floats.gguf", "f32").path)
    for name, values in _matrices(found.path).items():
        assert np.array_equal(values, floats[name]), name


def test_what_the_configuration_keeps_stays_float(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "kept", "online", modules_to_not_convert=["lm_head", "model.layers.0.mlp", "o_proj"])
    plan = _convert(source, tmp_path / "kept.gguf", "auto")
    assert {one.name for one in plan.imports} == {f"blk.0.attn_{name}.weight" for name in "qkv"}


def test_floats_beside_a_scale_that_are_others_have_no_grid(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "floats", "floats")
    raw = bytearray((source / "model.safetensors").read_bytes())
    size = int.from_bytes(raw[:8], "little")
    at = 8 + size + json.loads(raw[8 : 8 + size])["model.layers.0.mlp.up_proj.weight"]["data_offsets"][0]
    raw[at : at + 2] = b"\x00\x3f"  # a half
    (source / "model.safetensors").write_bytes(raw)
    plan = _convert(source, tmp_path / "found.gguf", "auto")
    by_name = {one.name: one for one in plan.imports}
    assert by_name["blk.0.ffn_up.weight"].status == "dequantized"
    assert "not all -1, 0 or 1" in by_name["blk.0.ffn_up.weight"].rule
    assert by_name["blk.0.ffn_gate.weight"].status == "lossless"


@pytest.mark.parametrize(
    ("form", "settings", "said"),
    [
        ("packed", {"use_rms_norm": True}, r"down_proj.weight.*use_rms_norm"),
        ("online", {"use_rms_norm": True}, r"use_rms_norm"),
    ],
)
def test_what_llama_cpp_has_no_place_for_is_refused(form: str, settings: Any, said: str, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / form, form, **settings)
    with pytest.raises(ForgeError, match=said):
        _convert(source, tmp_path / "no.gguf", "auto")
    assert not (tmp_path / "no.gguf").exists()


def test_another_activation_is_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "relu2", "packed")
    config = json.loads((source / "config.json").read_text()) | {"hidden_act": "relu2"}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(ForgeError, match=r"hidden_act is 'relu2'; llama\.cpp runs BitNet with SiLU"):
        _convert(source, tmp_path / "no.gguf", "auto")


def test_fields_without_a_scale_are_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "packed", "packed")
    raw = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(raw.replace(b"up_proj.weight_scale", b"up_proj.weight_other"))
    with pytest.raises(ForgeError, match=r"mlp\.up_proj lacks weight_scale"):
        _convert(source, tmp_path / "no.gguf", "auto")


def test_a_llama_of_three_values(tmp_path: Path) -> None:
    """As transformers fine-tunes other models to three values: its projections, and not the rest."""
    folder = tmp_path / "llama"
    shutil.copytree(MODEL, folder)
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": ONLINE}
    (folder / "config.json").write_text(json.dumps(config))
    plan = _convert(folder, tmp_path / "kept.gguf", "auto", require="lossless")
    assert {one.kind for one in plan.imports} == {"TQ2_0"}
    assert len(plan.imports) == 42
    with gguf_forge.open(plan.path) as file:
        weight = _floats(MODEL / "model.safetensors")["model.layers.2.mlp.down_proj.weight"]
        codes, scale = ternary(weight)
        assert np.array_equal(file.tensors["blk.2.ffn_down.weight"].dequantize(), codes)
        assert file.tensors["blk.2.ffn_down.scale"].dequantize().tolist() == [scale]
