"""`gguf-forge quantize`: a .gguf file to one of another type. Parses, calls the package, prints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from gguf_forge.cli import plans
from gguf_forge.cli.options import RECIPES, Ordered, recipe_name, request, shared
from gguf_forge.cli.terminal import Terminal


@click.command("quantize", cls=Ordered)
@click.argument("source", metavar="IN.gguf", type=click.Path(path_type=Path))
@click.argument("words", metavar="[OUT.gguf] [TYPE]", nargs=-1)
@click.option("--type", "--outtype", "types", type=RECIPES, help="The recipe, or COPY to keep all types.")
@click.option("--allow-requantize", is_flag=True, help="Quantize tensors again that are quantized already.")
@shared
def command(
    source: Path, words: tuple[str, ...], types: tuple[str, ...] | None, allow_requantize: bool,
    quiet: bool, verbose: bool, **options: Any,
) -> None:  # fmt: skip
    """Quantize IN.gguf (F32, F16 or BF16; any shard of a set) with a recipe.

    The type may follow the files, as llama-quantize takes it. Without OUT.gguf the result is ggml-model-TYPE.gguf in
    the folder of the input.
    """
    from gguf_forge.convert.files import quantize_file

    terminal = Terminal(quiet, verbose)
    output, name = _output_and_type(source, words, types)
    wanted = request([name], options)
    imatrix = wanted.load_imatrix()
    start = time.monotonic()
    with terminal.progress(source.name) as progress:
        done = quantize_file(
            source,
            output,
            name,
            quantization=wanted.quantization(imatrix),
            metadata=wanted.metadata,
            allow_requantize=allow_requantize,
            threads=wanted.threads,
            dry_run=wanted.dry_run,
            overwrite=not wanted.no_overwrite,
            progress=progress,
        )
    plans.remark(terminal, [done], imatrix)
    if wanted.dry_run:
        plans.show(terminal, [done])
    else:
        plans.made(terminal, [done], time.monotonic() - start)


def _output_and_type(source: Path, words: tuple[str, ...], types: tuple[str, ...] | None) -> tuple[Path, str]:
    """The output's path and the recipe, from the words after the input and --type."""
    from gguf_forge.errors import RecipeError

    given = list(words)
    if types is None:
        if not given:
            raise click.UsageError("no type given: IN.gguf [OUT.gguf] TYPE, or --type TYPE")
        try:
            types = (recipe_name(given.pop()),)
        except RecipeError as error:
            raise click.UsageError(f"the last word is no type, and --type is not given: {error}") from None
    if len(types) != 1:
        raise click.UsageError("one type at a time")
    if len(given) > 1:
        raise click.UsageError(f"one output at a time, found {' '.join(given)}")
    name = types[0] if types[0] == "COPY" else types[0].upper()
    if name == "AUTO":
        raise click.UsageError("auto is a type for convert")
    return Path(given[0]) if given else source.with_name(f"ggml-model-{name}.gguf"), name
