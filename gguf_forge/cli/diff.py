"""`gguf-forge diff`: where two files differ. Parses, calls the package, prints.

Exit codes as of diff: 0 nothing differs, 1 something does, 2 trouble.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gguf_forge.cli.options import FILE, speaking
from gguf_forge.cli.tables import Table
from gguf_forge.cli.terminal import Terminal, say, size
from gguf_forge.errors import ForgeError, printable

if TYPE_CHECKING:
    from gguf_forge.format.reader import Tensor, UnknownTensor
    from gguf_forge.format.values import Value
    from gguf_forge.remote.location import Location
    from gguf_forge.whole.diff import Differences, KeyDifference, TensorDifference

DIFFERENT, TROUBLE = 1, 2
#: Characters of a value that are shown, lines of a text's differences, and elements of an array that JSON has in full.
SHOWN, MOST_LINES, MOST_ELEMENTS = 100, 60, 256
#: Lines of a text beyond which its differences are not looked for.
LONG_TEXT = 5000


@click.command("diff")
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--headers", is_flag=True, help="Compare keys, names, shapes and types only; read no tensor's bytes.")
@click.option("--data", is_flag=True, help="Say how far values are apart, of tensors of different types too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@speaking
def command(
    a: Path | Location, b: Path | Location, headers: bool, data: bool, as_json: bool, quiet: bool, verbose: bool
) -> None:
    """Show where the models in A and B differ: keys, tokenizer, chat template, tensors by shape, type and bytes.

    How files are laid out does not count: shards, padding, the order of keys and tensors. The exit code is 0 where
    nothing differs, 1 where something does, 2 where a file cannot be read.
    """
    from gguf_forge.whole.diff import diff_files

    if headers and data:
        raise click.UsageError("--headers reads no data")
    terminal = Terminal(quiet, verbose)
    try:
        with terminal.progress(f"{a.name}, {b.name}") as progress:
            found = diff_files(a, b, headers_only=headers, values=data, progress=progress)
        if as_json:
            terminal.json(_document(a, b, found))
        elif not found.same:
            _show(terminal, a, b, found)
    except ForgeError as error:
        say(f"gguf-forge: {printable(str(error))}")
        raise click.exceptions.Exit(TROUBLE) from None
    for what, same in found.same_order.items():
        if not same:
            terminal.detail(f"{what} are in another order")
    if not found.same:
        raise click.exceptions.Exit(DIFFERENT)


def _show(terminal: Terminal, a: Path | Location, b: Path | Location, found: Differences) -> None:
    terminal.show(printable(f"- {a}"), printable(f"+ {b}"))
    if found.endian is not None:
        terminal.show(f"byte order: {found.endian[0]}, {found.endian[1]}")
    show_keys(terminal, found.keys)
    if found.tensors:
        tensors = Table("tensor", "", "type", ">shape", ">size", "~differs in", spare=("size",))
        for tensor in found.tensors:
            sides = [_facts(one) for one in (tensor.old, tensor.new) if one is not None]
            sign = "-" if tensor.new is None else "+" if tensor.old is None else ""
            facts = (" -> ".join(dict.fromkeys(fact)) for fact in zip(*sides, strict=True))
            tensors.add(tensor.name, sign, *facts, _what(tensor))
        terminal.show("", tensors)


def show_keys(terminal: Terminal, keys: Sequence[KeyDifference]) -> None:
    """Keys that differ: a table, and the lines of texts of several lines."""
    if keys:
        table = Table("key", "", "type", "~value", spare=("type",))
        for key in keys:
            for sign, value in (("-", key.old), ("+", key.new)):
                if value is not None:
                    table.add(key.key, sign, _type(value), _value(value, key))
        terminal.show("", table)
    for key in keys:
        lines = _text_lines(key)
        if lines:
            terminal.show("", printable(f"{key.key}:"), *(printable(line) for line in lines))


def _type(value: Value) -> str:
    return (value.type.name if value.element is None else f"{value.element.name}[{len(value.value)}]").lower()


def _value(value: Value, key: KeyDifference) -> str:
    if value.element is None:
        import numpy as np

        # As NumPy's float32 it has no more digits than it needs.
        text = str(np.float32(value.value) if value.type.name == "FLOAT32" else value.value)
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"
    where = key.elements
    at = 0 if where is None else where[1]
    items = [str(item)[:SHOWN] for item in value.value[at : at + 3]]
    number = "" if where is None else f"{where[0]} differ, from number {at} on: "
    return f"{number}{', '.join(items)}{', ...' if len(value.value) > at + 3 else ''}"


def _text_lines(key: KeyDifference) -> list[str]:
    """Where texts of several lines differ, as diff -u shows it."""
    from difflib import unified_diff

    if key.old is None or key.new is None or not all(isinstance(v.value, str) for v in (key.old, key.new)):
        return []
    old, new = key.old.value.splitlines(), key.new.value.splitlines()
    if max(len(old), len(new)) < 2 or max(len(old), len(new)) > LONG_TEXT:
        return []
    lines = [*unified_diff(old, new, n=1, lineterm="")][2:]
    return lines if len(lines) <= MOST_LINES else [*lines[:MOST_LINES], f"({len(lines) - MOST_LINES} more lines)"]


def _facts(tensor: Tensor | UnknownTensor) -> tuple[str, str, str]:
    from gguf_forge.summary import tensor_size, type_name

    nbytes = tensor_size(tensor)
    shape = " x ".join(str(dim) for dim in tensor.shape) or "scalar"
    return type_name(tensor), shape, "?" if nbytes is None else size(nbytes)


def _what(tensor: TensorDifference) -> str:
    if tensor.old is None or tensor.new is None:
        return "only here"
    words = ", ".join(tensor.differs)
    if tensor.first_byte is not None:
        words += f" from byte {tensor.first_byte} on"
    if tensor.values is not None:
        far = tensor.values
        words += f": relative RMSE {far.relative:.3g}, RMSE {far.rmse:.3g}, largest {far.largest:.3g}"
        words += f", {far.nonfinite} not finite" if far.nonfinite else ""
    return "; ".join(part for part in (words, f"not compared: {tensor.why}" if tensor.why else "") if part)


def _document(a: Path | Location, b: Path | Location, found: Differences) -> dict[str, Any]:
    return {
        "a": str(a),
        "b": str(b),
        "same": found.same,
        "compared": found.compared,
        "endian": None if found.endian is None else list(found.endian),
        "same_order": dict(found.same_order),
        "keys": [key_document(key) for key in found.keys],
        "tensors": [_tensor_document(tensor) for tensor in found.tensors],
    }


def key_document(key: KeyDifference) -> dict[str, Any]:
    """A key that differs, as JSON has it."""
    where = key.elements
    document = {"key": key.key, "old": _value_document(key.old), "new": _value_document(key.new)}
    return document if where is None else document | {"differing": where[0], "first": where[1]}


def _value_document(value: Value | None) -> dict[str, Any] | None:
    if value is None:
        return None
    if value.element is None:
        return {"type": value.type.name, "value": value.value}
    short = {"value": value.plain()} if len(value.value) <= MOST_ELEMENTS else {}
    return {"type": value.type.name, "element": value.element.name, "length": len(value.value), **short}


def _tensor_document(tensor: TensorDifference) -> dict[str, Any]:
    from dataclasses import asdict

    from gguf_forge.summary import tensor_size, type_name

    def facts(one: Tensor | UnknownTensor | None) -> dict[str, Any] | None:
        return None if one is None else {"type": type_name(one), "shape": list(one.shape), "bytes": tensor_size(one)}

    return {
        "name": tensor.name,
        "old": facts(tensor.old),
        "new": facts(tensor.new),
        "differs": list(tensor.differs),
        "first_byte": tensor.first_byte,
        "values": None if tensor.values is None else asdict(tensor.values),
        "why": tensor.why,
    }
