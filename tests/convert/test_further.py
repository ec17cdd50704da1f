"""Layers that predict further tokens, and draft models beside a model: what a checkpoint lacks or holds of them."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from gguf_forge.convert.agreement import unsaid
from gguf_forge.convert.facts import Options
from gguf_forge.convert.files import convert_checkpoint
from gguf_forge.convert.hparams import metadata_of
from gguf_forge.convert.plan import Outputs, plan_outputs
from gguf_forge.convert.registry import select
from gguf_forge.errors import ConversionError
from tests.convert import headers
from tests.convert.headers import Case

CASES = headers.load()
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


def planned(case: Case, left_out: str, folder: Path) -> Outputs:
    tensors = {name: tensor for name, tensor in case.headers().items() if not re.search(left_out, name)}
    return plan_outputs(case.arch, tensors, case.facts(folder))


@pytest.mark.parametrize("name", ["GLM-4.6", "GLM-4.7-Flash-MTP", "DeepSeek-V3.2", "Ling-3.0-tiny"])
def test_a_checkpoint_without_its_further_layers_is_the_model_and_a_note(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    last = max(int(found[1]) for found in (re.search(r"layers\.(\d+)\.", n) for n in case.headers()) if found)
    outputs = planned(case, rf"layers\.{last}\.", tmp_path)
    trunk = [name for name, _ in CASES[f"{name}-no-mtp"].tensors]
    assert [view.name for view in outputs.views] == trunk
    early, keys = metadata_of(case.arch, outputs.facts)
    assert keys[f"{case.arch.name}.block_count"].value == last + 1
    notes = unsaid(outputs.facts.config, outputs.views, early | keys, case.arch)
    assert [note for note in notes if "layers that predict further tokens (1), but there are none" in note]


MTP = r"^mtp\."


def test_qwens_further_layers_are_counted_in_the_checkpoint(tmp_path: Path) -> None:
    """Many finetuned models have none, whatever their configuration says; the reference's file then does not load."""
    case = CASES["Qwen3.5-4B"]
    outputs = planned(case, MTP, tmp_path)
    assert [view.name for view in outputs.views] == [name for name, _ in CASES["Qwen3.5-4B-no-mtp"].tensors]
    _, keys = metadata_of(case.arch, outputs.facts)
    assert keys["qwen35.block_count"].value == 4
    assert "qwen35.nextn_predict_layers" not in keys
    with pytest.raises(ConversionError, match="the checkpoint has no layers that predict further tokens"):
        planned(replace(case, args=["--mtp"]), MTP, tmp_path)


@pytest.mark.parametrize(("mtp", "noted"), [("keep", True), ("drop", False)])
def test_further_layers_that_only_the_configuration_has_are_noted(mtp: str, noted: bool, tmp_path: Path) -> None:
    case = CASES["qwen3.5-embed"]
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**case.config, "vocab_size": 640}), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "merges.txt", "vocab.json"):
        shutil.copy(FIXTURES / "vocab" / "bytelevel" / name, folder / name)
    shapes = {name: [640 if size > 1000 else size for size in shape] for name, _, shape in case.source}
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, folder / "model.safetensors")
    options = Options(mtp=mtp)  # type: ignore[arg-type]
    (made,) = convert_checkpoint(folder, tmp_path / "out.gguf", "f32", pre="qwen2", dry_run=True, options=options)
    assert any("mtp_num_hidden_layers is 1, but" in note for note in made.notes) is noted


def test_a_further_layer_must_be_whole(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"no 'model\.layers\.3\.enorm\.weight'"):
        planned(CASES["GLM-4.6"], r"layers\.3\.enorm", tmp_path)
    alone = replace(CASES["GLM-4.6"], args=["--mtp"])
    with pytest.raises(ConversionError, match=r"no 'model\.layers\.3\."):
        planned(alone, r"layers\.3\.", tmp_path)


def test_a_draft_model_is_chosen_by_option_where_there_is_one() -> None:
    deepseek = {"architectures": ["DeepseekV4ForCausalLM"]}
    assert (select(deepseek).name, select(deepseek, draft=True).name) == ("deepseek4", "dflash")
    with pytest.raises(ConversionError, match="no checkpoint of LlamaForCausalLM holds a draft model"):
        select({"architectures": ["LlamaForCausalLM"]}, draft=True)


def test_the_text_model_of_kimi_k3_is_told_from_kimi_linear() -> None:
    text = {"architectures": ["KimiLinearForCausalLM"]}
    k3 = {"architectures": ["KimiK3ForConditionalGeneration"], "text_config": text}
    assert (select(k3).name, select(text).name) == ("kimi-k3", "kimi-linear")
