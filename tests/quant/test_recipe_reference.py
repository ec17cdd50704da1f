"""Odd shapes, every recipe, every option, many architectures: the types llama-quantize chose."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import pytest

from gguf_forge import names
from gguf_forge.quant import recipe as recipes
from gguf_forge.quant import recipe_table
from gguf_forge.quant.recipe_table import Row, Site
from tests.quant import reference_cases
from tests.quant.reference_cases import Case

CASES = reference_cases.load()


def test_the_cases_cover_recipes_options_and_families() -> None:
    assert Counter(case.recipe for case in CASES).keys() == recipes.RECIPES.keys() - {"NVFP4"}
    assert {argument for case in CASES for argument in case.arguments} >= {
        *("--pure", "--leave-output-tensor", "--output-tensor-type", "--token-embedding-type", "--imatrix"),
        "--tensor-type",
    }
    assert {case.facts["general.architecture"] for case in CASES} == set(reference_cases.ARCHS)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.facts['general.architecture']}-{c.recipe}")
def test_the_reference_chose_the_same(case: Case) -> None:
    facts = recipes.ModelFacts.from_metadata(case.facts)
    choices = recipes.choose(case.tensors, facts, case.recipe, case.options)
    assert {c.name: c.type.name for c in choices} == case.types
    assert names.quantize_order(case.types) == list(case.types)
    assert sum(c.fell_back for c in choices) == case.fallbacks
    if case.options.imatrix_names is None:
        assert any(c.needs_imatrix for c in choices) == case.needs_imatrix


class CountingRow(Row):
    """A row that notes when it decides."""

    decided: ClassVar[set[Row]] = set()

    def fits(self, recipe: str, site: Site) -> bool:
        found = super().fits(recipe, site)
        if found:
            self.decided.add(self)
        return found


@pytest.mark.long
def test_every_row_of_the_table_decides_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that no recorded tensor meets would be a guess. llama-quantize writes no NVFP4: those rows are our own."""
    rows = [CountingRow(row.recipes, row.kinds, row.type, row.when) for row in recipe_table.ROWS]
    monkeypatch.setattr(recipe_table, "ROWS", rows)
    monkeypatch.setattr(CountingRow, "decided", set())
    for case in CASES:
        recipes.choose(case.tensors, recipes.ModelFacts.from_metadata(case.facts), case.recipe, case.options)
    idle = [row for row in rows if row not in CountingRow.decided and row.recipes != frozenset(("NVFP4",))]
    assert [row.when for row in idle] == [(recipe_table.glm5_latent,)]
