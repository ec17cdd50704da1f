"""Checkpoints that say one thing in config.json and another in their tensors: converted, and remarked upon."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_forge.convert.agreement import contradictions, unsaid
from gguf_forge.convert.config import resolve
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.hparams import metadata_of
from gguf_forge.convert.plan import plan_outputs
from gguf_forge.convert.registry import select
from gguf_forge.convert.view import of_array
from gguf_forge.errors import ConversionError
from gguf_forge.format import values
from tests.convert import headers
from tests.convert.headers import Case

CASES = headers.load()
LLAMA = "plain-Llama-Tiny-F32-v1.0"
#: Cases whose one change is a size that the tensors do not have.
ODD = {"Q3-nohd", "g3-unknown-min", "gpt2-hidden-both"}
#: Cases that say too little for a file.
LACKING = {"G-min", "G2-min", "P-min"}


def notes_of(case: Case, folder: Path) -> tuple[list[str], list[str]]:
    case.lay_out(folder)
    arch, facts = select(case.config), Facts(resolve(case.config), folder)
    views = plan_outputs(arch, case.headers(), facts).views
    early, others = metadata_of(arch, facts)
    metadata = early | others
    return contradictions(views, metadata, arch.name), unsaid(facts.config, views, metadata, arch)


@pytest.mark.parametrize("name", [name for name in CASES if name not in LACKING])
def test_sizes_agree_unless_the_case_is_about_one_that_does_not(name: str, tmp_path: Path) -> None:
    found, _ = notes_of(CASES[name], tmp_path)
    assert bool(found) is (name in ODD), found


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("plain-")])
def test_families_as_published_leave_nothing_unsaid(name: str, tmp_path: Path) -> None:
    assert notes_of(CASES[name], tmp_path) == ([], [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intermediate_size": 1024}, r"blk\.0\.ffn_down\.weight \[256, 512\] .* feed_forward_length \(1024"),
        ({"num_key_value_heads": 4}, r"blk\.0\.attn_k\.weight \[128, 256\] .*head_count_kv \(256"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; llama in GGUF means 'silu'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 has no key for llama"),
    ],
)
def test_a_contradiction_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    case = CASES[LLAMA]
    found = notes_of(replace(case, config={**case.config, **change}), tmp_path)
    assert any(re.search(message, note) for notes in found for note in notes), found


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("plain-gpt2-small", "scale_attn_by_inverse_layer_idx", True),
        ("plain-gpt2-small", "activation_function", "relu"),
        ("plain-bert-base-uncased", "position_embedding_type", "relative_key"),
        ("plain-Qwen3-30B-A3B", "norm_topk_prob", False),
        ("plain-Qwen1.5-MoE-A2.7B", "norm_topk_prob", True),
        ("plain-gemma-3-1b-it", "hidden_activation", "silu"),
    ],
)
def test_what_readers_take_for_granted_is_not_taken_unsaid(name: str, key: str, value: Any, tmp_path: Path) -> None:
    case = CASES[name]
    _, found = notes_of(replace(case, config={**case.config, key: value}), tmp_path)
    assert [note.startswith(f"config.json: {key} is {value!r}; ") for note in found] == [True]


@pytest.mark.parametrize("name", ["rr-tied", "rr-untied"])
def test_a_reranker_is_said_to_be_one(name: str, tmp_path: Path) -> None:
    assert [note.partition(",")[0] for note in notes_of(CASES[name], tmp_path)[1]] == ["a reranker"]


def test_a_missing_head_is_named_only_where_the_configuration_promises_one(tmp_path: Path) -> None:
    case = CASES[LLAMA]
    headless = replace(case, source=[s for s in case.source if not s[0].startswith("lm_head")])
    assert "there is no lm_head" in notes_of(headless, tmp_path)[1][0]
    tied = replace(headless, config={**case.config, "tie_word_embeddings": True})
    assert notes_of(tied, tmp_path)[1] == []


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.norm.weight"])
def test_no_model_lacks_its_embedding_or_last_norm(name: str, tmp_path: Path) -> None:
    case = CASES[LLAMA]
    with pytest.raises(ConversionError, match=f"the checkpoint has no '{name}'"):
        notes_of(replace(case, source=[s for s in case.source if s[0] != name]), tmp_path)


def test_an_embedding_has_a_row_for_each_token() -> None:
    view = replace(of_array("x", np.zeros((3, 4), np.float32)), name="token_embd.weight")
    tokens = {"tokenizer.ggml.tokens": values.strings(["a", "b"])}
    assert contradictions([view], tokens, "llama") == [
        "token_embd.weight has 3 rows, the vocabulary 2 tokens; it may not load"
    ]
