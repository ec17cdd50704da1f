"""Runs that go on where an earlier one was cut off: what is finished of each file is kept in a journal beside it.

A run that takes less than INTERVAL keeps none, and leaves nothing when it fails. After that, and whenever as much time
has passed again, what was written is flushed, then summed up as the file holds it, then noted in the journal, which is
flushed too: what a journal says is on disk, whatever ends the run. A set of shards has a journal of all of it before
they get their names one after the other, however short the run. From then on the run's end leaves the file in the
making and its journal, for nobody knows beforehand that a machine will fail; whoever makes the file again, going on or
not, takes both over. A journal says whose it is (identity.py); one that is another's is refused, and left alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from gguf_forge.convert.blemish import Blemish
from gguf_forge.convert.finished import Finished, Log, Piece
from gguf_forge.convert.identity import Identity, differences
from gguf_forge.convert.run import Target
from gguf_forge.errors import ChangedInputError, ForgeError, InvalidError, OutputError
from gguf_forge.format import reader
from gguf_forge.format.atomic import target_of
from gguf_forge.format.journal import Journal, Kept, journal_path, read_journal
from gguf_forge.format.pages import page_sum
from gguf_forge.format.reader import Tensor
from gguf_forge.format.sets import SetWriter

#: Seconds between two notes in a journal. What a run has done since the last is lost when it is cut off.
INTERVAL = 10.0


class Resumable:
    """A file in the making, with its journal. `rows`: how many each of its tensors has, in order; `wanted`: of all."""

    def __init__(
        self, target: Target, rows: Mapping[str, int], wanted: int, identity: Callable[[], Identity]
    ) -> None:
        self.target = replace(target, log=Log())
        self.notes: list[str] = []
        self._rows, self._wanted = rows, wanted
        self._numbers = {name: number for number, name in enumerate(rows)}
        self._identity = cache(identity)
        self._kept: Kept | None = None
        self._asked = False
        self._broken = False
        self.done = False
        self._journal = Journal(journal_path(_target_of(Path(target.writer.path))))

    def begin(self, resume: bool) -> None:
        """Makes the file, or with `resume` goes on with what an earlier run left of it, if it left any.

        A set whose every shard has its name, and is what the journal of all of them says, is `done`. Raises
        OutputError; InvalidError for a journal that is damaged, or another file's: nothing is touched then.
        """
        if resume and self._was_done():
            self.done = True
            self.notes.append(f"{Path(self.target.writer.path).name}: all shards are there already")
            self.finish()
            return
        try:
            self.target.writer.begin(self._goes_on if resume else None)
        except OutputError as error:
            if not resume and self._cut_off_while_named():
                _note(error, "a run was cut off while it gave the shards their names: --resume goes on with it")
            raise
        if self._kept is None:
            self._journal.remove()
            if resume:
                self.notes.append(f"{Path(self.target.writer.path).name}: no run was cut off, or none with a journal")
            return
        self.target.writer.spare()
        pieces = self._pieces(self._kept)
        good = [(piece, found) for piece, stated in pieces if (found := self._sum(piece)) == stated]
        self._journal.begin(self._identity(), [self._record(good)])
        self.target = replace(self.target, finished=Finished(piece for piece, _ in good))
        for piece, _ in good:
            self._tell(piece)
        done = sum(piece.stop - piece.start for piece, _ in good)
        text = f"{Path(self.target.writer.path).name}: goes on, {done} of {self._wanted} rows are there"
        lost = len(pieces) - len(good)
        self.notes.append(text + (f"; {lost} pieces are not what the journal says, and made again" if lost else ""))

    def _goes_on(self) -> bool:
        """Whether there is a journal, which is this file's."""
        if not self._asked:
            self._asked = True
            kept = read_journal(self._journal.path)
            if kept is not None:
                found = differences(kept.owner, self._identity())
                if found:
                    text = f"is of {'; '.join(found)} (without --resume the file is made anew)"
                    raise InvalidError(text, path=kept.path)
                self._pieces(kept)
                self._kept = kept
        return self._kept is not None

    def _was_done(self) -> bool:
        """Whether an earlier run was cut off between giving a set's last name and removing its journal."""
        writer = self.target.writer
        if not isinstance(writer, SetWriter) or not writer.stands() or not self._goes_on():
            return False
        assert self._kept is not None
        pieces = self._pieces(self._kept)
        if sum(piece.stop - piece.start for piece, _ in pieces) != self._wanted:
            return False
        with reader.open(writer.path) as file:
            for piece, stated in pieces:
                if _sum_of_named(file.tensors[piece.name], piece) != stated:
                    return False
        for piece, _ in pieces:
            self._tell(piece)
        return True

    def _cut_off_while_named(self) -> bool:
        writer = self.target.writer
        return isinstance(writer, SetWriter) and writer.partly_named() and self._journal.path.exists()

    def _pieces(self, kept: Kept) -> list[tuple[Piece, str]]:
        """What the records of a journal say, each piece with its sum. Raises InvalidError."""
        found: list[tuple[Piece, str]] = []
        names = [*self._rows]
        for line, record in kept.records:
            done = record.get("done")
            if not isinstance(done, list):
                raise InvalidError("no list of what is done", path=kept.path, field=f"line {line}")
            for one in done:
                piece = read_piece(one, names, self._rows)
                if piece is None:
                    raise InvalidError("what is done cannot be", path=kept.path, field=f"line {line}")
                found.append(piece)
        for before, after in pairwise(sorted((piece.name, piece.start, piece.stop) for piece, _ in found)):
            if before[0] == after[0] and before[2] > after[1]:
                raise InvalidError(f"rows {after[1]} to {before[2] - 1} of {before[0]} are done twice", path=kept.path)
        return found

    def _sum(self, piece: Piece) -> str:
        return self.target.writer.page_sum(piece.name, piece.start, piece.stop)

    def _tell(self, piece: Piece) -> None:
        """What was found in rows that are not looked at again."""
        if piece.blemish is not None:
            self.target.blemish(piece.name, piece.blemish)
        if piece.squares is not None:
            self.target.measure(piece.name, *piece.squares)

    def _record(self, pieces: Sequence[tuple[Piece, str]]) -> dict[str, Any]:
        return {
            "done": [
                [
                    self._numbers[piece.name], piece.start, piece.stop, stated, piece.squares,
                    None if piece.blemish is None else [piece.blemish.row, piece.blemish.text],
                ]
                for piece, stated in pieces
            ]
        }  # fmt: skip

    def save(self) -> None:
        """Puts on disk, and then into the journal, what was written since the last time.

        Raises OutputError where the file cannot be trusted any more, ChangedInputError. A journal that cannot be made
        is given up.
        """
        log = self.target.log
        assert log is not None
        pieces = log.take()
        if not pieces or self._broken:
            return
        self.target.writer.flush()
        record = self._record([(piece, self._sum(piece)) for piece in pieces])
        try:
            if self._journal.begun:
                self._journal.add(record)
            else:
                self._journal.begin(self._identity(), [record])
                self.target.writer.spare()
        except ChangedInputError:
            raise
        except ForgeError as error:
            self._broken = True
            if not self._journal.begun:
                self._journal.discard()
            self.notes.append(f"no journal is kept any more, the file is made all the same: {error}")

    def sealed(self) -> None:
        """Notes the rest, where shards are about to get their names: they are many steps. Raises as `save`."""
        if isinstance(self.target.writer, SetWriter):
            self.save()

    def finish(self) -> None:
        """Removes the journal of a file that is whole and has its name. One that stays does no harm, and is told."""
        try:
            self._journal.remove()
        except OutputError as error:
            self.notes.append(f"its journal stays: {error}")

    def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the journal after an error, or removes it, and has the file removed: where no run could go on."""
        begun = self._journal.begun
        self._journal.close()
        if isinstance(error, ChangedInputError) and self._kept is None:
            self._journal.discard()
            self.target.writer.spare(False)
        elif begun and error is not None:
            _note(error, f"what is finished of {Path(self.target.writer.path).name} is kept: --resume goes on with it")


@contextmanager
def saving(files: Sequence[Resumable], verify: Callable[[], None]) -> Iterator[None]:
    """Saves what is finished of files now and then, while they are made. `verify` raises where the source changed.

    What goes wrong with that is raised where the work is done, as soon as more of it is, or at the end.
    """
    keeper = _Keeper(files, verify)
    thread = threading.Thread(target=keeper.loop, name="journal", daemon=True)
    try:
        thread.start()
        yield
    finally:
        keeper.stop()
    if keeper.error is not None:
        raise keeper.error


class _Keeper:
    def __init__(self, files: Sequence[Resumable], verify: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self._files = files
        self._verify = verify
        self._wanted, self._ended = threading.Event(), threading.Event()

    def loop(self) -> None:
        try:
            while not self._wanted.wait(INTERVAL):
                self._verify()
                for file in self._files:
                    file.save()
        except BaseException as error:  # noqa: BLE001 - raised again in another thread
            self.error = error
            for file in self._files:
                assert file.target.log is not None
                file.target.log.failed = error
        finally:
            self._ended.set()

    def stop(self) -> None:
        """Waits until nothing is being saved, whoever presses Ctrl-C again meanwhile."""
        self._wanted.set()
        while not self._ended.is_set():
            try:
                self._ended.wait(0.1)
            except KeyboardInterrupt:
                continue


def read_piece(found: Any, names: Sequence[str], rows: Mapping[str, int]) -> tuple[Piece, str] | None:
    """A piece and its sum, of what a record holds, which may be anything; None where that cannot be."""
    if not isinstance(found, list) or len(found) != 6:
        return None
    number, start, stop, stated, squares, blemish = found
    if not all(type(value) is int for value in (number, start, stop)) or not isinstance(stated, str):
        return None
    if not 0 <= number < len(names) or not 0 <= start < stop <= rows[names[number]]:
        return None
    if squares is not None:
        if not isinstance(squares, list) or [type(value) for value in squares] != [float, float]:
            return None
        squares = (squares[0], squares[1])
    if blemish is not None:
        if not isinstance(blemish, list) or [type(value) for value in blemish] != [int, str]:
            return None
        blemish = Blemish(blemish[0], blemish[1])
    return Piece(names[number], start, stop, squares, blemish), stated


def _note(error: BaseException, said: str) -> None:
    error.__notes__ = [*getattr(error, "__notes__", ()), said]  # what `add_note` does since Python 3.11


def _sum_of_named(tensor: Tensor, piece: Piece) -> str:
    """The sum over rows of a file that has its name."""

    def read(view: memoryview, start: int) -> None:
        tensor.read_bytes(np.frombuffer(view, np.uint8), start)

    return page_sum(read, piece.start * tensor.row_bytes, (piece.stop - piece.start) * tensor.row_bytes)


def _target_of(path: Path) -> Path:
    try:
        return target_of(path)
    except (OSError, ValueError) as error:
        raise OutputError(getattr(error, "strerror", None) or str(error), path=path) from error
