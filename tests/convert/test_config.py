"""Configurations completed: what transformers makes of them, what broken ones come to, and the file of facts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gguf_forge.convert.config import TEXT_PARTS, count, first_of, need, resolve
from gguf_forge.convert.derivations import DERIVATIONS, model_types
from gguf_forge.errors import ConversionError
from tests.convert import make_model_types as maker

PROBES: dict[str, dict[str, Any]] = json.loads(maker.PROBES.read_text(encoding="utf-8"))
#: Probes that say what no published model of the kind says, and of which something else is made.
UNLIKE = {
    "dbrx-1": "the context that YaRN stretches is looked for before it is there",
    "modernbert-0": "scaling is for sliding windows, too",
    "modernbert-1": "scaling is for sliding windows, too",
    "qwen2_5_vl-0": "partial_rotary_factor is left beside the rotary parameters, where the reference finds it, too",
    "qwen2_vl-0": "partial_rotary_factor is left beside the rotary parameters, where the reference finds it, too",
    "voxtral-0": "Voxtral's text model has defaults of its own; published ones leave nothing out",
    "voxtral-1": "Voxtral's text model has defaults of its own; published ones leave nothing out",
}
KINDS = sorted({kind for each in DERIVATIONS for kind in each.types()} | set(model_types()["parts"]))


@pytest.mark.parametrize("name", PROBES)
def test_a_configuration_is_what_transformers_makes_of_it(name: str) -> None:
    probe = PROBES[name]
    found = resolve(probe["config"])
    assert ({key: found.get(key) for key in probe["resolved"]} == probe["resolved"]) is (name not in UNLIKE)


def test_every_derivation_applies_to_a_probe() -> None:
    probed = {part.get("model_type") for p in PROBES.values() for part in [p["config"], *parts_of(p["config"])]}
    assert [each.name for each in DERIVATIONS if not probed & set(each.types())] == []
    assert all(each.source for each in DERIVATIONS)


def parts_of(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for value in config.values():
        if isinstance(value, dict):
            yield value
            yield from parts_of(value)


def test_an_unknown_model_is_read_as_it_stands() -> None:
    config = {"model_type": "unheard-of", "hidden_size": 64, "num_attention_heads": 4, "rope_theta": 5.0, "n": [1]}
    assert resolve(config) == {**config, "rope_parameters": {"rope_theta": 5.0}}


def test_resolving_changes_nothing_in_place() -> None:
    for probe in PROBES.values():
        before = json.dumps(probe["config"])
        resolve(probe["config"])
        assert json.dumps(probe["config"]) == before


@pytest.mark.parametrize("name", TEXT_PARTS)
def test_a_text_models_part_is_found_under_each_of_its_names(name: str) -> None:
    part = {"hidden_size": 8, "model_type": "mine"}
    raw = {"model_type": "wrapper", "hidden_size": 4, name: {"text_config": part} if name == "thinker_config" else part}
    found = resolve(raw)
    assert (found["hidden_size"], found["model_type"], found["text_config"]) == (8, "mine", part)
    with pytest.raises(ConversionError, match=rf"{name} must be an object, got \[1\]"):
        resolve({**raw, name: [1]})


def test_of_two_text_parts_the_later_name_counts() -> None:
    assert resolve({"llm_config": {"a": 1}, "language_config": {"a": 2}, "text_config": {"a": 3}})["a"] == 2


def test_a_part_names_its_own_model_type_or_has_the_usual_one() -> None:
    sizes = {"hidden_size": 64, "num_attention_heads": 4}
    named = resolve({"model_type": "mistral3", "text_config": {**sizes, "model_type": "ministral3"}})
    usual = resolve({"model_type": "mistral3", "text_config": sizes})
    strange = resolve({"model_type": "mistral3", "text_config": {**sizes, "model_type": "mistral3_text"}})
    assert [each["model_type"] for each in (named, usual, strange)] == ["ministral3", "mistral", "mistral"]


def test_what_a_part_says_counts_before_its_defaults_under_either_name() -> None:
    vision = {"num_attention_heads": 3}
    found = resolve({"model_type": "qwen2_vl", "hidden_size": 64, "vision_config": vision})["vision_config"]
    assert (found["num_heads"], found["depth"], "num_attention_heads" in found) == (3, 32, False)


def test_the_first_key_counts_and_what_null_does_is_said() -> None:
    config = {"a": None, "b": 2}
    assert (first_of(config, "z", "a", "b"), first_of(config, "z", "a", "b", null=False)) == (None, 2)
    assert (first_of(config, "z"), need(config, "a", "b"), count(config, "a", "b")) == (None, 2, 2)
    with pytest.raises(ConversionError, match=r"^config\.json has no y or z$"):
        need(config, "y", "z")
    with pytest.raises(ConversionError, match=r"^config\.json: a is null$"):
        need(config, "z", "a")
    for wrong in (0, -1, 1.5, True, "2", [2]):
        with pytest.raises(ConversionError, match="b must be a positive number, got"):
            count({"a": None, "b": wrong}, "a", "b")


#: Keys that derivations read, and what a broken file may have under them.
READ = (
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "num_labels",
    "layer_types",
    "first_k_dense_replace",
    "full_attention_interval",
    "full_attn_idxs",
    "global_attn_every_n_layers",
    "index_topk_freq",
    "index_topk_pattern",
    "index_skip_topk_offset",
    "max_position_embeddings",
    "max_window_layers",
    "prefix_dense_sliding_window_pattern",
    "qk_rope_head_dim",
    "rope_scaling",
    "rope_theta",
    "rotary_dim",
    "sliding_window",
    "sliding_window_pattern",
    "use_sliding_window",
    "text_config",
)
BROKEN: tuple[Any, ...] = (None, True, 0, -1, 2**70, 1.5, "x", [], ["x"], {}, {"rope_type": []}, {"rope_type": "yarn"})


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_configuration_is_at_worst_an_error(kind: str) -> None:
    whole = {"model_type": kind, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3}
    for key in READ:
        for value in BROKEN:
            if key == "num_hidden_layers" and value == 2**70:
                continue
            try:
                assert isinstance(resolve({**whole, key: value})["rope_parameters"], dict)
            except ConversionError as error:
                assert "\n" not in str(error)  # noqa: PT017 - most do not raise


def test_the_file_of_facts_is_well_formed() -> None:
    found = model_types()
    assert list(found) == ["transformers", "rope", "turned", "heads_kv", "head_dim", "renames", "parts", "defaults"]
    assert found["transformers"] == maker.VERSION
    bases = [base if isinstance(base, list) else [base] for base in found["rope"].values()]
    assert all(isinstance(n, float) and len(base) <= 2 for base in bases for n in base)
    assert all(0 < part < 1 for part in found["turned"].values())
    assert set(found["head_dim"].values()) == {"width", "rotary", "always rotary", "latent"}
    assert found["heads_kv"] == sorted(set(found["heads_kv"]))
    for names in found["renames"].values():
        assert not set(names) & set(names.values())
    fields = set(maker.FIELDS)
    for kind, defaults in found["defaults"].items():
        own = set(found["renames"].get(kind, {}).values())
        assert defaults
        assert set(defaults) <= fields | own, kind
    within = {kind for parts in found["parts"].values() for kind in parts.values()}
    assert set(found["defaults"]) <= within | set(maker.USUAL)
    assert {name for parts in found["parts"].values() for name in parts} <= set(maker.PARTS)


def test_model_types_that_are_read_raw_have_no_facts() -> None:
    """The reference reads these as they stand, or fails on what a class makes of them."""
    named = {kind for each in DERIVATIONS for kind in each.types()} | set(model_types()["parts"])
    assert named & set(maker.RAW) == set()


def test_the_file_is_where_the_package_looks_for_it() -> None:
    assert json.loads(Path(maker.OUT).read_text(encoding="utf-8")) == dict(model_types())


@pytest.mark.parametrize(
    ("said", "context"),
    [({}, 128000), ({"max_seq_len": 512}, 512), ({"max_seq_len": 512, "max_position_embeddings": 4096}, 4096)],
)
def test_mistrals_params_have_a_context(said: dict[str, int], context: int) -> None:
    found = resolve({"dim": 64, "n_layers": 2, "n_heads": 4, "norm_eps": 1e-5, **said})
    assert found["max_position_embeddings"] == context
    assert (found["hidden_size"], found["num_hidden_layers"], found["rms_norm_eps"]) == (64, 2, 1e-5)


def test_params_in_a_configuration_of_a_class_are_not_mistrals() -> None:
    found = resolve({"dim": 64, "n_layers": 2, "n_heads": 4, "model_type": "distilbert"})
    assert found.get("hidden_size") in (None, found["dim"])
    assert "architectures" not in found
