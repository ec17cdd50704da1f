"""What `check` says of files: nothing of good ones; of a model changed in one place, that place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from gguf_forge.format import values
from gguf_forge.format.findings import ERROR, WARNING
from gguf_forge.format.layout import ValueType
from gguf_forge.format.orders import swapped
from gguf_forge.format.values import Value
from gguf_forge.types import TENSOR_TYPES, tensor_type
from gguf_forge.whole.check.rules import every_rule
from tests.convert import shape_cases
from tests.convert.shape_cases import ShapeCase, values_of
from tests.format.notation import pad
from tests.format.recipes import ODD
from tests.whole.small import HEADS, KEYS, LAYERS, MERGING, TOKENS, WIDE, WIDTH, tensors, write

ROOT = Path(__file__).resolve().parents[2]
LOADED = shape_cases.load(ROOT / "fixtures" / "golden" / "shapes.json.xz")
T, L = "tokenizer.ggml", "llama"


@dataclass(frozen=True)
class Changed:
    """The small model with keys and tensors changed: the rule that is broken, its text, where, and how bad it is."""

    id: str
    rule: str
    text: str
    where: str | None = None
    keys: Mapping[str, Value | None] = field(default_factory=dict)
    arrays: Mapping[str, Any] = field(default_factory=dict)
    severity: str = ERROR
    base: Mapping[str, Value] = field(default_factory=lambda: KEYS)
    also: frozenset[str] = frozenset()


def u32s(*numbers: int) -> Value:
    return values.array(ValueType.UINT32, list(numbers))


def template(text: str) -> dict[str, Value | None]:
    return {"tokenizer.chat_template": values.string(text)}


def spoiled(name: str, at: tuple[int, ...], value: float) -> dict[str, Any]:
    array = tensors()[name].copy()
    array[at] = value
    return {name: array}


def blocks(kind: str, rows: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng = np.random.default_rng(3)
    return gguf_forge.quantize(rng.normal(0, 1, (rows, width)).astype(np.float32), kind)


def _with(made: np.ndarray[Any, np.dtype[np.uint8]], row: int, at: slice, value: int) -> Any:
    made[row, at] = value
    return made


def in_groups_of_128(rows: int, width: int) -> Any:
    """Blocks of Q2_0 whose bytes are those of the other layout: a scale for each 128 weights, and zeros at the end."""
    rng = np.random.default_rng(4)
    count = rows * width // 128
    other = np.empty((count, 34), np.uint8)
    other[:, :2] = rng.uniform(0.01, 0.03, (count, 1)).astype("<f2").view(np.uint8)
    other[:, 2:] = rng.integers(0, 256, (count, 32))
    return np.concatenate([other.reshape(-1), np.zeros(2 * count, np.uint8)]).reshape(rows, width // 64 * 18)


EXTRA = "blk.0.attn_q.bias"
NO = dict.fromkeys
MODEL = [
    Changed("arch-unknown", "architecture", 'knows no architecture "new"', 'key "general.architecture"',
            {"general.architecture": values.string("new")}, severity=WARNING),
    Changed("arch-missing", "architecture", "is missing", None, {"general.architecture": None}),
    Changed("arch-number", "architecture", "must be a STRING", 'key "general.architecture"',
            {"general.architecture": values.u32(1)}),
    Changed("no-epsilon", "required-key", "llama.attention.layer_norm_rms_epsilon", None,
            {"llama.attention.layer_norm_rms_epsilon": None}),
    Changed("no-context", "required-key", "llama.context_length", None, {"llama.context_length": None}),
    Changed("count-u64", "key-type", "must be UINT32, found UINT64", 'key "llama.context_length"',
            {"llama.context_length": values.scalar(ValueType.UINT64, 64)}),
    Changed("heads-u64", "key-type", "an array of UINT32, found one of UINT64", 'key "llama.attention.head_count"',
            {"llama.attention.head_count": values.array(ValueType.UINT64, [HEADS] * LAYERS)}),
    Changed("heads-short", "layer-array", "1 values for 2 layers", 'key "llama.attention.head_count"',
            {"llama.attention.head_count": u32s(HEADS)}),
    Changed("layer-beyond", "layers", "layer 2 of a model of 2", 'tensor "blk.2.attn_norm.weight"', {},
            {"blk.2.attn_norm.weight": np.ones(WIDTH, np.float32)}),
    Changed("layer-gone", "layers", "no tensors of layer 2", 'key "llama.block_count"',
            {"llama.block_count": values.u32(3)}, also=frozenset({"missing-tensor"})),
    Changed("norm-gone", "missing-tensor", "blk.1.attn_norm.weight", None, {}, {"blk.1.attn_norm.weight": None}),
    Changed("embedding-gone", "missing-tensor", "token_embd.weight", None, {}, {"token_embd.weight": None}),
    Changed("values-gone", "missing-tensor", "blk.0.attn_v.weight or blk.0.attn_qkv.weight, nor those of 1 more", None,
            {}, NO(("blk.0.attn_v.weight", "blk.1.attn_v.weight"))),
    Changed("down-gone", "lone-tensor", "there is no blk.1.ffn_down.weight", 'tensor "blk.1.ffn_up.weight"', {},
            {"blk.1.ffn_down.weight": None}),
    Changed("surplus", "unknown-tensor", "llama has no such tensor", 'tensor "blk.0.surplus.weight"', {},
            {"blk.0.surplus.weight": np.ones(WIDTH, np.float32)}),
    Changed("transposed", "shape", f"[{WIDTH}, {WIDE}]: axis 0 is {WIDTH}, must be {WIDE}",
            'tensor "blk.0.ffn_up.weight"', {}, {"blk.0.ffn_up.weight": tensors()["blk.0.ffn_up.weight"].T.copy()}),
    Changed("uneven", "heads", "layer 0: 4 heads are no multiple of 3", 'key "llama.attention.head_count_kv"',
            {"llama.attention.head_count_kv": values.u32(3)}, also=frozenset({"shape"})),
    Changed("rotation", "heads", "8, llama.cpp wants the size of a head, 16", 'key "llama.rope.dimension_count"',
            {"llama.rope.dimension_count": values.u32(8)}),
    Changed("experts-unused", "experts", "none of 4 experts is used", 'key "llama.expert_count"',
            {"llama.expert_count": values.u32(4)}),
    Changed("experts-too-many", "experts", "8 experts are used of 4", 'key "llama.expert_used_count"',
            {"llama.expert_count": values.u32(4), "llama.expert_used_count": values.u32(8)}),
    Changed("experts-uneven", "experts", "3 groups, of which 1 are used, of 4 experts",
            'key "llama.expert_group_count"',
            {"llama.expert_count": values.u32(4), "llama.expert_used_count": values.u32(2),
             "llama.expert_group_count": values.u32(3), "llama.expert_group_used_count": values.u32(1)}),
    Changed("no-layers", "range", "0 is not within 1 to 512", 'key "llama.block_count"',
            {"llama.block_count": values.u32(0)}),
]  # fmt: skip
VOCABULARY = [
    Changed("no-model", "vocabulary", "asks for tokenizer.ggml.model", None, {f"{T}.model": None}),
    Changed("new-model", "vocabulary", 'knows no tokenizer "mine"', f'key "{T}.model"',
            {f"{T}.model": values.string("mine")}),
    Changed("no-tokens", "vocabulary", f"no {T}.tokens", f'key "{T}.model"',
            {f"{T}.{name}": None for name in ("tokens", "scores", "token_type")}, also=frozenset({"shape"})),
    Changed("no-merges", "vocabulary", f"no {T}.merges", f'key "{T}.model"', {f"{T}.merges": None}, base=MERGING),
    Changed("no-pre", "vocabulary", f"no {T}.pre", f'key "{T}.model"', {f"{T}.pre": None},
            base=MERGING, severity=WARNING),
    Changed("twice", "token", 'tokens 4 and 19 are both "a"', f'key "{T}.tokens"',
            {f"{T}.tokens": values.strings([*KEYS[f"{T}.tokens"].value[:19], "a"])}),
    Changed("kind", "token", "token 4 is of kind 9", f'key "{T}.token_type"',
            {f"{T}.token_type": values.array(ValueType.INT32, [2, 3, 3, 6, 9, *[1] * 15])}, severity=WARNING),
    Changed("beyond", "special-token", f"{TOKENS}, the last token is {TOKENS - 1}", f'key "{T}.eos_token_id"',
            {f"{T}.eos_token_id": values.u32(TOKENS)}, severity=WARNING),
    Changed("signed", "special-token", "must be UINT32, found INT32", f'key "{T}.bos_token_id"',
            {f"{T}.bos_token_id": values.scalar(ValueType.INT32, -1)}),
    Changed("switch", "special-token", "must be BOOL, found UINT32", f'key "{T}.add_bos_token"',
            {f"{T}.add_bos_token": values.u32(1)}),
    Changed("merge", "merge", "merges 1 have no blank", f'key "{T}.merges"',
            {f"{T}.merges": values.strings(["a b", "cd"])}, base=MERGING, severity=WARNING),
    Changed("map-type", "charsmap", "must be an array of UINT8 or INT8", f'key "{T}.precompiled_charsmap"',
            {f"{T}.model": values.string("t5"), f"{T}.precompiled_charsmap": u32s(1)}),
    Changed("map-short", "charsmap", "6 bytes, fewer", f'key "{T}.precompiled_charsmap"',
            {f"{T}.model": values.string("t5"),
             f"{T}.precompiled_charsmap": values.array(ValueType.UINT8, [9, 0, 0, 0, 1, 2])}),
]  # fmt: skip
CHAT = 'key "tokenizer.chat_template"'
TEMPLATES = [
    Changed("unclosed", "template-syntax", "line 2:", CHAT, template("\n{% if a %}")),
    Changed("tag", "template-syntax", "unknown tag 'trans'", CHAT, template("{% trans %}a{% endtrans %}")),
    Changed("deep", "template-syntax", "nested too deeply", CHAT, template("{{" + "(" * 5000)),
    Changed("digits", "template-syntax", "cannot be read", CHAT, template("{{" + "1" * 5000 + "}}")),
    Changed("mro", "template-unsafe", "line 1: reaches for .mro", CHAT, template("{{ a.mro }}")),
    Changed("class", "template-unsafe", "reaches for .__class__", CHAT, template("{{ ''.__class__ }}"),
            also=frozenset({"template"})),
    Changed("item", "template-unsafe", "names __class__", CHAT, template("{{ a['__class__'] }}"),
            also=frozenset({"template"})),
    Changed("pieces", "template-unsafe", "puts a name with underscores together", CHAT,
            template("{{ a['__cl' ~ 'ass__'] }}")),
    Changed("attr", "template-unsafe", "filter attr", CHAT, template("{{ a | attr('x') }}"),
            also=frozenset({"template"})),
    Changed("framework", "template-unsafe", "reaches for config", CHAT, template("{{ config.secret }}")),
    Changed("include", "template-unsafe", "reads another file: include", CHAT, template("{% include '/etc/passwd' %}")),
    Changed("import", "template-unsafe", "reads another file: from ... import", CHAT,
            template("{% from 'a' import b %}")),
    Changed("endless", "template-unsafe", "more than 1000000 times", CHAT,
            template("{% for i in range(10000000) %}{% endfor %}")),
    Changed("heap", "template-unsafe", "more than 1000000 times", CHAT, template("{{ 'a' * 100000000 }}")),
    Changed("filter", "template-lacking", "no filter groupby", CHAT, template("{{ a | groupby('x') }}"),
            severity=WARNING),
    Changed("test", "template-lacking", "no test none_such", CHAT, template("{{ a is none_such }}"), severity=WARNING),
    Changed("method", "template-lacking", "no method splitlines", CHAT, template("{{ a.splitlines() }}"),
            severity=WARNING),
    Changed("with", "template-lacking", "no with", CHAT, template("{% with a = 1 %}{% endwith %}"), severity=WARNING),
    Changed("power", "template-lacking", "no **", CHAT, template("{{ a ** 2 }}"), severity=WARNING),
    Changed("recursive", "template-lacking", "no recursive loops", CHAT,
            template("{% for a in b recursive %}{% endfor %}"), severity=WARNING),
    Changed("named", "template-lacking", "no filter batch", 'key "tokenizer.chat_template.tool_use"',
            {"tokenizer.chat_template.tool_use": values.string("{{ a | batch(2) }}")}, severity=WARNING),
    Changed("long", "template-size", "131073 bytes, above 131072", CHAT, template("a" * 131073), severity=WARNING),
]  # fmt: skip
UP = "blk.0.ffn_up.weight"
DATA = [
    Changed("nan", "not-finite", "NaN or an infinity at row 3, column 5", f'tensor "{UP}"', {},
            spoiled(UP, (3, 5), np.nan)),
    Changed("inf", "not-finite", "at row 0, column 7", 'tensor "output_norm.weight"', {},
            spoiled("output_norm.weight", (7,), np.inf)),
    Changed("scale", "not-finite", "whose scale is NaN or infinite at row 2, columns 32 to 63", f'tensor "{UP}"', {},
            {UP: ("Q4_0", _with(blocks("Q4_0", WIDE, WIDTH), 2, slice(18, 20), 0x7E))}),
    Changed("zeros", "constant", "all zeros", f'tensor "{UP}"', {}, {UP: np.zeros((WIDE, WIDTH), np.float32)}, WARNING),
    Changed("ones", "constant", "all 1", f'tensor "{UP}"', {}, {UP: np.ones((WIDE, WIDTH), np.float16)}, WARNING),
    Changed("blocks", "constant", "all zeros", f'tensor "{UP}"', {},
            {UP: ("Q8_0", gguf_forge.quantize(np.zeros((WIDE, WIDTH), np.float32), "Q8_0"))}, WARNING),
    Changed("norm", "constant", "all zeros", 'tensor "output_norm.weight"', {},
            {"output_norm.weight": np.zeros(WIDTH, np.float32)}, WARNING),
]  # fmt: skip
#: Tensors by themselves, for what only wide rows show: type, blocks, and the text.
ALONE = [
    ("lattice", "TQ2_0", _with(blocks("TQ2_0", 4, 512), 1, slice(66, 67), 0x03), "row 1, columns 256 to 511"),
    ("lattice", "TQ1_0", _with(blocks("TQ1_0", 4, 512), 3, slice(0, 1), 0x14), "row 3, columns 0 to 255"),
    ("lattice", "NVFP4", _with(blocks("NVFP4", 4, 512), 0, slice(36, 37), 0x7F), "row 0, columns 64 to 127"),
    ("erased", "Q4_K", _with(blocks("Q4_K", 4, 512), 2, slice(148, 288), 0xFF), "row 2, columns 256 to 511"),
    ("q2_0-groups", "Q2_0", in_groups_of_128(8, 512), "in groups of 128"),
]
#: Rules whose cases are in tests/format, and in this file's own tests.
ELSEWHERE = {rule for case in ODD for rule in case.findings} | {"set", "unknown-type"} | {rule for rule, *_ in ALONE}
CASES = [*MODEL, *VOCABULARY, *TEMPLATES, *DATA]


@pytest.mark.parametrize("base", [KEYS, MERGING], ids=["llama", "gpt2"])
def test_nothing_is_found_in_a_good_model(base: Mapping[str, Value], tmp_path: Path) -> None:
    report = gguf_forge.check(write(tmp_path / "a.gguf", base=base), data=True)
    assert (report.findings, report.error, report.clean, report.data) == ((), None, True, True)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_a_change_is_found_where_it_is(case: Changed, tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", case.keys, case.arrays, case.base)
    report = gguf_forge.check(path, data=True)
    found = [f for f in report.findings if f.rule == case.rule and case.text in f.text]
    assert len(found) == 1, report.findings
    assert (found[0].field, found[0].severity, found[0].path) == (case.where, case.severity, str(path))
    others = {f.rule for f in report.findings} - {case.rule}
    assert others <= case.also, report.findings
    assert str(found[0]).isprintable()


@pytest.mark.parametrize(("rule", "kind", "made", "text"), ALONE, ids=lambda v: v if isinstance(v, str) else "")
def test_codes_are_looked_into(rule: str, kind: str, made: Any, text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with gguf_forge.GGUFWriter(path, {"general.type": "imatrix"}) as writer:
        writer.add_tensor("a.weight", made, kind)
    assert gguf_forge.check(path).clean
    report = gguf_forge.check(path, data=True)
    assert [(f.rule, f.severity) for f in report.findings] == [(rule, ERROR)]
    assert text in report.findings[0].text


@pytest.mark.parametrize("kind", ["Q1_0", "Q2_0", "TQ1_0", "TQ2_0", "NVFP4", "MXFP4", "IQ4_XS", "Q2_K", "Q3_K", "Q6_K"])
def test_what_the_encoders_make_is_clean(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with gguf_forge.GGUFWriter(path, {"general.type": "imatrix"}) as writer:
        writer.add_tensor("a.weight", blocks(kind, 16, 1024), kind)
        writer.add_tensor("b.bias", np.zeros(300, np.float32))
        writer.add_tensor("c_norm.weight", np.ones(300, np.float32))
    assert gguf_forge.check(path, data=True).findings == ()


def test_one_matrix_of_a_stack_that_is_all_zeros_is_named(tmp_path: Path) -> None:
    stack = np.random.default_rng(1).normal(0, 1, (5, 8, 64)).astype(np.float32)
    stack[3] = 0
    path = tmp_path / "a.gguf"
    with gguf_forge.GGUFWriter(path, {"general.type": "imatrix"}) as writer:
        writer.add_tensor("a.weight", stack)
    assert [f.text for f in gguf_forge.check(path, data=True).findings] == ["matrix 3 is all zeros"]


def test_every_rule_has_a_case() -> None:
    assert {case.rule for case in CASES} | ELSEWHERE == {*every_rule()}


@pytest.mark.parametrize("case", LOADED, ids=lambda c: c.arch)
def test_nothing_is_found_in_what_llama_cpp_loads(case: ShapeCase, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    shape_cases.write(path, values_of(case.keys), case.tensors)
    assert gguf_forge.check(path).findings == ()


@pytest.mark.parametrize("type", ["f16", "Q4_K_M", "IQ4_XS", "TQ1_0"])
def test_nothing_is_found_in_what_is_converted(type: str, tmp_path: Path) -> None:
    model = ROOT / "fixtures" / "models" / "PyLlama-7M"
    path = tmp_path / "a.gguf"
    gguf_forge.convert_checkpoint(model, path, type)
    assert gguf_forge.check(path, data=True).findings == ()


def test_an_importance_matrix_and_a_vocabulary_alone_are_clean(tmp_path: Path) -> None:
    assert gguf_forge.check(ROOT / "fixtures" / "quality" / "imatrix-stdlib.gguf", data=True).clean
    path = tmp_path / "a.gguf"
    with gguf_forge.GGUFWriter(path) as writer:
        for key, value in KEYS.items():
            writer.add(key, value)
    assert gguf_forge.check(path).clean


def test_an_unreadable_file_is_a_report_with_its_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf")
    path.write_bytes(path.read_bytes()[:-500])
    report = gguf_forge.check(path)
    assert isinstance(report.error, gguf_forge.TruncatedError)
    assert (report.readable, report.clean, report.findings) == (False, False, ())
    assert report.document()["error"]["class"] == "TruncatedError"
    assert gguf_forge.check(tmp_path / "none.gguf").error is not None


def test_a_shard_without_its_set_is_checked_alone(tmp_path: Path) -> None:
    keys = {"split.no": values.scalar(ValueType.UINT16, 0), "split.count": values.scalar(ValueType.UINT16, 2)}
    path = write(tmp_path / "a-00001-of-00002.gguf", keys, {"blk.1.ffn_up.weight": None})
    report = gguf_forge.check(path)
    assert [(f.rule, f.severity) for f in report.findings] == [("set", ERROR)]
    assert "1 of 2 shards are missing" in report.findings[0].text


def test_a_tensor_of_an_unknown_type_is_found(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.gguf").read_bytes())
    at = data.index(b"blk.0.ffn_up.weight") + len("blk.0.ffn_up.weight") + 4 + 16
    data[at : at + 4] = (140).to_bytes(4, "little")
    (tmp_path / "a.gguf").write_bytes(data)
    report = gguf_forge.check(tmp_path / "a.gguf", data=True)
    assert [(f.rule, f.field) for f in report.findings] == [("unknown-type", f'tensor "{UP}"')]
    assert "140" in report.findings[0].text


def test_limits_are_adjustable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", {f"Bad {i}": values.u32(1) for i in range(7)})
    assert len(gguf_forge.check(path).findings) == 7
    assert len(gguf_forge.check(path, limits=gguf_forge.CheckLimits(findings=3)).findings) == 3
    assert isinstance(gguf_forge.check(path, limits=gguf_forge.CheckLimits(key_bytes=4)).error, gguf_forge.LimitError)
    found = gguf_forge.check(path, limits=gguf_forge.CheckLimits(template_bytes=5)).findings
    assert found[-1].rule == "template-size"


def test_progress_counts_all_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf")
    told: list[tuple[int, int]] = []
    gguf_forge.check(path, data=True, progress=lambda done, total: told.append((done, total)))
    with gguf_forge.open(path) as file:
        total = sum(tensor.nbytes for tensor in file.tensors.values())
    assert told[-1] == (total, total)


def test_numbers_of_big_endian_files_are_looked_into(tmp_path: Path) -> None:
    array = np.ones((8, 64), np.float32)
    array[1, 2] = np.inf
    with gguf_forge.GGUFWriter(tmp_path / "a.gguf", {"general.type": "imatrix"}, endian="big") as writer:
        writer.add_tensor("a.weight", array)
    found = gguf_forge.check(tmp_path / "a.gguf", data=True).findings
    assert [f.rule for f in found] == ["big-endian", "not-finite"]
    assert found[1].text.endswith("row 1, column 2")


def test_a_template_is_never_compiled_or_rendered(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", template("{{ [].append(1 // 0) or raise_exception('no') }}"))
    # What is imported on first use comes before.
    warm = write(tmp_path / "b.gguf", template("{% if a %}{% set b = a | trim %}{{ 1 // 2 ~ 'c' }}{% endif %}"))
    script = (
        "import sys, gguf_forge, gguf_forge.whole.check.template\n"
        f"seen = []; gguf_forge.check({str(warm)!r})\n"
        "sys.addaudithook(lambda event, args: seen.append(event))\n"
        f"gguf_forge.check({str(path)!r}).findings\n"
        "assert not {e.partition('.')[0] for e in seen} & {'exec', 'compile', 'subprocess', 'socket', 'pickle'}, seen\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_control_characters_reach_no_text(tmp_path: Path) -> None:
    keys = {**template("{{ a | \x1b }}"), "general.architecture": values.string("\x1b[2J")}
    for finding in gguf_forge.check(write(tmp_path / "a.gguf", keys)).findings:
        assert str(finding).isprintable()


def test_memory_and_time_are_those_of_the_bytes_there(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(pad(b"GGUF" + bytes([3, 0, 0, 0]) + bytes(16)) + bytes(1 << 16))
    assert [f.rule for f in gguf_forge.check(path).findings] == ["layout"]


def in_big_endian(path: Path) -> Path:
    """The same file in the other order of bytes, within blocks too."""
    made = path.with_name("big.gguf")
    gguf_forge.edit_file(path, made, edits=gguf_forge.Edits(endian="big"))
    return made


@pytest.mark.parametrize("case", DATA, ids=lambda c: c.id)
def test_a_change_is_found_in_a_big_endian_file_too(case: Changed, tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", case.keys, case.arrays, case.base)
    little, big = (gguf_forge.check(one, data=True).findings for one in (path, in_big_endian(path)))
    assert little
    assert big[0].rule == "big-endian"
    assert [(f.rule, f.text, f.field) for f in big[1:]] == [(f.rule, f.text, f.field) for f in little]


@pytest.mark.parametrize(("rule", "kind", "made", "text"), ALONE, ids=lambda v: v if isinstance(v, str) else "")
def test_codes_of_big_endian_files_are_looked_into(rule: str, kind: str, made: Any, text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    data = made.copy()
    if rule == "q2_0-groups":  # of which each scale stands where that layout has it, for whoever swaps it
        scales = data.reshape(-1)[: data.size // 36 * 34].reshape(-1, 34)[:, :2]
        scales[:] = scales[:, ::-1].copy()
    else:
        data = swapped(data, tensor_type(kind))
    writer = gguf_forge.GGUFWriter(path, {"general.type": "imatrix"}, endian="big")
    writer.declare("a.weight", (len(made), made.shape[1] // 18 * 64 if kind == "Q2_0" else 512), kind)
    writer.begin()
    writer.write("a.weight", data)
    writer.commit()
    found = gguf_forge.check(path, data=True).findings
    assert [f.rule for f in found] == ["big-endian", rule]
    assert text in found[1].text


@pytest.mark.parametrize("kind", [t.name for t in TENSOR_TYPES.values() if t.quantized and t.encodes])
def test_good_blocks_are_clean_in_both_orders(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with gguf_forge.GGUFWriter(path, {"general.type": "imatrix"}) as writer:
        rows = np.random.default_rng(5).normal(0, 1, (4, 512)).astype(np.float32)
        writer.add_tensor("a.weight", gguf_forge.quantize(rows, kind, imatrix=np.ones(512, np.float32)), kind)
    assert gguf_forge.check(path, data=True).findings == ()
    assert [f.rule for f in gguf_forge.check(in_big_endian(path), data=True).findings] == ["big-endian"]
