"""`gguf-forge types`: the tensor types and the recipes this build knows. Prints tables, computes nothing."""

from __future__ import annotations

from typing import Any

import click

from gguf_forge.cli.tables import Table
from gguf_forge.cli.terminal import Terminal


@click.command("types")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document instead of tables.")
def command(as_json: bool) -> None:
    """List tensor types (block, bytes, bits per weight) and recipes."""
    document = {"types": _types(), "recipes": _recipes()}
    terminal = Terminal()
    if as_json:
        terminal.json(document)
        return
    columns = ("type", ">id", ">block", ">bytes", ">bpw", "encodes", "decodes", "importance matrix")
    types = Table(*columns, spare=("id", "block", "bytes"))
    for t in document["types"]:
        yes = {True: "yes", False: "-"}
        types.add(
            t["name"], t["id"], t["block_size"], t["block_bytes"], f"{t['bits_per_weight']:.4g}",
            yes[t["encodes"]], yes[t["decodes"]], t["imatrix"],
        )  # fmt: skip
    recipes = Table("recipe", ">file type", "most tensors", ">bpw", "~also called", spare=("file type",))
    for r in document["recipes"]:
        recipes.add(r["name"], r["file_type"], r["default"], f"{r['bits_per_weight']:.4g}", ", ".join(r["aliases"]))
    terminal.show("Tensor types", types, "\nRecipes (--type)", recipes)


def _types() -> list[dict[str, Any]]:
    from gguf_forge.types import TENSOR_TYPES

    return [
        {
            "name": t.name,
            "id": t.id,
            "block_size": t.block_size,
            "block_bytes": t.block_bytes,
            "bits_per_weight": t.bpw,
            "encodes": t.encodes,
            "decodes": t.decodes,
            "imatrix": "required" if t.needs_weights else "used" if t.weighted else "not used",
        }
        for t in TENSOR_TYPES.values()
    ]


def _recipes() -> list[dict[str, Any]]:
    from gguf_forge.quant.recipe import RECIPES
    from gguf_forge.quant.recipe_table import ALIASES

    return [
        {
            "name": r.name,
            "file_type": r.ftype,
            "default": r.default.name,
            "bits_per_weight": r.default.bpw,
            "aliases": [alias for alias, name in ALIASES.items() if name == r.name],
        }
        for r in RECIPES.values()
    ]
