"""Converted checkpoints in llama.cpp: every file loads, and computes what transformers computes from the source.

`make test-runtime ZOO=folder` converts each checkpoint of the folder to F32 and opens it with llama.cpp (xllamacpp).
With an environment that has torch and transformers (`TORCH_PYTHON`), the logits after each of a few tokens are compared
too, where transformers knows the model. REFUSED and UNLIKE say which do not, and why.
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
from gguf_forge.errors import ForgeError
from tests.runtime import llama
from tests.runtime.known import NOT_COMPARED, REFUSED, UNLIKE

pytest.importorskip("xllamacpp", reason="needs xllamacpp: make test-runtime")
pytestmark = pytest.mark.runtime

CHECKPOINTS = Path(os.environ.get("CHECKPOINTS", ""))
TORCH_PYTHON = os.environ.get("TORCH_PYTHON")
NAMES = sorted(p.name for p in CHECKPOINTS.iterdir() if p.is_dir()) if os.environ.get("CHECKPOINTS") else []
TOKENS = [3, 11, 7, 25, 4, 19, 30, 8]
#: The largest difference of a logit, in parts of the largest logit.
TOLERANCE = 1e-3


def converted(name: str, folder: Path) -> Path:
    try:
        (planned,) = convert_checkpoint(CHECKPOINTS / name, folder / "out.gguf", "f32")
    except ForgeError as error:
        pytest.skip(f"does not convert: {error}")
    return planned.path


@pytest.mark.skipif(not NAMES, reason="CHECKPOINTS names no folder")
@pytest.mark.parametrize("name", NAMES)
def test_a_converted_checkpoint_loads(name: str, tmp_path: Path) -> None:
    path = converted(name, tmp_path)
    if name in REFUSED:
        with pytest.raises(llama.RuntimeRefusalError):
            llama.loads(path)
        pytest.skip(f"llama.cpp refuses it: {REFUSED[name]}")
    llama.loads(path)


@pytest.mark.skipif(not NAMES or not TORCH_PYTHON, reason="CHECKPOINTS or TORCH_PYTHON is not given")
@pytest.mark.parametrize("name", [n for n in NAMES if n not in REFUSED])
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    path = converted(name, tmp_path)
    if name in NOT_COMPARED:
        pytest.skip(NOT_COMPARED[name])
    theirs = reference(name, tmp_path)
    ours = llama.logits(path, TOKENS, embeddings=theirs["kind"] == "embeddings")
    expected = np.load(tmp_path / "expected.npy")
    rows = min(len(ours), len(expected))
    width = min(ours.shape[1], expected.shape[1])
    error = float(np.abs(ours[:rows, :width] - expected[:rows, :width]).max() / np.abs(expected).max())
    if name in UNLIKE:
        assert error > TOLERANCE, "agrees now"
        pytest.skip(f"differs by {error:.1e}: {UNLIKE[name]}")
    assert error <= TOLERANCE


def reference(name: str, folder: Path) -> dict[str, Any]:
    """What transformers computes, written to expected.npy; skips a model it does not know or cannot run."""
    assert TORCH_PYTHON is not None
    command = [TORCH_PYTHON, str(Path(__file__).with_name("transformers_logits.py")), str(CHECKPOINTS / name)]
    command += [json.dumps(TOKENS), str(folder / "expected.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode != 0:
        pytest.skip(f"transformers: {(done.stderr.strip().splitlines() or ['failed'])[-1][:200]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
