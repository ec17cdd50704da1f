"""What config.json says of a model's computation that the converted file cannot say: converted, and remarked upon."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gguf_forge.convert.hparams import metadata_of
from gguf_forge.convert.plan import plan_outputs
from gguf_forge.convert.remarks import Subject, remarks
from gguf_forge.errors import ConversionError
from tests.convert import headers
from tests.convert.headers import Case

CASES = headers.load()
LLAMA = "plain-Llama-Tiny-F32-v1.0"
#: Its window has no key in Llama's architecture, whose readers have none.
WINDOWED = "plain-Mistral-7B-v0.1"
#: Small heads under the published model's scale of queries.
SCALED = ("plain-gemma-2-2b-it", "plain-gemma-3-1b-it")


def notes_of(case: Case, folder: Path) -> list[str]:
    outputs = plan_outputs(case.arch, case.headers(), case.facts(folder))
    early, others = metadata_of(case.arch, outputs.facts)
    names = [view.name for view in outputs.views]
    return remarks(Subject(folder, outputs.facts.config, case.arch, early | others, names, outputs.dropped))


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("plain-") and n not in (WINDOWED, *SCALED)])
def test_families_as_published_leave_nothing_unsaid(name: str, tmp_path: Path) -> None:
    assert notes_of(CASES[name], tmp_path) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nomic-v2-moe", r"^'?encoder.layers.1.mlp.experts.bias'? .*left out: the model adds it"),
        ("jina-v3", "lora_A.* and [0-9]+ more left out: adapters for tasks"),
        ("distilbert-sst2", "a ReLU before its classifier's last layer, llama.cpp a tanh"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_said(name: str, message: str, tmp_path: Path) -> None:
    found = notes_of(CASES[name], tmp_path)
    assert any(re.search(message, note) for note in found), found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; llama in GGUF means 'silu'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 has no key for llama"),
    ],
)
def test_what_the_file_cannot_say_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    case = CASES[LLAMA]
    found = notes_of(replace(case, config={**case.config, **change}), tmp_path)
    assert any(re.search(message, note) for note in found), found


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("plain-gpt2-small", "scale_attn_by_inverse_layer_idx", True),
        ("plain-gpt2-small", "activation_function", "relu"),
        ("plain-bert-base-uncased", "position_embedding_type", "relative_key"),
        ("plain-Qwen3-30B-A3B", "norm_topk_prob", False),
        ("plain-Qwen1.5-MoE-A2.7B", "norm_topk_prob", True),
        ("plain-gemma-2b-it", "hidden_activation", "silu"),
    ],
)
def test_what_readers_take_for_granted_is_not_taken_unsaid(name: str, key: str, value: Any, tmp_path: Path) -> None:
    case = CASES[name]
    found = notes_of(replace(case, config={**case.config, key: value}), tmp_path)
    assert [note.startswith(f"config.json: {key} is {value!r}; ") for note in found] == [True]


@pytest.mark.parametrize("name", SCALED)
def test_another_scale_of_queries_than_llama_cpps_is_named(name: str, tmp_path: Path) -> None:
    """The root of a head's size; of the 27B models, known by their layers, of the width by the heads."""
    case = CASES[name]
    size, layers = case.config["head_dim"], 46 if case.arch.name == "gemma2" else 62
    (found,) = notes_of(case, tmp_path)
    assert found == f"config.json: query_pre_attn_scalar is 256; {case.arch.name} in GGUF means {size}"
    fitting = replace(case, config={**case.config, "query_pre_attn_scalar": size})
    assert notes_of(fitting, tmp_path) == []
    (meant,) = (means for key, means in case.arch.implied if key == "query_pre_attn_scalar")
    assert callable(meant)
    assert meant({"num_hidden_layers": layers, "hidden_size": 4608, "num_attention_heads": 32}) == (144,)


@pytest.mark.parametrize("name", ["rr-tied", "rr-untied"])
def test_a_reranker_is_said_to_be_one(name: str, tmp_path: Path) -> None:
    assert [note.partition(",")[0] for note in notes_of(CASES[name], tmp_path)] == ["taken for a reranker"]


def test_a_missing_head_is_named_only_where_the_configuration_promises_one(tmp_path: Path) -> None:
    case = CASES[LLAMA]
    headless = replace(case, source=[s for s in case.source if not s[0].startswith("lm_head")])
    assert "there is no lm_head" in notes_of(headless, tmp_path)[0]
    tied = replace(headless, config={**case.config, "tie_word_embeddings": True})
    assert notes_of(tied, tmp_path) == []


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.norm.weight"])
def test_no_model_lacks_its_embedding_or_last_norm(name: str, tmp_path: Path) -> None:
    case = CASES[LLAMA]
    with pytest.raises(ConversionError, match=f"the checkpoint has no '{name}'"):
        notes_of(replace(case, source=[s for s in case.source if s[0] != name]), tmp_path)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"beta_fast": 32, "beta_slow": 1, "truncate": True}, None),
        ({"beta_fast": 4.0}, "config.json: beta_fast of rotary scaling is 4.0; llama in GGUF means 32"),
        ({"truncate": False}, "config.json: truncate of rotary scaling is False; llama in GGUF means True"),
    ],
)
def test_where_yarn_begins_to_turn_slower_is_named(rope: dict[str, Any], message: str | None, tmp_path: Path) -> None:
    case = CASES[LLAMA]
    found = notes_of(replace(case, config={**case.config, "rope_scaling": {**YARN, **rope}}), tmp_path)
    assert found == ([] if message is None else [message])


@pytest.mark.parametrize(("name", "count"), [("L-longrope", 0), ("L-longrope-bad", 1)])
def test_factors_of_rotary_scaling_that_are_left_out_are_named(name: str, count: int, tmp_path: Path) -> None:
    found = [note for note in notes_of(CASES[name], tmp_path) if "factors of rotary scaling have no tensors" in note]
    assert len(found) == count
