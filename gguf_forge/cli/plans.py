"""How `convert` and `quantize` show what they plan and what they made. Prints; decides nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gguf_forge.cli.tables import Table
from gguf_forge.cli.terminal import Terminal, size
from gguf_forge.errors import printable

if TYPE_CHECKING:
    from gguf_forge.convert.files import Planned
    from gguf_forge.quant.imatrix import Imatrix

#: The most tensors, or groups of tensors, that are named one by one unless --verbose asks for all.
MOST_NAMED = 8
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def show(terminal: Terminal, plans: Iterable[Planned]) -> None:
    """The plan of each file on stdout: every tensor with its types, size and bits per weight, then the total."""
    from gguf_forge.quant.budget import budget

    for planned in plans:
        costs = budget(planned.choices)
        tensors = Table(
            "tensor", ">shape", "from", "to", ">size", ">bpw", "~why", spare=("bpw", "from", "why", "shape")
        )  # fmt: skip
        for cost in costs.rows:
            c = cost.choice
            shape = " x ".join(map(str, c.shape)) or "scalar"
            tensors.add(c.name, shape, c.source, c.type, size(cost.nbytes), f"{cost.bpw:.3f}", c.reason)
        total = (
            f"{planned.path}{_and_others(planned)}: {planned.type}, {size(planned.nbytes)} ({planned.nbytes} bytes), "
            f"{len(costs.rows)} tensors, {costs.weights} weights, {costs.bpw:.4f} bits per weight"
        )
        terminal.show(tensors, printable(total))


def remark(terminal: Terminal, plans: Iterable[Planned], imatrix: Imatrix | None) -> None:
    """What a reader should know of each plan: fallbacks, coverage of the importance matrix, notes of the reading."""
    from gguf_forge.convert.imported import summary
    from gguf_forge.quant.budget import budget
    from gguf_forge.quant.imatrix import coverage

    said: set[str] = set()
    most = None if terminal.verbose else MOST_NAMED
    for planned in plans:
        for line in summary(planned.imports):
            terminal.note(f"{planned.type}: {line}")
        for one in planned.imports:
            error = "" if one.rmse is None else f", relative RMSE {one.rmse:.3g}"
            terminal.detail(f"{planned.type}: {one.name}: {one.method}: {one.status} as {one.kind}{error} ({one.rule})")
        names = planned.dropped if terminal.verbose else grouped(planned.dropped)
        lines = [*planned.notes, *(f"left out: {name}" for name in names)]
        lines += [f"{planned.type}: {line}" for line in budget(planned.choices).fallback_lines()]
        if imatrix is not None:
            changed = {c.name: c.shape for c in planned.choices if c.type.quantized and c.type is not c.source}
            lines += coverage(imatrix, changed).lines(most) if changed else []
        for line in lines:
            if line not in said:
                said.add(line)
                terminal.note(line)
        for c in planned.choices:
            terminal.detail(f"{planned.type}: {c.name}: {c.source} to {c.type}, {c.reason}")


def compare(terminal: Terminal, checkpoint: Path, planned: Planned, *, mistral_format: bool) -> None:
    """Where a vocabulary makes other tokens of texts than the checkpoint's own tokenizer."""
    from gguf_forge.convert.tokenizers import check_tokenizer

    for line in check_tokenizer(checkpoint, planned.metadata, mistral_format=mistral_format).lines():
        terminal.note(line)


def grouped(names: Sequence[str]) -> list[str]:
    """Few names as they are; of many, how many are alike: "62 tensors vision_tower.vision_model.*"."""
    if len(names) <= MOST_NAMED:
        return list(names)
    forms = [_NUMBER.sub("*", name) for name in names]
    if len(set(forms)) > MOST_NAMED:
        forms = [".".join([*form.split(".")[:2], "*"]) for form in forms]
    first = dict(zip(reversed(forms), reversed(names), strict=True))
    return [f"{count} tensors {form}" if count > 1 else first[form] for form, count in Counter(forms).items()]


def made(terminal: Terminal, plans: Iterable[Planned], seconds: float) -> None:
    """A line for each file written."""
    for planned in plans:
        share = "" if planned.part is None else "part {} of {} of ".format(*planned.part)
        terminal.note(
            f"{planned.path}{_and_others(planned)}: {share}{planned.type}, {size(planned.nbytes)}, "
            f"{planned.bpw:.2f} bits per weight, in {seconds:.1f} s"
        )


def _and_others(planned: Planned) -> str:
    return f" and so on, {len(planned.shards)} shards" if planned.shards else ""
