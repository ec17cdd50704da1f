"""What single families do to values and rows that the reference does not do, or does otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_forge.convert.arch import Arch, Rule
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.registry import select
from gguf_forge.convert.view import Array, of_array


def row_of(arch: Arch, out: str, variant: str = "") -> Rule:
    (found,) = (row for row in arch.tensors if row.out == (out,) and row.variant == variant)
    return found


def made(row: Rule, values: Array, **config: Any) -> Array:
    (view,) = row.verb.views([of_array("source", values)], Facts(config, Path()))
    return view.read()


def test_baichuan_2_multiplies_by_rows_of_unit_length() -> None:
    row = row_of(select({"architectures": ["BaichuanForCausalLM"]}), "output", "second")
    weight = np.array([[3, 4], [0, 0], [-5, 12]], np.float32)
    assert made(row, weight, vocab_size=125696) == pytest.approx(
        np.array([[0.6, 0.8], [0, 0], [-5 / 13, 12 / 13]], np.float32)
    )
    assert row.when is not None
    assert [row.when(Facts({"vocab_size": n}, Path())) for n in (64000, 125696, 125700)] == [False, True, True]


def test_of_bambas_heads_only_the_part_that_turns_is_interleaved() -> None:
    bamba = {"architectures": ["BambaForCausalLM"], "num_attention_heads": 2, "attn_rotary_emb": 4}
    weight = np.arange(16, dtype=np.float32).reshape(16, 1)
    found = made(row_of(select(bamba), "blk.{l}.attn_q"), weight, **bamba).reshape(2, 8)
    assert found.tolist() == [[0, 2, 1, 3, 4, 5, 6, 7], [8, 10, 9, 11, 12, 13, 14, 15]]
    del bamba["attn_rotary_emb"]
    whole = made(row_of(select(bamba), "blk.{l}.attn_q"), weight, **bamba).reshape(2, 8)
    assert whole[0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
