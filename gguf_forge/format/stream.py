"""A GGUF file written in order, to a pipe or what else takes bytes. Knows a plan and a position; cannot go back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from gguf_forge.errors import OutputError, escaped
from gguf_forge.format.plan import Declared, FilePlan, plan_file
from gguf_forge.format.values import Value

#: Zeros written at a time.
_ZEROS = bytes(1 << 16)


class StreamWriter:
    """Writes one file to a stream: the header at once, then tensors' bytes as they come, which must be in order.

    out: takes bytes; it is flushed at the end, and left open. metadata, tensors, endian, pad: as of GGUFWriter.
    Raises what `GGUFWriter.plan` raises; OutputError where the stream cannot be written, or bytes come out of order.
    """

    def __init__(
        self, out: BinaryIO, metadata: Mapping[str, Value], tensors: Sequence[Declared], *, endian: str = "little",
        pad: bool = True,
    ) -> None:  # fmt: skip
        self.path = "standard output"
        self._out = out
        self._plan = plan_file(metadata, tensors, endian=endian, path=self.path, pad=pad)
        self._at = 0

    def plan(self) -> FilePlan:
        """The file as it will be."""
        return self._plan

    def begin(self) -> None:
        """Writes the header."""
        self._write(memoryview(self._plan.header))

    def write_bytes(self, name: str, data: memoryview, start: int) -> None:
        """Writes a piece of a tensor, behind what was written before."""
        extent = self._plan.tensors[name]
        self._fill(extent.offset + start, name)
        self._write(data)

    def seal(self) -> None:
        """Writes what padding is left, and hands all to the system."""
        last = max((e.offset + e.nbytes for e in self._plan.tensors.values()), default=self._plan.data_start)
        if self._at < last:
            raise OutputError(f"{self._at} of {last} bytes written", path=self.path)
        self._fill(self._plan.size, None)
        try:
            self._out.flush()
        except OSError as error:
            raise self._failed(error) from error

    def _fill(self, offset: int, name: str | None) -> None:
        if not self._at <= offset:
            field = None if name is None else f'tensor "{escaped(name)}"'
            raise OutputError(f"byte {offset} comes after byte {self._at}", path=self.path, field=field)
        while self._at < offset:
            self._write(memoryview(_ZEROS)[: offset - self._at])

    def _write(self, data: memoryview) -> None:
        done = 0
        while done < len(data):
            try:
                count = self._out.write(data[done:])
            except OSError as error:
                raise self._failed(error) from error
            done += count
        self._at += done

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(error.strerror or os.strerror(error.errno or 0), path=self.path)
