"""`gguf-forge architectures`: the model classes that convert, and what of each. Prints a table, computes nothing."""

from __future__ import annotations

from typing import Any

import click

from gguf_forge.cli.tables import Table
from gguf_forge.cli.terminal import Terminal


@click.command("architectures")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document instead of a table.")
def command(as_json: bool) -> None:
    """List the classes of config.json that convert, their architecture in GGUF, and what is covered."""
    terminal = Terminal()
    rows = _rows()
    if as_json:
        terminal.json({"architectures": rows})
        return
    table = Table("class in config.json", "architecture", "~covered")
    for row in rows:
        table.add(row["class"], row["architecture"], ", ".join(row["covered"]))
    terminal.show(f"{len(rows)} classes", table)


def _rows() -> list[dict[str, Any]]:
    from gguf_forge.convert.registry import architectures

    rows = [
        {"class": name, "architecture": arch.name, "covered": list(arch.covered)}
        for arch in architectures()
        for name in arch.hf
    ]
    return sorted(rows, key=lambda row: (str(row["class"]).lower(), row["architecture"]))
