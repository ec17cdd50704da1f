"""Models that decide: known by files beside the weights, asked by prompts of their own, with heads of their own."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from gguf_forge.convert.config import resolve
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.hparams import metadata_of
from gguf_forge.convert.ops import Whole
from gguf_forge.convert.registry import named, select
from gguf_forge.convert.target import with_target
from gguf_forge.convert.unconfigured import supply_config
from gguf_forge.convert.view import of_array
from gguf_forge.convert.vocab import load_vocab
from gguf_forge.errors import ConversionError
from gguf_forge.source.checkpoint import open_checkpoint
from gguf_forge.source.merged import merge_adapter
from tests.convert import headers

CASES = headers.load()
TOKENIZER = Path(__file__).resolve().parents[2] / "fixtures" / "vocab" / "bytelevel"
SPECIAL = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
HEAD = headers.FOLDER.parent / "torch" / "nested.pt"
#: The files that tell the class, by case: what they hold is in the case's configuration, under `decision`.
TOLD_BY = {
    "pplx-decider": "decision_config.json",
    "clef": "joint_head_config.json",
    "laya": "rl_agent_config.json",
    "julia": "julia_config.json",
}


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("pplx-decider", "a183218463819338"),
        ("clef", "083fcf6056ae4489"),
        ("laya", "0a929a0fee116cd6"),
        ("julia", "d4fa8b19df215937"),
        ("lev", "9f96afb0c960fe51"),
        ("kev", "40a840ab3c9bd3ae"),
        ("nimble", "61178ac7793e6d18"),
    ],
)
def test_the_prompt_is_the_references(name: str, prompt: str, tmp_path: Path) -> None:
    """By its hash in the reference's file of the case's checkpoint."""
    config = {**CASES[name].config, "vocab_size": 640}
    shutil.copytree(TOKENIZER, tmp_path / "tokenizer")
    settings = json.loads((TOKENIZER / "tokenizer_config.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings | SPECIAL), encoding="utf-8")
    folder = tmp_path if name in ("laya", "julia") else tmp_path / "tokenizer"
    keys = load_vocab(folder, resolve(config), select(config).vocab, pre="qwen2", note=lambda _: None)
    assert keys["tokenizer.chat_templates"].value == ["systemone"]
    text = keys["tokenizer.chat_template.systemone"].value
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == prompt
    assert keys.get("tokenizer.ggml.token_type_count") is None or keys["tokenizer.ggml.token_type_count"].value == 3


@pytest.mark.parametrize("name", TOLD_BY)
def test_what_lies_beside_the_weights_tells_the_class(name: str, tmp_path: Path) -> None:
    config = dict(CASES[name].config)
    head, widths = config.pop("decision"), config["intermediate_size"] if name in ("laya", "julia") else None
    place = tmp_path / "encoder" / "config.json" if widths else tmp_path / "config.json"
    if widths:
        layers = config["num_hidden_layers"] - head["head_layers"]
        config |= {"num_hidden_layers": layers, "intermediate_size": widths[0]}
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps(config | {"architectures": ["FooModel"]}), encoding="utf-8")
    (tmp_path / TOLD_BY[name]).write_text(json.dumps(head), encoding="utf-8")
    for file in ("model", "readout"):
        save_file({"weight": np.ones((6, 32), np.float32)}, tmp_path / f"{file}.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        supply_config(checkpoint)
        assert checkpoint.config == CASES[name].config
        assert ("readout/weight" in with_target(select(checkpoint.config), checkpoint, Facts({}, tmp_path))) is (
            name == "pplx-decider"
        )


def test_without_its_file_it_is_what_config_json_says(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["FooModel"]}), encoding="utf-8")
    save_file({"a": np.ones((2, 2), np.float32)}, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        supply_config(checkpoint)
        assert checkpoint.config == {"architectures": ["FooModel"]}


def _readout(tokens: list[Any]) -> Facts:
    return Facts({"vocab_size": 9, "decision": {"token_ids": tokens}}, Path())


def test_a_head_of_codes_has_its_rows_at_their_tokens() -> None:
    rule = next(row for row in named("PplxDeciderModel").tensors if row.row == "output.weight")
    rows = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
    (made,) = rule.verb.views([of_array("readout/weight", rows)], _readout([7, 0, 4]))
    whole = np.zeros((9, 2), np.float32)
    whole[[7, 0, 4]] = rows
    assert np.array_equal(made.read(), whole)
    assert all(np.array_equal(made.rows(n, n + 2), whole[n : n + 2]) for n in range(8))


@pytest.mark.parametrize("tokens", [[7, 0], [7, 0, 0], [9, 0, 4], [-1, 0, 4]])
def test_codes_must_be_as_many_different_tokens(tokens: list[int]) -> None:
    rule = next(row for row in named("PplxDeciderModel").tensors if row.row == "output.weight")
    with pytest.raises(ConversionError, match="token_ids must be 3 different tokens of 9"):
        rule.verb.views([of_array("readout/weight", np.ones((3, 2), np.float32))], _readout(tokens))


def test_factors_are_stored_as_they_are_used() -> None:
    rule = next(row for row in named("ClefModel").tensors if row.row == "decision.scales")
    assert isinstance(rule.verb, Whole)
    stored = {"prior": 2.5, "joint": 9.0, "gate": -0.5}
    given = [of_array(name, np.array(value, np.float32).reshape(())) for name, value in stored.items()]
    (made,) = rule.verb.views(given, Facts({}, Path()))
    assert np.allclose(made.read(), [math.exp(2.5), 100.0, 1 / (1 + math.exp(0.5))], rtol=1e-6)


def test_a_temperature_without_a_place_is_an_error(tmp_path: Path) -> None:
    case = CASES["laya"]
    decision = {**case.config["decision"], "temperature_by_options": {"choice:2-4": 1.0}}
    case = replace(case, config={**case.config, "decision": decision})
    with pytest.raises(ConversionError, match="names 'choice:2-4', for which"):
        metadata_of(case.arch, case.facts(tmp_path))


@pytest.mark.parametrize(
    ("files", "found", "decision"),
    [
        (
            {"lev_release.json": {}, "calibration.json": {"temperatures": {"choice:A": 2.0}}},
            "LevModel",
            {"temperatures": {"choice:A": 2.0}},
        ),
        ({"schema_config.json": {"task": "schema_candidate_classification_v2"}}, "NimbleModel", {}),
        ({"schema_config.json": {"task": "other"}}, "FooModel", None),
        ({"training_config.json": {"args": {"head_dim": 8}}}, "FooModel", None),  # and no head
        ({}, "FooModel", None),
    ],
)
def test_an_adapter_tells_what_the_merged_model_is(
    files: dict[str, Any], found: str, decision: Any, tmp_path: Path
) -> None:
    base, adapter = _base_and_adapter(tmp_path)
    for name, content in files.items():
        (adapter / name).write_text(json.dumps(content), encoding="utf-8")
    with open_checkpoint(base) as checkpoint:
        merge_adapter(checkpoint, adapter)
        supply_config(checkpoint)
        assert checkpoint.config["architectures"] == [found]
        assert checkpoint.config.get("decision") == decision


def test_lev_without_its_temperatures_is_an_error(tmp_path: Path) -> None:
    base, adapter = _base_and_adapter(tmp_path)
    (adapter / "lev_release.json").write_text("{}", encoding="utf-8")
    with open_checkpoint(base) as checkpoint:
        merge_adapter(checkpoint, adapter)
        with pytest.raises(ConversionError, match=r"no calibration\.json"):
            supply_config(checkpoint)


def test_kevs_head_is_read_from_its_file_of_torch(tmp_path: Path) -> None:
    base, adapter = _base_and_adapter(tmp_path)
    (adapter / "training_config.json").write_text(json.dumps({"args": {"head_dim": 4}}), encoding="utf-8")
    shutil.copy(HEAD, adapter / "head.pt")
    with open_checkpoint(base) as checkpoint:
        merge_adapter(checkpoint, adapter)
        supply_config(checkpoint)
        assert checkpoint.config["decision"] == {"head_dim": 4, "temperature": 1.375}
        tensors = with_target(named("KevModel"), checkpoint, Facts(resolve(checkpoint.config), checkpoint.path))
        head = {name: tensor.shape for name, tensor in tensors.items() if name.startswith("head/")}
        sizes = {"weight": (4, 6), "bias": (4,)}
        assert head == {f"head/head.{x}.{end}": size for x in "qk" for end, size in sizes.items()}
        assert np.array_equal(tensors["head/head.k.bias"].read(), np.arange(4, dtype=np.float32))


def _base_and_adapter(folder: Path) -> tuple[Path, Path]:
    base, adapter = folder / "base", folder / "adapter"
    for path in (base, adapter):
        path.mkdir()
    config = {"architectures": ["FooModel"], "num_hidden_layers": 1}
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({"model.layers.0.a.weight": np.ones((4, 6), np.float32)}, base / "model.safetensors")
    place = "base_model.model.model.layers.0.a.lora_{}.weight"
    matrices = {place.format("A"): np.ones((2, 6), np.float32), place.format("B"): np.ones((4, 2), np.float32)}
    save_file(matrices, adapter / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none"}
    (adapter / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return base, adapter
