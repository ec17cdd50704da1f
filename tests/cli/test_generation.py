"""llama.cpp opens what convert makes, and writes the same text with F16 and Q8_0 weights: `make test-run`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Forge

pytestmark = pytest.mark.peer

MODEL = Path(__file__).resolve().parents[2] / "fixtures" / "models" / "PyLlama-7M"
PROMPTS = ['def main(argv):\n    """', "import os\n", "class Reader:\n", "    for name in "]
#: In a process of its own: the server logs freely and keeps its threads.
GENERATE = """
import json, sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx, params.n_parallel, params.warmup, params.cpuparams.n_threads = 256, 1, False, 1
server = xllamacpp.Server(params)
ask = {"max_tokens": 24, "temperature": 0, "seed": 1}
texts = [server.handle_completions({"prompt": p, **ask})["choices"][0]["text"] for p in json.loads(sys.argv[2])]
print("\\n" + json.dumps(texts))
"""


def generated(path: Path) -> list[str]:
    command = [sys.executable, "-c", GENERATE, str(path), json.dumps(PROMPTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    texts: list[str] = json.loads(done.stdout.splitlines()[-1])
    return texts


def test_f16_and_q8_0_continue_a_text_alike(forge: Forge, tmp_path: Path) -> None:
    assert forge("convert", MODEL, "--type", "f16,q8_0", "-o", tmp_path / "{ftype}.gguf").code == 0
    plain, quantized = generated(tmp_path / "f16.gguf"), generated(tmp_path / "q8_0.gguf")
    assert plain == quantized
    assert len(set(plain)) == len(PROMPTS)
    assert all(text.strip() for text in plain)


def test_a_k_quant_with_importance_is_opened_and_run(forge: Forge, tmp_path: Path) -> None:
    words = ["--type", "Q4_K_M", "--imatrix", MODEL / "imatrix.gguf", "-o", tmp_path / "out.gguf"]
    assert forge("convert", MODEL, *words).code == 0
    assert all(text.strip() for text in generated(tmp_path / "out.gguf"))
