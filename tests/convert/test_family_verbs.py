"""What single families do to values and rows that the reference does not do, or does otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_forge.converters.bert import runs_of_spaces
from gguf_forge.converters.rotary import attention_growth

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Rule
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.registry import select
from gguf_forge.convert.view import Array, of_array
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.errors import ConversionError


def row_of(arch: Arch, out: str, variant: str = "") -> Rule:
    (found,) = (row for row in arch.tensors if row.out == (out,) and row.variant == variant)
    return found


def made(row: Rule, values: Array, **config: Any) -> Array:
    (view,) = row.verb.views([of_array("source", values)], Facts(config, Path()))
    return view.read()


def test_mmberts_runs_of_spaces_are_marks() -> None:
    kinds = [vocab.TokenType.USER_DEFINED] * 3 + [vocab.TokenType.NORMAL]

    def edited(pre: str) -> list[tuple[str, int]]:
        given = vocab.Vocabulary("gpt2", pre, ["  ", " a", "", "   "], [*kinds])
        found = runs_of_spaces(vocab.VocabJob(Folder(Path()), {}), given)
        return [*zip(found.tokens, map(int, found.types), strict=True)]

    assert edited("mmbert") == [("\u2581\u2581", 1), (" a", 4), ("", 4), ("   ", 1)]
    assert edited("gpt-2") == [("  ", 4), (" a", 4), ("", 4), ("   ", 1)]


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


MIMO = {
    "architectures": ["MiMoV2FlashForCausalLM"], "num_hidden_layers": 1, "hybrid_layer_pattern": [0],
    "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 56, "v_head_dim": 38,
    "swa_num_key_value_heads": 8,
}


@pytest.mark.parametrize("machines", [1, 4, 8])
def test_mimos_queries_keys_and_values_are_gathered_from_the_machines_that_held_them(machines: int) -> None:
    """Scale and order as a loop over machines has them; each machine's scales begin with its rows."""
    heights, rng = (8 * 56, 8 * 56, 8 * 38), np.random.default_rng(3)
    each, tiles = sum(heights) // machines, -(-sum(heights) // machines // 128)
    weight = rng.integers(-8, 8, (sum(heights), 200)).astype(np.float32)
    scale = rng.random((machines * tiles, 2)).astype(np.float32)
    parts: list[list[Array]] = [[], [], []]
    for machine in range(machines):
        own = weight[machine * each : (machine + 1) * each].copy()
        for row in range(each):
            own[row, :128] *= scale[machine * tiles + row // 128, 0]
            own[row, 128:] *= scale[machine * tiles + row // 128, 1]
        for part, rows in zip(parts, np.split(own, np.cumsum([h // machines for h in heights])[:-1]), strict=True):
            part.append(rows)
    verb = row_of(select(MIMO), "blk.{l}.attn_qkv.weight", "8-bit").verb
    facts = Facts(MIMO, Path(), layer=0)
    (view,) = verb.views([of_array("qkv", weight), of_array("scale", scale)], facts)
    assert np.array_equal(view.read(), np.concatenate([rows for part in parts for rows in part]))


@pytest.mark.parametrize(("rows", "tiles"), [(1200, 11), (1200, 15), (1100, 10)])
def test_scales_of_no_number_of_machines_are_refused(rows: int, tiles: int) -> None:
    row = row_of(select(MIMO), "blk.{l}.attn_qkv.weight", "8-bit")
    sources = [of_array("qkv", np.ones((rows, 8), np.float32)), of_array("scale", np.ones((tiles, 1), np.float32))]
    with pytest.raises(ConversionError, match=r"no queries, keys and values of 448 \+ 448 \+ 304 rows"):
        row.verb.views(sources, Facts(MIMO, Path(), layer=0))


@pytest.mark.parametrize(
    ("name", "config", "factor"),
    [
        ("T5ForConditionalGeneration", {}, 1 / 8),
        ("T5ForConditionalGeneration", {"tie_word_embeddings": True}, 1 / 8),
        ("T5ForConditionalGeneration", {"tie_word_embeddings": False}, 1),
        # transformers 5 says of every T5 that it is tied, and this besides.
        ("T5ForConditionalGeneration", {"tie_word_embeddings": True, "scale_decoder_outputs": False}, 1),
        ("UMT5ForConditionalGeneration", {"scale_decoder_outputs": True}, 1 / 8),
        ("MT5ForConditionalGeneration", {"tie_word_embeddings": True}, 1),
    ],
)
def test_t5_divides_its_logits(name: str, config: dict[str, Any], factor: float) -> None:
    config = {"architectures": [name], "d_model": 64, **config}
    found = made(row_of(select(config), "dec.output_norm"), np.array([1, -3], np.float16), **config)
    assert found.tolist() == [factor, -3 * factor]


#: Of YaRN: 1 + ln(4) / 10, which llama.cpp multiplies by itself; the second number is that of `mscale` 0.5.
FOUR, HALF = 1.1386294361119891, 1.0693147180559945
LONG = {"rope_type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}


@pytest.mark.parametrize(
    ("rope", "growth"),
    [
        ({"rope_type": "yarn", "factor": 4.0}, None),
        ({"rope_type": "yarn", "factor": 4.0, "attention_factor": FOUR}, None),
        ({"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.0}, 1 / FOUR),
        ({"rope_type": "yarn", "factor": 4.0, "mscale": 1.0}, None),
        ({"rope_type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 0.5}, 1 / HALF),
        ({"rope_type": "linear", "factor": 4.0, "attention_factor": 2.0}, None),
        ({**LONG, "original_max_position_embeddings": 64}, None),
        ({**LONG, "original_max_position_embeddings": 16}, 2**0.5 * 0.75**0.5),
        ({**LONG, "original_max_position_embeddings": 16, "attention_factor": 1.25}, 1.25),
    ],
)
def test_how_a_stretched_context_lets_attention_grow(rope: dict[str, Any], growth: float | None) -> None:
    found = attention_growth(Facts({"rope_parameters": rope, "max_position_embeddings": 64}, Path()))
    assert found == (None if growth is None else pytest.approx(growth))
