"""Plans from headers alone: keys, names, shapes, order and computed tensors, as the reference has them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_forge.convert.arch import BOTH, Arch, Either
from gguf_forge.convert.config import resolve
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.hparams import metadata_of
from gguf_forge.convert.plan import Outputs, plan_outputs, rename
from gguf_forge.convert.registry import architectures, select
from gguf_forge.convert.remarks import Subject, remarks
from gguf_forge.errors import ConversionError
from gguf_forge.format.values import Value
from gguf_forge.source.tensor import SourceTensor
from tests.convert import headers
from tests.convert.headers import Case

CASES = headers.load()
LLAMA, MIXTRAL = "plain-Llama-Tiny-F32-v1.0", "plain-Mixtral-8x7B-Instruct-v0.1"


def facts_of(case: Case, folder: Path) -> Facts:
    return case.facts(folder)


def plan(case: Case, folder: Path, tensors: dict[str, SourceTensor] | None = None) -> Outputs:
    return plan_outputs(case.arch, case.headers() if tensors is None else tensors, facts_of(case, folder))


def keys_of(arch: Arch, facts: Facts) -> dict[str, Value]:
    early, others = metadata_of(arch, facts)
    return early | others


def shown(value: Value) -> Any:
    found = np.float32(value.value).item() if value.type.name == "FLOAT32" else value.value
    return list(found) if isinstance(found, (list, np.ndarray)) else found


@pytest.mark.parametrize("name", CASES)
def test_keys_are_the_references(name: str, tmp_path: Path) -> None:
    """In its order; but for those that the case says differ, and why (see `headers.Case`)."""
    case = CASES[name]
    if case.differs.get("error"):
        with pytest.raises(ConversionError, match=case.differs["error"]):
            keys_of(case.arch, plan(case, tmp_path).facts)
        return
    keys = keys_of(case.arch, plan(case, tmp_path).facts)
    keys = {k: v for k, v in keys.items() if not k.startswith(("general.", "tokenizer."))}
    found = [(k, v.type.name, shown(v)) for k, v in keys.items()]
    without, instead = case.differs.get("without", []), [tuple(k) for k in case.differs.get("instead", [])]
    expected = [tuple(k) for k in case.keys if k[0] not in without and k[0] not in {i[0] for i in instead}]
    assert set(without) <= {k[0] for k in case.keys}
    # A key that another does not stand before any more has another place.
    order = list if not case.differs else sorted
    assert order(k for k in found if k not in instead) == order(expected)
    assert [k for k in instead if k not in found] == []


@pytest.mark.parametrize("name", CASES)
def test_tensors_are_the_references_in_its_order(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    if case.differs.get("error"):
        return
    outputs = plan(case, tmp_path)
    more = [(n, s) for n, s in case.differs.get("tensors", [])]
    found = [(v.name, list(v.shape)) for v in outputs.views]
    assert [tensor for tensor in found if tensor not in more] == [(n, s) for n, s in case.tensors]
    assert [tensor for tensor in more if tensor not in found] == []
    computed = {v.name: v.read() for v in outputs.views if v.name in case.computed}
    hashes = {n: hashlib.sha256(v.tobytes()).hexdigest()[:16] for n, v in computed.items()}
    assert {n for n in hashes if hashes[n] != case.computed[n]} == set(case.differs.get("computed", []))


def test_every_rule_of_every_architecture_fires_in_some_case(tmp_path_factory: pytest.TempPathFactory) -> None:
    fired: dict[int, set[str]] = {}
    for case in CASES.values():
        arch = case.arch
        made = plan(case, tmp_path_factory.mktemp("case")).emissions
        fired.setdefault(id(arch), set()).update(e.rule.row for e in made)
    for arch in architectures():
        # An ending of its own is no row: biases that no model has cost nothing.
        rows = {row.row: {r.row for r in row.expanded()} for row in arch.tensors}
        assert [row for row, ends in rows.items() if not ends & fired.get(id(arch), set())] == [], arch.name


def test_the_order_of_sources_moves_outputs_but_loses_none(tmp_path: Path) -> None:
    case = CASES[MIXTRAL]
    turned = dict(reversed(case.headers().items()))
    straight, other = plan(case, tmp_path), plan(case, tmp_path, turned)
    assert [v.name for v in other.views] != [v.name for v in straight.views]
    assert {(v.name, v.shape) for v in other.views} == {(v.name, v.shape) for v in straight.views}


def test_experts_of_a_layer_come_together_when_the_last_is_there(tmp_path: Path) -> None:
    case = CASES[MIXTRAL]
    tensors = case.headers()
    last = "model.layers.0.block_sparse_moe.experts.0.w1.weight"
    moved = {n: t for n, t in tensors.items() if n != last} | {last: tensors[last]}
    names = [v.name for v in plan(case, tmp_path, moved).views]
    assert names[-3:] == [f"blk.0.ffn_{part}_exps.weight" for part in ("gate", "down", "up")]


def without(case: Case, *names: str) -> dict[str, SourceTensor]:
    return {n: t for n, t in case.headers().items() if n not in names}


def renamed(case: Case, old: str, new: str) -> dict[str, SourceTensor]:
    return {new if n == old else n: t for n, t in case.headers().items()}


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            LLAMA,
            "model.layers.1.mlp.up_proj.weight",
            None,
            r"no 'model.layers.1.mlp.up_proj.weight'; is a file missing",
        ),
        (
            LLAMA,
            "lm_head.weight",
            "model.layers.0.self_attn.qq_proj.weight",
            r"uses 1 of 21 tensors: '.*qq_proj.weight' \(nearest rule: .*self_attn.q_proj.weight\)",
        ),
        (LLAMA, "lm_head.weight", "model.layers.2.mlp.up_proj.weight", r"from 0 to 1, .* has more: model.layers.2.mlp"),
        (LLAMA, "lm_head.weight", "norm.weight", r"'norm.weight' and 'model.norm.weight' both stand for"),
        (
            MIXTRAL,
            "model.layers.1.block_sparse_moe.experts.2.w3.weight",
            None,
            "blk.1.ffn_up_exps.*expert 2 is missing",
        ),
        (
            MIXTRAL,
            "lm_head.weight",
            "model.layers.0.block_sparse_moe.experts.4.w1.weight",
            "expert 4 is beyond the 4 declared",
        ),
    ],
)
def test_what_does_not_fit_is_named(name: str, old: str, new: str | None, message: str, tmp_path: Path) -> None:
    case = CASES[name]
    tensors = without(case, old) if new is None else renamed(case, old, new)
    with pytest.raises(ConversionError, match=message):
        plan(case, tmp_path, tensors)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (LLAMA, r"\.mlp\.up_proj\.weight$", r"no 'model\.layers\.0\.mlp\.up_proj\.weight'; is"),
        (LLAMA, r"^model\.norm\.weight$", r"no 'model\.norm\.weight'; is a file missing\?"),
        (
            LLAMA,
            r"_(layer)?norm\.|embed",
            r"embed_tokens\.weight', no .*input_layernorm.*, no .*post_attention_layernorm",
        ),
        (LLAMA, r"\.mlp\.", r"no '.*mlp\.gate_proj\.weight' or '.*block_sparse_moe\.gate\.weight'; is"),
        (LLAMA, r"^model\.layers\.", r"no '.*input_layernorm.*, no '.*v_proj\.weight' and 1 more; is a"),
        (MIXTRAL, r"block_sparse_moe\.gate\.", r"no '.*block_sparse_moe\.gate\.weight'; is"),
        (MIXTRAL, r"\.w3\.", r"no '.*experts\.0\.w3\.weight'; is"),
        ("plain-Qwen1.5-MoE-A2.7B", r"shared_expert_gate", r"no '.*layers\.0\.mlp\.shared_expert_gate\.weight'; is"),
        ("plain-Qwen3-0.6B", r"q_norm", r"no '.*q_norm\.weight'; is"),
        ("plain-Phi-3-mini-4k-instruct", r"qkv_proj", r"no '.*self_attn\.qkv_proj\.weight' or '.*q_proj\.weight'; is"),
        ("plain-gpt2-small", r"mlp\.c_fc\.bias", r"no 'h\.0\.mlp\.c_fc\.bias'; is"),
        (
            "plain-bert-base-uncased",
            r"intermediate\.dense\.weight",
            r"no 'encoder\.layer\.0\.intermediate\.dense\.weight'; is",
        ),
    ],
)
def test_a_kind_of_tensor_that_no_layer_has_is_named(name: str, kind: str, message: str, tmp_path: Path) -> None:
    case = CASES[name]
    tensors = {n: t for n, t in case.headers().items() if not re.search(kind, n)}
    assert len(tensors) < len(case.headers())
    with pytest.raises(ConversionError, match=message):
        plan(case, tmp_path, tensors)


def needs_of(arch: Arch) -> list[str]:
    """The outputs an architecture needs, and those of every choice."""
    choices = [need.choices if isinstance(need, Either) else ((need,),) for need in arch.needs]
    names = [name for choice in choices for names in choice for name in names]
    return [name if name.endswith(BOTH) else f"{name}.weight" for name in names]


@pytest.mark.parametrize("name", CASES)
def test_what_llama_cpp_can_load_without_may_be_missing(name: str, tmp_path: Path) -> None:
    """No head of its own, no token types, no biases but those that a family names as needed."""
    case = CASES[name]
    whole, arch = plan(case, tmp_path), case.arch
    stored, _ = rename(arch, case.headers(), whole.facts)
    needed = {stored[s] for e in whole.emissions if set(needs_of(arch)) & set(e.rule.out) for s in e.sources}
    free = r"lm_head|\.bias$|token_type_embeddings"
    left = {n: t for n, t in case.headers().items() if n in needed or not re.search(free, n)}
    plan(case, tmp_path, left)


def test_what_a_family_needs_it_has_rules_for() -> None:
    for arch in architectures():
        rules = {out for row in arch.tensors for out in row.out}
        needs = needs_of(arch)
        assert needs
        assert [n for n in needs if not {n, f"{n}.weight", n.rpartition(".")[0]} & rules] == [], arch.name


def test_shapes_that_cannot_be_permuted_or_stacked_are_named(tmp_path: Path) -> None:
    odd = CASES[LLAMA].headers()
    name = "model.layers.0.self_attn.q_proj.weight"
    odd[name] = replace(odd[name], shape=(255, 256))
    with pytest.raises(ConversionError, match=r"q_proj.weight .*: 255 rows cannot be divided into 4 heads"):
        plan(CASES[LLAMA], tmp_path, odd)
    uneven = CASES[MIXTRAL].headers()
    name = "model.layers.0.block_sparse_moe.experts.1.w2.weight"
    uneven[name] = replace(uneven[name], shape=(8, 8))
    with pytest.raises(ConversionError, match=r"experts.1.w2.weight is BF16 \[8, 8\]"):
        plan(CASES[MIXTRAL], tmp_path, uneven)


def test_buffers_are_dropped_and_reported(tmp_path: Path) -> None:
    dropped = plan(CASES["L-invfreq"], tmp_path).dropped
    assert dropped == tuple(f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(2))


def test_the_masks_openai_stored_with_gpt2_are_dropped(tmp_path: Path) -> None:
    """The reference fails on them."""
    case = CASES["plain-gpt2-small"]
    mask = replace(case.headers()["h.0.ln_1.weight"], name="h.0.attn.bias", shape=(1, 1, 8, 8))
    assert plan(case, tmp_path, {**case.headers(), "h.0.attn.bias": mask}).dropped == ("h.0.attn.bias",)


def test_a_dense_layer_among_experts_is_kept(tmp_path: Path) -> None:
    """The reference fails on Qwen's `mlp_only_layers`."""
    case = CASES["plain-Qwen1.5-MoE-A2.7B"]
    tensors = {n: t for n, t in case.headers().items() if not n.startswith("model.layers.0.mlp.")}
    like = case.headers()["lm_head.weight"]
    for part in ("gate", "up", "down"):
        name = f"model.layers.0.mlp.{part}_proj.weight"
        tensors[name] = replace(like, name=name, shape=(32, 96) if part == "down" else (96, 32))
    names = {v.name for v in plan(case, tmp_path, tensors).views}
    assert {f"blk.0.ffn_{part}.weight" for part in ("gate", "up", "down")} <= names
    assert not any(n.startswith("blk.0.ffn") and "exp" in n for n in names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architectures": ["LlamaForCausaLM"]},
            r"'LlamaForCausaLM' is not supported; the nearest .* LlamaForCausalLM",
        ),
        ({"architectures": ["FooModel"]}, "'FooModel' is not supported$"),
        ({"architectures": ["Qwen33ForCausalLM"]}, r"nearest .* is Qwen3ForCausalLM"),
        ({"architectures": ["MistralModel"]}, r"nearest .* is MistralForCausalLM"),
        ({"architectures": []}, "names no architecture"),
        ({"num_hidden_layers": "two"}, 'num_hidden_layers must be a number, got "two"'),
        ({"num_attention_heads": 0}, "256 rows cannot be divided into 0 heads"),
    ],
)
def test_configurations_that_cannot_be_used(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    case = CASES[LLAMA]
    with pytest.raises(ConversionError, match=message):
        plan(replace(case, config={**case.config, **change}), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": -1}, "vocab_size must be a UINT32 for vocab_size, got -1"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps or norm_eps must be a FLOAT32"),
        ({"num_key_value_heads": 2**40}, "num_key_value_heads or n_kv_heads must be a UINT32"),
    ],
)
def test_values_that_cannot_be_written(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    case = CASES[LLAMA]
    facts = facts_of(replace(case, config={**case.config, **change}), tmp_path)
    with pytest.raises(ConversionError, match=message):
        metadata_of(case.arch, facts)


def test_resolving_changes_nothing_in_place() -> None:
    raw = CASES["G3-mm-old"].config
    before = repr(raw)
    resolve(raw)
    assert repr(raw) == before


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("L-dynamic", ["rotary scaling of type 'dynamic' has no form in GGUF"]),
        ("plain-Mistral-7B-v0.1", ["sliding_window 4096 has no key for llama"]),
        ("L-yarn", []),
        ("L-llama3-500000.0-64", []),
        ("plain-Phi-3-mini-128k-instruct", []),
        ("plain-gemma-2b-it", []),
        ("plain-Qwen2.5-0.5B-Instruct", []),
        ("plain-Qwen3-30B-A3B", []),
        ("plain-bert-base-uncased", []),
    ],
)
def test_what_gguf_cannot_say_is_remarked(name: str, expected: list[str], tmp_path: Path) -> None:
    case = CASES[name]
    arch, facts = case.arch, facts_of(case, tmp_path)
    found = keys_of(arch, facts)
    notes = remarks(Subject(tmp_path, facts.config, arch, found, ["output.weight"]))
    assert [note.partition(": ")[2][: len(e)] for note, e in zip(notes, expected, strict=True)] == expected


def test_of_two_names_for_a_field_a_null_does_not_count(tmp_path: Path) -> None:
    case = CASES["plain-Qwen3-30B-A3B"]
    both = replace(case, config={**case.config, "num_local_experts": None})
    arch, facts = select(both.config), facts_of(both, tmp_path)
    assert keys_of(arch, facts) == keys_of(arch, facts_of(case, tmp_path))
    assert [v.name for v in plan(both, tmp_path).views] == [n for n, _ in case.tensors]


def test_experts_that_nothing_counts_are_an_error(tmp_path: Path) -> None:
    case = CASES[MIXTRAL]
    config = {k: v for k, v in case.config.items() if k != "num_local_experts"} | {"model_type": "other"}
    with pytest.raises(ConversionError, match="does not say how many experts there are"):
        plan(replace(case, config=config), tmp_path)


@pytest.mark.parametrize(
    ("name", "card", "ranks"),
    [
        ("Qwen3-Reranker-0.6B", None, True),
        ("mine", "---\nlicense: mit\n---\n# Qwen3-Reranker-8B\n", True),
        ("mine", "# Mine\nBetter than Qwen3-Reranker.\n", False),
    ],
)
def test_a_reranker_is_known_by_its_name_or_its_card(name: str, card: str | None, ranks: bool, tmp_path: Path) -> None:
    case = CASES["rr-tied"]
    texts = {"vocab.json": case.files["vocab.json"]} | ({} if card is None else {"README.md": card})
    (tmp_path / name).mkdir()
    outputs = plan(replace(case, files=texts), tmp_path / name)
    assert ("cls.output.weight" in {v.name for v in outputs.views}) is ranks


def test_a_rerankers_folder_is_known_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["rr-tied"]
    (tmp_path / "Qwen3-Reranker-4B").mkdir()
    monkeypatch.chdir(tmp_path / "Qwen3-Reranker-4B")
    outputs = plan(replace(case, files={"vocab.json": case.files["vocab.json"]}), Path())
    assert "cls.output.weight" in {v.name for v in outputs.views}


def test_a_reranker_needs_both_answers(tmp_path: Path) -> None:
    case = CASES["rr-tied"]
    with pytest.raises(ConversionError, match="must have the token 'no'"):
        plan(replace(case, files={**case.files, "vocab.json": '{"yes": 3}'}), tmp_path)


def test_a_rerankers_template_is_the_references(tmp_path: Path) -> None:
    case = CASES["rr-tied"]
    arch, facts = case.arch, facts_of(case, tmp_path)
    found = keys_of(arch, facts)
    template = found["tokenizer.chat_template.rerank"].value
    assert hashlib.sha256(template.encode()).hexdigest()[:16] == "530d14b8bd99d766"
    assert found["tokenizer.chat_templates"].value == ["rerank"]
