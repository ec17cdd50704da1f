"""Whether every output has the shape that llama.cpp derives from the metadata, without which no file of it loads.

Knows how rows of shapes are found and compared. Must not know families (a family brings its own rows), files, or values
of weights. Which outputs there must be is not its matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from math import prod

from gguf_forge.convert.shape_exceptions import SHAPES_OF
from gguf_forge.convert.shape_table import COMMON
from gguf_forge.convert.sizes import Basis, Flat, OneOf, Shape, Size
from gguf_forge.errors import ConversionError, escaped, listed
from gguf_forge.format.layout import ValueType
from gguf_forge.format.values import Value

_NUMBER = re.compile(r"(?<=[a-z]\.)\d+(?=\.)")
_SUFFIXES = ("weight", "bias", "scale", "input_scale")


def check_shapes(
    tensors: Iterable[tuple[str, Sequence[int]]],
    metadata: Mapping[str, Value],
    arch: str,
    exceptions: Mapping[str, Shape] | None = None,
) -> None:
    """ConversionError when llama.cpp would refuse a file for the shapes of its tensors.

    tensors: names and shapes, the contiguous axis last. exceptions: rows that the family adds to those of
    llama.cpp's `arch`, or puts in their place. The error names the tensor, the axis, its size, what the size must be,
    and the keys this follows from.
    """
    found = misshapen(tensors, metadata, arch, exceptions)
    if found:
        others = f" (nor for {listed(line.split(' [')[0] for line in found[1:])})" if len(found) > 1 else ""
        raise ConversionError(f"{found[0]}; llama.cpp would not load the file{others}")


def misshapen(
    tensors: Iterable[tuple[str, Sequence[int]]],
    metadata: Mapping[str, Value],
    arch: str,
    exceptions: Mapping[str, Shape] | None = None,
) -> list[str]:
    """What `check_shapes` finds, one line a kind of tensor: of many layers, the first."""
    if arch not in SHAPES_OF and not exceptions:
        return []
    rows = {**COMMON, **SHAPES_OF.get(arch, {}), **(exceptions or {})}
    shapes = {name: tuple(shape) for name, shape in tensors}
    found: dict[str, str] = {}
    for name, shape in shapes.items():
        kind = _NUMBER.sub("{l}", name)
        row = row_of(kind, rows)
        if row is None or kind in found:
            continue
        number = _NUMBER.search(name)
        fault = _fault(shape, row, Basis(metadata, arch, shapes, int(number[0]) if number else 0))
        if fault:
            found[kind] = f"{escaped(name)} {list(shape)}: {fault}"
    return list(found.values())


def row_of(kind: str, rows: Mapping[str, Shape]) -> Shape | None:
    """The shape of a kind of tensor: its own row's, or what follows from the row of its weight.

    A bias has the axes of the weight's rows; a scale is one number, or one for each of a stack.
    """
    if kind in rows:
        return rows[kind]
    base, _, suffix = kind.rpartition(".")
    row = rows.get(base)
    if row is None or suffix not in _SUFFIXES:
        return None
    if suffix == "weight":
        return row
    if not isinstance(row, tuple):
        return row if suffix == "bias" else (1,)
    if suffix == "bias":
        return row[:-1] or row
    return row[:1] if len(row) == 3 else (1,)


def _fault(shape: tuple[int, ...], row: Shape, basis: Basis) -> str | None:
    """What is wrong with a shape, or None."""
    if isinstance(row, OneOf):
        faults = [_fault(shape, one, basis) for one in row.shapes]
        return faults[0] if all(faults) else None
    wanted = row.shape if isinstance(row, Flat) else row
    sizes = [length_of(size, basis) for size in wanted]
    known = tuple(size for size, _ in sizes)
    if isinstance(row, Flat):
        if None in known or prod(s or 0 for s in known) == prod(shape):
            return None
        return f"{prod(shape)} elements, must be {prod(s or 0 for s in known)}{_because(sizes, basis)}"
    rank = max(len(shape), len(known))
    full: tuple[int | None, ...] = (1,) * (rank - len(known)) + known
    wrong = [i for i, (a, b) in enumerate(zip(_padded(shape, rank), full, strict=True)) if b is not None and a != b]
    if not wrong:
        return None
    if len(shape) != len(known):
        return f"must be {list(known)}{_because(sizes, basis)}".replace("None", "any")
    at = wrong[0]
    return f"axis {at} is {shape[at]}, must be {known[at]}{_because(sizes[at : at + 1], basis)}"


def _padded(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (1,) * (rank - len(shape)) + shape


def length_of(size: Size | int, basis: Basis) -> tuple[int | None, list[str]]:
    """A size for a basis, and the keys it follows from."""
    if isinstance(size, int):
        return size, []
    basis.read.clear()
    return size.of(basis, 0), list(basis.read)


def _because(sizes: Sequence[tuple[int | None, list[str]]], basis: Basis) -> str:
    """The keys that sizes follow from, with their values, and those whose absence makes a size zero."""
    keys = dict.fromkeys(key for _, read in sizes for key in read)
    there = [key for key in keys if key in basis.metadata]
    absent = [key for key in keys if key not in there and (not there or any(size == 0 for size, _ in sizes))]
    if len(there) == len(sizes) == 1 and _plain(basis.metadata[there[0]]) == str(sizes[0][0]):
        by = f" by {there[0]}"
    else:
        by = f" by {', '.join(f'{key} ({_plain(basis.metadata[key])})' for key in there)}" if there else ""
    return by + (f" without {', '.join(absent)}" if absent else "")


def _plain(value: Value) -> str:
    if value.element is None:
        return str(value.value)
    few = len(value.value) <= 8 and value.element is not ValueType.STRING
    return str([int(v) for v in value.value]) if few else f"{len(value.value)} values"


__all__ = ["check_shapes", "length_of", "misshapen", "row_of"]
