"""Weights that other tools quantized, in blocks of GGUF: which type each gets, and whether the file holds them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import gguf_forge
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.imported import Survey, choose, pack, survey
from gguf_forge.convert.job import Quantization
from gguf_forge.convert.ops import CONCAT, STACK, add
from gguf_forge.convert.origin import source_view
from gguf_forge.convert.rows import equal_parts, interleave_halves
from gguf_forge.convert.run import Target, run
from gguf_forge.convert.view import View
from gguf_forge.errors import ConversionError, RecipeError
from gguf_forge.quant.codec import dequantize
from gguf_forge.source.checkpoint import open_checkpoint
from gguf_forge.source.packed import PackedTensor, unpacked
from gguf_forge.types import tensor_type
from tests.source.containers import entry, safetensors_bytes

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
PACKED, MODEL = FIXTURES / "packed", FIXTURES / "models/PyLlama-7M"
FACTS = Facts({}, Path())
#: Type and status with `prefer` "exact", and with "small" where that is another.
EXPECTED = {
    "autoround-2b-g64-sym": ("Q2_0 lossless",),
    "autoround-4b-g128-asym": ("Q5_0 lossless", "Q4_1 code-exact"),
    "autoround-to-autoawq-5b": ("Q8_0 lossless", "Q5_1 code-exact"),
    "awq-gemm-g32": ("Q5_0 lossless", "Q4_1 code-exact"),
    "awq-gemv-g64": ("Q5_0 lossless", "Q4_1 code-exact"),
    "awq-gemvfast-g128": ("Q4_1 lossless",),
    "bitnet-autobitlinear-offline": ("TQ2_0 lossless", "TQ1_0 lossless"),
    "bitnet-autobitlinear-online": ("TQ2_0 code-exact", "TQ1_0 code-exact"),
    "bnb-int8-bf16-qwen2": ("Q8_0 code-exact",),
    "ct-int3-g64-oldpack": ("Q4_0 lossless",),
    "ct-int4-channel-asym": ("Q4_K lossless",),
    "ct-int4-g128-asym": ("Q5_0 lossless", "Q4_1 code-exact"),
    "ct-int4-g32-sym": ("Q4_0 lossless",),
    "ct-int5-g64-asym": ("Q8_0 lossless", "Q5_1 code-exact"),
    "ct-int8-g128-sym-packed": ("Q8_0 lossless",),
    "ct-mxfp4a16": ("MXFP4 lossless",),
    "ct-mxfp6a16": ("Q8_0 lossless",),
    "ct-w8a8-int8": ("Q8_0 lossless",),
    "exl2-mixed": ("F16 lossless",),
    "gptq-3b-g64-sym": ("Q4_0 lossless",),
    "gptq-4b-g128-asym": ("Q5_0 lossless", "Q4_1 code-exact"),
    "gptq-4b-g128-sym": ("Q4_0 lossless",),
    "gptq-8b-g64-asym": ("floats dequantized",),
    "gptq-p-7b-g128-asym": ("Q8_0 lossless",),
    "hqq-hf-4b-g64-ax1": ("Q4_1 code-exact",),
    "mlx-affine-2b-g64": ("Q4_1 lossless",),
    "mlx-affine-4b-g64": ("Q4_1 lossless",),
    "mlx-affine-5b-g64": ("Q5_1 lossless",),
    "mlx-affine-8b-g64": ("floats dequantized",),
    "mlx-mxfp4": ("MXFP4 lossless",),
    "mlx-nvfp4": ("NVFP4 lossless",),
    "quanto-int4": ("Q4_1 lossless",),
    "quanto-int8": ("Q8_0 lossless",),
    "quark-int4-channel": ("Q4_0 lossless",),
    "quark-uint4-g128": ("Q5_0 lossless", "Q4_1 code-exact"),
    "torchao-int4tensor-g128": ("Q4_1 code-exact",),
    "torchao-intx2-g32": ("Q4_0 lossless",),
    "torchao-intx4-asym-g64": ("Q5_0 lossless", "Q4_1 code-exact"),
    "torchao-intx4-g32": ("Q4_0 code-exact",),
}
#: Floats that no grid holds.
WITHOUT = ("bnb-nf4-dq", "fp8-block128-ue8m0", "fbgemm-fp8", "torchao-float8wo")


@contextmanager
def opened(case: str) -> Iterator[View]:
    with open_checkpoint(PACKED / case) as checkpoint:
        (tensor,) = unpacked(checkpoint).values()
        assert isinstance(tensor, PackedTensor)
        yield source_view(tensor)


@pytest.mark.parametrize("prefer", ["exact", "small"])
@pytest.mark.parametrize("case", EXPECTED)
def test_the_type_of_a_grid_and_what_it_holds(case: str, prefer: Any) -> None:
    with opened(case) as view:
        made, choice = choose(view, prefer)
        kind = made.type.name if made.type else "floats"
        assert f"{kind} {made.status}" == EXPECTED[case][-1 if prefer == "small" else 0]
        if made.type is None:
            return
        values = view.read()
        rows = pack(view, choice, 0, view.count)
        found = dequantize(rows, made.type) if made.type.quantized else rows.astype(np.float32)
        if made.status == "lossless":
            assert np.array_equal(found.reshape(values.shape), values)
        else:
            assert np.linalg.norm(found.reshape(values.shape) - values) < 1e-3 * np.linalg.norm(values)
        pieces = [pack(view, choice, a, b) for a, b in ((0, 3), (3, 70), (70, view.count))]
        assert np.array_equal(np.concatenate(pieces), rows)


@pytest.mark.parametrize("case", WITHOUT)
def test_what_no_type_holds_has_no_stored_form(case: str) -> None:
    with open_checkpoint(PACKED / case) as checkpoint:
        (tensor,) = unpacked(checkpoint).values()
        assert isinstance(tensor, PackedTensor)
        assert tensor.why
        stored = source_view(tensor).stored
        assert stored is None or stored.floats


@pytest.mark.parametrize("case", ["fp8-block128-ragged", "fp8-block128-ue8m0", "fbgemm-fp8", "ct-mxfp8a16"])
@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0"])
def test_floats_of_8_bits_are_encoded_as_their_values_are(case: str, kind: str, tmp_path: Path) -> None:
    """Straight from codes and scales, wherever rules move them."""
    with opened(case) as view:
        turned = interleave_halves(lambda _: 4).views([view], FACTS)[0]
        stack, both = STACK.views([view, turned], FACTS)[0], CONCAT.views([turned, view], FACTS)[0]
        made = {v.name: v for v in (replace(v, name=str(i)) for i, v in enumerate((view, turned, stack, both)))}
        assert all(v.stored is not None and v.stored.floats for v in made.values())
        plain = {f"{name} of values": replace(v, name=f"{name} of values", stored=None) for name, v in made.items()}
        views = [*made.values(), *plain.values()]
        with gguf_forge.GGUFWriter(tmp_path / "out.gguf", {"general.architecture": "llama"}) as writer:
            for v in views:
                writer.declare(v.name, v.shape, kind)
            writer.begin()
            target = Target(writer, {v.name: tensor_type(kind) for v in views}, {}, measured=tuple(made) + tuple(plain))
            run(views, [target])
    with gguf_forge.open(tmp_path / "out.gguf") as file:
        for name in made:
            assert np.array_equal(file.tensors[name].data, file.tensors[f"{name} of values"].data)
            assert target.errors[name] == pytest.approx(target.errors[f"{name} of values"], rel=1e-4)


def test_a_librarys_groups_of_inputs_that_lie_apart_are_held_side_by_side() -> None:
    with opened("gptq-4b-g128-sym-actorder") as view:
        made, choice = choose(view)
        assert made.type is not None
        assert view.stored is not None
        (order,) = view.stored.orders
        assert order is not None
        found = dequantize(pack(view, choice, 0, view.count), made.type).reshape(view.shape)
        assert np.array_equal(found, view.read()[:, order])


def _held(view: View) -> np.ndarray[Any, Any]:
    made, choice = choose(view)
    assert made.type is not None
    assert made.status == "lossless"
    return dequantize(pack(view, choice, 0, view.count), made.type).reshape(view.shape)


@pytest.mark.parametrize("case", ["gptq-4b-g128-asym", "ct-int4-g32-sym", "awq-gemm-g32", "mlx-mxfp4", "quanto-int4"])
def test_codes_move_with_their_rows(case: str) -> None:
    with opened(case) as view:
        turned = interleave_halves(lambda _: 4).views([view], FACTS)[0]
        assert np.array_equal(_held(turned), turned.read())
        for part in equal_parts(2).views([view], FACTS):
            assert np.array_equal(_held(part), part.read())
        stack = STACK.views([view, turned], FACTS)[0]
        assert stack.shape == (2, *view.shape)
        assert np.array_equal(_held(stack), stack.read())
        both = CONCAT.views([turned, view], FACTS)[0]
        assert np.array_equal(_held(both), both.read())
        assert add(1.0).views([view], FACTS)[0].stored is None


def test_a_scale_that_is_no_number_is_named(tmp_path: Path) -> None:
    shutil.copytree(PACKED / "ct-int4-g32-sym", tmp_path / "ct")
    path = tmp_path / "ct/model.safetensors"
    raw = bytearray(path.read_bytes())
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    at = 8 + size + header["model.layers.0.self_attn.k_proj.weight_scale"]["data_offsets"][0]
    raw[at : at + 2] = b"\xc0\x7f"
    path.write_bytes(raw)
    with open_checkpoint(tmp_path / "ct") as checkpoint:
        (tensor,) = unpacked(checkpoint).values()
        with pytest.raises(ConversionError, match=r"row 0 is not finite"):
            choose(source_view(tensor))


GROUP = 32


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_in_four_bits(tmp_path_factory.mktemp("quantized") / "model")


def store_in_four_bits(folder: Path) -> Path:
    """PyLlama-7M with its projections as compressed-tensors stores 4 bits in groups of 32."""
    shutil.copytree(MODEL, folder)
    weights = _floats(MODEL / "model.safetensors")
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for name, values in weights.items():
        if not name.endswith("_proj.weight"):
            tensors[name] = values.astype(np.float16)
            continue
        out, width = values.shape
        groups = values.reshape(out, -1, GROUP)
        scales = (np.abs(groups).max(axis=2) / 7).astype(np.float16)
        steps = np.where(scales == 0, np.float16(1), scales).astype(np.float32)
        codes = np.clip(np.rint(groups / steps[..., None]), -8, 7).astype(np.int64).reshape(out, -1, 8) + 8
        words = (codes << (np.arange(8) * 4)).sum(axis=2).astype(np.uint32).view(np.int32)
        module = name.removesuffix(".weight")
        tensors |= {f"{module}.weight_packed": words, f"{module}.weight_scale": scales}
        tensors[f"{module}.weight_shape"] = np.array([out, width], np.int64)
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    scheme = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP}
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": scheme}},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _floats(path: Path) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    with open_checkpoint(path) as checkpoint:
        views = {name: source_view(tensor) for name, tensor in checkpoint.tensors.items()}
        bits = {name: view.read() for name, view in views.items()}
    return {n: (b.astype(np.uint32) << 16).view(np.float32) if b.dtype == np.uint16 else b for n, b in bits.items()}


def _convert(source: Path, into: Path, types: str, **how: Any) -> gguf_forge.Planned:
    return gguf_forge.convert_checkpoint(source, into, types, quantization=Quantization(**how))[0]


def test_a_whole_model_keeps_its_codes(quantized: Path, tmp_path: Path) -> None:
    plan = _convert(quantized, tmp_path / "auto.gguf", "auto", require="lossless")
    _convert(quantized, tmp_path / "f32.gguf", "f32")
    assert plan.type == "Q4_0"
    assert {(one.status, one.type.name if one.type else "") for one in plan.imports} == {("lossless", "Q4_0")}
    with gguf_forge.open(tmp_path / "auto.gguf") as held, gguf_forge.open(tmp_path / "f32.gguf") as plain:
        kept = {name for name, tensor in held.tensors.items() if tensor.type.name == "Q4_0"}
        assert len(kept) == len(plan.imports) == 42
        for name in kept:
            assert np.array_equal(held.tensors[name].dequantize(), plain.tensors[name].dequantize()), name
        assert held.metadata["general.file_type"] == 2
        assert held.metadata["general.imported.status"] == "lossless (42)"


def test_a_recipe_leaves_codes_and_quantizes_the_rest(quantized: Path, tmp_path: Path) -> None:
    kept = _convert(quantized, tmp_path / "kept.gguf", "Q6_K")
    assert {c.type.name for c in kept.choices if c.name.startswith("blk.0.ffn")} == {"Q4_0", "F32"}
    assert next(c.type.name for c in kept.choices if c.name == "token_embd.weight") == "Q6_K"
    anew = _convert(quantized, tmp_path / "anew.gguf", "Q6_K", requantize=True)
    assert {c.type.name for c in anew.choices if c.name.startswith("blk.0.ffn")} == {"Q6_K", "F32"}
    assert {one.status for one in anew.imports} == {"near"}
    assert all(one.rmse is not None and 0 < one.rmse < 0.05 for one in anew.imports)


def test_floats_that_hold_every_weight_are_called_lossless(quantized: Path, tmp_path: Path) -> None:
    plan = _convert(quantized, tmp_path / "f32.gguf", "f32", require="lossless")
    assert {(one.status, one.rmse) for one in plan.imports} == {("lossless", 0.0)}
    plan = _convert(quantized, tmp_path / "bf16.gguf", "bf16")
    assert {one.status for one in plan.imports} == {"dequantized"}


def test_what_is_required_is_refused_before_anything_is_written(quantized: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--require lossless: 42 weights are not: .*near"):
        _convert(quantized, tmp_path / "no.gguf", "Q6_K", requantize=True, require="lossless")
    assert not list(tmp_path.iterdir())


def test_several_files_come_of_one_reading(quantized: Path, tmp_path: Path) -> None:
    plans = gguf_forge.convert_checkpoint(quantized, tmp_path / "{ftype}.gguf", "auto,f16,Q5_K_M")
    assert [plan.type for plan in plans] == ["Q4_0", "F16", "Q5_K_M"]
    alone = _convert(quantized, tmp_path / "alone.gguf", "auto")
    assert plans[0].path.read_bytes() == alone.path.read_bytes()


def test_scales_are_surveyed_once_for_all_types(quantized: Path, tmp_path: Path, monkeypatch: Any) -> None:
    seen: list[str] = []

    def counted(view: View) -> Survey:
        seen.append(view.name)
        return survey(view)

    monkeypatch.setattr("gguf_forge.convert.imported.surveys.survey", counted)
    gguf_forge.convert_checkpoint(quantized, tmp_path / "{ftype}.gguf", "auto,f16,Q5_K_M", dry_run=True)
    assert len(seen) == len(set(seen)) == 42


def test_a_trained_model_lies_on_no_grid(tmp_path: Path) -> None:
    plan = _convert(MODEL, tmp_path / "plain.gguf", "Q8_0", detect_grid=True)
    assert not plan.imports
    assert not any("--detect-grid" in note for note in _convert(MODEL, tmp_path / "b.gguf", "Q8_0").notes)


def test_a_dequantized_model_gets_its_codes_back(quantized: Path, tmp_path: Path) -> None:
    """The same file from the packed checkpoint and from its values as 16-bit floats, but for how they came."""
    folder = tmp_path / "floats"
    shutil.copytree(quantized, folder)
    with open_checkpoint(quantized) as checkpoint:
        values = {name: np.asarray(tensor.read()) for name, tensor in unpacked(checkpoint).items()}
    (folder / "model.safetensors").unlink()
    save_file({n: v.astype(np.float16) for n, v in values.items()}, folder / "model.safetensors")
    shutil.copy(MODEL / "config.json", folder / "config.json")
    hinted = _convert(folder, tmp_path / "plain.gguf", "f16")
    assert any("4 bits in groups of 32" in note and "--detect-grid" in note for note in hinted.notes)
    plan = _convert(folder, tmp_path / "found.gguf", "auto", detect_grid=True, require="lossless")
    assert {(one.status, one.type and one.type.name) for one in plan.imports} == {("lossless", "Q4_0")}
    _convert(quantized, tmp_path / "packed.gguf", "auto")
    with gguf_forge.open(tmp_path / "found.gguf") as found, gguf_forge.open(tmp_path / "packed.gguf") as packed:
        for name, tensor in packed.tensors.items():
            assert np.array_equal(tensor.dequantize(), found.tensors[name].dequantize()), name


@pytest.fixture
def nvfp4(tmp_path: Path) -> Path:
    """PyLlama-7M with random projections as ModelOpt stores NVFP4, each beside a scale of its own."""
    folder = tmp_path / "nvfp4"
    shutil.copytree(MODEL, folder)
    rng = np.random.default_rng(5)
    header: dict[str, Any] = {}
    data = b""

    def put(name: str, dtype: str, values: np.ndarray[Any, Any]) -> None:
        nonlocal data
        header[name] = entry(dtype, list(values.shape), [len(data), len(data) + values.nbytes])
        data += values.tobytes()

    for name, values in _floats(MODEL / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            put(name, "F32", values)
            continue
        out, width = values.shape
        put(name, "U8", rng.integers(0, 256, (out, width // 2), dtype=np.uint8))
        put(f"{name}_scale", "F8_E4M3", rng.integers(0x20, 0x38, (out, width // 16), dtype=np.uint8))
        put(f"{name}_scale_2", "F32", np.array(rng.uniform(0.01, 0.03), np.float32))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(safetensors_bytes(header, data))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_scale_of_the_whole_goes_beside_its_weight(nvfp4: Path, tmp_path: Path) -> None:
    plan = _convert(nvfp4, tmp_path / "auto.gguf", "auto", require="lossless")
    _convert(nvfp4, tmp_path / "f32.gguf", "f32")
    assert plan.type == "NVFP4"
    with gguf_forge.open(tmp_path / "auto.gguf") as held, gguf_forge.open(tmp_path / "f32.gguf") as plain:
        assert len(held.tensors) == len(plain.tensors) + 42
        assert held.metadata["general.file_type"] == 39
        for name, tensor in plain.tensors.items():
            if held.tensors[name].type.name == "NVFP4":
                scale = held.tensors[f"{name.removesuffix('weight')}scale"]
                assert scale.shape == (1,)
                values = held.tensors[name].dequantize() * scale.dequantize()
                assert np.array_equal(values, tensor.dequantize())


def test_where_no_graph_applies_a_scale_the_weight_is_dequantized(nvfp4: Path, tmp_path: Path) -> None:
    """llama.cpp's graph of Qwen 2 applies the scales of attention, and not those of feed-forward layers."""
    config = json.loads((nvfp4 / "config.json").read_text())
    (nvfp4 / "config.json").write_text(json.dumps({**config, "architectures": ["Qwen2ForCausalLM"]}))
    plan = _convert(nvfp4, tmp_path / "auto.gguf", "auto")
    status = {one.name: one.status for one in plan.imports}
    assert status["blk.0.attn_q.weight"] == "lossless"
    assert status["blk.0.ffn_up.weight"] == "dequantized"
    assert "blk.0.ffn_up.scale" not in {choice.name for choice in plan.choices}
    with pytest.raises(RecipeError, match=r"a scale of the whole tensor, which llama\.cpp does not apply"):
        _convert(nvfp4, tmp_path / "no.gguf", "auto", require="code-exact")


def test_a_type_named_for_kept_codes_is_said_to_have_no_effect(quantized: Path, tmp_path: Path) -> None:
    plan = _convert(quantized, tmp_path / "kept.gguf", "Q6_K", overrides=["ffn_down=Q8_0"])
    assert {c.type.name for c in plan.choices if "ffn_down" in c.name} == {"Q4_0"}
    assert any("6 tensors keep their codes, whatever type is named" in note for note in plan.notes)
    anew = _convert(quantized, tmp_path / "anew.gguf", "Q6_K", overrides=["ffn_down=Q8_0"], requantize=True)
    assert {c.type.name for c in anew.choices if "ffn_down" in c.name} == {"Q8_0"}


def test_floats_beside_a_scale_are_big_endian_where_the_file_is(tmp_path: Path) -> None:
    folder = tmp_path / "fp8"
    shutil.copytree(MODEL, folder)
    header: dict[str, Any] = {}
    data = b""
    for name, values in _floats(MODEL / "model.safetensors").items():
        projection = name.endswith("_proj.weight")
        stored = np.full(values.shape, 0x3A, np.uint8) if projection else values
        pieces = {name: ("F8_E4M3" if projection else "F32", stored)}
        if projection:
            pieces[f"{name}_scale"] = ("F32", np.array([0.5], np.float32))
        for piece, (dtype, array) in pieces.items():
            header[piece] = entry(dtype, list(array.shape), [len(data), len(data) + array.nbytes])
            data += array.tobytes()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(safetensors_bytes(header, data))
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": "fp8"}}
    (folder / "config.json").write_text(json.dumps(config))
    for endian in ("little", "big"):
        target = tmp_path / f"{endian}.gguf"
        (plan,) = gguf_forge.convert_checkpoint(folder, target, "auto", endian=endian)
        assert {one.status for one in plan.imports} == {"lossless"}
        with gguf_forge.open(target) as file:
            assert np.unique(file.tensors["blk.0.ffn_up.weight"].dequantize()).tolist() == [1.25]
            assert file.tensors["blk.0.ffn_up.scale"].dequantize().tolist() == [0.5]


def test_nvfp4_is_made_beside_scales_of_whole_tensors(tmp_path: Path) -> None:
    """Whatever the weights' magnitude: a power of two in all of them is one in the scales, and no block changes."""
    small = tmp_path / "small"
    shutil.copytree(MODEL, small)
    weights = {name: values * np.float32(2**-6) for name, values in _floats(MODEL / "model.safetensors").items()}
    (small / "model.safetensors").unlink()
    save_file(weights, small / "model.safetensors")
    plan = _convert(MODEL, tmp_path / "a.gguf", "NVFP4")
    _convert(small, tmp_path / "b.gguf", "NVFP4")
    gguf_forge.quantize_file(_convert(MODEL, tmp_path / "f32.gguf", "f32").path, tmp_path / "c.gguf", "NVFP4")
    kinds = {c.name: c.type.name for c in plan.choices}
    assert kinds["token_embd.weight"] == kinds["output.weight"] == "Q8_0"
    with (
        gguf_forge.open(tmp_path / "a.gguf") as a,
        gguf_forge.open(tmp_path / "b.gguf") as b,
        gguf_forge.open(tmp_path / "c.gguf") as c,
        gguf_forge.open(tmp_path / "f32.gguf") as plain,
    ):
        made = [name for name, kind in kinds.items() if kind == "NVFP4"]
        assert len(made) == 42
        for name in made:
            scale = f"{name.removesuffix('weight')}scale"
            values, factor = plain.tensors[name].dequantize(), a.tensors[scale].dequantize()
            assert factor.shape == (1,)
            assert factor[0] == np.abs(values).max() / np.float32(6 * 240)
            found = a.tensors[name].dequantize() * factor
            assert np.linalg.norm(found - values) < 0.1 * np.linalg.norm(values)
            assert np.array_equal(a.tensors[name].data, b.tensors[name].data)
            assert b.tensors[scale].dequantize() == factor * np.float32(2**-6)
            for of_c, of_a in ((c.tensors[n].data, a.tensors[n].data) for n in (name, scale)):
                assert np.array_equal(of_c, of_a)
