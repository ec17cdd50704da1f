"""How `convert` and `quantize` show what they plan and what they made. Prints; decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gguf_forge.cli.tables import Table
from gguf_forge.cli.terminal import Terminal, printable, size

if TYPE_CHECKING:
    from gguf_forge.convert.files import Planned
    from gguf_forge.quant.imatrix import Imatrix


def show(terminal: Terminal, plans: Iterable[Planned]) -> None:
    """The plan of each file on stdout: every tensor with its types, size and bits per weight, then the total."""
    from gguf_forge.quant.budget import budget

    for planned in plans:
        costs = budget(planned.choices)
        tensors = Table(
            "tensor", ">shape", "from", "to", ">size", ">bpw", "~why", spare=("bpw", "from", "why", "shape")
        )  # fmt: skip
        for cost in costs.rows:
            shape = " x ".join(map(str, cost.shape)) or "scalar"
            tensors.add(cost.name, shape, cost.source, cost.type, size(cost.nbytes), f"{cost.bpw:.3f}", cost.reason)
        total = (
            f"{planned.path}: {planned.type}, {size(planned.file.size)} ({planned.file.size} bytes), "
            f"{len(costs.rows)} tensors, {costs.weights} weights, {costs.bpw:.4f} bits per weight"
        )
        terminal.show(tensors, printable(total))


def remark(terminal: Terminal, plans: Iterable[Planned], imatrix: Imatrix | None) -> None:
    """What a reader should know of each plan: fallbacks, coverage of the importance matrix, notes of the reading."""
    from gguf_forge.quant.budget import budget
    from gguf_forge.quant.imatrix import coverage

    said: set[str] = set()
    for planned in plans:
        lines = [*planned.notes, *(f"left out: {name}" for name in planned.dropped)]
        lines += [f"{planned.type}: {line}" for line in budget(planned.choices).fallback_lines()]
        if imatrix is not None:
            changed = {c.name: c.shape for c in planned.choices if c.type.quantized and c.type is not c.source}
            lines += coverage(imatrix, changed).lines() if changed else []
        for line in lines:
            if line not in said:
                said.add(line)
                terminal.note(line)
        for c in planned.choices:
            terminal.detail(f"{planned.type}: {c.name}: {c.source} to {c.type}, {c.reason}")


def made(terminal: Terminal, plans: Iterable[Planned], seconds: float) -> None:
    """A line for each file written."""
    for planned in plans:
        terminal.note(
            f"{planned.path}: {planned.type}, {size(planned.file.size)}, {planned.bpw:.2f} bits per weight, "
            f"in {seconds:.1f} s"
        )
