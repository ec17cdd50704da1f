"""Checkpoints that tell by other things than config.json's class what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from gguf_forge.convert.unconfigured import supply_config
from gguf_forge.source.checkpoint import open_checkpoint

WIDTHS = {"d_model": 64, "n_layer": 2}


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ({"ssm_cfg": {}}, {"architectures": ["MambaForCausalLM"]}),
        ({"ssm_cfg": {"layer": "Mamba1"}}, {"architectures": ["MambaForCausalLM"]}),
        (
            {"ssm_cfg": {"layer": "Mamba2", "ngroups": 4, "d_state": 32}},
            {"architectures": ["Mamba2ForCausalLM"], "n_groups": 4, "d_state": 32},
        ),
        ({"ssm_cfg": {"layer": "Mamba2"}, "architectures": ["MambaLMHeadModel"]}, {}),
        ({"ssm_cfg": "Mamba2"}, {}),
    ],
)
def test_mambas_authors_name_the_mixer(given: dict[str, Any], more: dict[str, Any], tmp_path: Path) -> None:
    save_file({"a": np.ones((2, 2), np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**WIDTHS, **given}), encoding="utf-8")
    with open_checkpoint(tmp_path) as checkpoint:
        supply_config(checkpoint)
        assert checkpoint.config == {**WIDTHS, **given, **more}
