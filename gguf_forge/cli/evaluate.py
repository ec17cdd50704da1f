"""`gguf-forge evaluate`: models judged on a text. Parses, calls the package, prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gguf_forge.cli.options import OUTPUT, PATH, speaking
from gguf_forge.cli.tables import Table
from gguf_forge.cli.terminal import Terminal
from gguf_forge.system import processors

if TYPE_CHECKING:
    from gguf_forge.quality.evaluate import Evaluation

POSITIVE = click.IntRange(min=1)


@click.command("evaluate")
@click.argument("files", metavar="FILE...", type=PATH, nargs=-1, required=True)
@click.option("--against", metavar="BASE", type=PATH, help="The model that they are judged beside, F16 or such.")
@click.option("-f", "--text", "--file", "texts", type=PATH, multiple=True, required=True, help="A text; repeatable.")
@click.option(
    "-c",
    "--context",
    "--ctx-size",
    type=click.IntRange(min=4),
    default=512,
    show_default=True,
    help="Tokens of a window; its second half is judged.",
)
@click.option("--chunks", type=POSITIVE, help="Windows at most.  [default: all]")
@click.option(
    "--base-logits",
    "--kl-divergence-base",
    type=PATH,
    help="A file that keeps BASE's logits for the next time, as llama-perplexity does.",
)
@click.option("-p", "--prompt", "prompts", multiple=True, help="A text that each model continues; repeatable.")
@click.option("-n", "--predict", type=POSITIVE, default=64, show_default=True, help="Tokens of an answer at most.")
@click.option("--html", "page", type=OUTPUT, help="Write one page with the table, plots and answers.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "-t", "--threads", type=POSITIVE, default=processors, show_default="all cores", help="Threads that compute."
)
@click.option(
    "-ngl",
    "--gpu-layers",
    type=int,
    default=0,
    show_default=True,
    help="Layers that a GPU computes, -1 for all, if the library can.",
)
@speaking
def command(
    files: tuple[Path, ...], against: Path | None, texts: tuple[Path, ...], context: int, chunks: int | None,
    base_logits: Path | None, prompts: tuple[str, ...], predict: int, page: str | None, as_json: bool, threads: int,
    gpu_layers: int, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Judge GGUF files on a text: perplexity and, beside BASE, divergence, agreement and differences of probability.

    Figures are llama-perplexity's. Running a model needs gguf-forge[run].
    """
    from gguf_forge.quality import evaluate as quality

    if base_logits is not None and against is None:
        raise click.UsageError("--base-logits are those of --against, which is not given")
    terminal = Terminal(quiet, verbose)
    task = quality.EvaluationTask(texts, context, chunks, threads, gpu_layers, prompts, predict)
    with terminal.progress("windows", "windows") as progress:
        found = quality.evaluate(files, task, against=against, base_logits=base_logits, told=progress)
    if found.unsure:
        terminal.note(f"{base_logits}: does not say which model it is of; taken for {against}")
    elif found.reused:
        terminal.detail(f"{base_logits}: used again")
    if page is not None:
        _write(page, found)
        terminal.note(f"{page}: the page")
    if as_json:
        from gguf_forge.quality.report import document

        terminal.json(document(found))
        return
    terminal.show(_table(found), *_answers(found))


def _write(path: str, found: Evaluation) -> None:
    from gguf_forge.format.atomic import AtomicFile
    from gguf_forge.quality.html import page

    data = page(found).encode("utf-8")
    file = AtomicFile(path, len(data))
    try:
        file.write_at(data, 0)
        file.seal()
        file.publish()
    except BaseException:
        file.discard()
        raise


def _table(found: Evaluation) -> Table:
    from gguf_forge.quality.report import headings, rows

    names = [name if name in ("file", "type") else f">{name}" for name in headings(found)]
    spare = [name for name in ("RMS dp", "median", "bits", "99.9 %", "type") if name in headings(found)]
    shown = Table(*names, spare=spare)
    for row in rows(found):
        shown.add(*row)
    return shown


def _answers(found: Evaluation) -> list[Table | str]:
    pages: list[Table | str] = []
    for i, prompt in enumerate(found.task.prompts):
        shown = Table("file", ">as the base", "~answer")
        for verdict in [*([found.base] if found.base is not None else []), *found.models]:
            answer = verdict.answers[i]
            equal = "" if answer.equal is None else f"{answer.equal} of {len(answer.tokens)}"
            shown.add(verdict.path.name, equal, answer.text)
        pages += ["", f"after {prompt!r}:", shown]
    return pages
