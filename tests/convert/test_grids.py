"""Grids in plain floats: found where weights lie on one, kept exactly, and not seen where they do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gguf_forge
from gguf_forge.convert import grids
from gguf_forge.convert.imported import choose, pack
from gguf_forge.convert.job import Quantization
from gguf_forge.convert.view import BF16, View, of_array, widen
from gguf_forge.quant.codec import dequantize, quantize
from tests.convert.test_imported import MODEL, _floats
from tests.source.containers import entry, safetensors_bytes

Floats = np.ndarray[Any, np.dtype[np.float32]]
ROWS, WIDTH = 64, 512


def _bf16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint16]]:
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype(np.uint16)


STORE: dict[str, Callable[[Floats], np.ndarray[Any, Any]]] = {
    "BF16": _bf16,
    "F16": lambda values: values.astype(np.float16),
    "F32": lambda values: values.astype(np.float32),
}


def _half(values: Any) -> Floats:
    return np.asarray(values, np.float32).astype(np.float16).astype(np.float32)


def _weights(seed: int, shape: tuple[int, ...] = (ROWS, WIDTH)) -> Floats:
    return np.random.default_rng(seed).normal(0.003, 0.02, shape).astype(np.float32)


def _symmetric(bits: int, group: int) -> Callable[[int], Floats]:
    def make(seed: int) -> Floats:
        values = _weights(seed).reshape(ROWS, -1, group)
        most = 2 ** (bits - 1) - 1
        scales = _half(np.abs(values).max(axis=2, keepdims=True) / most)
        return np.asarray(np.clip(np.rint(values / scales), -most - 1, most) * scales).reshape(ROWS, WIDTH)

    return make


def _asymmetric(bits: int, group: int) -> Callable[[int], Floats]:
    def make(seed: int) -> Floats:
        values = _weights(seed).reshape(ROWS, -1, group)
        most = 2**bits - 1
        low, high = values.min(axis=2, keepdims=True), values.max(axis=2, keepdims=True)
        scales = _half((high - low) / most)
        zeros = np.rint(-low / scales)
        return np.asarray((np.clip(np.rint(values / scales) + zeros, 0, most) - zeros) * scales).reshape(ROWS, WIDTH)

    return make


def _with_minima(bits: int, group: int) -> Callable[[int], Floats]:
    """As MLX and quanto store it: scales and minima are BF16, their sum is rounded once."""

    def make(seed: int) -> Floats:
        values = _weights(seed).reshape(ROWS, -1, group)
        most = 2**bits - 1
        low, high = values.min(axis=2, keepdims=True), values.max(axis=2, keepdims=True)
        low, scales = (widen(_bf16(x), BF16) for x in (low, (high - low) / most))
        return np.asarray(np.clip(np.rint((values - low) / scales), 0, most) * scales + low).reshape(ROWS, WIDTH)

    return make


def _of_blocks(kind: str, whole: float = 1.0) -> Callable[[int], Floats]:
    """What a decoder makes of blocks, times a scale of all, in float32."""

    def make(seed: int) -> Floats:
        return dequantize(quantize(_weights(seed) / np.float32(whole), kind), kind) * np.float32(whole)

    return make


def _ternary(seed: int) -> Floats:
    values = _weights(seed)
    return np.asarray(np.sign(np.where(np.abs(values) < 0.01, 0, values)) * _half(0.0123))


def _three_values(seed: int) -> Floats:
    """With a scale that no F16 rounds to, in any type."""
    return np.asarray(np.sign(_ternary(seed)) * np.float32(2.0**-18 * 1.0078125))


MADE: dict[str, tuple[Callable[[int], Floats], str]] = {
    "ternary": (_ternary, "TQ2_0"),
    "ternary beside a scale": (_three_values, "TQ2_0"),
    "2 bits by 64": (_symmetric(2, 64), "Q2_0"),
    "2 bits by 128": (_symmetric(2, 128), "Q2_0"),
    "2 bits by 32": (_symmetric(2, 32), "Q4_0"),
    "3 bits by row": (_symmetric(3, WIDTH), "Q3_K"),
    "3 bits by 128": (_symmetric(3, 128), "Q4_0"),
    "MXFP4": (_of_blocks("MXFP4"), "MXFP4"),
    "4 bits by 32": (_symmetric(4, 32), "Q4_0"),
    "4 bits by 64": (_symmetric(4, 64), "Q4_0"),
    "4 bits by 128": (_symmetric(4, 128), "Q4_0"),
    "4 bits by row": (_symmetric(4, WIDTH), "Q4_0"),
    "GGUF's Q4_0": (_of_blocks("Q4_0"), "Q4_0"),
    "3 bits and zeros by 128": (_asymmetric(3, 128), "Q4_0"),
    "4 bits and zeros by 32": (_asymmetric(4, 32), "Q5_0"),
    "4 bits and zeros by 128": (_asymmetric(4, 128), "Q5_0"),
    "4 bits and zeros by row": (_asymmetric(4, WIDTH), "Q4_K"),
    "NVFP4": (_of_blocks("NVFP4", 2.0**-8), "NVFP4"),
    "NVFP4 beside a scale": (_of_blocks("NVFP4", 3.07e-5), "NVFP4"),
    "2 bits and minima by 64": (_with_minima(2, 64), "Q4_1"),
    "4 bits and minima by 32": (_with_minima(4, 32), "Q4_1"),
    "4 bits and minima by 64": (_with_minima(4, 64), "Q4_1"),
    "4 bits and minima by 128": (_with_minima(4, 128), "Q4_1"),
    "5 bits by 32": (_symmetric(5, 32), "Q5_0"),
    "5 bits by 128": (_symmetric(5, 128), "Q5_0"),
    "5 bits and minima by 64": (_with_minima(5, 64), "Q5_1"),
    "6 bits by row": (_symmetric(6, WIDTH), "Q6_K"),
    "8 bits by 32": (_symmetric(8, 32), "Q8_0"),
    "8 bits by 64": (_symmetric(8, 64), "Q8_0"),
    "8 bits by 128": (_symmetric(8, 128), "Q8_0"),
    "8 bits by row": (_symmetric(8, WIDTH), "Q8_0"),
    "GGUF's Q8_0": (_of_blocks("Q8_0"), "Q8_0"),
}


def _numbers(view: View) -> Floats:
    return np.asarray(widen(view.read(), view.type), np.float32)


def _require_held(view: View, store: Callable[[Floats], np.ndarray[Any, Any]], kind: str) -> View:
    """Asserts that a grid is found, that its type is this one, and that decoded blocks round to what is stored."""
    found = grids.find(view)
    assert found is not None
    assert grids.glance(view) is not None
    on = grids.on_grid(view, found)
    assert on.stored is not None
    made, choice = choose(on, scaled=True)
    assert (made.type and made.type.name, made.status) == (kind, "lossless")
    whole = np.array((choice.wholes if choice else on.stored.factors) or (1,), np.float32)
    pieces = [pack(on, choice, a, b) for a, b in ((0, 1), (1, 40), (40, view.count))]
    held = dequantize(np.concatenate(pieces), kind).reshape(len(whole), -1) * whole[:, None]
    again = of_array("again", store(held.reshape(view.shape)))
    assert np.array_equal(_numbers(again), _numbers(view))
    return on


@pytest.mark.parametrize("source", STORE)
@pytest.mark.parametrize("name", MADE)
def test_a_grid_is_found_and_kept(name: str, source: str) -> None:
    make, kind = MADE[name]
    for seed in range(2):
        _require_held(of_array("w", STORE[source](make(seed))), STORE[source], kind)


@pytest.mark.parametrize("source", STORE)
def test_zeros_and_rows_of_one_value_do_not_hide_a_grid(source: str) -> None:
    for name in ("2 bits by 64", "MXFP4", "4 bits by 32", "NVFP4 beside a scale", "4 bits and minima by 64"):
        make, kind = MADE[name]
        values = make(5)
        values[:3] = 0
        values[10, :128] = 0
        values[20] = values[30, 7]
        _require_held(of_array("w", STORE[source](values)), STORE[source], kind)


@pytest.mark.parametrize("source", STORE)
def test_a_matrix_of_one_value_tells_nothing(source: str) -> None:
    for value in (0.0, -0.0, 1.0, -0.02):
        view = of_array("w", STORE[source](np.full((64, 256), value, np.float32)))
        assert grids.find(view) is None
        assert grids.glance(view) is None


def test_small_tables_vectors_and_odd_widths_are_left() -> None:
    values = MADE["4 bits by 32"][0](1)
    for few in (values[:31], values[0], values[:, :500], values[:, :16]):
        assert grids.find(of_array("w", np.ascontiguousarray(few.astype(np.float16)))) is None


def test_numbers_that_are_none_lie_on_no_grid() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        for at in (0, 63):
            values = MADE["4 bits by 32"][0](1).astype(np.float16)
            values[at, 100] = bad
            assert grids.find(of_array("w", values)) is None


def test_the_smallest_and_largest_numbers() -> None:
    """Subnormal halves, and scales near the ends of F16's and E8M0's ranges."""
    for exponent in (-24, -20, 5):
        values = (np.random.default_rng(0).integers(-8, 8, (64, 256)) * 2.0**exponent).astype(np.float16)
        values[:, ::32] = -8 * 2.0**exponent
        _require_held(of_array("w", values), STORE["F16"], "Q4_0")
    codes = dequantize(quantize(_weights(3), "MXFP4"), "MXFP4")
    for power in (-100, 100):
        values = (codes * 2.0**power).astype(np.float32)
        _require_held(of_array("w", _bf16(values)), _bf16, "MXFP4")


def test_each_matrix_of_a_stack_has_its_own_scale() -> None:
    values = np.stack([_of_blocks("NVFP4", whole)(seed) for seed, whole in enumerate((3.1e-5, 5.7e-5, 2.2e-5))])
    on = _require_held(of_array("w", _bf16(values)), _bf16, "NVFP4")
    assert on.stored is not None
    assert len(on.stored.factors) == 3
    for found, ratio in zip(on.stored.factors, (3.1e-5, 5.7e-5, 2.2e-5), strict=True):
        # The scales of blocks may be a multiple of what they were, and the scale of all that part.
        assert abs(np.rint(64 * ratio / found) / (64 * ratio / found) - 1) < 0.01


def test_a_scale_of_the_whole_is_found_exactly_where_nothing_was_rounded() -> None:
    whole = np.float32(3.0712e-5)
    values = _weights(9)
    values[0, 0] = 6 * 448 * whole  # as quantizers choose it
    made = dequantize(quantize(values / whole, "NVFP4"), "NVFP4") * whole
    found = grids.find(of_array("w", made.astype(np.float32)))
    assert found is not None
    stored = grids.on_grid(of_array("w", made.astype(np.float32)), found).stored
    assert stored is not None
    assert stored.factors == (float(whole),)


@pytest.mark.long
@pytest.mark.parametrize("source", STORE)
@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(32, 32), (48, 64), (33, 256), (2, 32, 128), (64, 96)]),
    how=st.sampled_from(["normal", "uniform", "laplace", "student", "around one", "sparse"]),
    size=st.floats(1e-4, 10),
)
def test_ordinary_weights_lie_on_no_grid(source: str, seed: int, shape: tuple[int, ...], how: str, size: float) -> None:
    rng = np.random.default_rng(seed)
    drawn = {
        "normal": lambda: rng.normal(0, size, shape),
        "uniform": lambda: rng.uniform(-size, size, shape),
        "laplace": lambda: rng.laplace(0, size, shape),
        "student": lambda: rng.standard_t(3, shape) * size,
        "around one": lambda: 1 + 0.06 * rng.normal(0, 1, shape),
        "sparse": lambda: rng.normal(0, size, shape) * (rng.random(shape) < 0.7),
    }
    view = of_array("w", STORE[source](np.clip(drawn[how](), -6e4, 6e4).astype(np.float32)))
    assert grids.find(view) is None
    assert grids.glance(view) is None


@pytest.mark.parametrize("name", ["4 bits by 32", "NVFP4 beside a scale", "4 bits and minima by 64", "8 bits by 32"])
def test_a_row_of_ordinary_weights_takes_a_matrix_off_its_grid(name: str) -> None:
    values = MADE[name][0](7)
    values[50] = _weights(8)[50]
    assert grids.find(of_array("w", _bf16(values))) is None


def _model(folder: Path, change: Callable[[Floats], Floats], **config: Any) -> Path:
    """PyLlama-7M with other projections, as BF16."""
    shutil.copytree(MODEL, folder)
    header: dict[str, Any] = {}
    data = b""
    for name, values in _floats(MODEL / "model.safetensors").items():
        stored = _bf16(change(values) if name.endswith("_proj.weight") else values)
        header[name] = entry("BF16", list(stored.shape), [len(data), len(data) + stored.nbytes])
        data += stored.tobytes()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(safetensors_bytes(header, data))
    if config:
        given = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**given, **config}))
    return folder


def _convert(source: Path, into: Path, types: str, **how: Any) -> gguf_forge.Planned:
    return gguf_forge.convert_checkpoint(source, into, types, quantization=Quantization(**how))[0]


def _decoded(file: gguf_forge.GGUFFile, name: str) -> Floats:
    scale = file.tensors.get(f"{name.removesuffix('.weight')}.scale")
    return np.asarray(file.tensors[name].dequantize() * (1 if scale is None else scale.dequantize()))


def _nvfp4(values: Floats) -> Floats:
    whole = np.float32(np.abs(values).max() / (6 * 448))
    return dequantize(quantize(values / whole, "NVFP4"), "NVFP4") * whole


def _mxfp4(values: Floats) -> Floats:
    return dequantize(quantize(values, "MXFP4"), "MXFP4")


@pytest.mark.parametrize(("change", "kind"), [(_nvfp4, "NVFP4"), (_mxfp4, "MXFP4")], ids=["NVFP4", "MXFP4"])
def test_a_model_of_four_bit_floats_gets_its_codes_back(change: Any, kind: str, tmp_path: Path) -> None:
    source = _model(tmp_path / "floats", change)
    plan = _convert(source, tmp_path / "found.gguf", "auto", detect_grid=True, require="lossless")
    assert plan.type == kind
    assert {(one.status, one.kind) for one in plan.imports} == {("lossless", kind)}
    plain = _convert(source, tmp_path / "plain.gguf", "auto")
    assert any(f"--detect-grid keeps that grid exactly, in {kind}" in note for note in plain.notes)
    with gguf_forge.open(plan.path) as held, gguf_forge.open(plain.path) as floats:
        assert len(held.tensors) == len(floats.tensors) + (42 if kind == "NVFP4" else 0)
        for one in plan.imports:
            assert np.array_equal(_bf16(_decoded(held, one.name)), _bf16(floats.tensors[one.name].dequantize()))


def test_a_scale_of_the_whole_counts_only_where_it_is_applied(tmp_path: Path) -> None:
    """llama.cpp's graph of Qwen 2 applies the scales of attention, and not those of feed-forward layers."""
    source = _model(tmp_path / "floats", _nvfp4, architectures=["Qwen2ForCausalLM"])
    plan = _convert(source, tmp_path / "found.gguf", "auto", detect_grid=True)
    assert {one.name.split(".")[2] for one in plan.imports} == {"attn_q", "attn_k", "attn_v", "attn_output"}
    kinds = {choice.name: choice.type.name for choice in plan.choices}
    assert kinds["blk.0.ffn_up.weight"] == "BF16"


def test_the_note_says_what_is_to_be_won(tmp_path: Path) -> None:
    source = _model(tmp_path / "floats", lambda values: dequantize(quantize(values, "Q4_0"), "Q4_0"))
    plain = _convert(source, tmp_path / "plain.gguf", "auto")
    found = _convert(source, tmp_path / "found.gguf", "auto", detect_grid=True)
    (note,) = (note for note in plain.notes if "--detect-grid" in note)
    assert "4 bits in groups of 32" in note
    assert "Q4_0, 4.5 bits a weight instead of 16" in note
    saved = sum(t.nbytes for t in plain.file.tensors.values()) - sum(t.nbytes for t in found.file.tensors.values())
    assert f"{saved / 1e6:,.1f} MB less than BF16" in note


def test_asymmetric_codes_of_dequantized_floats_may_be_stored_smaller(tmp_path: Path) -> None:
    def change(values: Floats) -> Floats:
        groups = values.reshape(len(values), -1, 32)
        low, high = groups.min(axis=2, keepdims=True), groups.max(axis=2, keepdims=True)
        scales = _half((high - low) / 15)
        zeros = np.rint(-low / scales)
        return np.asarray((np.clip(np.rint(groups / scales) + zeros, 0, 15) - zeros) * scales).reshape(values.shape)

    source = _model(tmp_path / "floats", change)
    exact = _convert(source, tmp_path / "exact.gguf", "auto", detect_grid=True)
    small = _convert(source, tmp_path / "small.gguf", "auto", detect_grid=True, prefer="small")
    assert {(one.status, one.kind) for one in exact.imports} == {("lossless", "Q5_0")}
    assert {(one.status, one.kind) for one in small.imports} == {("code-exact", "Q4_1")}
