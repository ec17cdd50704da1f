"""Tables at every width: what is a name or a figure stays whole, what there is no room for is named."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from gguf_forge.cli.tables import Table
from tests.cli.conftest import Forge

MODEL = Path(__file__).resolve().parents[2] / "fixtures" / "models" / "PyLlama-7M"
ROWS = [
    ("blk.0.attn_output.weight", "Q4_K", "0.004975", "99.123%", "of a width that is no multiple of 256"),
    ("output.weight", "Q6_K", "0.01", "1.000%", "default"),
]


def drawn(width: int) -> list[str]:
    table = Table("tensor", "type", ">RMSE", ">relative", "~why", spare=("RMSE", "why"))
    for row in ROWS:
        table.add(*row)
    page = io.StringIO()
    Console(file=page, width=width).print(table.fitted(width), crop=False)
    return [line.rstrip() for line in page.getvalue().splitlines()]


@pytest.mark.parametrize("width", [45, 53, 60, 75, 80, 120, 200])
def test_figures_and_names_stay_whole_and_lines_fit(width: int) -> None:
    lines = drawn(width)
    assert max(map(len, lines)) <= width
    words = set(" ".join(lines).split())
    for row in ROWS:
        whole = set(row[:4]) - (set() if width > 60 else {row[2]})
        assert whole <= words


def test_what_there_is_no_room_for_is_left_out_in_order_and_named() -> None:
    assert drawn(120)[0].split() == ["tensor", "type", "RMSE", "relative", "why"]
    assert drawn(68)[0].split() == ["tensor", "type", "relative", "why"]
    assert drawn(68)[-1] == "(no room for: RMSE)"
    assert drawn(45)[-1] == "(no room for: RMSE, why)"
    assert drawn(120)[-1].split() == ["output.weight", "Q6_K", "0.01", "1.000%", "default"]


def test_prose_wraps_between_words() -> None:
    assert [line[56:] for line in drawn(80)[2:5]] == ["of a width that is no", "multiple of 256", "default"]


def test_a_name_is_cut_in_the_middle_when_nothing_else_helps() -> None:
    lines = drawn(37)
    assert lines[2].split() == ["blk.0.at...t.weight", "Q4_K", "99.123%"]
    assert max(map(len, lines[:-1])) <= 37


@pytest.mark.parametrize("columns", [None, "40"])
def test_a_page_that_is_piped_is_whole_and_no_line_ends_in_blanks(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, columns: str | None
) -> None:
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    pages = [
        forge("types").out,
        forge("convert", MODEL, "--type", "Q4_K_M", "--dry-run").out,
        forge("roundtrip", MODEL, "--types", "q8_0,iq1_s", "--tensors", "blk.0.attn_*.weight").out,
        forge("inspect", MODEL / "imatrix.gguf", "--keys", "*", "--tensors").out,
    ]
    for page in pages:
        lines = page.splitlines()
        assert len(lines) > 3
        assert lines == [line.rstrip() for line in lines]
        assert "no room" not in page
    assert sum(line.startswith("blk.5.attn_output.weight ") for line in pages[1].splitlines()) == 1
