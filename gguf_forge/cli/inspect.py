"""`gguf-forge inspect`: a page about a file. Opens, asks for the summary, prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gguf_forge.cli.options import FILE
from gguf_forge.cli.tables import Table
from gguf_forge.cli.terminal import Terminal, count, size
from gguf_forge.errors import printable

if TYPE_CHECKING:
    from gguf_forge.format.reader import GGUFFile
    from gguf_forge.remote.location import Location

#: Characters of a text and elements of an array shown of a value.
SHOWN_TEXT, SHOWN_ITEMS = 160, 6


@click.command("inspect")
@click.argument("file", type=FILE)
@click.option("--tensors", is_flag=True, help="List every tensor: type, shape (last axis contiguous), size, offset.")
@click.option("--keys", metavar="GLOB", help="List the metadata keys that match, with type and value ('*': all).")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON document (--keys narrows it).")
def command(file: Path | Location, tensors: bool, keys: str | None, as_json: bool) -> None:
    """Show what a .gguf FILE, or a URL, holds (any shard of a set shows the set; alone if others are missing).

    Without options: model, size, bits per weight, a histogram of types, context, tokenizer. A type of another program
    appears by its number.
    """
    from gguf_forge.summary import document, summarize

    terminal = Terminal()
    with _opened(file, terminal) as opened:
        if as_json:
            terminal.json(document(opened, keys or "*"))
            return
        if keys is not None:
            terminal.show(_keys(opened, keys))
        if tensors:
            terminal.show(_tensors(opened))
        if keys is None and not tensors:
            terminal.show(*_page(summarize(opened)))


def _opened(file: Path | Location, terminal: Terminal) -> GGUFFile:
    """The file with its set, or, where that is not whole and sound, the one at hand."""
    from gguf_forge.errors import ForgeError
    from gguf_forge.format import reader

    try:
        return reader.open(file, unknown_types=True)
    except ForgeError as error:
        try:
            alone = reader.open(file, alone=True, unknown_types=True)
        except ForgeError:
            raise error from None
        terminal.note(f"{error}; this one is shown alone")
        return alone


def _page(found: dict[str, Any]) -> list[Any]:
    file, model, tokenizer, matrix = found["file"], found["model"], found["tokenizer"], found["imatrix"]
    facts = Table("", "~", heading=False)
    files = f" in {len(file['files'])} files" if len(file["files"]) > 1 else ""
    lines = {
        "model": _joined(model["name"], f"architecture {model['architecture']}" if model["architecture"] else None),
        "parameters": f"{count(model['parameters'])} in {file['tensors']} tensors",
        "size": f"{size(file['bytes'])}{files}, GGUF v{file['version']}, {file['endian']}-endian",
        "importance matrix": _matrix(matrix) if matrix else None,
        "data sets": _short(matrix["datasets"]) if matrix else None,
        "type": None if matrix else _joined(
            model["recipe"] or (None if model["file_type"] is None else f"file type {model['file_type']}"),
            None if model["bits_per_weight"] is None else f"{model['bits_per_weight']:.2f} bits per weight",
        ),
        "unknown types": "; ".join(
            f"{t['type']}, probably {t['probably']}" if t["probably"] else t["type"]
            for t in found["types"] if "probably" in t
        ),
        "shape": _labelled(
            model, layers="layers", embedding_length="width", feed_forward_length="feed-forward", heads="heads",
            kv_heads="key-value heads", experts="experts", experts_used="used at a time",
        ),
        "context": _short(model["context_length"]),
        "tokenizer": _joined(
            tokenizer["model"], tokenizer["pre"] and f"pre-tokenizer {tokenizer['pre']}",
            tokenizer["tokens"] and f"{tokenizer['tokens']} tokens",
        ),
        "special ids": _labelled(tokenizer, bos="bos", eos="eos", eot="eot", unknown="unk", padding="pad"),
        "chat template": ("yes" if tokenizer["chat_template"] else "no") if tokenizer["model"] else None,
        "license": _short(model["license"]),
    }  # fmt: skip
    for name, line in lines.items():
        if line:
            facts.add(name, line)
    types = Table("type", ">tensors", ">parameters", ">size", ">share", spare=("tensors", "parameters"))
    for t in found["types"]:
        share = f"{t['bytes'] / model['tensor_bytes']:.1%}" if model["tensor_bytes"] else ""
        types.add(t["type"], t["tensors"], count(t["parameters"]), _size(t["bytes"]), share)
    return [printable(file["path"]), facts, "", types]


def _size(nbytes: int | None) -> str:
    return "?" if nbytes is None else size(nbytes)


def _matrix(found: dict[str, Any]) -> str:
    return f"{found['entries']} entries, {found['chunks']} chunks of {found['chunk_size']} tokens"


def _joined(*parts: Any) -> str:
    return ", ".join(_short(part) for part in parts if part)


def _labelled(values: dict[str, Any], **labels: str) -> str:
    return ", ".join(f"{label} {_short(values[key])}" for key, label in labels.items() if values[key] is not None)


def _tensors(file: GGUFFile) -> Table:
    from gguf_forge.summary import tensor_size, type_name

    columns, spare = ["tensor", "type", ">shape", ">size", ">offset"], ["offset", "size", "shape"]
    if len(file.paths) > 1:
        columns, spare = [*columns, "file"], ["offset", "file", "size", "shape"]
    shown = Table(*columns, *(["~probably"] if file.unknown else []), spare=spare)
    for t in file.listing():
        shape = " x ".join(str(dim) for dim in t.shape) or "scalar"
        where = [t.path.name] if len(file.paths) > 1 else []
        whose = [file.unknown[t.name].probably or ""] if t.name in file.unknown else []
        shown.add(t.name, type_name(t), shape, _size(tensor_size(t)), t.offset, *where, *whose)
    return shown


def _keys(file: GGUFFile, glob: str) -> Table:
    import numpy as np

    from gguf_forge.format.layout import ValueType
    from gguf_forge.summary import matching

    shown = Table("key", "type", "~value", spare=("type",))
    for key in matching(file, glob):
        kind = file.metadata.type_of(key)
        element = file.metadata.element_type_of(key)
        name = kind.name if element is None else f"{element.name}[{file.metadata.count_of(key)}]"
        value = file.metadata[key]
        # As NumPy's float32 it has no more digits than it needs: 1e-05, not 9.999999747378752e-06.
        shown.add(key, name.lower(), str(np.float32(value)) if kind is ValueType.FLOAT32 else _short(value))
    return shown


def _short(value: Any) -> str:
    """A value on one line: long texts and arrays cut, with their length."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value if len(value) <= SHOWN_TEXT else f"{value[:SHOWN_TEXT]}... ({len(value)} characters)"
    if isinstance(value, bool) or not hasattr(value, "__len__"):
        return str(value)
    items = [repr(item)[:SHOWN_TEXT] if isinstance(item, str) else str(item) for item in value[:SHOWN_ITEMS]]
    return f"[{', '.join(items)}{', ...' if len(value) > SHOWN_ITEMS else ''}]"
