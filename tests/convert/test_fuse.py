"""Outputs put together on request; that the tensors are the reference's, test_plan asks of the cases `fuse-*`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gguf_forge.convert.facts import Options
from gguf_forge.convert.plan import Outputs, plan_outputs
from gguf_forge.convert.registry import select
from gguf_forge.errors import ConversionError
from tests.convert import headers
from tests.convert.headers import Case
from tests.convert.test_undo import tensors_of

CASES = headers.load()
DENSE, MIXTURE = CASES["fuse-qwen2"], CASES["fuse-qwen35moe"]


def planned(case: Case, folder: Path, options: Options, *without: str) -> Outputs:
    tensors = {name: tensor for name, tensor in tensors_of(case, folder).items() if name not in without}
    return plan_outputs(select(case.config), tensors, replace(case.facts(folder), options=options))


def test_queries_keys_and_values_lie_below_each_other(tmp_path: Path) -> None:
    apart = {v.name: v.read() for v in planned(DENSE, tmp_path, Options()).views}
    together = {v.name: v.read() for v in planned(DENSE, tmp_path, Options(fuse_qkv=True)).views}
    for end in ("weight", "bias"):
        expected = np.concatenate([apart[f"blk.0.attn_{part}.{end}"] for part in "qkv"])
        assert together[f"blk.0.attn_qkv.{end}"].tobytes() == expected.tobytes()
    assert not any(f"blk.0.attn_{part}.weight" in together for part in "qkv")


def test_gate_and_up_lie_below_each_other_in_each_expert(tmp_path: Path) -> None:
    apart = {v.name: v.read() for v in planned(MIXTURE, tmp_path, Options()).views if "exps" in v.name}
    fused = planned(MIXTURE, tmp_path, Options(fuse_gate_up=True)).views
    together = {v.name: v.read() for v in fused if "exps" in v.name}
    for layer in range(3):
        parts = [apart[f"blk.{layer}.ffn_{part}_exps.weight"] for part in ("gate", "up")]
        expected = np.concatenate(parts, axis=1)
        assert together[f"blk.{layer}.ffn_gate_up_exps.weight"].tobytes() == expected.tobytes()


def test_layers_with_some_of_the_biases_stay_as_they_are(tmp_path: Path) -> None:
    some = [f"model.layers.{layer}.self_attn.k_proj.bias" for layer in range(3)]
    names = {v.name for v in planned(DENSE, tmp_path, Options(fuse_qkv=True), *some).views}
    assert {"blk.0.attn_q.weight", "blk.0.attn_q.bias", "blk.0.attn_k.weight"} <= names
    assert not any("attn_qkv" in name for name in names)


def test_what_the_checkpoint_holds_together_is_not_taken_for_apart(tmp_path: Path) -> None:
    """As in the reference: Phi-3's queries, keys and values are one tensor to begin with."""
    case = CASES["plain-Phi-3-mini-4k-instruct"]
    plain, fused = (planned(case, tmp_path, Options(fuse_qkv=wanted)) for wanted in (False, True))
    assert [v.name for v in plain.views] == [v.name for v in fused.views]


def test_experts_without_a_fused_form_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="llama has no form in GGUF for gates and ups of experts in one tensor"):
        planned(CASES["plain-Mixtral-8x7B-Instruct-v0.1"], tmp_path, Options(fuse_gate_up=True))


def test_a_dense_model_has_no_experts_to_fuse(tmp_path: Path) -> None:
    plain, fused = (planned(DENSE, tmp_path, Options(fuse_gate_up=wanted)) for wanted in (False, True))
    assert [v.name for v in plain.views] == [v.name for v in fused.views]
