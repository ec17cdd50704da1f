"""Checkpoints that transformers makes and saves: settings as real models have them, and the logits that come of them.

A part of `make test-runtime`. All are made by one process, which takes about a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_forge.convert.files import convert_checkpoint
from tests.runtime import llama
from tests.runtime.variants import NULL, VARIANTS, Variant

pytest.importorskip("xllamacpp", reason="needs xllamacpp: make test-runtime")
CHECKPOINTS = Path(os.environ.get("CHECKPOINTS", ""))
TORCH_PYTHON = os.environ.get("TORCH_PYTHON")
pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(
        not os.environ.get("CHECKPOINTS") or not TORCH_PYTHON, reason="CHECKPOINTS or TORCH_PYTHON is not given"
    ),
]
#: More than the windows and the short contexts of the variants.
TOKENS = [int(number) for number in np.random.default_rng(5).integers(3, 1997, 40)]
TOLERANCE = 1e-3


def configured(variant: Variant) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((CHECKPOINTS / variant.base / "config.json").read_text())
    for key, value in variant.settings.items():
        if value is None:
            config.pop(key, None)
        else:
            config[key] = None if value == NULL else value
    config["architectures"] = [variant.architecture or config["architectures"][0]]
    return config


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder of the variants, and why some could not be made."""
    folder = tmp_path_factory.mktemp("variants")
    cases = {
        name: {"base": str(CHECKPOINTS / v.base), "config": configured(v), "tokens": TOKENS}
        for name, v in VARIANTS.items()
    }
    (folder / "cases.json").write_text(json.dumps(cases))
    script = str(Path(__file__).with_name("transformers_variants.py"))
    command = [str(TORCH_PYTHON), script, str(folder / "cases.json"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800)
    return folder, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_those_of_transformers(name: str, made: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, failed = made
    assert name not in failed, failed[name]
    (planned,) = convert_checkpoint(folder / name, tmp_path / "out.gguf", "f32")
    expected, found = np.load(folder / name / "expected.npy"), llama.logits(planned.path, TOKENS)
    width = min(found.shape[1], expected.shape[1])
    assert np.abs(found[:, :width] - expected[:, :width]).max() <= TOLERANCE * np.abs(expected).max()
