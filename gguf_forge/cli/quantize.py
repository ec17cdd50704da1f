"""`gguf-forge quantize`: a .gguf file to one of another type. Parses, calls the package, prints."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from gguf_forge.cli import plans
from gguf_forge.cli.choosing import Asked, choosing
from gguf_forge.cli.options import LAYERS, PATH, RECIPES, STREAMABLE, Ordered, destination, recipe_name, request, shared
from gguf_forge.cli.shards import splitting, taken
from gguf_forge.cli.terminal import Terminal

#: Stands for the recipe until types are chosen.
CHOSEN = "Q4_K_M"


@click.command("quantize", cls=Ordered)
@click.argument("source", metavar="IN.gguf", type=PATH)
@click.argument("words", metavar="[OUT.gguf] [TYPE [THREADS]]", nargs=-1)
@click.option("--type", "--outtype", "types", type=RECIPES, help="The recipe, or COPY to keep all types.")
@click.option("--allow-requantize", is_flag=True, help="Quantize tensors again that are quantized already.")
@splitting
@click.option(
    "--prune-layers", type=LAYERS, default=(), metavar="N,N-N,...",
    help="Leave these layers out (they count from 0) and renumber the others.",
)
@click.option(
    "--endian", type=click.Choice(["little", "big"]), default="little", show_default=True,
    help="The byte order of what is written, within blocks too.",
)
@click.option("--keep-split", is_flag=True, help="Write the shards that the input has.")
@choosing
@shared
def command(
    source: Path, words: tuple[str, ...], types: tuple[str, ...] | None, allow_requantize: bool,
    prune_layers: tuple[int, ...], endian: str, keep_split: bool, quiet: bool, verbose: bool, **options: Any,
) -> None:  # fmt: skip
    """Quantize IN.gguf (F32, F16 or BF16; any shard of a set) with a recipe.

    The type may follow the files, and a number of threads the type, as llama-quantize takes them. Without OUT.gguf the
    result is ggml-model-TYPE.gguf in the folder of the input; so it is in OUT where that is a folder, or ends in / and
    is made. Without a type, a size, a memory or a quality (--target-size, --target-bpw, --fit, --quality) chooses one
    for each tensor.
    """
    from gguf_forge.convert.files import quantize_file

    terminal = Terminal(quiet, verbose)
    words, threads = _without_threads(words) if types is None else (words, None)
    asked, cut = Asked.take(options, types), taken(options, keep=keep_split)
    output, name = _output_and_type(source, words, types, chooses=asked.chooses)
    dry_run = bool(options.get("dry_run"))
    to = (destination(output, dry_run) if isinstance(output, str) else output) or output
    wanted = request([name], options if threads is None else {**options, "threads": threads})
    imatrix, calibration = wanted.statistics()
    how = wanted.quantization(source, imatrix, calibration)
    make = partial(
        quantize_file,
        source,
        to,
        metadata=wanted.metadata,
        allow_requantize=allow_requantize,
        prune_layers=prune_layers,
        endian=endian,
        threads=wanted.threads,
    )
    if asked.chooses and prune_layers:
        raise click.UsageError("types are chosen for a whole model: prune it with COPY first, then choose")
    if asked.chooses:
        plan = partial(make, quantization=how, dry_run=True)
        name, types_chosen = asked.chosen(source, plan, how, wanted.threads)
        how = replace(how, overrides=(*how.overrides, *types_chosen))
    start = time.monotonic()
    with terminal.progress(source.name) as progress:
        done = make(
            name,
            quantization=how,
            splitting=cut,
            progress=progress,
            **wanted.running(),
        )
    plans.remark(terminal, [done], imatrix)
    if wanted.dry_run:
        plans.show(terminal, [done])
    else:
        plans.made(terminal, [done], time.monotonic() - start)


def _without_threads(words: tuple[str, ...]) -> tuple[tuple[str, ...], int | None]:
    """The words before the number of threads, and that number: a last word of digits after a type."""
    from gguf_forge.errors import RecipeError

    if len(words) < 2 or not words[-1].isdecimal():
        return words, None
    try:
        recipe_name(words[-2])
    except RecipeError:
        return words, None
    if int(words[-1]) < 1:
        raise click.UsageError(f"{words[-1]} threads: at least one is needed")
    if click.get_current_context().get_parameter_source("threads") is not ParameterSource.DEFAULT:
        raise click.UsageError(f"--threads is given, and {words[-1]} after the type as well")
    return words[:-1], int(words[-1])


def _output_and_type(
    source: Path, words: tuple[str, ...], types: tuple[str, ...] | None, *, chooses: bool
) -> tuple[Path | str, str]:
    """The output's path and the recipe, from the words after the input and --type; none where one is chosen."""
    from gguf_forge.errors import RecipeError

    given = list(words)
    if chooses:
        types = (CHOSEN,)
    elif types is None:
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
    return STREAMABLE.convert(given[0], None, None) if given else source.parent, name
