"""What Qwen's families do beside their tables: vocabularies, a folded embedding, heads in turns, numbers of hashes."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_forge.converters.qwen_next import in_turns
from gguf_forge.converters.qwen_tts import Folded

from gguf_forge.convert.config import resolve
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.hparams import metadata_of
from gguf_forge.convert.plan import plan_outputs
from gguf_forge.convert.registry import select
from gguf_forge.convert.view import of_array
from gguf_forge.convert.vocab import Keys, load_vocab
from gguf_forge.errors import ConversionError
from tests.convert import headers
from tests.convert.test_undo import tensors_of

CASES = headers.load()
TOKENIZER = Path(__file__).resolve().parents[2] / "fixtures" / "vocab" / "bytelevel"
SIZE = 640


def vocabulary(folder: Path, config: dict[str, Any]) -> Keys:
    """The tokenizer's keys of a folder with a small byte-level vocabulary, whose token 602 ends a turn."""
    shutil.copytree(TOKENIZER, folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return load_vocab(folder, resolve(config), select(config).vocab, pre="qwen2", note=lambda _: None)


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_intern_s1_begins_with_a_token_that_its_files_do_not_name(tmp_path: Path) -> None:
    text = {"architectures": ["Qwen3ForCausalLM"], "vocab_size": SIZE}
    config = {"architectures": ["InternS1ForConditionalGeneration"], "text_config": text}
    assert vocabulary(tmp_path / "s1", config)["tokenizer.ggml.bos_token_id"].value == 151643
    assert "tokenizer.ggml.bos_token_id" not in vocabulary(tmp_path / "qwen3", text)


def test_qwen3_asr_chats_as_qwen_does(tmp_path: Path) -> None:
    """The template's hash is that of the reference's file."""
    config = {"architectures": ["Qwen3ASRForConditionalGeneration"], "vocab_size": SIZE}
    keys = vocabulary(tmp_path / "asr", config)
    assert hashed(keys["tokenizer.chat_template"].value) == "fcf7a096fe99a48f"
    assert [keys[f"tokenizer.ggml.{role}_token_id"].value for role in ("bos", "eos")] == [602, 602]


def test_openjev_has_a_prompt_where_its_helper_is(tmp_path: Path) -> None:
    """The prompt's hash is that of the reference's file."""
    config = {"architectures": ["Qwen3_5ForCausalLM"], "vocab_size": SIZE}
    plain = vocabulary(tmp_path / "plain", config)
    assert "tokenizer.chat_templates" not in plain
    folder = tmp_path / "jev"
    vocabulary(folder, config)
    (folder / "helper").mkdir()
    (folder / "helper" / "shim.py").write_text("")
    keys = load_vocab(folder, config, select(config).vocab, pre="qwen2", note=lambda _: None)
    assert keys["tokenizer.chat_templates"].value == ["systemone"]
    assert hashed(keys["tokenizer.chat_template.systemone"].value) == "2820cb46ad4b1926"


def test_a_talkers_codec_tokens_follow_those_of_the_text(tmp_path: Path) -> None:
    talker = {
        "vocab_size": 6,
        "text_vocab_size": SIZE,
        "codec_bos_id": 2,
        "codec_language_id": {"english": 4},
        "spk_id": {},
    }
    keys = vocabulary(
        tmp_path / "tts", {"architectures": ["Qwen3TTSForConditionalGeneration"], "talker_config": talker}
    )
    tokens = list(keys["tokenizer.ggml.tokens"].value)
    assert tokens[SIZE:] == [
        "<|codec_0|>",
        "<|codec_1|>",
        "<|codec_bos|>",
        "<|codec_3|>",
        "<|codec_language_english|>",
        "<|codec_5|>",
    ]
    assert list(keys["tokenizer.ggml.token_type"].value)[SIZE:] == [3] * 6
    assert "tokenizer.chat_template" not in keys


def test_a_folded_embedding_is_the_projections_in_any_run_of_rows(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    text, first, bias, second, other, codec = (
        random.standard_normal(shape).astype(np.float32) for shape in ((40, 6), (8, 6), (8,), (3, 8), (3,), (10, 3))
    )
    inner = text.astype(np.float64) @ first.T.astype(np.float64) + bias
    expected = (inner / (1 + np.exp(-inner))) @ second.T.astype(np.float64) + other
    facts = Facts({"hidden_act": "silu"}, tmp_path)
    sources = [of_array(str(i), values) for i, values in enumerate((text, first, bias, second, other, codec))]
    (view,) = Folded().views(sources, facts)
    assert view.shape == (50, 3)
    whole = view.read()
    assert np.allclose(whole[:40], expected, rtol=1e-6)
    assert np.array_equal(whole[40:], codec)
    for start, stop in ((0, 1), (35, 45), (40, 50), (41, 41), (49, 50)):
        assert np.array_equal(view.rows(start, stop), whole[start:stop])
    with pytest.raises(ConversionError, match="only silu can be folded, hidden_act is 'gelu'"):
        Folded().views(sources, replace(facts, config={"hidden_act": "gelu"}))


def test_value_heads_take_turns_as_key_heads_are_repeated(tmp_path: Path) -> None:
    """Two key heads, three value heads each: GGML repeats keys 0 1 0 1 0 1, so values must come as 0 3 1 4 2 5."""
    facts = Facts({"linear_num_key_heads": 2, "linear_num_value_heads": 6}, tmp_path)
    assert in_turns(np.arange(6), facts).tolist() == [0, 3, 1, 4, 2, 5]
    assert in_turns(np.arange(14), facts, 2).tolist() == [0, 1, 2, 3, 8, 9, 4, 5, 10, 11, 6, 7, 12, 13]
    odd = replace(facts, config={"linear_num_key_heads": 4, "linear_num_value_heads": 6})
    with pytest.raises(ConversionError, match="6 heads of values cannot be shared out to 4 heads of keys"):
        in_turns(np.arange(6), odd)


def test_numbers_that_hash_ngrams_are_kept_to_the_last_digit(tmp_path: Path) -> None:
    case = CASES["qwen4-mtp"]
    outputs = plan_outputs(case.arch, case.headers(), case.facts(tmp_path))
    _, keys = metadata_of(case.arch, outputs.facts)
    found = [int(number) for number in keys["qwen4exp.ple.layer_multipliers"].value]
    assert found == next(value for key, _, value in case.keys if key == "qwen4exp.ple.layer_multipliers")
    assert any(int(np.float32(number)) != number for number in found)


@pytest.mark.parametrize("name", ["Qwen2.5-VL-3B-Instruct", "qwen3-vl", "qwen3-vl-moe", "qwen3.5-lacking"])
def test_a_configuration_without_rotary_sections_means_those_of_the_models_code(name: str, tmp_path: Path) -> None:
    """llama.cpp loads no file without the key."""
    case = CASES[name]
    facts = plan_outputs(case.arch, case.headers(), case.facts(tmp_path)).facts
    rope = {key: value for key, value in facts.config["rope_parameters"].items() if key != "mrope_section"}
    _, keys = metadata_of(case.arch, replace(facts, config={**facts.config, "rope_parameters": rope}))
    expected = {"qwen2vl": [16, 24, 24, 0], "qwen35": [11, 11, 10, 0]}.get(case.arch.name, [24, 20, 20, 0])
    assert keys[f"{case.arch.name}.rope.dimension_sections"].value == expected


@pytest.mark.parametrize(("ends", "message"), [(None, "eos_token_id is null"), ([], r"eos_token_id \[\] is no token")])
def test_ngrams_must_begin_anew_somewhere(ends: Any, message: str, tmp_path: Path) -> None:
    case = CASES["qwen4-exp"]
    facts = plan_outputs(case.arch, case.headers(), case.facts(tmp_path)).facts
    with pytest.raises(ConversionError, match=message):
        metadata_of(case.arch, replace(facts, config={**facts.config, "eos_token_id": ends}))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("qwen3-next", {"layer_types": ["linear_attention"] * 4}, "4 layer_types for 3 layers"),
        ("Spark-X2.5-1.7B", {"layer_types": ["linear_attention"] * 3}, "must be 3 of full_attention or sliding"),
        ("dspark", {"markov_head_type": "gated"}, "markov_head_type 'gated' is not known, vanilla is"),
    ],
)
def test_configurations_that_no_reader_could_follow(
    name: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    case = CASES[name]
    facts = plan_outputs(case.arch, case.headers(), case.facts(tmp_path)).facts
    with pytest.raises(ConversionError, match=message):
        metadata_of(case.arch, replace(facts, config={**facts.config, **change}))


def test_talkies_second_halves_have_the_other_sign(tmp_path: Path) -> None:
    case = CASES["talkie"]
    tensors = tensors_of(case, tmp_path)
    outputs = plan_outputs(case.arch, tensors, case.facts(tmp_path))
    with np.errstate(invalid="ignore"):
        found = {view.name: view for view in outputs.views}["blk.0.attn_q.weight"].read().reshape(4, 2, 4, 32)
    bits = tensors["model.blocks.0.attn.attn_query.weight"].read().astype(np.uint32) << 16
    given = bits.view(np.float32).reshape(4, 2, 4, 32)
    assert np.array_equal(found[:, 0], given[:, 0], equal_nan=True)
    assert np.array_equal(found[:, 1], -given[:, 1], equal_nan=True)
