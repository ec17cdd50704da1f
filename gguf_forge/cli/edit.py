"""`gguf-forge edit`: keys and tensors' names of a file changed. Parses, calls the package, prints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gguf_forge.cli.choosing import read_size
from gguf_forge.cli.options import PATH, STREAMABLE, Parsed, destination, speaking
from gguf_forge.cli.terminal import Terminal, size
from gguf_forge.errors import printable

if TYPE_CHECKING:
    from gguf_forge.format.values import Value

TEMPLATE = "tokenizer.chat_template"
#: The most bytes of a file that is a value.
MOST_VALUE = 256 << 20


def _value(word: str) -> tuple[str, Value]:
    from gguf_forge.convert.override import parse_override

    return parse_override(word)


def _value_of_file(word: str) -> tuple[str, Value]:
    """KEY=TYPE:PATH: the value that a file's text stands for."""
    from gguf_forge.convert.override import parse_override
    from gguf_forge.errors import RequestError

    key, _, rest = word.partition("=")
    kind, colon, path = rest.partition(":")
    if not key or not colon or not path:
        raise RequestError(f"{word!r}: expected KEY=TYPE:PATH, as tokenizer.chat_template=str:template.jinja")
    return parse_override(f"{key}={kind}:{_text(path)}")


def _template(path: str) -> tuple[str, Value]:
    from gguf_forge.format.values import string

    return TEMPLATE, string(_text(path))


def _text(path: str) -> str:
    from gguf_forge.errors import InputError
    from gguf_forge.whole.given import read_given

    try:
        return read_given(path, MOST_VALUE, "a value").decode()
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 at byte {error.start}", path=path) from None


def _pair(word: str) -> tuple[str, str]:
    from gguf_forge.errors import RequestError

    old, equals, new = word.partition("=")
    if not old or not equals or not new:
        raise RequestError(f"{word!r}: expected OLD=NEW")
    return old, new


_KEY_VALUE = Parsed("key=type:value", _value)
_PAIR = Parsed("old=new", _pair)


@click.command("edit")
@click.argument("file", type=PATH)
@click.option("-o", "--output", type=STREAMABLE, help="The file that is made, or -. [default: FILE itself is changed]")
@click.option(
    "--set", "--metadata", "sets", type=_KEY_VALUE, multiple=True, metavar="KEY=TYPE:VALUE",
    help="Set a key, new or old; TYPE: str, bool, int, float, u8 ... f64, with [] an array as JSON. Repeatable.",
)
@click.option(
    "--set-file", "files", type=Parsed("key=type:path", _value_of_file), multiple=True, metavar="KEY=TYPE:PATH",
    help="Set a key to what a file holds: a text, or a number or an array as --set takes it.",
)
@click.option(
    "--chat-template", "--chat-template-file", "templates", type=Parsed("path", _template), multiple=True,
    metavar="PATH", help="Set the chat template to the text of a file.",
)
@click.option(
    "--add", "adds", type=_KEY_VALUE, multiple=True, metavar="KEY=TYPE:VALUE", help="Set a key that is not there yet."
)
@click.option("--remove", multiple=True, metavar="GLOB", help="Remove the keys that match.")
@click.option("--rename", "renames", type=_PAIR, multiple=True, metavar="OLD=NEW", help="Rename a key.")
@click.option(
    "--rename-tensor", "tensors", type=_PAIR, multiple=True, metavar="REGEX=NEW",
    help=r"Rename the tensors whose whole name fits; \1 in NEW stands for a group.",
)
@click.option("--drop-tensor", "drops", multiple=True, metavar="GLOB", help="Leave out the tensors that match.")
@click.option(
    "--slack", type=Parsed("size", lambda word: 0 if word == "0" else read_size(word)), metavar="SIZE",
    help="Write FILE anew with so much room, so that later edits change its header only.",
)
@click.option(
    "--endian", type=click.Choice(["little", "big"]), help="Write FILE anew in this byte order, its blocks too."
)
@click.option("--recover", is_flag=True, help="Finish an edit of FILE that was cut off, and do no more.")
@click.option("--no-overwrite", is_flag=True, help="Fail where the output exists, instead of replacing it.")
@click.option("--dry-run", is_flag=True, help="Print what would change, no more.")
@click.option("--json", "as_json", is_flag=True, help="Print what changes as one JSON document.")
@speaking
def command(
    file: Path, output: str | None, recover: bool, no_overwrite: bool, dry_run: bool, as_json: bool, quiet: bool,
    verbose: bool, **given: Any,
) -> None:  # fmt: skip
    """Change the keys and the tensors' names of a .gguf FILE.

    Where the new header fits into the room of the old one, only that is written; else FILE is replaced by a new one, in
    one step. No weight changes.
    """
    from gguf_forge.cli.diff import key_document, show_keys
    from gguf_forge.whole.edit import Edits, edit_file

    terminal = Terminal(quiet, verbose)
    if recover:
        return _recover(terminal, file)
    edits = Edits(
        set=dict([*given["sets"], *given["files"], *given["templates"]]),
        add=dict(given["adds"]),
        remove=given["remove"],
        rename=dict(given["renames"]),
        rename_tensors=dict(given["tensors"]),
        drop_tensors=given["drops"],
        slack=given["slack"],
        endian=given["endian"],
    )
    if edits == Edits():
        raise click.UsageError("nothing to change: name a key or a tensor")
    start = time.monotonic()
    with terminal.progress(file.name) as progress:
        target = destination(output, as_json or dry_run)
        done = edit_file(file, target, edits, dry_run=dry_run, overwrite=not no_overwrite, progress=progress)
    how = "its header alone" if done.in_place else "written anew"
    if as_json:
        terminal.json(
            {
                "path": str(done.path),
                "in_place": done.in_place,
                "bytes": done.nbytes,
                "keys": [key_document(key) for key in done.keys],
                "tensors": [{"old": old, "new": new} for old, new in done.tensors.items()],
            }
        )
    elif dry_run:
        show_keys(terminal, done.keys)
        lines = [f"tensor {old}: {'left out' if new is None else new}" for old, new in done.tensors.items()]
        terminal.show(*(printable(line) for line in [*lines, f"{done.path}: {how}, {size(done.nbytes)}"]))
    if not dry_run:
        terminal.note(f"{done.path}: {how}, {size(done.nbytes)}, in {time.monotonic() - start:.1f} s")
    return None


def _recover(terminal: Terminal, file: Path) -> None:
    from gguf_forge.whole.inplace import recover

    terminal.note(f"{file}: {'the edit is finished' if recover(file) else 'no edit was cut off'}")
