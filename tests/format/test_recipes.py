"""Every bad input of the table is refused by name and place; every odd one opens, and is said to be odd."""

from __future__ import annotations

from pathlib import Path

import pytest

from gguf_forge.errors import InvalidError, LimitError
from gguf_forge.format import reader
from gguf_forge.format.findings import RULES, findings
from gguf_forge.format.layout import Limits
from gguf_forge.format.validate import DATA_RULES, HEADER_RULES
from tests.format.recipes import HEADERS, KEYS, ODD, TENSORS, Opens, Refused

REFUSED = [*HEADERS, *KEYS, *TENSORS]


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c.id)
def test_refused(case: Refused, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(case.data)
    with pytest.raises(case.error) as caught:
        reader.open(path)
    error = caught.value
    assert type(error) is case.error
    assert error.path == str(path)
    if case.offset is not None or case.data == b"":
        assert error.offset == case.offset
    if case.field is not None:
        assert error.field == case.field
    assert case.text in error.text
    message = str(error)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()


@pytest.mark.parametrize("case", ODD, ids=lambda c: c.id)
def test_opens(case: Opens, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(case.data)
    with reader.open(path) as file:
        found = findings(file)
        assert tuple(f.rule for f in found) == case.findings
        assert all(str(f).isprintable() for f in found)
        for key in file.metadata:
            file.metadata[key]
        for tensor in file.tensors.values():
            assert tensor.data.nbytes == tensor.nbytes


def test_every_rule_refuses_something() -> None:
    names = {rule.__name__ for rule in (*HEADER_RULES, *DATA_RULES)}
    tripped = {
        "check_key_names": "K04",
        "check_key_unique": "K09",
        "check_alignment": "A02",
        "check_tensor_names": "T05",
        "check_tensor_unique": "T07",
        "check_types": "T30",
        "check_dims": "T20",
        "check_groups": "T56",
        "check_extents": "T44",
        "check_offsets_aligned": "T35",
        "check_overlap": "T39",
    }
    assert names == {*tripped, "check_strings"}  # check_strings: see the limits below
    assert {*tripped.values()} <= {case.id for case in REFUSED}


def test_every_finding_is_found() -> None:
    assert {rule for case in ODD for rule in case.findings} == {*RULES}


@pytest.mark.parametrize(
    ("case", "limits"),
    [
        ("K18", Limits(string_bytes=2)),
        ("OK", Limits(key_bytes=10)),
        ("K28b", Limits(depth=7)),
        ("T36", Limits(dims=0)),
        ("A07", Limits(alignment=2048)),
    ],
)
def test_limits_are_adjustable(case: str, limits: Limits, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(next(c.data for c in ODD if c.id == case))
    reader.open(path).close()
    with pytest.raises(InvalidError if case == "T36" else LimitError):
        reader.open(path, limits=limits)
