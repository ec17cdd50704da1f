"""`gguf-forge convert`: a checkpoint folder to .gguf files. Parses, calls the package, prints."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gguf_forge.cli import plans
from gguf_forge.cli.choosing import Asked, choosing
from gguf_forge.cli.options import PATH, RECIPES, STREAMABLE, Ordered, destination, request, shared
from gguf_forge.cli.shards import splitting, taken
from gguf_forge.cli.terminal import Terminal

if TYPE_CHECKING:
    from gguf_forge.convert.facts import Options

#: The options that say which parts of a checkpoint are converted, and how they are put together.
PARTS: tuple[str, ...] = ("mtp", "no_mtp", "dspark", "disable_mistral_community_chat_template")
PARTS += ("sentence_transformers_dense_modules", "fuse_gate_up_exps", "fuse_qkv", "vocab_only")


@click.command("convert", cls=Ordered)
@click.argument("source", type=PATH)
@click.option(
    "-o", "--outfile", type=STREAMABLE,
    help="A file, a folder (made if it ends in /), a name with {ftype}, or -. Default: after the model, beside it.",
)  # fmt: skip
@click.option(
    "--type", "--outtype", "types", type=RECIPES, multiple=True,
    help="Recipes or outtypes, separated by commas: several files from one reading. Default: auto.",
)  # fmt: skip
@click.option("--pre", metavar="NAME", help="The pre-tokenizer, where it is not recognised.")
@click.option("--model-name", metavar="NAME", help="The model's name in the metadata.")
@click.option("--vocab-only", is_flag=True, help="Metadata and vocabulary, no tensors.")
@click.option("--mtp", is_flag=True, help="Only the layers that predict further tokens, as a draft model of their own.")
@click.option("--no-mtp", "--no-nextn", is_flag=True, help="Leave out the layers that predict further tokens.")
@click.option("--dspark", is_flag=True, help="The DSpark draft model of a DeepSeek-V4 checkpoint.")
@click.option(
    "--merge-into", type=PATH, metavar="FOLDER", help="SOURCE is a LoRA adapter: merge it into this model first."
)
@click.option(
    "--target-model-dir", type=PATH, metavar="FOLDER", help="The model that a draft model (EAGLE-3, DFlash) serves."
)
@click.option("--mistral-format", is_flag=True, help="The folder is in Mistral's own layout (params.json).")
@click.option(
    "--disable-mistral-community-chat-template", is_flag=True, help="No chat template of Mistral's community."
)
@click.option(
    "--sentence-transformers-dense-modules", is_flag=True, help="Keep the dense layers after an embedding's pooling."
)
@click.option("--fuse-gate-up-exps", is_flag=True, help="One tensor for the experts' gate and up projections.")
@click.option("--fuse-qkv", is_flag=True, help="One tensor for queries, keys and values.")
@click.option("--arch", metavar="NAME", help="The architecture to try, where the class in config.json is unknown.")
@click.option("--allow-unused", multiple=True, metavar="REGEX", help="Leave out tensors that no rule uses; repeatable.")
@click.option(
    "--check-tokenizer", is_flag=True, help="Say where the written vocabulary makes other tokens than the checkpoint's."
)
@click.option(
    "--prefer", type=click.Choice(["exact", "small"]), default="exact", show_default=True,
    help="For weights that another tool quantized: the smallest type that holds them exactly, or one still smaller, "
    "in which scales or minima are rounded.",
)  # fmt: skip
@click.option(
    "--require", type=click.Choice(["lossless", "code-exact"]),
    help="Fail where a weight that another tool quantized is held less well.",
)  # fmt: skip
@click.option(
    "--requantize", is_flag=True, help="Quantize by the recipe what another tool had quantized, from its values."
)
@click.option(
    "--detect-grid", is_flag=True,
    help="Look for weights that were quantized once and stored as floats (QAT, dequantized), and keep their grid.",
)  # fmt: skip
@click.option("--bigendian", is_flag=True, help="For big-endian machines: numbers within blocks are swapped, too.")
@splitting
@choosing
@shared
def command(
    source: Path, outfile: str | None, types: tuple[tuple[str, ...], ...], pre: str | None, model_name: str | None,
    bigendian: bool, mistral_format: bool, merge_into: Path | None, target_model_dir: Path | None, arch: str | None,
    allow_unused: tuple[str, ...], check_tokenizer: bool, quiet: bool, verbose: bool, **options: Any,
) -> None:  # fmt: skip
    """Convert the Hugging Face checkpoint in folder SOURCE to GGUF.

    A type is an outtype of convert_hf_to_gguf.py (f32, f16, bf16, q8_0, tq1_0, tq2_0, or auto: the checkpoint's own
    16-bit type), or a recipe of llama-quantize (Q4_K_M, IQ4_XS, Q8_0, ...; see `gguf-forge types`), in any case. Only
    q8_0, tq1_0 and tq2_0 mean the former in lower case and the latter in capitals: their results differ. Instead of a
    type, a size, a memory or a quality (--target-size, --target-bpw, --fit, --quality) chooses one for each tensor.
    """
    from gguf_forge.convert.files import convert_checkpoint

    terminal = Terminal(quiet, verbose)
    asked = Asked.take(options, types)
    named = [name for names in types for name in names] or ["auto"]
    if "COPY" in named:
        raise click.UsageError("COPY is a type for quantize; auto keeps a checkpoint's precision")
    cut = taken(options)
    parts = _parts(options, mistral_format=mistral_format, base=merge_into, target=target_model_dir)
    wanted = request(named, options)
    imatrix, calibration = wanted.statistics()
    make = partial(
        convert_checkpoint,
        source,
        destination(outfile, bool(options.get("dry_run")) or check_tokenizer),
        metadata=wanted.metadata,
        pre=pre,
        model_name=model_name,
        options=parts,
        arch=arch,
        allow_unused=allow_unused,
        threads=wanted.threads,
        endian="big" if bigendian else "little",
    )
    kinds, how = wanted.types, wanted.quantization(source, imatrix, calibration)
    if asked.chooses:
        probe = partial(make, quantization=how, dry_run=True)
        name, chosen = asked.chosen(source, lambda recipe: probe(types=recipe)[0], how, wanted.threads)
        kinds, how = (name,), replace(how, overrides=(*how.overrides, *chosen))
    start = time.monotonic()
    with terminal.progress(source.name or str(source)) as progress:
        done = make(
            types=kinds,
            quantization=how,
            splitting=cut,
            progress=progress,
            **wanted.running(),
        )
    plans.remark(terminal, done, imatrix)
    if check_tokenizer:
        plans.compare(terminal, target_model_dir or merge_into or source, done[0], mistral_format=mistral_format)
    if wanted.dry_run:
        plans.show(terminal, done)
    else:
        plans.made(terminal, done, time.monotonic() - start)


def _parts(options: dict[str, Any], **more: Any) -> Options:
    """What of a checkpoint is converted, taken out of `options`. click.UsageError for what excludes each other."""
    from gguf_forge.convert.facts import Options

    given = {name: options.pop(name) for name in PARTS}
    if given["mtp"] + given["no_mtp"] + given["dspark"] > 1:
        raise click.UsageError("--mtp, --no-mtp and --dspark exclude each other")
    return Options(
        mtp="only" if given["mtp"] else "drop" if given["no_mtp"] else "keep",
        draft=given["dspark"],
        community_template=not given["disable_mistral_community_chat_template"],
        dense_modules=given["sentence_transformers_dense_modules"],
        fuse_gate_up=given["fuse_gate_up_exps"],
        fuse_qkv=given["fuse_qkv"],
        vocab_only=given["vocab_only"],
        **more,
    )
