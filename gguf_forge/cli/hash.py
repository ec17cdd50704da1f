"""`gguf-forge hash`: hashes of a file's tensors, as llama-gguf-hash prints them. Parses, calls the package, prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gguf_forge.cli.options import FILE, PATH, speaking
from gguf_forge.cli.terminal import Terminal

if TYPE_CHECKING:
    from gguf_forge.remote.location import Location
    from gguf_forge.whole.hashing import FileHashes, Verdict

#: The exit code where a hash is not the manifest's.
DIFFERS = 1


@click.command("hash")
@click.argument("file", type=FILE)
@click.option("--xxh64", is_flag=True, help="The fastest; needs gguf-forge[hash].")
@click.option("--sha1", is_flag=True)
@click.option("--sha256", is_flag=True, help="The default.")
@click.option("--all", "every", is_flag=True, help="All three.")
@click.option("--uuid", is_flag=True, help="llama.cpp's UUID of a model's weights.")
@click.option("--no-layer", "--no-tensors", "no_layer", is_flag=True, help="Of all tensors together only.")
@click.option("-c", "--check", "manifest", type=PATH, help="Compare with a file of such lines, of either program.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@speaking
def command(
    file: Path | Location, every: bool, no_layer: bool, manifest: Path | None, as_json: bool, quiet: bool,
    verbose: bool, **named: bool,
) -> None:  # fmt: skip
    """Hash the tensors of FILE or URL, each and all together, whatever its metadata (of a set: as of the merged file).

    With --check the exit code is 0 where FILE is what the manifest tells of, and 1 where it is not; hashes that are not
    asked for by name are then the manifest's strongest.
    """
    from gguf_forge.whole.hashing import ALGORITHMS, Manifest, hash_file, holds

    terminal = Terminal(quiet, verbose)
    wanted = [name for name, given in named.items() if given or (every and name in ALGORITHMS)]
    known = None if manifest is None else Manifest.read(manifest)
    if not wanted:
        wanted = ["sha256"] if known is None else known.algorithms[:1]
    with terminal.progress(file.name) as progress:
        found = hash_file(file, wanted, tensors=not no_layer, progress=progress)
    verdicts = [] if known is None else known.check(found)
    if as_json:
        terminal.json(_document(found, None if known is None else verdicts))
    elif known is None:
        terminal.lines(_line(*line) for line in found.lines())
    else:
        terminal.lines(_checked(file, verdict) for verdict in verdicts if not quiet or not verdict.same)
    if known is not None:
        same = holds(verdicts)
        terminal.note(f"{file}: {'is' if same else 'is not'} what {manifest} tells of")
        if not same:
            raise click.exceptions.Exit(DIFFERS)


def _line(algorithm: str, digest: str, name: str) -> str:
    return f"{algorithm:<8}  {digest}  {name}"


def _checked(file: Path | Location, verdict: Verdict) -> str:
    said = {True: "Ok", False: "Mismatch", None: "Not Found"}[verdict.same]
    name = f"{file}:{verdict.name}" if verdict.name else str(file)
    return f"{_line(verdict.algorithm, verdict.hash or '-', name)}  -  {said}"


def _document(found: FileHashes, verdicts: list[Verdict] | None) -> dict[str, Any]:
    from gguf_forge.whole.hashing import holds

    document: dict[str, Any] = {
        "path": str(found.path),
        "whole": dict(found.whole),
        "tensors": [{"name": name, **hashes} for name, hashes in found.tensors.items()],
    }
    if verdicts is not None:
        document["check"] = {
            "holds": holds(verdicts),
            "hashes": [
                {"algorithm": v.algorithm, "hash": v.hash or None, "tensor": v.name or None, "same": v.same}
                for v in verdicts
            ],
        }
    return document
