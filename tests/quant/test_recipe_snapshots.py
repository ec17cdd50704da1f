"""The type of every tensor of twelve real models, under every recipe, against llama.cpp's own record."""

from __future__ import annotations

import lzma
import re
from pathlib import Path

import pytest

from gguf_forge import names
from gguf_forge.quant import recipe as recipes
from tests.quant.snapshot_models import MODELS

FOLDER = Path(__file__).parents[2] / "fixtures" / "snapshots"


def read_schema(model: str) -> dict[str, tuple[str, dict[str, str]]]:
    """Recipe to (default type, type of each tensor that differs from it)."""
    sections: dict[str, tuple[str, dict[str, str]]] = {}
    for line in lzma.decompress((FOLDER / f"{model}.schema.xz").read_bytes()).decode().splitlines():
        if header := re.match(r"\[(\w+)\] (\w+)", line):
            others: dict[str, str] = {}
            sections[header[1]] = (header[2], others)
        elif line.strip() and not line.startswith("#"):
            name, chosen = line.split()
            others[name] = chosen
    return sections


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_every_recipe_chooses_the_recorded_types(model: str) -> None:
    sections = read_schema(model)
    tensors = MODELS[model].tensors()
    facts = MODELS[model].facts
    assert len(sections) == 33
    for recipe, (default, others) in sections.items():
        assert recipes.recipe(recipe).default.name == default.upper()
        choices = recipes.choose(tensors, facts, recipe)
        chosen = {c.name: c.type.name for c in choices if not names.kept_as_is(c.name, c.shape, facts.arch)}
        expected = {name: others.get(name, default).upper() for name in chosen}
        assert chosen == expected, recipe
        assert others.keys() <= chosen.keys(), recipe


@pytest.mark.parametrize("model", MODELS)
def test_the_written_down_tensors_are_the_recorded_ones(model: str) -> None:
    """MXFP4_MOE names every matrix that is no stack of experts, so it proves the list of tensors complete."""
    _, others = read_schema(model)["MXFP4_MOE"]
    facts = MODELS[model].facts
    matrices = {
        t.name
        for t in MODELS[model].tensors()
        if len(t.shape) == 2 and not names.kept_as_is(t.name, t.shape, facts.arch)
    }
    assert matrices == others.keys()


def test_order_of_the_tensors_does_not_matter() -> None:
    tensors = MODELS["glm-4.6v"].tensors()
    facts = MODELS["glm-4.6v"].facts
    forward = recipes.choose(tensors, facts, "Q4_K_M")
    backward = recipes.choose(tensors[::-1], facts, "Q4_K_M")
    assert forward == backward[::-1]
