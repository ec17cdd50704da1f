"""The types in files that llama-quantize and the reference converter wrote of small checkpoints."""

from __future__ import annotations

import pytest

from gguf_forge import names
from gguf_forge.errors import RecipeError
from gguf_forge.quant import recipe as recipes
from gguf_forge.quant.imatrix import load_imatrix
from gguf_forge.quant.outtype import auto_outtype, choose_outtype, converter_type, outtype_recipe
from gguf_forge.types import tensor_type
from tests.quant import golden_types
from tests.quant.golden_types import GoldenModel

MODELS = golden_types.load()
IMATRIX = golden_types.FILE.parents[1] / "models" / "PyLlama-7M" / "imatrix.gguf"


def results(lower: bool) -> list[tuple[str, str]]:
    return [(model, result) for model, golden in MODELS.items() for result in golden.types if result.islower() is lower]


def specs(golden: GoldenModel) -> list[recipes.TensorSpec]:
    f32 = golden.types["f32"]
    return [recipes.TensorSpec(name, shape, tensor_type(f32[name])) for name, shape in golden.shapes.items()]


def test_the_goldens_are_there() -> None:
    assert len(results(lower=False)) > 100
    assert len(results(lower=True)) > 50
    assert {r.name for r in recipes.RECIPES.values()} - {r.partition("-")[0] for _, r in results(lower=False)} == {
        *("F32", "F16", "BF16", "NVFP4")
    }


@pytest.mark.parametrize(("model", "result"), results(lower=False))
def test_types_and_order_are_those_of_llama_quantize(model: str, result: str) -> None:
    golden = MODELS[model]
    recipe, _, with_imatrix = result.partition("-")
    known = load_imatrix(IMATRIX).entries if with_imatrix else None
    options = recipes.Options(imatrix_names=known)
    facts = recipes.ModelFacts.from_metadata(golden.facts)
    choices = recipes.choose(specs(golden), facts, recipe, options)
    assert {c.name: c.type.id for c in choices} == golden.types[result]
    assert names.quantize_order(golden.shapes) == list(golden.types[result])
    assert recipes.recipe(recipe).ftype == golden.file_types[result]
    recipes.require_imatrix(choices, known)


@pytest.mark.parametrize(("model", "result"), results(lower=True))
def test_types_are_those_of_the_converter(model: str, result: str) -> None:
    golden = MODELS[model]
    outtype = recipes.recipe(golden.file_types[result]).name.lower() if result == "auto" else result
    assert {n: converter_type(n, s, outtype).id for n, s in golden.shapes.items()} == golden.types[result]
    assert outtype_recipe(outtype).ftype == golden.file_types[result]


def test_the_first_matrix_in_half_precision_decides_auto() -> None:
    assert auto_outtype([("F16", 1), ("F32", 2), ("BF16", 2), ("F16", 2)]) == "bf16"
    assert auto_outtype([("F32", 2), ("F16", 3)]) == "f16"
    assert auto_outtype([("F32", 2)]) == "f16"


def test_the_converter_falls_back_to_f16() -> None:
    choice = choose_outtype(recipes.TensorSpec("blk.0.attn_k.weight", (64, 40), tensor_type("F32")), "q8_0")
    assert (choice.type.name, choice.wanted.name, choice.fell_back) == ("F16", "Q8_0", True)
    assert "40" in choice.reason


@pytest.mark.parametrize(
    ("name", "shape", "outtype", "forced", "expected"),
    [
        ("blk.0.attn_k.weight", (64, 64), "bf16", False, "BF16"),
        ("blk.0.attn_k.bias", (64,), "bf16", False, "F32"),
        ("blk.0.attn_norm.weight", (64,), "f16", True, "F32"),
        ("blk.0.ffn_gate_inp.weight", (8, 64), "f16", False, "F32"),
        ("blk.0.ffn_gate_inp.weight", (8, 64), "f16", True, "F16"),
        ("blk.0.ssm_a", (8, 64), "q8_0", False, "F32"),
        ("blk.0.time_mix_lerp_fused.weight", (5, 1, 1, 64), "f16", False, "F32"),
        ("v.patch_embd.weight", (8, 3, 4, 4), "bf16", tensor_type("F16"), "F16"),
        ("token_embd.weight", (64, 256), "tq1_0", False, "F16"),
        ("blk.0.attn_k.weight", (64, 256), "tq2_0", False, "TQ2_0"),
        ("blk.0.attn_rel_b.weight", (4, 32), "f16", False, "F16"),
    ],
)
def test_single_tensors_of_the_converter(
    name: str, shape: tuple[int, ...], outtype: str, forced: bool, expected: str
) -> None:
    assert converter_type(name, shape, outtype, forced).name == expected


@pytest.mark.parametrize("outtype", ["auto", "q4_0", ""])
def test_an_unknown_outtype_is_refused(outtype: str) -> None:
    with pytest.raises(RecipeError, match="is no outtype; known: f32"):
        outtype_recipe(outtype)
