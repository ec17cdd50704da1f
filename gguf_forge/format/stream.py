"""A GGUF file written in order, to a pipe or what else takes bytes. Knows a plan and a position; cannot go back."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

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

    def begin(self, keep: Callable[[], bool] | None = None) -> None:
        """Writes the header. `keep` asks in vain: nothing of an earlier run is there."""
        self._write(memoryview(self._plan.header))

    def write_bytes(self, name: str, data: memoryview, start: int) -> None:
        """Writes a piece of a tensor, behind what was written before."""
        extent = self._plan.tensors[name]
        self._fill(extent.offset + start, name)
        self._write(data)

    def share_bytes(self, name: str, source: int, offset: int, nbytes: int) -> tuple[int, int]:
        """Nothing is shared with a stream."""
        return 0, 0

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

    def publish(self) -> None:
        """Nothing is left to do: a stream has no name."""

    def abort(self) -> None:
        """Nothing can be taken back: what was written is no file, as it is not whole."""

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


class RowStream(StreamWriter):
    """A StreamWriter whose rows come from several threads, each of which waits until those before its own are written.

    Rows are to be handed out in the order of the file: then whoever holds the next never waits, and no more is held
    than one run of rows a thread.
    """

    def __init__(
        self, out: BinaryIO, metadata: Mapping[str, Value], tensors: Sequence[Declared], *, endian: str = "little",
        pad: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(out, metadata, tensors, endian=endian, pad=pad)
        self.endian = endian
        self._turn = threading.Condition()
        self._stopped = False
        self._left = [(e.name, e.nbytes) for e in self._plan.tensors.values() if e.nbytes]
        self._done = 0  # bytes of the first of those left

    def write(self, name: str, blocks: np.ndarray[Any, Any], row: int = 0) -> None:
        """Writes encoded rows from `row` on, as GGUFWriter does, once it is their turn. OutputError after `stop`."""
        data = np.ascontiguousarray(blocks).reshape(-1).view(np.uint8)
        if not data.size:
            return
        start = row * self._plan.tensors[name].row_bytes
        with self._turn:
            while not self._stopped and (self._left[0][0], self._done) != (name, start):
                self._turn.wait()
            if self._stopped:
                raise OutputError("stopped", path=self.path, field=f'tensor "{escaped(name)}"')
            self.write_bytes(name, data.data, start)
            self._done += data.size
            if self._done == self._left[0][1]:
                self._left.pop(0)
                self._done = 0
            self._turn.notify_all()

    def header_digest(self) -> str:
        """SHA-256 of what the file is besides its tensors' data."""
        return hashlib.sha256(self._plan.header).hexdigest()

    def claim(self, name: str, start: int, stop: int) -> None:
        """OutputError: rows that are not written are not there."""
        raise OutputError("a stream has nothing of an earlier run", path=self.path)

    def page_sum(self, name: str, start: int, stop: int) -> str:
        """OutputError: what was written cannot be read again."""
        raise OutputError("a stream cannot be read again", path=self.path)

    def flush(self) -> None:
        """Nothing to wait for: where the bytes go is not known."""

    def spare(self, spared: bool = True) -> None:
        """Nothing to leave."""

    def stop(self) -> None:
        """Lets nobody wait any longer: what is before their rows will not come."""
        with self._turn:
            self._stopped = True
            self._turn.notify_all()

    def abort(self) -> None:
        """Stops; what was written is no file, as it is not whole."""
        self.stop()
