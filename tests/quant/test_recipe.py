"""Recipes beyond what was recorded: names, facts, refusals, overrides, what a choice costs, the header after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge import names
from gguf_forge.errors import RecipeError
from gguf_forge.format.values import Value, string, u32
from gguf_forge.names import Kind
from gguf_forge.quant import recipe as recipes
from gguf_forge.quant import recipe_table
from gguf_forge.quant.budget import budget
from gguf_forge.quant.header import quantized_metadata
from gguf_forge.quant.imatrix import load_imatrix
from gguf_forge.quant.overrides import parse_override, read_overrides
from gguf_forge.quant.reasons import why
from gguf_forge.quant.recipe import Choice, ModelFacts, Options, TensorSpec, choose
from gguf_forge.types import tensor_type
from tests import manifest

FIXTURES = Path(__file__).parents[2] / "fixtures"
LLAMA = ModelFacts("llama", 8, 8, 8)


def spec(name: str, *shape: int, type: str = "F32") -> TensorSpec:
    return TensorSpec(name, shape or (256, 256), tensor_type(type))


def one(tensor: TensorSpec, recipe: str, facts: ModelFacts = LLAMA, options: Options | None = None) -> Choice:
    return choose([tensor, spec("output.weight")], facts, recipe, options)[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("q4_k_m", "Q4_K_M"), ("Q4_K", "Q4_K_M"), ("q3_k", "Q3_K_M"), ("Q5_k", "Q5_K_M"), (7, "Q8_0")],
)
def test_names_aliases_and_numbers(name: str | int, expected: str) -> None:
    assert recipes.recipe(name).name == expected


@pytest.mark.parametrize("name", ["Q9_K", "", 4, 1024])
def test_unknown_recipes_are_refused(name: str | int) -> None:
    with pytest.raises(RecipeError, match=r"unknown (recipe ''|recipe 'Q9_K'; known: F32, F16|file type)"):
        recipes.recipe(name)


def test_facts_come_from_metadata() -> None:
    metadata = {
        "general.architecture": "qwen3moe",
        "qwen3moe.block_count": 48,
        "qwen3moe.attention.head_count": np.array([32, 16], dtype=np.int32),
        "qwen3moe.attention.head_count_kv": [4, 2],
        "qwen3moe.expert_count": 128,
        "qwen3moe.nextn_predict_layers": 1,
    }
    facts = ModelFacts.from_metadata(metadata)
    assert facts == ModelFacts("qwen3moe", 48, 32, 4, 128, 1)
    typed = {"general.architecture": string("llama"), "llama.block_count": u32(2), "llama.attention.head_count": u32(6)}
    assert ModelFacts.from_metadata(typed) == ModelFacts("llama", 2, 6, 6)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "general.architecture is missing"),
        ({"general.architecture": "llama"}, "llama.block_count is missing: the tensor types of a"),
        ({"general.architecture": "llama", "llama.block_count": "many"}, "llama.block_count is 'many'"),
    ],
)
def test_missing_facts_are_refused(metadata: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        ModelFacts.from_metadata(metadata)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (ModelFacts("llama", 80, 64, 8), True),
        (ModelFacts("llama", 80, 64, 64), False),
        (ModelFacts("llama", 80, 64, 8, experts=8), False),
        (ModelFacts("llama", 81, 64, 8, extra_layers=1), True),
        (ModelFacts("qwen2", 80, 64, 64), True),
        (ModelFacts("qwen3", 80, 64, 8), False),
        (ModelFacts("jais2", 68, 64, 8), True),
    ],
)
def test_which_models_count_as_70b(facts: ModelFacts, expected: bool) -> None:
    assert facts.seventy_b is expected


def test_kinds_by_name() -> None:
    assert names.kind_of("blk.3.attn_kv_b.weight") is Kind.ATTN_KV_B
    assert names.kind_of("blk.3.attn_v.bias") is Kind.OTHER
    assert names.kind_of("blk.3.attn_v_b.weight") is Kind.OTHER
    assert names.kind_of("blk.3.ffn_down_exps.weight") is Kind.FFN_DOWN
    assert names.kind_of("v.blk.3.ffn_up.weight") is Kind.FFN_UP
    assert names.kind_of("per_layer_token_embd.weight") is Kind.TOKEN_EMBD
    assert names.kind_of("mm.output.weight") is Kind.OTHER


def test_layers_sort_by_number_and_names_by_bytes() -> None:
    shuffled = ["blk.10.a", "blk.2.b", "output.weight", "blk.2.a_norm", "blk.2.a", "blk.2.B", "token_embd.weight"]
    assert names.quantize_order(shuffled) == [
        *("output.weight", "token_embd.weight", "blk.2.B", "blk.2.a", "blk.2.a_norm", "blk.2.b", "blk.10.a")
    ]


@pytest.mark.parametrize(
    ("name", "shape", "arch", "why"),
    [
        ("blk.0.attn_q.weight", (1, 256), "llama", "one-dimensional"),
        ("blk.0.attn_q.weight", (1, 1), "llama", "one-dimensional"),
        ("blk.0.attn_q.weight", (1, 2, 256), "llama", None),
        ("blk.0.attn_q.bias", (2, 256), "llama", "not a weight"),
        ("blk.0.ssm_norm.weight", (8, 512), "nemotron_h", "norm"),
        ("blk.0.attn_k_b.weight", (8, 512), "glm5-next", "kept in glm5-next"),
        ("blk.0.attn_k_b.weight", (8, 512), "deepseek2", None),
        ("token_types.weight", (2, 256), "bert", "token types"),
    ],
)
def test_what_is_never_quantized(name: str, shape: tuple[int, ...], arch: str, why: str | None) -> None:
    assert names.kept_as_is(name, shape, arch) == why


@pytest.mark.parametrize(
    ("name", "shape", "arch", "recipe", "expected"),
    [
        ("blk.0.attn_q_a.weight", (64, 256), "glm5-next", "Q4_K_M", "Q8_0"),
        ("blk.0.attn_q_a.weight", (64, 256), "glm5-next", "F16", "F16"),
        ("blk.0.attn_q_a.weight", (64, 256), "deepseek2", "Q4_K_M", "Q4_K"),
        ("blk.0.attn_k_b.weight", (4, 64, 128), "bailingmoe3", "MXFP4_MOE", "Q8_0"),
        ("blk.0.ffn_up_exps.weight", (4, 64, 128), "bailingmoe3", "MXFP4_MOE", "MXFP4"),
        ("blk.0.attn_k_b.weight", (4, 64, 128), "deepseek2", "MXFP4_MOE", "MXFP4"),
        ("blk.0.attn_q.weight", (64, 128), "llama", "NVFP4", "NVFP4"),
        ("blk.0.ffn_up.weight", (64, 128), "qwen2", "NVFP4", "Q8_0"),
        ("blk.0.ssm_beta.weight", (64, 128), "qwen35", "NVFP4", "Q8_0"),
        ("output.weight", (64, 128), "llama", "NVFP4", "Q8_0"),
    ],
)
def test_single_choices(name: str, shape: tuple[int, ...], arch: str, recipe: str, expected: str) -> None:
    facts = ModelFacts(arch, 8, 8, 8)
    chosen = choose([spec("token_embd.weight"), spec(name, *shape)], facts, recipe)[1]
    assert (chosen.type.name if name != "output.weight" else chosen.wanted.name) == expected


@pytest.mark.parametrize(("recipe", "block"), [("Q1_0", 128)])
def test_a_width_without_a_fallback_is_refused(recipe: str, block: int) -> None:
    with pytest.raises(RecipeError, match=rf"blk.0.attn_q.weight: width 32 is no multiple of {block}, the block of"):
        one(spec("blk.0.attn_q.weight", 64, 32), recipe)
    given = Options(overrides=[parse_override("attn_q=q8_0")])
    assert one(spec("blk.0.attn_q.weight", 64, 32), recipe, options=given).type.name == "Q8_0"


@pytest.mark.parametrize("name", ["v.blk.0.ffn_down.weight", "blk.8.ffn_down.weight"])
def test_in_models_with_experts_the_layer_comes_from_the_name(name: str) -> None:
    with pytest.raises(RecipeError, match=rf"{name}: not in a layer from 0 to 7"):
        one(spec(name), "Q4_K_M", ModelFacts("llama", 8, 8, 8, experts=4))
    assert one(spec(name), "Q6_K", ModelFacts("llama", 8, 8, 8, experts=4)).type.name == "Q6_K"


def test_an_output_type_holds_for_tied_embeddings_too() -> None:
    options = Options(output_type=tensor_type("Q8_0"))
    (tied,) = choose([spec("token_embd.weight")], LLAMA, "Q4_K_M", options)
    assert tied.type.name == "Q8_0"
    assert one(spec("token_embd.weight"), "Q4_K_M", options=options).type.name == "Q4_K"


def test_copying_keeps_every_type() -> None:
    choices = choose(
        [spec("output.weight", type="F16"), spec("a.weight", type="Q4_0")], LLAMA, "F32", Options(only_copy=True)
    )
    assert [c.type.name for c in choices] == ["F16", "Q4_0"]
    recipes.require_unquantized(choices)


def test_types_that_need_an_importance_matrix_name_their_tensors() -> None:
    tensors = [spec("token_embd.weight"), spec("output.weight"), *(spec(f"blk.{i}.attn_q.weight") for i in range(10))]
    choices = choose(tensors, LLAMA, "IQ2_XXS", Options(pure=True))
    assert [c.name for c in choices if c.needs_imatrix] == [t.name for t in tensors[2:]]
    with pytest.raises(RecipeError, match=r"^an importance matrix is needed for: blk.0.* and 2 more$"):
        recipes.require_imatrix(choices, None)
    with pytest.raises(RecipeError, match=r"^the importance matrix has none .* for: blk.9.attn_q.weight \(IQ2_XXS\)$"):
        recipes.require_imatrix(choices, {t.name for t in tensors[:-1]})
    recipes.require_imatrix(choices, {t.name for t in tensors[2:]})


def test_names_from_files_cannot_break_an_error_into_lines() -> None:
    with pytest.raises(RecipeError, match=r": blk.0.attn_q\\n\\x1b\[2J.weight \(Q8_0 to Q4_K\)"):
        recipes.require_unquantized(choose([spec("blk.0.attn_q\n\x1b[2J.weight", type="Q8_0")], LLAMA, "Q4_K_S"))


def test_q2_k_needs_a_matrix_only_in_q2_k_s() -> None:
    assert one(spec("blk.0.attn_q.weight"), "Q2_K_S").needs_imatrix
    assert not one(spec("blk.0.attn_q.weight"), "Q2_K").needs_imatrix


def test_quantizing_again_has_to_be_allowed() -> None:
    tensors = [spec("output.weight", type="Q6_K"), spec("blk.0.attn_q.weight", type="Q8_0")]
    with pytest.raises(RecipeError, match=r"^quantized already, .*: blk.0.attn_q.weight \(Q8_0 to Q4_K\)"):
        recipes.require_unquantized(choose(tensors, LLAMA, "Q4_K_S"))
    recipes.require_unquantized(choose(tensors, LLAMA, "Q8_0", Options(leave_output=True)))


def test_fallbacks_can_be_refused_and_are_accounted_for() -> None:
    tensors = [spec("output.weight"), spec("blk.0.attn_q.weight", 64, 96), spec("blk.0.attn_k.weight", 64, 100)]
    choices = choose(tensors, LLAMA, "Q4_K_S")
    with pytest.raises(
        RecipeError, match=r"attn_q.weight \(Q4_K to Q5_0, width 96\), blk.0.attn_k.weight \(Q4_K to F16"
    ):
        recipes.require_wanted(choices)
    cost = budget(choices)
    assert [row.nbytes for row in cost.rows] == [256 * 210, 64 * 3 * 22, 64 * 200]
    assert [row.wanted_bytes for row in cost.rows] == [256 * 210, 64 * 54, 64 * 225 // 4]
    assert cost.weights == 65536 + 64 * 196
    assert cost.source_bpw == 32
    assert cost.bpw == pytest.approx(8 * (53760 + 4224 + 12800) / cost.weights)
    assert cost.fallback_bpw == pytest.approx(8 * (4224 + 12800 - 3456 - 3600) / cost.weights)
    assert {kind.name: total for kind, total in cost.by_type().items()} == {
        "Q6_K": (1, 65536, 53760),
        "F16": (1, 6400, 12800),
        "Q5_0": (1, 6144, 4224),
    }
    first, second, total = cost.fallback_lines()
    assert first.startswith("blk.0.attn_q.weight: wanted Q4_K, got Q5_0 (width 96 is no multiple of 256")
    assert "4224 bytes, +768, +0.0787 bpw" in first
    assert "12800 bytes, +9200, +0.9426 bpw" in second
    assert total == "2 fallbacks: +9968 bytes, +1.0213 bpw of 7.2525"
    assert budget([]).bpw == 0
    assert budget([]).fallback_lines() == []


def test_overrides_are_searched_in_order_and_lowered() -> None:
    override = parse_override(r"BLK\.[0-3]\.ffn=q6_k")
    assert override.type.name == "Q6_K"
    assert override.matches("blk.2.ffn_down.weight")
    assert not override.matches("blk.4.ffn_down.weight")
    options = Options(overrides=[parse_override("attn_q=F16"), parse_override("attn=Q8_0")])
    assert one(spec("blk.0.attn_q.weight"), "Q4_K_M", options=options).type.name == "F16"
    assert one(spec("blk.0.attn_v.weight"), "Q4_K_M", options=options).type.name == "Q8_0"
    assert one(spec("blk.0.attn_v.weight"), "F16", options=options).type.name == "F16"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("attn_v", "'attn_v' has no '='; expected REGEX=TYPE"),
        ("=q8_0", "names no tensor before '='"),
        ("attn_v=", "names no type after '='"),
        ("attn_v=q9", "'attn_v=q9': unknown tensor type 'q9'; known: F32"),
        ("attn_(v=q8_0", r"pattern 'attn_\(v' is not a regular expression: missing \)"),
    ],
)
def test_bad_overrides_are_refused(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_override(text)


def test_overrides_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "types.txt"
    path.write_text("attn_v=q8_0 attn_k=q6_k\n\n  ffn_down=q5_k\n")
    assert [o.type.name for o in read_overrides(path)] == ["Q8_0", "Q6_K", "Q5_K"]
    path.write_text("attn_v=q8_0\nattn_k\n")
    with pytest.raises(RecipeError, match=r"types.txt:2: 'attn_k' has no '='"):
        read_overrides(path)
    path.write_bytes(b"attn\xff=q8_0")
    with pytest.raises(RecipeError, match="not UTF-8 text at byte 4"):
        read_overrides(path)
    with pytest.raises(RecipeError, match=r"No such file|cannot find"):
        read_overrides(tmp_path / "none.txt")


@given(
    width=st.integers(1, 1200),
    recipe=st.sampled_from([r for r in recipes.RECIPES if r != "Q1_0"]),
    kind=st.sampled_from(["attn_v", "attn_q", "attn_output", "ffn_down", "ffn_up", "attn_qkv", "x"]),
    experts=st.sampled_from([0, 8]),
)
def test_a_chosen_type_always_fits_the_width(width: int, recipe: str, kind: str, experts: int) -> None:
    facts = ModelFacts("llama", 8, 8, 1, experts)
    tensors = [spec("token_embd.weight", 4, width), spec(f"blk.1.{kind}.weight", 4, width)]
    for choice in choose(tensors, facts, recipe):
        assert width % choice.type.block_size == 0
        assert choice.fell_back == bool(width % choice.wanted.block_size)


def keys(golden: manifest.Manifest) -> list[str]:
    return [key.name for key in golden.keys]


def test_the_header_is_that_of_llama_quantize() -> None:
    goldens = manifest.load(FIXTURES / "golden" / "PyLlama-7M.json.xz")
    source = {name: u32(1) for name in keys(goldens["PyLlama-7M.f32"])}
    source |= {"split.no": u32(0), "split.count": u32(1), "split.tensors.count": u32(2)}
    matrix = load_imatrix(FIXTURES / "models" / "PyLlama-7M" / "imatrix.gguf")
    plain = quantized_metadata(source, recipes.recipe("Q4_K_M"))
    assert list(plain) == keys(goldens["PyLlama-7M.Q4_K_M"])
    assert (plain["general.quantization_version"], plain["general.file_type"]) == (u32(2), u32(15))
    weighted = quantized_metadata(source, recipes.recipe("IQ1_S"), imatrix=matrix)
    assert list(weighted) == keys(goldens["PyLlama-7M.IQ1_S-imatrix"])
    assert weighted["quantize.imatrix.dataset"] == string("calibration.txt")
    assert weighted["quantize.imatrix.entries_count"] == u32(42)
    assert weighted["quantize.imatrix.chunks_count"] == u32(585)
    assert quantized_metadata(source, recipes.recipe("Q8_0"), imatrix=matrix.only([])) == quantized_metadata(
        source, recipes.recipe("Q8_0")
    )


def test_overridden_keys_move_to_the_end_and_long_paths_are_cut() -> None:
    matrix = load_imatrix(FIXTURES / "models" / "PyLlama-7M" / "imatrix.gguf")
    source: dict[str, Value] = {"general.file_type": u32(0), "a": u32(1), "b": u32(2)}
    out = quantized_metadata(source, None, overrides={"a": u32(3)})
    assert out == {"b": u32(2), "general.quantization_version": u32(2), "general.file_type": u32(0), "a": u32(3)}
    assert list(out) == ["b", "general.quantization_version", "general.file_type", "a"]
    long = replace(matrix, path="x" + "é" * 100)
    path = quantized_metadata({}, None, imatrix=long)["quantize.imatrix.file"].value
    assert path == "x" + "é" * 63
    path = quantized_metadata({}, None, imatrix=replace(long, path="é" * 100))["quantize.imatrix.file"].value
    assert path == "é" * 63
    odd = quantized_metadata({}, None, imatrix=replace(matrix, path="a\udce8", datasets=("\udcff.txt",)))
    assert odd["quantize.imatrix.file"] == string(r"a\xe8")
    assert odd["quantize.imatrix.dataset"] == string(r"\xff.txt")


def test_reasons_are_words_and_every_predicate_has_some() -> None:
    for row in (*recipe_table.ROWS, *(upgrade for _, upgrade in recipe_table.UPGRADES)):
        for kind in Kind:
            assert "_" not in why(row, kind)
    facts = ModelFacts("llama", 32, heads=32, kv_heads=32)
    specs = [spec(f"blk.{i}.{part}.weight") for i in range(32) for part in ("attn_v", "attn_q", "ffn_down")]
    found = {c.name: c.reason for c in choose(specs, facts, "Q4_K_M")}
    assert found["blk.0.ffn_down.weight"] == "first, last and every third layer"
    assert found["blk.0.attn_v.weight"] == "first, last and every third layer"
    assert found["blk.4.attn_q.weight"] == found["blk.4.ffn_down.weight"] == "usual type"
