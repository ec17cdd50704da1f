"""`gguf-forge check`: exit codes, lines, and the JSON document."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from gguf_forge.format import values
from gguf_forge.whole.check.rules import every_rule
from gguf_forge.whole.check.subject import CheckLimits
from tests.cli.conftest import Forge
from tests.whole.small import write

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "check.md").read_text(encoding="utf-8")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path / "good.gguf")


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """One error, and one warning with a control character."""
    return write(tmp_path / "odd.gguf", {"llama.context_length": None, "Bad\x1b[2J": values.u32(1)})


@pytest.fixture
def unreadable(tmp_path: Path) -> Path:
    path = write(tmp_path / "cut.gguf")
    path.write_bytes(path.read_bytes()[:-4000])
    return path


def test_a_clean_file_is_exit_0(forge: Forge, good: Path) -> None:
    ended = forge("check", good)
    assert (ended.code, ended.out, ended.err) == (0, f"{good}: clean\n", "")


def test_findings_are_exit_1_and_one_line_each(forge: Forge, odd: Path) -> None:
    ended = forge("check", odd)
    lines = ended.out.splitlines()
    assert (ended.code, ended.err, len(lines)) == (1, "", 2)
    assert re.fullmatch(rf"warning: {odd}: offset 0x\w+, key \"Bad\\x1b\[2J\": key is .* \[key-form\]", lines[0])
    assert lines[1] == f"error: {odd}: llama.cpp asks for llama.context_length [required-key]"


def test_severity_is_the_least_that_counts(forge: Forge, odd: Path, tmp_path: Path) -> None:
    assert len(forge("check", odd, "--severity", "error").out.splitlines()) == 1
    mild = write(tmp_path / "mild.gguf", {"Bad": values.u32(1)})
    assert (forge("check", mild).code, forge("check", mild, "--severity", "error").code) == (1, 0)


def test_an_unreadable_file_is_exit_3_and_the_others_are_checked(
    forge: Forge, good: Path, odd: Path, unreadable: Path
) -> None:
    ended = forge("check", unreadable, odd, good)
    lines = ended.out.splitlines()
    assert (ended.code, len(lines)) == (3, 4)
    assert lines[0].startswith(f"unreadable: {unreadable}: offset ")
    assert lines[-1] == f"{good}: clean"


def test_json_holds_all(forge: Forge, good: Path, odd: Path, unreadable: Path) -> None:
    ended = forge("check", good, odd, unreadable, "--json", "--data")
    document = json.loads(ended.out)
    assert (ended.code, [f["readable"] for f in document["files"]]) == (3, [True, True, False])
    first, second, third = document["files"]
    assert (first["findings"], first["error"], first["data"], first["files"]) == ([], None, True, [str(good)])
    assert [(f["rule"], f["severity"], f["field"]) for f in second["findings"]] == [
        ("key-form", "warning", r'key "Bad\x1b[2J"'),
        ("required-key", "error", None),
    ]
    assert third["error"]["class"] == "TruncatedError"
    assert third["error"]["field"].startswith('tensor "')
    assert document["limits"]["depth"] == 8
    assert "\x1b" not in ended.out


def test_limits_are_named(forge: Forge, good: Path) -> None:
    assert forge("check", good, "--limit", "key_bytes=3").code == 3
    for word in ("nope=1", "depth", "depth=-1", "depth=x"):
        ended = forge("check", good, "--limit", word)
        assert (ended.code, "expected NAME=NUMBER" in ended.err) == (2, True)
    assert forge("check").code == 2


def test_the_page_has_every_rule_and_limit() -> None:
    rules = {name: f"| `{name}` | {severity} | {said} |" for name, (severity, said) in every_rule().items()}
    assert [name for name, row in rules.items() if row not in PAGE] == []
    limits = [f"| `{field.name}` | {field.default:,} |" for field in fields(CheckLimits)]
    assert [row for row in limits if row not in PAGE] == []
