"""Layers that predict further tokens, and draft models beside a model: what a checkpoint lacks or holds of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from gguf_forge.convert.config import resolve
from gguf_forge.convert.hparams import metadata_of
from gguf_forge.convert.plan import Outputs, plan_outputs
from gguf_forge.convert.registry import select
from gguf_forge.convert.remarks import Subject, remarks
from gguf_forge.errors import ConversionError
from tests.convert import headers
from tests.convert.headers import Case

CASES = headers.load()


def planned(case: Case, left_out: str, folder: Path) -> Outputs:
    tensors = {name: tensor for name, tensor in case.headers().items() if not re.search(left_out, name)}
    return plan_outputs(case.arch, tensors, case.facts(folder))


LACKING = ["GLM-4.6", "GLM-4.7-Flash-MTP", "DeepSeek-V3.2", "Ling-3.0-tiny"]


@pytest.mark.parametrize(("name", "left_out"), [*((name, None) for name in LACKING), ("Qwen3.5-4B", r"^mtp\.")])
def test_a_checkpoint_without_its_further_layers_is_the_model_and_a_note(
    name: str, left_out: str | None, tmp_path: Path
) -> None:
    case = CASES[name]
    main: int = resolve(case.config)["num_hidden_layers"]
    outputs = planned(case, left_out or rf"layers\.{main}\.", tmp_path)
    trunk = [name for name, _ in CASES[f"{name}-no-mtp"].tensors]
    assert [view.name for view in outputs.views] == trunk
    early, keys = metadata_of(case.arch, outputs.facts)
    assert keys[f"{case.arch.name}.block_count"].value == main + 1
    made = [view.name for view in outputs.views]
    notes = remarks(Subject(tmp_path, outputs.facts.config, case.arch, early | keys, made))
    assert [note for note in notes if "layers that predict further tokens (1), but there are none" in note]


def test_qwens_further_layers_cannot_be_kept_alone_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="the checkpoint has no layers that predict further tokens"):
        planned(replace(CASES["Qwen3.5-4B"], args=["--mtp"]), r"^mtp\.", tmp_path)


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
