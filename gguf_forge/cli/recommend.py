"""`gguf-forge recommend`: what a model costs in which size, and which to take. Parses, calls the package, prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gguf_forge.cli.choosing import Asked, read_size, using
from gguf_forge.cli.options import PATH, Parsed, speaking
from gguf_forge.cli.tables import Table
from gguf_forge.cli.terminal import Terminal, size
from gguf_forge.system import processors

if TYPE_CHECKING:
    from gguf_forge.convert.files import Planned
    from gguf_forge.quality.choose import Choices, Row
    from gguf_forge.quality.memory import Use

#: What a predicted divergence means to a reader, by the word that allows it.
WORDS = {"max": "as the original", "balanced": "good", "small": "usable", None: "poor"}


@click.command("recommend")
@click.argument("source", metavar="MODEL.gguf|CHECKPOINT", type=PATH)
@click.option("--memory", "fit", type=Parsed("size", read_size), help="Memory that there is, such as 8GiB.")
@using
@click.option("--imatrix", type=PATH, help="Importance matrix; with one, more types are on offer.")
@click.option("--calibration", type=PATH, help="Judge types by outputs on the inputs in this file of `calibrate`.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--threads", type=click.IntRange(min=1), default=processors, show_default="all cores", help="Threads.")
@speaking
def command(
    source: Path,
    imatrix: Path | None,
    calibration: Path | None,
    as_json: bool,
    threads: int,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Show what MODEL.gguf (F32, F16 or BF16) or a checkpoint costs in each size, and suggest one.

    Quality is the predicted divergence of the answers from the original's (mean KL, in nats a token), of the recipe and
    of types chosen for each tensor within the same bytes. Without --calibration and --judge-text it rests on usual
    values and is rough. Memory is that of the weights and the context, exactly, and an estimate of the working memory.
    """
    from gguf_forge.convert.files import convert_checkpoint, quantize_file
    from gguf_forge.convert.job import Quantization
    from gguf_forge.quant.calibration import Calibration
    from gguf_forge.quant.imatrix import load_imatrix

    asked = Asked.take(options)
    known = None if calibration is None else Calibration.open(calibration)
    how = Quantization(imatrix=None if imatrix is None else load_imatrix(imatrix), calibration=known)

    def plan(recipe: str) -> Planned:
        if source.is_dir():
            return convert_checkpoint(source, None, recipe, quantization=how, dry_run=True)[0]
        return quantize_file(source, source.parent / "x.gguf", recipe, quantization=how, dry_run=True)

    terminal = Terminal(quiet, verbose)
    found = asked.choices(source, plan, how, threads)
    rows = found.rows()
    taken = suggestion(found, rows, asked)
    if as_json:
        click.echo(json.dumps(report(found, rows, taken, asked), indent=1))
    else:
        _show(terminal, found, rows, taken, asked)


def suggestion(found: Choices, rows: list[Row], asked: Asked) -> Row | None:
    """The largest that fits the memory; without a memory the smallest that is good, else the best."""
    from gguf_forge.quality.choose import QUALITIES

    if asked.fit is not None:
        fitting = [row for row in rows if found.memory(row.nbytes, asked.use) <= asked.fit]
        return fitting[-1] if fitting else None
    return next((row for row in rows if row.chosen <= QUALITIES["balanced"]), rows[-1] if rows else None)


def report(found: Choices, rows: list[Row], taken: Row | None, asked: Asked) -> dict[str, Any]:
    """What --json prints."""
    use: Use = asked.use
    kept = found.cache(use)
    return {
        "context": use.context,
        "cache": {"type": str(use.key_type), "bytes": kept.nbytes, **kept.by_kind()},
        "working_bytes_estimate": found.working(use),
        "rows": [
            {
                "size_of": row.name,
                "bytes": row.nbytes,
                "bits_per_weight": round(row.bpw, 4),
                "memory": found.memory(row.nbytes, use),
                "divergence_of_recipe": row.expected,
                "divergence_chosen": row.chosen,
            }
            for row in rows
        ],
        "suggested": None if taken is None else {"size_of": taken.name, "target_size": taken.nbytes},
    }


def _show(terminal: Terminal, found: Choices, rows: list[Row], taken: Row | None, asked: Asked) -> None:
    use = asked.use
    table = Table(
        "size of", ">file", ">bits", ">memory", ">KL recipe", ">KL chosen", "quality", spare=("quality", "bits")
    )
    for row in rows:
        expected = "-" if row.expected is None else f"{row.expected:.4f}"
        memory = size(found.memory(row.nbytes, use))
        table.add(row.name, size(row.nbytes), f"{row.bpw:.2f}", memory, expected, f"{row.chosen:.4f}", _word(row))
    kinds = ", ".join(f"{kind} {size(count)}" for kind, count in found.cache(use).by_kind().items()) or "nothing kept"
    said = (
        f"context of {use.context} tokens in {use.key_type}: {kinds}; working memory about {size(found.working(use))}"
    )
    if taken is None:
        terminal.show(table, said + "\nnone of these fits: less --context or a smaller --kv-type lowers the need")
    else:
        terminal.show(
            table, said + f"\nsuggested: --target-size {taken.nbytes} ({_word(taken)}, types as {taken.name})"
        )


def _word(row: Row) -> str:
    from gguf_forge.quality.choose import QUALITIES

    return WORDS[next((word for word, most in QUALITIES.items() if row.chosen <= most), None)]
