"""What is said of a class that no family serves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gguf_forge.convert.config import resolve
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.registry import architecture_name, architectures, class_names, elsewhere, named, select
from gguf_forge.convert.suggest import guesses, refuse_without_text, unknown_class
from gguf_forge.errors import ConversionError
from tests.convert import headers

CASES = headers.load()
REGISTERED = headers.FOLDER.parent / "registered.txt"
PLAIN = [name for name in CASES if name.startswith("plain-")]


@pytest.mark.parametrize("name", PLAIN)
def test_the_rules_of_a_models_own_architecture_fit_best(name: str) -> None:
    case = CASES[name]
    facts = Facts(resolve(case.config), Path("nowhere"))
    tried = guesses(case.headers(), facts)
    own = next(guess for guess in tried if guess.arch is select(case.config))
    assert own.left == () or own.fit[0] == tried[0].fit[0]


def test_the_error_says_what_would_be_left_and_what_to_try() -> None:
    case = CASES["plain-Llama-Tiny-F32-v1.0"]
    more = replace(case, source=[*case.source, ("model.layers.0.self_attn.novelty", "F32", [4])])
    config = {**case.config, "architectures": ["LlamaNextForCausalLM"]}
    error = str(unknown_class(config, more.headers(), Facts(resolve(config), Path())))
    assert "'LlamaNextForCausalLM' is not supported; nearest is llama (LlamaForCausalLM)" in error
    assert "12 of the 13 kinds of tensors, and leave model.layers.#.self_attn.novelty" in error
    assert "--arch LlamaForCausalLM" in error
    assert "docs/families.md" in error


def test_where_nothing_fits_only_the_name_is_compared() -> None:
    case = replace(CASES["plain-Llama-Tiny-F32-v1.0"], source=[("a.b", "F32", [1]), ("c.d", "F32", [1])])
    error = unknown_class({"architectures": ["FooModel"]}, case.headers(), Facts(resolve(case.config), Path()))
    assert str(error) == "architecture 'FooModel' is not supported"


def test_an_architecture_is_named_by_its_class_or_its_name() -> None:
    assert named("GPT2LMHeadModel").name == "gpt2"
    assert named("llama") is named("LlamaForCausalLM")
    assert named("modern-bert") is named("ModernBertModel")
    assert named("clef") is named("ClefModel")
    with pytest.raises(ConversionError, match="no architecture is called 'gpt-2'; the nearest is gpt2"):
        named("gpt-2")
    with pytest.raises(ConversionError, match=r"deepseek2 may be several architectures; .*DeepseekV2"):
        named("deepseek2")


def test_every_class_is_served_by_what_serves_it() -> None:
    for arch in architectures():
        assert set(arch.hf) <= set(class_names())
        assert arch.hf
        assert set(arch.whole) <= set(arch.hf)


def test_every_class_that_the_reference_registers_is_served_or_said_where_it_is() -> None:
    names = set(REGISTERED.read_text(encoding="utf-8").split())
    assert len(names) > 250
    beside = {name for arch in architectures() for name in arch.beside}
    assert names - set(class_names()) - beside - {one.hf for one in elsewhere()} == set()
    assert {one.hf for one in elsewhere()} & set(class_names()) == set()


@pytest.mark.parametrize(
    ("more", "instead"),
    [
        ({"text_model_id": "meta-llama/Llama-3.2-1B-Instruct"}, "'meta-llama/Llama-3.2-1B-Instruct'"),
        ({"text_config": {"_name_or_path": "some/model", "architectures": ["LlamaForCausalLM"]}}, "'some/model'"),
        ({"text_model_id": None, "text_config": 3}, "the repository of its text model"),
    ],
)
def test_a_checkpoint_without_its_text_model_says_where_that_one_is(more: dict[str, Any], instead: str) -> None:
    config = {"architectures": ["UltravoxModel"], **more}
    with pytest.raises(ConversionError, match=f"UltravoxModel holds an audio encoder .* convert {instead} instead"):
        refuse_without_text(config, ["multi_modal_projector.linear_1.weight", "audio_tower.conv1.weight"])
    refuse_without_text(config, ["language_model.model.norm.weight"])


def test_a_class_that_counts_as_a_whole_hides_that_of_its_text_part() -> None:
    part = {"text_config": {"architectures": ["LlamaForCausalLM"]}}
    whole = [name for arch in architectures() for name in arch.whole]
    assert {architecture_name({"architectures": [name], **part}) for name in whole} == set(whole)
    assert architecture_name({"architectures": ["LlavaForConditionalGeneration"], **part}) == "LlamaForCausalLM"
