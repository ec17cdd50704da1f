"""`gguf-forge doctor`: what of this machine the package can use, and what is missing. Prints, changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gguf_forge.cli.tables import Table
from gguf_forge.cli.terminal import Terminal, size

if TYPE_CHECKING:
    from gguf_forge.cuda.driver import Driver


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document instead of a table.")
def command(as_json: bool) -> None:
    """Tell which instruction set and which GPUs are at hand, and whether the GPU kernels load on them.

    What is missing is one line each; the exit code is 0 all the same, for nothing of it is needed.
    """
    from gguf_forge import _native, system

    cuda = _cuda()
    document = {"instruction_set": _native.ISA, "processors": system.processors(), "cuda": cuda}
    terminal = Terminal()
    if as_json:
        terminal.json(document)
        return
    pages: list[Table | str] = [f"Codecs: {_native.ISA}, {document['processors']} processors"]
    if cuda["missing"]:
        pages.append(f"GPUs: none: {cuda['missing']}")
    else:
        pages.append(f"GPUs: driver of CUDA {cuda['driver']}")
        table = Table("device", "name", ">capability", ">free", ">memory", "~kernels")
        for d in cuda["devices"]:
            table.add(
                d["device"], d["name"], d["capability"], size(d["free"]) if d["free"] is not None else "-",
                size(d["memory"]) if d["memory"] is not None else "-", d["missing"] or "load",
            )  # fmt: skip
        pages.append(table)
    terminal.show(*pages)


def _cuda() -> dict[str, Any]:
    from gguf_forge.cuda.driver import driver
    from gguf_forge.errors import ForgeError

    found: dict[str, Any] = {"driver": None, "missing": None, "devices": []}
    try:
        opened = driver()
        found["driver"] = opened.version_name
        count = opened.device_count()
    except ForgeError as error:
        return {**found, "missing": str(error)}
    return {**found, "devices": [_device(opened, i) for i in range(count)]}


def _device(driver: Driver, ordinal: int) -> dict[str, Any]:
    """What is known of a device; "missing" says why kernels do not load on it, or that it cannot be used."""
    from gguf_forge.cuda.context import Context
    from gguf_forge.cuda.kernels import Kernels, find_kernels
    from gguf_forge.errors import ForgeError

    found: dict[str, Any] = dict.fromkeys(("name", "capability", "free", "memory", "missing"))
    found["device"] = f"cuda:{ordinal}"
    try:
        context = Context(driver, ordinal)
        found |= {"name": context.name, "capability": "{}.{}".format(*context.capability), "memory": context.total}
        found["free"] = context.free()
        Kernels(context, find_kernels()).load()
    except ForgeError as error:
        found["missing"] = str(error)
    return found
