"""`gguf-forge convert`: a checkpoint folder to .gguf files. Parses, calls the package, prints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from gguf_forge.cli import plans
from gguf_forge.cli.options import OUTPUT, PATH, RECIPES, Ordered, request, shared
from gguf_forge.cli.terminal import Terminal


@click.command("convert", cls=Ordered)
@click.argument("source", type=PATH)
@click.option(
    "-o", "--outfile", type=OUTPUT,
    help="A file, a folder (made if it ends in /), or a name with {ftype}. Default: named after the model, beside it.",
)  # fmt: skip
@click.option(
    "--type", "--outtype", "types", type=RECIPES, multiple=True,
    help="Recipes or outtypes, separated by commas: several files from one reading. Default: auto.",
)  # fmt: skip
@click.option("--pre", metavar="NAME", help="The pre-tokenizer, where it is not recognised.")
@click.option("--model-name", metavar="NAME", help="The model's name in the metadata.")
@click.option("--bigendian", is_flag=True, help="For big-endian machines; F32, F16 and BF16 only.")
@shared
def command(
    source: Path, outfile: str | None, types: tuple[tuple[str, ...], ...], pre: str | None, model_name: str | None,
    bigendian: bool, quiet: bool, verbose: bool, **options: Any,
) -> None:  # fmt: skip
    """Convert the Hugging Face checkpoint in folder SOURCE to GGUF.

    A type is an outtype of convert_hf_to_gguf.py (f32, f16, bf16, q8_0, tq1_0, tq2_0, or auto: the checkpoint's own
    16-bit type), or a recipe of llama-quantize (Q4_K_M, IQ4_XS, Q8_0, ...; see `gguf-forge types`), in any case. Only
    q8_0, tq1_0 and tq2_0 mean the former in lower case and the latter in capitals: their results differ.
    """
    from gguf_forge.convert.files import convert_checkpoint

    terminal = Terminal(quiet, verbose)
    named = [name for names in types for name in names] or ["auto"]
    if "COPY" in named:
        raise click.UsageError("COPY is a type for quantize; auto keeps a checkpoint's precision")
    wanted = request(named, options)
    imatrix = wanted.load_imatrix()
    start = time.monotonic()
    with terminal.progress(source.name or str(source)) as progress:
        done = convert_checkpoint(
            source,
            outfile,
            wanted.types,
            quantization=wanted.quantization(imatrix),
            metadata=wanted.metadata,
            pre=pre,
            model_name=model_name,
            threads=wanted.threads,
            endian="big" if bigendian else "little",
            dry_run=wanted.dry_run,
            overwrite=not wanted.no_overwrite,
            progress=progress,
        )
    plans.remark(terminal, done, imatrix)
    if wanted.dry_run:
        plans.show(terminal, done)
    else:
        plans.made(terminal, done, time.monotonic() - start)
