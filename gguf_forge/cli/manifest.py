"""`gguf-forge manifest`: what a file is made of, for others to check again. Parses, calls the package, prints."""

from __future__ import annotations

from pathlib import Path

import click

from gguf_forge.cli.options import PATH
from gguf_forge.cli.terminal import Terminal
from gguf_forge.system import processors

#: The forms of a statement.
FORMS = ("slsa", "model-signing")
#: The exit code where something is not as the statement says.
DIFFERS = 1


@click.command("manifest")
@click.argument("file", type=PATH)
@click.option("--against", type=PATH, metavar="SOURCE", help="The checkpoint's folder, or GGUF file, it was made from.")
@click.option("--imatrix", type=PATH, help="The importance matrix that the file was made with.")
@click.option(
    "--form", type=click.Choice(FORMS), default="slsa", show_default=True,
    help="The statement's predicate: SLSA's provenance, or that of OpenSSF's model signing.",
)
@click.option("-c", "--check", "stated", type=PATH, metavar="MANIFEST", help="Check FILE against such a statement.")
@click.option("-t", "--threads", type=click.IntRange(min=1), default=processors, show_default="all cores")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    file: Path, against: Path | None, imatrix: Path | None, form: str, stated: Path | None, threads: int, quiet: bool
) -> None:
    """State the SHA-256 of FILE (all of a set), its tensors, and its SOURCE's files, as an in-toto statement in JSON.

    With --against the file is verified, as `verify` does, and the statement says what came of it. With --check the exit
    code is 0 where all is as a statement says, and 1 where it is not.
    """
    from gguf_forge.whole.provenance import check_manifest, manifest, read_manifest

    terminal = Terminal(quiet)
    if stated is None:
        with terminal.progress(file.name) as progress:
            made = manifest(
                file, against=against, imatrix=imatrix, form=form, threads=threads, progress=progress
            )
        terminal.json(made)
        return
    found = check_manifest(read_manifest(stated), file, against=against, imatrix=imatrix)
    terminal.show(*(f"{finding.severity}: {finding}" for finding in found))
    same = not any(finding.severity == "error" for finding in found)
    terminal.note(f"{file}: {'is' if same else 'is not'} what {stated} states")
    if not same:
        click.get_current_context().exit(DIFFERS)
