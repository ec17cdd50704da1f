"""Writes one model as a set of shards, of which none has its name before all are whole. Knows writers and their names;
which tensors go where is the caller's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from gguf_forge import system
from gguf_forge.errors import InvalidError, LimitError, OutputError, escaped
from gguf_forge.format.atomic import sibling_path, target_of
from gguf_forge.format.layout import ALIGNMENT_KEY
from gguf_forge.format.plan import Declared
from gguf_forge.format.shards import SPLIT_KEYS, shard_keys, shard_name
from gguf_forge.format.values import Value
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.system import long_path

if TYPE_CHECKING:
    from typing_extensions import Self

#: split.count and split.no are 16 bits wide, names have five digits.
MOST_SHARDS = 65535


@dataclass(frozen=True)
class Shard:
    """A file that was written, or would be: its tensors by name, in order, and its size in bytes."""

    path: Path
    tensors: Sequence[str]
    nbytes: int

    def __repr__(self) -> str:
        return f"<Shard {escaped(self.path.name)}: {len(self.tensors)} tensors, {self.nbytes} bytes>"


class SetWriter:
    """Builds the shards PREFIX-00001-of-0000N.gguf of one model; used as a GGUFWriter whose tensors are declared.

    prefix: what their names begin with, with a folder or without. metadata: goes into the first, without split.* keys;
    each gets its own of these. shards: the tensors of each, in order. endian, alignment: as of GGUFWriter; every shard
    has the first one's alignment. overwrite: False refuses names that are taken. True replaces an old set, which has
    its first shard removed before others are replaced: no reader ever finds shards of both. key_order: of split.* keys.

    Raises what GGUFWriter raises; LimitError for more shards than can be numbered, or a tensor twice.
    """

    def __init__(
        self,
        prefix: str | os.PathLike[str],
        metadata: Mapping[str, Value],
        shards: Sequence[Sequence[Declared]],
        *,
        endian: str = "little",
        overwrite: bool = False,
        key_order: Sequence[str] = SPLIT_KEYS,
    ) -> None:
        count = len(shards)
        if count > MOST_SHARDS:
            raise LimitError(f"{count} shards, at most {MOST_SHARDS} can be numbered", path=prefix)
        total = sum(len(shard) for shard in shards)
        rest = {key: value for key, value in metadata.items() if key not in SPLIT_KEYS}
        stated = rest.get(ALIGNMENT_KEY)
        self.endian = endian
        self.paths = [Path(shard_name(os.fspath(prefix), number, count)) for number in range(1, count + 1)]
        self.writers: list[GGUFWriter] = []
        self._of: dict[str, GGUFWriter] = {}
        self._overwrite = overwrite
        for index, (path, declared) in enumerate(zip(self.paths, shards, strict=True)):
            keys = shard_keys(index, count, total, key_order)
            if index == 0:
                keys = rest | keys
            elif stated is not None:
                keys = {ALIGNMENT_KEY: stated} | keys
            writer = GGUFWriter(path, keys, endian=endian, overwrite=overwrite)
            for tensor in declared:
                writer.declare(tensor.name, tensor.shape, tensor.type)
                if self._of.setdefault(tensor.name, writer) is not writer:
                    raise InvalidError("in two shards", path=path, field=f'tensor "{escaped(tensor.name)}"')
            self.writers.append(writer)

    def shards(self) -> list[Shard]:
        """Each shard as it will be. Raises what `GGUFWriter.plan` raises."""
        plans = [writer.plan() for writer in self.writers]
        return [Shard(path, [*plan.tensors], plan.size) for path, plan in zip(self.paths, plans, strict=True)]

    def begin(self, keep: Callable[[], bool] | None = None) -> None:
        """Makes all temporary siblings with their space, writes their headers. `keep`, errors: as of GGUFWriter.

        With `keep`, shards to which an earlier run gave their names, before it was cut off, become siblings again.
        """
        first, *others = self.writers
        try:
            if keep is not None and self.partly_named():
                first.begin(keep)  # locked from now on: whoever is giving names has this one's sibling until the end
                for writer in others:
                    self._take_name(writer, keep)
            if not self._overwrite:
                for path in self.paths:
                    if _there(path):
                        raise OutputError("exists already, and a set is not replaced in one step", path=path)
            for writer in self.writers:
                if not writer.begun:
                    writer.begin(keep)
        except BaseException:
            self.abort()
            raise

    def partly_named(self) -> bool:
        """Whether a run was cut off while it gave the shards their names: the first, which is the last, has none."""
        return not _there(self.paths[0]) and any(_there(path) for path in self.paths)

    def stands(self) -> bool:
        """Whether all shards are there under their names, of the size and with the header that they are to have."""
        return all(_is_planned(writer) for writer in self.writers)

    def _take_name(self, writer: GGUFWriter, keep: Callable[[], bool]) -> None:
        """Makes a named shard the sibling that it was, where it is what this writer makes and there is no sibling."""
        if not _is_planned(writer) or not keep():
            return
        target = target_of(Path(writer.path))
        sibling = sibling_path(target)
        if not _there(sibling):
            try:
                target.rename(sibling)
            except OSError as error:
                raise OutputError(error.strerror or str(error), path=writer.path) from error

    def write(self, name: str, blocks: np.ndarray[Any, Any] | bytes | memoryview, row: int = 0) -> None:
        """Writes rows of a tensor into its shard, as GGUFWriter.write."""
        self._writer(name).write(name, blocks, row)

    def write_bytes(self, name: str, data: np.ndarray[Any, Any] | bytes | memoryview, start: int) -> None:
        """Writes bytes of a tensor into its shard, as GGUFWriter.write_bytes."""
        self._writer(name).write_bytes(name, data, start)

    def claim(self, name: str, start: int, stop: int) -> None:
        """Counts rows as written that an earlier run wrote."""
        self._writer(name).claim(name, start, stop)

    def page_sum(self, name: str, start: int, stop: int) -> str:
        """A sum over rows as their shard holds them, as GGUFWriter.page_sum."""
        return self._writer(name).page_sum(name, start, stop)

    @property
    def path(self) -> Path:
        """The first shard."""
        return self.paths[0]

    def header_digest(self) -> str:
        """SHA-256 of all headers' digests, as GGUFWriter.header_digest."""
        return sha256("".join(writer.header_digest() for writer in self.writers).encode()).hexdigest()

    def flush(self) -> None:
        """Waits until what was written so far is on disk. Raises OutputError."""
        for writer in self.writers:
            writer.flush()

    def spare(self, spared: bool = True) -> None:
        """Whether `abort` leaves the siblings, for a later run to take over."""
        for writer in self.writers:
            writer.spare(spared)

    def share_bytes(self, name: str, source: int, offset: int, nbytes: int) -> tuple[int, int]:
        """Takes a tensor's bytes over without copying them, as GGUFWriter.share_bytes."""
        return self._writer(name).share_bytes(name, source, offset, nbytes)

    def _writer(self, name: str) -> GGUFWriter:
        found = self._of.get(name)
        if found is None:
            raise InvalidError("not declared", path=self.paths[0], field=f'tensor "{escaped(name)}"')
        return found

    def seal(self) -> None:
        """Checks that all was written and waits until every shard is on disk. Raises OutputError."""
        for writer in self.writers:
            writer.seal()

    def publish(self) -> None:
        """Gives the sealed shards their names, the first as the last. Where that fails, none has its name.

        Raises OutputError.
        """
        try:
            if self._overwrite:
                Path(os.path.realpath(long_path(self.paths[0]))).unlink(missing_ok=True)
            for writer in reversed(self.writers):
                writer.publish()
        except OSError as error:
            self.take_back()
            raise OutputError(error.strerror or str(error), path=self.paths[0]) from error
        except BaseException:
            self.take_back()
            raise

    def commit(self) -> None:
        """Seals and publishes. On any error nothing is left. Raises OutputError."""
        try:
            self.seal()
        except BaseException:
            self.abort()
            raise
        self.publish()

    def abort(self) -> None:
        """Removes the temporary siblings unless they are spared; safe to call at any time before `publish`."""
        for writer in self.writers:
            writer.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.abort()

    def take_back(self) -> None:
        """Removes the shards, published or not; those that are spared only lose their names."""
        for writer in self.writers:
            writer.take_back()


def _there(path: Path) -> bool:
    return os.path.lexists(long_path(path))


def _is_planned(writer: GGUFWriter) -> bool:
    """Whether a file is there of the size and with the header that a writer's is to have."""
    plan = writer.plan()
    try:
        with FileIO(long_path(writer.path), opener=lambda name, _: system.open_to_read(name)) as file:
            found = os.fstat(file.fileno())
            whole = stat.S_ISREG(found.st_mode) and found.st_size == plan.size
            return whole and file.read(len(plan.header)) == plan.header
    except OSError:
        return False
