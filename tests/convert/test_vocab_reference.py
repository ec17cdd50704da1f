"""Every tokenizer.* and general.* key equals the reference converter's: keys, types, bytes, order.

But for those that `differences` lists, which must not.
"""

import json
from pathlib import Path

import pytest

from gguf_forge.convert.general import general_metadata
from gguf_forge.convert.naming import ParameterCounts
from gguf_forge.convert.vocab import load_vocab
from gguf_forge.errors import ForgeError
from tests.convert.differences import CONVERTED, VOCAB, ZOO
from tests.convert.vocab_cases import BASES, Base, load_golden, make_folder, summary

GOLDEN = load_golden()
CASES = sorted(name for name, case in GOLDEN.items() if "kv" in case)
REFUSED = sorted(name for name, case in GOLDEN.items() if "fails" in case)


def read(tmp_path: Path, name: str) -> list[list[str]]:
    base = BASES[name.partition("/")[0]]
    folder = make_folder(tmp_path, base, GOLDEN[name]["edits"])
    return [*general(folder, base), *summary(load_vocab(folder, config_of(folder), base.parts, pre=base.pre))]


def config_of(folder: Path) -> dict[str, object]:
    config: dict[str, object] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def general(folder: Path, base: Base) -> list[list[str]]:
    found = general_metadata(
        folder, config_of(folder), architecture=base.architecture, counts=ParameterCounts(), note=lambda _: None
    )
    return summary(found)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference(tmp_path: Path, name: str) -> None:
    later = ("general.file_type", "general.quantization_version")
    golden = [entry for entry in GOLDEN[name]["kv"] if entry[0] not in later]
    found = read(tmp_path, name)
    apart = VOCAB[name].keys if name in VOCAB else frozenset()
    assert [entry for entry in found if entry[0] not in apart] == [entry for entry in golden if entry[0] not in apart]
    ours, theirs = ({key: [kind, value] for key, kind, value in entries} for entries in (found, golden))
    assert {key for key in apart if ours.get(key) == theirs.get(key)} == set()


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_what_the_reference_refuses(tmp_path: Path, name: str) -> None:
    if name in CONVERTED:
        assert read(tmp_path, name)
        return
    with pytest.raises(ForgeError) as caught:
        read(tmp_path, name)
    assert "\n" not in str(caught.value)


def test_what_differs_is_explained() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "differences.md").read_text(encoding="utf-8")
    headings = {line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")}
    named = {section for row in [*ZOO.values(), *VOCAB.values()] for section in row.sections}
    assert (named | set(CONVERTED.values())) - headings == set()
    assert set(VOCAB) <= set(CASES)
    assert set(CONVERTED) <= set(REFUSED)


def test_the_golden_file_is_not_empty() -> None:
    assert len(CASES) > 280
    assert {name.partition("/")[0] for name in CASES} == set(BASES)
