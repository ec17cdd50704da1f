"""Names, sizes, model cards and metadata given by hand. The keys themselves are compared in test_vocab_reference."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.convert.general import MAX_CARD_BYTES, default_file_name, general_metadata
from gguf_forge.convert.naming import NameParts, ParameterCounts, file_stem, fill_file_name, split_name, title
from gguf_forge.convert.override import parse_override
from gguf_forge.errors import ConversionError, RequestError
from gguf_forge.format import values
from gguf_forge.format.layout import ValueType
from gguf_forge.format.values import Value, encode
from tests.conftest import undecodable

WORDS = (
    "Llama", "Qwen2.5", "mixtral", "7B", "8x7B", "7b1", "A3B", "0.5b", "1_5B", "128k", "mini", "small", "xl", "Large",
    "chat", "Instruct", "vision", "lora", "v1", "v0.1", "2407", "iter500", "Q4_K_M", "iq2_xs", "bf16", "fp32", "GPTQ",
    "hf", "", "_", "é", "3", "M", "b", "10T", "900K", "v", "0",
)  # fmt: skip
names = st.lists(st.sampled_from(WORDS) | st.text(max_size=4), min_size=1, max_size=7).map("-".join)
ids = st.tuples(st.sampled_from(["", "org/", "./", "a/b/", "/"]), names).map("".join)
totals = st.sampled_from([0, 1, 999, 10**6, 135 * 10**6, 7 * 10**9, 46_700_000_000, 2 * 10**12])


@pytest.mark.peer
@given(model_id=ids, total=totals)
def test_names_come_apart_as_in_gguf_py(model_id: str, total: int) -> None:
    metadata = _gguf().Metadata
    expected = metadata.get_model_id_components(model_id, total)
    found = split_name(model_id, total)
    assert (found.name, found.organization, found.basename) == expected[:3]
    assert (found.finetune, found.version, found.size_label) == expected[3:]
    assert title(model_id) == metadata.id_to_title(model_id)


@pytest.mark.peer
@given(shared=st.integers(0, 10**13), expert=st.integers(0, 10**12), experts=st.integers(0, 512))
def test_size_labels_read_as_in_gguf_py(shared: int, expert: int, experts: int) -> None:
    counts = ParameterCounts(shared + expert * experts, shared, expert, experts)
    expected = _gguf().size_label(counts.total, counts.shared, counts.expert, counts.experts)
    assert counts.size_label() == (expected if counts.total else None)


@pytest.mark.peer
@given(parts=st.lists(st.none() | st.text("aB1 /-", min_size=1, max_size=5), min_size=6, max_size=6))
def test_file_names_follow_the_convention_of_gguf_py(parts: list[str | None]) -> None:
    name, basename, finetune, version, size_label, output = parts
    expected = _gguf().naming_convention(name, basename, finetune, version, size_label, output)
    assert file_stem(NameParts(name, None, basename, finetune, version, size_label), output) == expected


def _gguf() -> Any:
    return pytest.importorskip("gguf", reason="gguf-py is the reference for names")


def test_counts_take_stacked_experts_apart() -> None:
    counts = ParameterCounts.of(
        [
            ("token_embd.weight", (1000, 64)),
            ("blk.0.ffn_up_exps.weight", (8, 128, 64)),
            ("blk.0.ffn_up_exps.bias", (4, 8, 128)),
            ("blk.0.ffn_gate_exps.scale", (8,)),
        ]
    )
    assert counts == ParameterCounts(64000 + 65536 + 4096 + 8, 64008, 8192 + 512, 8)
    assert ParameterCounts.of([]).size_label() is None


@pytest.mark.parametrize(
    ("label", "params"),
    [("7.2B", 7_241_732_096), ("71B", 70_553_706_496), ("999K", 999_000), ("1.0M", 1_000_001), ("405B", 405 * 10**9)],
)
def test_size_labels(label: str, params: int) -> None:
    assert ParameterCounts(params, params).size_label() == label


def read(folder: Path, **config: object) -> tuple[dict[str, Value], list[str]]:
    notes: list[str] = []
    found = general_metadata(
        folder, config, architecture="llama", counts=ParameterCounts(10**9, 10**9), note=notes.append
    )
    return found, notes


def test_a_bare_folder(tmp_path: Path) -> None:
    folder = tmp_path / "Some-Model-1B-Instruct"
    folder.mkdir()
    found, notes = read(folder)
    assert {key: value.value for key, value in found.items()} == {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "Some Model 1B Instruct",
        "general.finetune": "Instruct",
        "general.basename": "Some-Model",
        "general.size_label": "1B",
    }
    assert notes == []
    assert default_file_name(found, "Q4_K_M") == "Some-Model-1B-Instruct-Q4_K_M.gguf"


def test_the_folder_here_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "Here-1B"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert read(Path())[0]["general.name"].value == "Here 1B"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---\na: [\n---\n", "not YAML"),
        ("---\n- a\n---\n", "not a mapping but list"),
        ("---\n!!python/object/apply:os.system ['true']\n---\n", "not YAML"),
        ("---\nname: " + "x" * MAX_CARD_BYTES + "\n---\n", "is not read"),
        ("---\nname: {a: 1}\n---\n", "name is not a text"),
        ("---\nbase_model: [5]\n---\n", "names no model"),
        ("---\nday: 2020-99-99\n---\n", "not YAML"),
        ("---\n" + "a: [" * 5000 + "\n---\n", "not YAML"),
    ],
)
def test_a_damaged_card_is_noted_and_left_out(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    found, notes = read(tmp_path)
    assert len(notes) == 1
    assert message in notes[0]
    assert "\n" not in notes[0]
    assert found["general.name"].value


def test_numbers_in_a_card_become_text(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nversion: 1.5\ntags: [2024, x]\n---\n", encoding="utf-8")
    found, _ = read(tmp_path)
    assert found["general.version"].value == "1.5"
    assert found["general.tags"].value == ["2024", "x"]


def test_damaged_sampling_settings_are_noted(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"top_k": "many", "top_p": 0.5}', encoding="utf-8")
    found, notes = read(tmp_path)
    assert found["general.sampling.top_p"] == values.f32(0.5)
    assert "general.sampling.top_k" not in found
    assert "top_k is left out" in notes[0]


@pytest.mark.parametrize(
    ("template", "expected"),
    [("m-{ftype}.gguf", "m-q4_k_m.gguf"), ("{FTYPE}-{outtype}-{OUTTYPE}-{}", "Q4_K_M-q4_k_m-Q4_K_M-q4_k_m")],
)
def test_file_name_templates(template: str, expected: str) -> None:
    assert fill_file_name(template, "Q4_K_M") == expected
    assert fill_file_name("{ftype.__class__}", "F16") == "{ftype.__class__}"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("general.name=str:My model: a=b", "general.name", values.string("My model: a=b")),
        ("a=STRING:", "a", values.string("")),
        ("a=int:7", "a", values.u32(7)),
        ("a=int:-7", "a", values.i32(-7)),
        ("a=u64:0xff", "a", values.u64(255)),
        ("a=uint8:255", "a", values.u8(255)),
        ("a=i16:-1", "a", values.i16(-1)),
        ("a=float:1e-5", "a", values.f32(1e-5)),
        ("a=f64:0.1", "a", values.f64(0.1)),
        ("a=bool:true", "a", values.boolean(True)),
        ("a=bool:0", "a", values.boolean(False)),
        ('a=str[]:["x", "y"]', "a", values.strings(["x", "y"])),
        ("a=i32[]:[1, 2]", "a", values.array(ValueType.INT32, [1, 2])),
    ],
)
def test_metadata_by_hand(text: str, key: str, value: Value) -> None:
    assert parse_override(text) == (key, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("general.name", "expected KEY=TYPE:VALUE"),
        ("general.name=My model", "expected KEY=TYPE:VALUE"),
        ("=str:x", "is not a key"),
        ("a b=str:x", "is not a key"),
        ("a=text:x", "unknown type 'text'; known are str, bool"),
        ("a=u8:256", "'256' is not of type u8"),
        ("a=u8:x", "'x' is not of type u8"),
        ("a=bool:maybe", "expected true or false"),
        ("a=float:wide", "'wide' is not of type float"),
        ("a=str[]:x", "'x' is not of type str"),
        ("a=str[]:{}", "expected a JSON list"),
        ("a=u8[]:[1, 300]", "is not of type u8"),
        ("a=int:99999999999", "is not of type int"),
        ("a=int:-99999999999", "is not of type int"),
        ("a=\ud800:x", "unknown type"),
    ],
)
def test_wrong_metadata_by_hand(text: str, message: str) -> None:
    with pytest.raises(ConversionError) as caught:
        parse_override(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


COMMIT = "c1899de289a04d12100db370d81485cdf75e47ca"


@pytest.mark.parametrize(
    ("repository", "organization", "name", "file"),
    [
        ("models--Qwen--Qwen3-0.6B", "Qwen", "Qwen3 0.6B", "Qwen3-0.6B-F16.gguf"),
        ("models--some-lab--My--Model-1B", "Some Lab", "My  Model 1B", "My-Model-1B-F16.gguf"),
        ("models--gpt2", None, "Gpt2", "Gpt2-1000M-F16.gguf"),
    ],
)
def test_a_snapshot_of_the_hub_is_named_after_its_repository(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    repository: str,
    organization: str | None,
    name: str,
    file: str,
) -> None:
    folder = tmp_path / repository / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    for path in (folder, tmp_path / "link", Path(), Path("../../snapshots") / COMMIT):
        found, notes = read(path)
        parts = [found.get(f"general.{key}") for key in ("organization", "name")]
        assert [part and part.value for part in parts] == [organization, " ".join(name.split())]
        assert default_file_name(found, "F16") == file
        assert notes == []


@pytest.mark.parametrize("name", [COMMIT, "ab" * 32])
def test_a_folder_named_by_a_hash_names_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    found, notes = read(tmp_path / name)
    assert "general.name" not in found
    assert [note.split(":")[0] for note in notes] == [f"the folder's name, {name}, is a hash"]
    assert default_file_name(found, "F16") == "ggml-model-1000M-F16.gguf"
    (tmp_path / "README.md").touch()
    assert read(tmp_path / name, _name_or_path="org/Good-1B")[0]["general.name"].value == "Good 1B"


def test_the_folder_above_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Above-1B" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "Above-1B" / "below")
    assert read(Path(".."))[0]["general.name"].value == "Above 1B"


def test_a_folder_whose_name_is_not_utf8_names_nothing_and_that_is_noted(tmp_path: Path) -> None:
    folder = undecodable(tmp_path, b"mod\xe8le-1B")
    folder.mkdir()
    found, notes = read(folder)
    assert "general.name" not in found
    assert [note.split(":")[0] for note in notes] == [r"the folder's name, mod\xe8le-1B, is not UTF-8"]
    assert read(folder, _name_or_path="org/Good-1B")[0]["general.name"].value == "Good 1B"


def test_what_utf8_cannot_hold_is_left_out_and_noted(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        '---\nauthor: "a\\ud800"\nbase_model: "o/\\udcff"\ntags: [a, "\\udc80"]\n---\n', encoding="utf-8"
    )
    found, notes = read(tmp_path, _name_or_path="org/\udce8")
    assert all(encode(value) and "\\u" not in repr(value.value) for value in found.values())
    assert found["general.tags"].value == ["a"]
    keys = ("general.name", "general.author", "general.base_model.0.name", "general.tags")
    assert {note.split(" is left out")[0] for note in notes} >= set(keys)


def test_a_name_by_hand_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"a\\xff' is not UTF-8"):
        general_metadata(tmp_path, {}, architecture="llama", counts=ParameterCounts(), name="a\udcff")
    for text in ("general.name=str:\udcff", '"a=str[]:["\\ud800"]', "\udcff=int:1"):
        with pytest.raises(ConversionError):
            parse_override(text)
