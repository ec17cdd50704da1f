"""Vocabularies beyond the reference: recognition, notes on what is left out, and one clear error for damaged files."""

from pathlib import Path
from typing import Any

import pytest

from gguf_forge.convert.vocab import load_vocab
from gguf_forge.convert.vocab.cuts import NAMES
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.hub import choose_class, open_tokenizer
from gguf_forge.convert.vocab.merges import read_merges
from gguf_forge.convert.vocab.pretokenizers import FINGERPRINTS
from gguf_forge.convert.vocab.recognize import fingerprint, recognize
from gguf_forge.errors import CheckpointError, ConversionError, ForgeError
from gguf_forge.format.values import Value
from tests.convert.vocab_cases import BASES, FIXTURES, Edit, make_folder

C, T, J = "config.json", "tokenizer_config.json", "tokenizer.json"
DIGITS_AND_BYTES = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}


def load(tmp_path: Path, name: str, *edits: Edit, pre: str | None = None) -> tuple[dict[str, Value], list[str]]:
    base = BASES[name]
    folder = make_folder(tmp_path, base, list(edits))
    notes: list[str] = []
    config = Folder(folder).object(C) or {}
    return load_vocab(folder, config, base.parts, pre=pre or base.pre, note=notes.append), notes


def recognized(tmp_path: Path, *edits: Edit, pre: str | None = None, base: str = "llama-bpe") -> tuple[str, list[str]]:
    notes: list[str] = []
    tokenizer = open_tokenizer(Folder(make_folder(tmp_path, BASES[base], list(edits))))
    return recognize(tokenizer, pre, notes.append), notes


def test_an_unknown_vocabulary_is_recognised_by_its_definition(tmp_path: Path) -> None:
    name, notes = recognized(tmp_path, ("set", J, "pre_tokenizer", DIGITS_AND_BYTES))
    assert name == "starcoder"
    assert len(notes) == 1
    assert "by its definition" in notes[0]


@pytest.mark.parametrize(("name", "expected"), [("gpt2", "gpt-2"), ("qwen2", "gpt-2"), ("bert", "jina-v2-en")])
def test_the_file_defines_the_cut_even_where_a_class_rebuilds_it(tmp_path: Path, name: str, expected: str) -> None:
    assert recognized(tmp_path, base=name)[0] == expected


def test_without_tokenizer_json_the_class_defines_the_cut(tmp_path: Path) -> None:
    edits: list[Edit] = [("remove", J), ("set", T, "tokenizer_class", "Qwen2Tokenizer")]
    assert recognized(tmp_path, *edits, base="qwen2")[0] == "qwen2"


def test_a_unicode_normal_form_does_not_change_the_name(tmp_path: Path) -> None:
    assert recognized(tmp_path, ("set", J, "normalizer", {"type": "NFC"}))[0] == "gpt-2"


def test_an_unknown_definition_names_the_nearest_and_the_way_out(tmp_path: Path) -> None:
    pre_tokenizer = {**DIGITS_AND_BYTES, "pretokenizers": [*DIGITS_AND_BYTES["pretokenizers"], {"type": "Whitespace"}]}
    message = r"unknown pre-tokenizer Digits \+ ByteLevel .*'falcon', which cuts .*--pre NAME"
    with pytest.raises(ConversionError, match=message):
        recognized(tmp_path, ("set", J, "pre_tokenizer", pre_tokenizer))


def test_a_chosen_name_is_taken_and_a_misspelt_one_is_not(tmp_path: Path) -> None:
    assert recognized(tmp_path / "a", pre="command-r")[0] == "command-r"
    with pytest.raises(ConversionError, match=r"--pre 'llama-bqe'.*llama-bpe"):
        recognized(tmp_path / "b", pre="llama-bqe")


def test_the_tables_agree() -> None:
    digests = [digest for group in FINGERPRINTS.values() for digest in group]
    assert len(digests) == len(set(digests)) == 98
    assert set(FINGERPRINTS) <= NAMES


def test_the_fingerprint_depends_on_the_wrapping_tokens(tmp_path: Path) -> None:
    plain = open_tokenizer(Folder(make_folder(tmp_path, BASES["bert"], [])))
    wrapped = open_tokenizer(Folder(make_folder(tmp_path / "x", BASES["bert"], [("set", T, "cls_token", "[MASK]")])))
    assert fingerprint(plain) != fingerprint(wrapped)
    assert plain.definition["pre_tokenizer"] == wrapped.definition["pre_tokenizer"] == {"type": "BertPreTokenizer"}


@pytest.mark.parametrize(
    ("model", "declared", "byte_level", "expected"),
    [
        ("qwen2", "GPT2Tokenizer", True, "Qwen2Tokenizer"),  # a distrusted model: the registered class
        ("qwen2_moe", "GPT2Tokenizer", True, "GPT2Tokenizer"),
        ("qwen3", None, True, "Qwen2Tokenizer"),
        ("llama", "LlamaTokenizerFast", True, "TokenizersBackend"),
        ("llama", "LlamaTokenizerFast", False, "LlamaTokenizer"),
        ("llama", None, False, "TokenizersBackend"),
        ("mistral", "LlamaTokenizer", True, "TokenizersBackend"),
        ("gpt2", "PreTrainedTokenizerFast", True, "PreTrainedTokenizer"),
    ],
)
def test_the_class_of_a_checkpoint(
    tmp_path: Path, model: str, declared: str | None, byte_level: bool, expected: str
) -> None:
    kept = "qwen2" if byte_level else "llama"
    edits: list[Edit] = [("set", C, "model_type", model)]
    edits += [("set", T, "tokenizer_class", declared)] if declared else [("drop", T, "tokenizer_class")]
    folder = Folder(make_folder(tmp_path, BASES[kept], edits))
    assert choose_class(folder, folder.object(T) or {}) == expected


def test_what_is_left_out_is_noted(tmp_path: Path) -> None:
    _, notes = load(tmp_path, "llama", ("set", C, "vocab_size", 1000), ("set", C, "pad_token_id", -1))
    assert any("2048 pieces, vocab_size is 1000" in note for note in notes)
    assert any("pad_token_id -1" in note for note in notes)
    quiet = load(tmp_path / "plain", "llama")[1]
    assert quiet == []


def test_a_pre_tokenizer_chosen_in_vain_is_noted(tmp_path: Path) -> None:
    found, notes = load(tmp_path, "llama", pre="gpt-2")
    assert found["tokenizer.ggml.pre"].value == "default"
    assert notes == ["--pre gpt-2 has no effect: a vocabulary of tokenizer.model's kind has no pre-tokenizer"]


def test_a_negative_id_does_not_hide_a_good_one(tmp_path: Path) -> None:
    found, _ = load(tmp_path, "llama", ("set", C, "bos_token_id", -1))
    assert found["tokenizer.ggml.bos_token_id"].value == 1


def test_named_templates_are_listed_once_in_order(tmp_path: Path) -> None:
    entries = [{"name": name, "template": name} for name in ("rag", "tool use", "rag", "default", "tool/use")]
    found, _ = load(tmp_path, "llama", ("set", T, "chat_template", entries))
    assert found["tokenizer.chat_templates"].value == ["rag", "tool_use"]
    assert found["tokenizer.chat_template.tool_use"].value == "tool/use"
    assert found["tokenizer.chat_template"].value == "default"


def test_merges_as_pairs_keep_their_spaces_apart(tmp_path: Path) -> None:
    (tmp_path / J).write_text('{"model": {"merges": [["a", "b"], ["c d", "e"]]}}', encoding="utf-8")
    assert read_merges(Folder(tmp_path)) == ["a b", "c\u0120d e"]


def test_merges_of_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n\nodd one out\nc d\n", encoding="utf-8")
    assert read_merges(Folder(tmp_path)) == ["a b", "c d"]


def test_no_tokenizer_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"no tokenizer\.model, tokenizer\.json"):
        load_vocab(tmp_path, {"vocab_size": 10}, BASES["llama"].parts)


DAMAGED: dict[str, tuple[str, list[Edit], str]] = {
    "json-cut-short": ("llama", [("write", T, '{"a": ')], r"tokenizer_config\.json: not JSON: .* line 1, column"),
    "json-not-an-object": ("llama", [("write", T, "[1]")], r"expected a JSON object, found list"),
    "json-null": ("llama", [("write", T, "null")], r"expected a JSON object, found null"),
    "json-deep": ("llama", [("write", T, '{"a":' * 100000)], r"tokenizer_config\.json: "),
    "json-huge-number": ("qwen2", [("write", T, '{"a": ' + "9" * 10000 + "}")], r"tokenizer_config\.json: not JSON"),
    "model-not-a-model": ("llama", [("write", "tokenizer.model", "hello")], r"tokenizer\.model: not a SentencePiece"),
    "model-empty": ("llama", [("write", "tokenizer.model", "")], r"tokenizer\.model: not a SentencePiece"),
    "vocab-size-text": ("llama", [("set", C, "vocab_size", "many")], r"vocab_size 'many' is not a whole number"),
    "vocab-size-huge": ("llama", [("set", C, "vocab_size", 10**12)], r"vocab_size 1000000000000 is not between"),
    "vocab-size-huge-bpe": ("qwen2", [("set", C, "vocab_size", 10**12)], r"vocab_size is 1000000000000"),
    "vocab-size-small": ("qwen2", [("set", C, "vocab_size", 600)], r"vocab_size is 600, but the tokenizer's token"),
    "added-tokens-list": ("llama", [("set", T, "added_tokens_decoder", [1])], r"added_tokens_decoder is not an object"),
    "added-token-no-id": (
        "llama",
        [("set", T, "added_tokens_decoder", {"x": {"content": "a"}})],
        r"'x' is not a token",
    ),
    "added-token-negative": ("llama", [("write", "added_tokens.json", '{"a": -5}')], r"-5 is not a token id"),
    "added-token-empty": ("phi3", [("set", J, "added_tokens", [{"id": 5}])], r"an added token without content"),
    "added-token-empty-bpe": ("qwen2", [("set", T, "added_tokens_decoder", {"5": {}})], r"added token without content"),
    "added-token-bad-id-bpe": ("qwen2", [("set", T, "added_tokens_decoder", {"z": "<z>"})], r"'z' is not a token id"),
    "template-of-numbers": ("llama", [("set", T, "chat_template", [1, 2])], r"expected objects with name and template"),
    "template-not-text": ("llama", [("set", T, "chat_template", [{"name": "a", "template": 1}])], r"expected text"),
    "surrogate-template": ("llama", [("write", T, '{"chat_template": "\\ud800"}')], r"no UTF-8 form"),
    "surrogate-token": (
        "llama",
        [("write", T, '{"added_tokens_decoder": {"7": {"content": "\\ud800"}}}')],
        r"token 7 has no UTF-8 form",
    ),
    "merges-of-numbers": ("gpt2", [("write", J, '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [1]}}')], r"."),
    "no-model-section": ("qwen2", [("write", J, "{}")], r"tokenizer\.json"),
    "post-processor-number": ("llama", [("set", J, "post_processor", 5)], r"expected an object, found 5"),
    "text-config-number": ("llama", [("set", C, "text_config", 5)], r"expected an object, found 5"),
    "vocab-of-texts": (
        "qwen2",
        [("set", J, "model", {"type": "BPE", "vocab": {"a": "b"}, "merges": []})],
        r"cannot be",
    ),
    "type-vocab-size": ("bert", [("set", C, "type_vocab_size", "two")], r"type_vocab_size 'two'"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_get_one_clear_line(tmp_path: Path, name: str) -> None:
    base, edits, message = DAMAGED[name]
    with pytest.raises(ForgeError, match=message) as caught:
        load(tmp_path, base, *edits)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / T).write_bytes(b'{"a": "\xff"}')
    with pytest.raises(CheckpointError, match=r"not UTF-8 at byte 7"):
        Folder(tmp_path).json(T)


def _keys(base: str, file: str) -> list[str]:
    return list(Folder(FIXTURES / BASES[base].files).object(file) or {})


@pytest.mark.parametrize("value", [None, 5, "x", [], {}, [1], {"a": 1}, True], ids=repr)
@pytest.mark.parametrize(("base", "file"), [("llama", T), ("llama", J), ("qwen2", T), ("qwen2", J), ("bert", J)])
def test_a_wrong_kind_of_value_ends_in_a_result_or_one_line(tmp_path: Path, base: str, file: str, value: Any) -> None:
    for number, key in enumerate(_keys(base, file)):
        assert "\n" not in outcome(tmp_path / str(number), base, ("set", file, key, value)), key


def outcome(tmp_path: Path, base: str, edit: Edit) -> str:
    try:
        return f"{len(load(tmp_path, base, edit)[0])} keys"
    except ForgeError as error:
        return str(error)


def test_a_list_of_ids_is_noted_when_nothing_else_names_the_role(tmp_path: Path) -> None:
    listed = ("set", C, "eos_token_id", [2, 3])
    found, notes = load(tmp_path / "none", "llama", listed, ("drop", T, "eos_token"))
    assert "tokenizer.ggml.eos_token_id" not in found
    assert any("eos_token_id is a list, [2, 3]" in note for note in notes)
    found, notes = load(tmp_path / "named", "llama", listed, ("set", T, "eos_token", "</s>"))
    assert found["tokenizer.ggml.eos_token_id"].value == 2
    assert not any("is a list" in note for note in notes)


def test_a_template_of_no_known_form_is_noted(tmp_path: Path) -> None:
    found, notes = load(tmp_path, "llama", ("set", T, "chat_template", 5))
    assert "tokenizer.chat_template" not in found
    assert any("chat_template is neither a text nor a list but int" in note for note in notes)


JINJA, EXTRA, PROCESSOR = "chat_template.jinja", "additional_chat_templates", "chat_template.json"
NAMED = [{"name": "default", "template": "LD"}, {"name": "tool_use", "template": "LT"}]
TEMPLATES: dict[str, tuple[Any, dict[str, str], dict[str | None, str], str | None]] = {
    "text": ("T", {JINJA: "J"}, {None: "J"}, f"{JINJA} and {T}"),
    "the same": ("J", {JINJA: "J"}, {None: "J"}, None),
    "list": (NAMED, {JINJA: "J"}, {None: "J"}, f"{JINJA} and {T}"),
    "null": (None, {JINJA: "J"}, {None: "J"}, None),
    "empty": ("T", {JINJA: ""}, {}, f"{JINJA} and {T}"),
    "line ends": (None, {JINJA: "a\r\nb"}, {None: "a\nb"}, None),
    "more": ("T", {JINJA: "J", f"{EXTRA}/rag.jinja": "R"}, {None: "J", "rag": "R"}, f"{JINJA} and {T}"),
    "more alone": ("T", {f"{EXTRA}/rag.jinja": "R"}, {"rag": "R"}, f"{EXTRA}/ and {T}"),
    "another default": (None, {JINJA: "J", f"{EXTRA}/default.jinja": "E"}, {None: "E"}, None),
    "by name": ({"default": "D", "x": "X"}, {}, {None: "D", "x": "X"}, None),
    "twice": ([*NAMED, {"name": "default", "template": "L2"}], {}, {None: "L2", "tool_use": "LT"}, None),
    "processor": ("T", {PROCESSOR: '{"chat_template": "P"}'}, {None: "T"}, f"{T} and {PROCESSOR}"),
    "processor alone": (None, {PROCESSOR: '{"chat_template": "P"}'}, {None: "P"}, None),
}
"""tokenizer_config.json's value and files; the templates transformers 5.24 then has (of processors for the last), by
name, None for the default; and the places of which a note says that they differ."""


WITHOUT_SETTINGS = [(name, False) for name, (value, *_) in TEMPLATES.items() if value is None]


@pytest.mark.parametrize(("name", "settings"), [*((name, True) for name in TEMPLATES), *WITHOUT_SETTINGS])
def test_templates_are_those_of_transformers(tmp_path: Path, name: str, settings: bool) -> None:
    value, files, expected, said = TEMPLATES[name]
    edits: list[Edit] = [("write", file, text) for file, text in files.items()]
    edits.append(("set", T, "chat_template", value) if settings else ("remove", T))
    found, notes = load(tmp_path, "llama", *edits)
    keys = {"tokenizer.chat_template" + (f".{key}" if key else ""): text for key, text in expected.items()}
    written = {key: v.value for key, v in found.items() if key.startswith("tokenizer.chat_template")}
    written.pop("tokenizer.chat_templates", None)
    assert written == keys
    names = [key for key in expected if key]
    assert (found["tokenizer.chat_templates"].value if names else []) == names
    assert notes == ([f"chat templates differ in {said}: the former is written"] if said else [])
