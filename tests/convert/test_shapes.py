"""Shapes of outputs against llama.cpp: what it loads passes, what it refuses is refused and named."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gguf_forge.convert.hparams import metadata_of
from gguf_forge.convert.plan import plan_outputs
from gguf_forge.convert.registry import select
from gguf_forge.convert.shape_exceptions import SHAPES_OF
from gguf_forge.convert.shape_table import COMMON
from gguf_forge.convert.shapes import check_shapes, misshapen, row_of
from gguf_forge.convert.sizes import EMBD, EXPERTS, FF
from gguf_forge.errors import ConversionError
from gguf_forge.format import values
from gguf_forge.format.layout import ValueType
from gguf_forge.format.values import Value
from tests.convert import headers, shape_cases
from tests.convert.headers import Case
from tests.convert.llama_cpp import Loader
from tests.convert.shape_cases import ShapeCase, cuts, values_of, write

ROOT = Path(__file__).resolve().parents[2]
LOADED = shape_cases.load(ROOT / "fixtures" / "golden" / "shapes.json.xz")
CASES = headers.load()
#: Cases whose one change is a size that the tensors do not have (two labels without names, to which llama.cpp gives no
#: classifier; token types or experts that no key counts, or too few of them); and those that say too little for a file.
ODD = {"Q3-nohd", "g3-unknown-min", "gpt2-hidden-both", "B-cls2", "B-min", "X-12experts", "QX-min"}
#: Tensors whose shape depends on others': the change of one shows in another.
LINKED = {"clef", "dflash", "eagle3", "jina-bert-v2"}
LLAMA = {
    "llama.embedding_length": values.u32(64),
    "llama.feed_forward_length": values.u32(96),
    "llama.attention.head_count": values.u32(4),
    "llama.block_count": values.u32(2),
}


def outputs_of(case: Case, folder: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, Value], str]:
    arch = case.arch
    outputs = plan_outputs(arch, case.headers(), case.facts(folder))
    views, facts = outputs.views, outputs.facts
    early, others = metadata_of(arch, facts)
    # A vocabulary's key: of a head that decides, the three kinds of questions.
    count = 3 if f"{arch.name}.decision.block_count" in others else facts.config.get("type_vocab_size", 1)
    token_types = {"tokenizer.ggml.token_type_count": values.u32(count)}
    return {v.name: v.shape for v in views}, early | others | token_types, arch.name


def test_every_architecture_has_files_that_load() -> None:
    assert {case.arch for case in LOADED} == set(SHAPES_OF)


@pytest.mark.parametrize("case", LOADED, ids=lambda c: c.arch)
def test_what_llama_cpp_loads_passes_and_what_it_refuses_does_not(case: ShapeCase) -> None:
    metadata = values_of(case.keys)
    assert misshapen(case.tensors.items(), metadata, case.arch) == []
    for name, shape in cuts(case.tensors):
        tensors = {**case.tensors, name: shape} if case.arch in LINKED else {name: shape}
        found = misshapen(tensors.items(), metadata, case.arch)
        assert bool(found) is ((name, shape) not in case.taken), (name, shape, found)
        assert case.arch in LINKED or all(line.startswith(f"{name} ") for line in found)


@pytest.mark.parametrize("case", LOADED, ids=lambda c: c.arch)
def test_every_tensor_of_a_file_that_loads_has_a_row(case: ShapeCase) -> None:
    rows = {**COMMON, **SHAPES_OF[case.arch]}
    assert [n for n in case.tensors if row_of(re.sub(r"(?<=\.)\d+(?=\.)", "{l}", n), rows) is None] == []


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "error" not in case.differs])
def test_families_make_what_loads_unless_the_case_is_about_a_size(name: str, tmp_path: Path) -> None:
    tensors, metadata, arch = outputs_of(CASES[name], tmp_path)
    assert bool(misshapen(tensors.items(), metadata, arch)) is (name in ODD or "refused" in CASES[name].differs)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("plain-")])
def test_every_output_of_a_family_has_a_row(name: str, tmp_path: Path) -> None:
    tensors, _, arch = outputs_of(CASES[name], tmp_path)
    rows = {**COMMON, **SHAPES_OF[arch], **select(CASES[name].config).shapes}
    assert [n for n in tensors if row_of(re.sub(r"(?<=\.)\d+(?=\.)", "{l}", n), rows) is None] == []


@pytest.mark.peer
@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="xllamacpp is not installed")
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("plain-")])
def test_llama_cpp_takes_what_passes_and_nothing_else(name: str, tmp_path: Path) -> None:
    tensors, metadata, arch = outputs_of(CASES[name], tmp_path)
    rows = tensors["token_embd.weight"][0]
    vocab = {"general.architecture": arch, "tokenizer.ggml.model": "none", f"{arch}.vocab_size": rows}
    metadata = {**metadata, **values_of(vocab)}
    path = tmp_path / "case.gguf"
    with Loader() as llama_cpp:
        write(path, metadata, tensors)
        assert llama_cpp.load(path).errors == []
        for cut, shape in cuts(tensors):
            changed = {**tensors, cut: shape}
            write(path, metadata, changed)
            verdict = llama_cpp.load(path)
            assert bool(misshapen(changed.items(), metadata, arch)) is not verdict.ok, (cut, shape, verdict)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intermediate_size": 1024}, "blk.0.ffn_gate.weight [512, 256]: axis 0 is 512, must be 1024 by FF"),
        ({"num_key_value_heads": 4}, "blk.0.attn_k.weight [128, 256]: axis 0 is 128, must be 256 by KV (4), KEY (64)"),
        ({"hidden_size": 128}, "output.weight [2048, 256]: axis 1 is 256, must be 128 by EMBD"),
    ],
)
def test_an_error_names_tensor_axis_sizes_and_keys(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    case = CASES["plain-Llama-Tiny-F32-v1.0"]
    tensors, metadata, arch = outputs_of(replace(case, config={**case.config, **change}), tmp_path)
    keys = {"FF": "feed_forward_length", "KV": "attention.head_count_kv", "KEY": "attention.key_length"}
    for word, key in {**keys, "EMBD": "embedding_length"}.items():
        message = re.sub(rf"\b{word}\b", f"llama.{key}", message)
    assert message in misshapen(tensors.items(), metadata, arch)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("token_embd.weight", (3, 64), "axis 0 is 3, must be 2 by tokenizer.ggml.tokens (2 values)"),
        ("output.weight", (3, 64), "axis 0 is 3, must be 2 by tokenizer.ggml.tokens (2 values)"),
        ("output_norm.weight", (2, 64), "must be [64] by llama.embedding_length"),
        ("blk.1.attn_q.weight", (64,), "must be [64, 64] by "),
        ("blk.1.attn_q.bias", (32,), "axis 0 is 32, must be 64 by "),
        ("blk.1.ffn_down.scale", (2,), "axis 0 is 2, must be 1"),
        ("blk.1.ffn_gate_inp.weight", (4, 64), "axis 0 is 4, must be 0 without llama.expert_count"),
    ],
)
def test_a_size_follows_from_its_keys(name: str, shape: tuple[int, ...], message: str) -> None:
    metadata = {**LLAMA, "tokenizer.ggml.tokens": values.strings(["a", "b"])}
    (found,) = misshapen([(name, shape)], metadata, "llama")
    assert found.startswith(f"{name} {list(shape)}: {message}")
    with pytest.raises(ConversionError, match=r"llama\.cpp would not load the file$"):
        check_shapes([(name, shape)], metadata, "llama")


def test_leading_axes_of_one_do_not_count() -> None:
    assert misshapen([("output_norm.weight", (1, 64)), ("blk.0.ffn_down.weight", (1, 64, 96))], LLAMA, "llama") == []


def test_what_the_metadata_does_not_say_is_not_checked() -> None:
    assert misshapen([("token_embd.weight", (77, 64)), ("blk.0.unheard_of.weight", (1, 2))], LLAMA, "llama") == []
    assert misshapen([("output_norm.weight", (7,))], LLAMA, "unheard-of") == []


def test_many_layers_with_one_fault_are_one_line_and_other_kinds_are_counted() -> None:
    tensors = [(f"blk.{layer}.{part}.weight", (9, 9)) for layer in range(2) for part in ("ffn_up", "ffn_gate")]
    found = misshapen(tensors, LLAMA, "llama")
    assert [line.split()[0] for line in found] == ["blk.0.ffn_up.weight", "blk.0.ffn_gate.weight"]
    with pytest.raises(ConversionError, match=r"would not load the file \(nor for blk\.0\.ffn_gate\.weight\)$"):
        check_shapes(tensors, LLAMA, "llama")


def test_layers_of_their_own_sizes_are_checked_by_those() -> None:
    metadata = {f"deci.{k.partition('.')[2]}": v for k, v in LLAMA.items()}
    metadata["deci.feed_forward_length"] = values.array(ValueType.UINT32, [96, 32])
    tensors = [("blk.0.ffn_up.weight", (96, 64)), ("blk.1.ffn_up.weight", (32, 64))]
    assert misshapen(tensors, metadata, "deci") == []
    (found,) = misshapen([("blk.1.ffn_up.weight", (96, 64))], metadata, "deci")
    assert found.endswith("must be 32 by deci.feed_forward_length ([96, 32])")


def test_a_family_brings_rows_of_its_own() -> None:
    rows = {"blk.{l}.extra": (EXPERTS, FF, EMBD), "blk.{l}.ffn_up": (2 * FF, EMBD)}
    metadata = {**LLAMA, "llama.expert_count": values.u32(3)}
    good = [("blk.0.extra.weight", (3, 96, 64)), ("blk.0.extra.bias", (3, 96)), ("blk.0.extra.scale", (3,))]
    assert misshapen([*good, ("blk.0.ffn_up.weight", (192, 64))], metadata, "llama", rows) == []
    bad = [("blk.0.extra.weight", (3, 64, 96)), ("blk.0.ffn_up.weight", (96, 64))]
    assert len(misshapen(bad, metadata, "llama", rows)) == 2
