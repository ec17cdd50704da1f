"""Tokens of MiniMax Text-01 that readers must not choose: those beyond the tokenizer's whose embedding is zero."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gguf_forge.converters.minimax import EMBEDDING, unheard
from safetensors.numpy import save_file

from gguf_forge.convert.facts import Facts

KNOWN = 4


def _checkpoint(folder: Path, zeros: list[int]) -> Facts:
    embedding = np.ones((10, 8), np.float16)
    embedding[zeros] = 0
    embedding[9, 3] = -0.0
    save_file({EMBEDDING: embedding}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architectures": ["MiniMaxM1ForCausalLM"]}), encoding="utf-8")
    vocabulary = {"model": {"vocab": {f"t{number}": number for number in range(KNOWN)}}}
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    return Facts({}, folder)


@pytest.mark.parametrize(("zeros", "expected"), [([1, 5, 8], [5, 8]), ([0, 3], None), ([4, 9], [4, 9]), ([], None)])
def test_rows_of_zeros_beyond_the_tokenizers_are_not_heard(
    zeros: list[int], expected: list[int] | None, tmp_path: Path
) -> None:
    assert unheard(_checkpoint(tmp_path, zeros)) == expected


def test_headers_alone_say_nothing(tmp_path: Path) -> None:
    facts = _checkpoint(tmp_path, [5])
    (tmp_path / "model.safetensors").unlink()
    assert unheard(facts) is None
