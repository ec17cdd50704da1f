"""Weights whose groups are made of inputs that lie apart: where inputs may change places, codes are kept."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from gguf_forge.convert.imported.order import put_together
from gguf_forge.convert.job import Quantization
from gguf_forge.convert.view import Stored, View, of_array
from gguf_forge.errors import RecipeError
from tests.convert.stored_as import MODEL, Array, Form, Tensors, gptq, save, store


def scattered(module: str, inputs: int, group: int = 32) -> Array:
    """The group of each input, each of as many inputs, wherever they lie; the same for all that read one input."""
    number = sum(map(ord, module.rpartition(".")[0] if not module.endswith("_proj") else module))
    return np.random.default_rng(number).permutation(np.arange(inputs) // group)


def down_only(module: str, inputs: int) -> Array:
    return scattered(module, inputs) if module.endswith(("down_proj", "w2")) else np.arange(inputs) // 32


def _plan(source: Path, into: Path, kind: str, **how: Any) -> gguf_forge.Planned:
    return gguf_forge.convert_checkpoint(source, into, kind, quantization=Quantization(**how))[0]


def _values(path: Path) -> dict[str, Array]:
    with gguf_forge.open(path) as file:
        return {name: np.asarray(tensor.dequantize()) for name, tensor in file.tensors.items()}


def _order(module: str, inputs: int) -> Array:
    return np.argsort(down_only(module, inputs), kind="stable")


@pytest.mark.parametrize("asym", [False, True])
def test_rows_of_gate_and_up_change_places_with_columns_of_down(asym: bool, tmp_path: Path) -> None:
    source = store(tmp_path / "model", gptq(asym=asym, order=down_only))
    plan = _plan(source, tmp_path / "kept.gguf", "auto", require="lossless")
    assert {(one.status, one.kind) for one in plan.imports} == {("lossless", "Q5_0" if asym else "Q4_0")}
    assert {one.name.split(".")[2] for one in plan.imports if one.moved} == {"ffn_up", "ffn_gate", "ffn_down"}
    _plan(source, tmp_path / "f32.gguf", "f32")
    held, plain = _values(tmp_path / "kept.gguf"), _values(tmp_path / "f32.gguf")
    for name, values in plain.items():
        order = _order(f"model.layers.{name.split('.')[1]}.mlp.down_proj", 768) if ".ffn_" in name else None
        expected = values
        if "ffn_down" in name:
            expected = values[:, order]
        elif "ffn_up" in name or "ffn_gate" in name:
            expected = values[order]
        assert np.array_equal(held[name], expected), name


def test_files_of_other_types_made_at_once_have_nothing_moved(tmp_path: Path) -> None:
    source = store(tmp_path / "model", gptq(order=down_only))
    plans = gguf_forge.convert_checkpoint(source, tmp_path / "{ftype}.gguf", "auto,f16,Q6_K")
    for kind, plan in zip(("auto", "f16", "Q6_K"), plans, strict=True):
        _plan(source, tmp_path / "alone.gguf", kind)
        assert plan.path.read_bytes() == (tmp_path / "alone.gguf").read_bytes()


def test_what_is_float_beside_it_changes_places_too(tmp_path: Path) -> None:
    """Gates that are not quantized, biases, and a recipe that quantizes them: each in the order of the columns."""
    form, rng = gptq(order=down_only), np.random.default_rng(3)

    def write(module: str, values: Array) -> Tensors:
        if module.endswith("gate_proj"):
            return {f"{module}.weight": ("F32", values), f"{module}.bias": ("F32", rng.random(768, np.float32))}
        return form.write(module, values) | (
            {f"{module}.bias": ("F32", rng.random(768, np.float32))} if module.endswith("up_proj") else {}
        )

    said = dict(form.config["quantization_config"], dynamic={r"-:.*gate_proj$": {}})
    source = store(tmp_path / "model", Form(write, {"quantization_config": said, "mlp_bias": True}))
    for recipe in ("auto", "Q8_0"):
        _plan(source, tmp_path / "kept.gguf", recipe)
        _plan(source, tmp_path / "plain.gguf", "f32" if recipe == "auto" else recipe, requantize=recipe != "auto")
        held, plain = _values(tmp_path / "kept.gguf"), _values(tmp_path / "plain.gguf")
        for layer in range(6):
            order = _order(f"model.layers.{layer}.mlp.down_proj", 768)
            for part in ("gate.weight", "gate.bias", "up.bias"):
                name = f"blk.{layer}.ffn_{part}"
                assert np.allclose(held[name], plain[name][order], rtol=1e-2 if recipe == "auto" else 0, atol=0), name


def _mixtral(folder: Path, form: Form) -> Path:
    """One layer of four experts, of random weights."""
    rng = np.random.default_rng(11)
    folder.mkdir()
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (folder / name).write_bytes((MODEL / name).read_bytes())
    config = json.loads((MODEL / "config.json").read_text())
    config |= {"architectures": ["MixtralForCausalLM"], "num_hidden_layers": 1, "num_local_experts": 4}
    config |= {"num_experts_per_tok": 2, "intermediate_size": 128, **form.config}
    (folder / "config.json").write_text(json.dumps(config))

    def normal(*shape: int) -> Array:
        return rng.normal(0, 0.05, shape).astype(np.float32)

    layer = "model.layers.0"
    tensors: Tensors = {f"{n}.weight": ("F32", normal(4096, 256)) for n in ("model.embed_tokens", "lm_head")}
    for norm in (f"{layer}.input_layernorm", f"{layer}.post_attention_layernorm", "model.norm"):
        tensors[f"{norm}.weight"] = "F32", np.ones(256, np.float32)
    for name, out in (("q", 256), ("k", 128), ("v", 128), ("o", 256)):
        tensors[f"{layer}.self_attn.{name}_proj.weight"] = "F32", normal(out, 256)
    tensors[f"{layer}.block_sparse_moe.gate.weight"] = "F32", normal(4, 256)
    for expert in range(4):
        for name, shape in (("w1", (128, 256)), ("w3", (128, 256)), ("w2", (256, 128))):
            tensors |= form.write(f"{layer}.block_sparse_moe.experts.{expert}.{name}", normal(*shape))
    save(folder / "model.safetensors", tensors)
    return folder


def test_each_expert_has_an_order_of_its_own(tmp_path: Path) -> None:
    def order(module: str, inputs: int) -> Array:  # the second expert's groups lie together as they are
        return np.arange(inputs) // 32 if ".experts.1." in module else down_only(module, inputs)

    source = _mixtral(tmp_path / "model", gptq(order=order))
    _plan(source, tmp_path / "kept.gguf", "auto")
    _plan(source, tmp_path / "f32.gguf", "f32")
    held, plain = _values(tmp_path / "kept.gguf"), _values(tmp_path / "f32.gguf")
    for expert in range(4):
        columns = np.argsort(order(f"model.layers.0.block_sparse_moe.experts.{expert}.w2", 128), kind="stable")
        down, gate, up = (f"blk.0.ffn_{part}_exps.weight" for part in ("down", "gate", "up"))
        assert np.array_equal(held[down][expert], plain[down][expert][:, columns])
        assert np.array_equal(held[gate][expert], plain[gate][expert][columns])
        assert np.array_equal(held[up][expert], plain[up][expert][columns])


def _model(made: dict[str, tuple[int, ...]]) -> tuple[View, dict[str, View]]:
    """Random tensors of these shapes, and a last matrix of two experts whose columns are stored in other orders."""
    rng = np.random.default_rng(2)
    views = {name: of_array(name, rng.random(shape, np.float32)) for name, shape in made.items()}
    name = "blk.7.ffn_down_exps.weight"
    values = of_array(name, rng.random((2, 8, 64), np.float32))
    down = replace(values, stored=Stored("some", (values,), orders=(rng.permutation(64), None)))
    return down, {**views, name: down}


def test_halves_of_a_fused_matrix_change_places_alike() -> None:
    shapes = {"blk.7.ffn_gate_up_exps.weight": (2, 128, 16), "blk.7.ffn_gate_up_exps.bias": (2, 128)}
    down, views = _model(shapes)
    views["blk.7.ffn_gate_up_exps.bias"] = replace(views["blk.7.ffn_gate_up_exps.bias"], vector=True)
    found = put_together(down, views)
    assert not isinstance(found, str)
    x = np.random.default_rng(5).random(16, np.float32)

    def computed(tensors: dict[str, View], expert: int) -> Array:
        matrix, bias, last = (np.asarray(tensors[name].read(), np.float64)[expert] for name in (*shapes, down.name))
        inner = matrix @ x + bias
        return np.asarray(last @ (np.tanh(inner[:64]) * inner[64:]))

    for expert in (0, 1):
        assert np.allclose(computed(views, expert), computed(views | found, expert), rtol=1e-12)
    for view in found.values():
        rows = [view.rows(at, at + 1) for at in range(view.count)]
        assert np.array_equal(np.concatenate(rows), view.rows(0, view.count))


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({}, "no tensor is known to make the inputs"),
        ({"blk.7.ffn_up_exps.weight": (2, 96, 16)}, r"blk.7.ffn_up_exps.weight \[2, 96, 16\] does not make the 64"),
        (
            {"blk.7.ffn_up_exps.weight": (2, 128, 16), "blk.7.ffn_gate_exps.weight": (2, 128, 16)},
            r"does not make the 64 inputs",
        ),
        (
            {"blk.7.ffn_up_exps.weight": (2, 64, 16), "blk.7.ffn_sub_norm.weight": (64,)},
            r"blk.7.ffn_sub_norm.weight stands between",
        ),
        (
            {"blk.7.ffn_up_exps.weight": (2, 64, 16), "blk.7.ffn_up_exps.lora_b": (4, 64, 2)},
            r"blk.7.ffn_up_exps.lora_b stands between",
        ),
    ],
)
def test_what_must_not_change_places(shapes: dict[str, tuple[int, ...]], said: str) -> None:
    found = put_together(*_model(shapes))
    assert isinstance(found, str)
    assert re.search(said, found)


def test_why_inputs_keep_their_places(tmp_path: Path) -> None:
    source = store(tmp_path / "model", gptq(order=scattered))
    plan = _plan(source, tmp_path / "kept.gguf", "auto")
    why = {one.name: (one.status, one.rule) for one in plan.imports}
    assert why["blk.0.ffn_down.weight"][0] == "lossless"
    assert why["blk.0.attn_q.weight"][0] == why["blk.0.ffn_up.weight"][0] == "dequantized"
    assert "blk.0.attn_q.weight are the state that all of the layer reads" in why["blk.0.attn_q.weight"][1]
    assert "blk.0.attn_output.weight are the values of attention heads" in why["blk.0.attn_output.weight"][1]
    with pytest.raises(RecipeError, match=r"--require lossless: 36 weights are not: .*act-order"):
        _plan(source, tmp_path / "no.gguf", "auto", require="lossless")


def _renumbered(_module: str, inputs: int) -> Array:
    return np.random.default_rng(inputs).permutation(inputs // 32).repeat(32)


def test_groups_that_lie_together_under_other_numbers_move_nothing(tmp_path: Path) -> None:
    source = store(tmp_path / "model", gptq(order=_renumbered))
    plan = _plan(source, tmp_path / "kept.gguf", "auto", require="lossless")
    assert not any(one.moved for one in plan.imports)
    _plan(source, tmp_path / "f32.gguf", "f32")
    held, plain = _values(tmp_path / "kept.gguf"), _values(tmp_path / "f32.gguf")
    assert all(np.array_equal(held[name], plain[name]) for name in plain)


def test_groups_that_are_no_whole_blocks_are_dequantized(tmp_path: Path) -> None:
    def uneven(module: str, inputs: int) -> Array:
        index = scattered(module, inputs)
        index[np.flatnonzero(index == 1)[0]] = 0
        return index

    form = gptq(order=scattered)

    def write(module: str, values: Array) -> Tensors:
        made = form.write(module, values)
        return made | {f"{module}.g_idx": ("I32", uneven(module, values.shape[1]).astype(np.int32))}

    plan = _plan(store(tmp_path / "model", Form(write, form.config)), tmp_path / "kept.gguf", "auto")
    assert {one.status for one in plan.imports} == {"dequantized"}
    assert all("no whole blocks of 32 even sorted" in one.rule for one in plan.imports)
