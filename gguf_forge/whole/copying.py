"""Tensors' bytes from open files into files in the making, as they are: no decoding, no matter which byte order.

Knows how bytes are moved in pieces of bounded size; must not know why, nor which tensor goes where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import numpy as np

from gguf_forge.errors import escaped
from gguf_forge.format.layout import ORDERS
from gguf_forge.format.orders import swapped
from gguf_forge.format.plan import Declared
from gguf_forge.format.reader import GGUFFile, Tensor
from gguf_forge.format.stream import StreamWriter
from gguf_forge.format.values import Value

#: Bytes moved at a time.
PIECE = 4 << 20

#: Told how many bytes of how many have been done.
Progress = Callable[[int, int], None]


class Sink(Protocol):
    """What takes tensors' bytes: a GGUFWriter, or a SetWriter."""

    def write_bytes(self, name: str, data: memoryview, start: int) -> None:
        """Takes a piece of a tensor, from its byte `start` on."""

    def share_bytes(self, name: str, source: int, offset: int, nbytes: int) -> tuple[int, int]:
        """Takes bytes of an open file over without copying: from which of the tensor up to which, (0, 0) for none."""


def declared(tensors: Iterable[Tensor]) -> list[Declared]:
    """The tensors as they are declared to a writer."""
    return [Declared(t.name, t.shape, t.type) for t in tensors]


def stored_metadata(file: GGUFFile) -> dict[str, Value]:
    """All keys of an open file in order, with their values as they are stored, to the byte."""
    return {key: file.metadata.stored(key) for key in file.metadata}


def copy_tensors(
    tensors: Mapping[str, Tensor], sink: Sink, progress: Progress | None = None, endian: str | None = None
) -> None:
    """Copies every tensor, in order, to the one that `sink` has under the name it goes by in the mapping.

    Where the file system can, and the bytes lie alike in its blocks, extents are shared and nothing is copied.

    `endian`: the byte order of what is written; None for the tensors' own.
    Raises ChangedInputError, InputError, OutputError.
    """
    total = sum(tensor.nbytes for tensor in tensors.values())
    piece = np.empty(min(PIECE, total), np.uint8)
    done = 0
    for name, tensor in tensors.items():
        swap = endian is not None and ORDERS[endian] != tensor.order
        step = PIECE - PIECE % tensor.type.block_bytes if swap else PIECE
        source = None if swap else tensor.descriptor()
        shared = (0, 0) if source is None else sink.share_bytes(name, source, tensor.offset, tensor.nbytes)
        done += shared[1] - shared[0]
        for low, high in ((0, shared[0]), (shared[1], tensor.nbytes)):
            for start in range(low, high, step):
                part = piece[: min(step, high - start)]
                tensor.read_bytes(part, start)
                sink.write_bytes(name, (swapped(part, tensor.type) if swap else part).data, start)
                done += len(part)
                if progress is not None:
                    progress(done, total)


def stream(
    out: StreamWriter,
    file: GGUFFile,
    tensors: Mapping[str, Tensor],
    progress: Progress | None = None,
    endian: str | None = None,
) -> None:
    """Writes a file in order. Raises what `copy_tensors` raises: what was written until then is no file."""
    out.begin()
    copy_tensors(tensors, out, progress, endian)
    file.check_unchanged()
    out.seal()


def first_difference(one: Tensor, other: Tensor) -> int | None:
    """The number of the first byte in which two tensors differ; None where they are of one size and the same.

    Tensors of one type in two byte orders are compared in the first one's.
    """
    if one.nbytes != other.nbytes:
        return min(one.nbytes, other.nbytes)
    swap = one.order != other.order
    step = PIECE - PIECE % one.type.block_bytes if swap else PIECE
    a, b = (np.empty(min(step, one.nbytes), np.uint8) for _ in range(2))
    for start in range(0, one.nbytes, step):
        size = min(step, one.nbytes - start)
        one.read_bytes(a[:size], start)
        other.read_bytes(b[:size], start)
        unlike = a[:size] != (swapped(b[:size], other.type) if swap else b[:size])
        if unlike.any():
            return start + int(unlike.argmax())
    return None


def field_of(name: str) -> str:
    """A tensor as errors name it."""
    return f'tensor "{escaped(name)}"'
