"""A file's header replaced where it stands, so that no crash leaves a header that is half one and half the other.

Life: the new header goes into a journal beside the file, `.NAME.edit`, whole and on disk before the file is touched.
Then the file's magic is replaced by one that no reader takes (EDITING), the rest is written, the magic last, each step
on disk before the next; then the journal is removed. Whoever looks finds the old header, none, or the new one;
`recover` writes the new one out where a crash left none. Knows bytes and files, nothing of what a header says.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from gguf_forge import system
from gguf_forge.errors import ChangedInputError, InvalidError, OutputError
from gguf_forge.format.atomic import AtomicFile
from gguf_forge.format.layout import EDITING, MAGIC

#: What a journal starts with: its name and version, the file's device, number, size, the header's length and SHA-256.
_JOURNAL = struct.Struct("<16sQQQQ32s")
_NAME = b"GGUF Forge edit1"
FINISHED_BY = "gguf-forge edit --recover finishes it"
#: What tells one file from another, as `Part.identity` has it: device, number, size, time of the last change.
Identity = tuple[int, int, int, int]


def journal_path(path: Path) -> Path:
    """Where the journal of a file is, while it is edited."""
    return path.with_name(f".{path.name}.edit")


def replace_header(path: Path, header: bytes, identity: Identity) -> None:
    """Writes `header` over the first bytes of a file, all or none of it. A symlink stays, its target is changed.

    `identity`: of the file as it was read. Raises ChangedInputError where it is another by now, OutputError where it
    cannot be written, or is being edited; the old header is then as it was, or the error says how to finish.
    """
    target = Path(os.path.realpath(system.long_path(path)))
    with _opened(target, path) as file:
        found = os.fstat(file.fileno())
        if (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns) != identity:
            raise ChangedInputError("the file was changed since it was read", path=path)
        old = _read(file, len(header), path)
        journal = journal_path(target)
        if os.path.lexists(journal):
            raise OutputError(f"an edit was cut off: {FINISHED_BY}", path=path)
        try:
            _write_journal(journal, header, found)
            _write(file, header, path)
        except BaseException:
            _take_back(file, old, journal, path)
            raise
        _remove(journal, path)


def pending(path: Path) -> bool:
    """Whether an edit of a file was cut off: its journal is there."""
    return os.path.lexists(journal_path(Path(os.path.realpath(system.long_path(path)))))


def recover(path: Path) -> bool:
    """Finishes an edit that was cut off. False where there is none.

    Raises OutputError where the file cannot be written or is being edited, InvalidError where its journal is none, or
    one of another file.
    """
    target = Path(os.path.realpath(system.long_path(path)))
    journal = journal_path(target)
    if not os.path.lexists(journal):
        return False
    with _opened(target, path) as file:
        kept = _read_journal(journal, path)
        if kept is None:
            return False
        found = os.fstat(file.fileno())
        begun = _read(file, len(EDITING), path) == EDITING
        same = (kept.device, kept.number) == (found.st_dev, found.st_ino)
        if kept.size != found.st_size or not (begun or same):
            text = f"{journal.name} is the journal of another file; remove it if this one is as it should be"
            raise InvalidError(text, path=path)
        _write(file, kept.header, path)
        _remove(journal, path)
    return True


@dataclass(frozen=True)
class _Kept:
    device: int
    number: int
    size: int
    header: bytes


def _opened(target: Path, path: Path) -> FileIO:
    """The file, open to be written and locked."""
    try:
        file = system.open_itself(target)
    except BlockingIOError as error:
        raise OutputError("another program is writing it", path=path) from error
    except (OSError, ValueError) as error:
        raise _failed(error, path) from error
    try:
        system.lock(file)
    except OSError as error:
        file.close()
        raise OutputError("another program is writing it", path=path) from error
    return file


def _read(file: FileIO, size: int, path: Path) -> bytes:
    found = bytearray(size)
    done = 0
    while done < size:
        try:
            count = system.read_at(file.fileno(), memoryview(found)[done:], done)
        except OSError as error:
            raise _failed(error, path) from error
        if not count:
            raise ChangedInputError("the file was cut", path=path, offset=done)
        done += count
    return bytes(found)


def _write(file: FileIO, header: bytes, path: Path) -> None:
    """The steps from the old header, or what a crash left, to the new one."""
    assert header.startswith(MAGIC)
    for data, offset in ((EDITING, 0), (header[len(MAGIC) :], len(MAGIC)), (MAGIC, 0)):
        view, done = memoryview(data), 0
        try:
            while done < len(view):
                done += system.write_at(file.fileno(), view[done:], offset + done)
            system.flush(file.fileno())
        except OSError as error:
            raise _failed(error, path) from error


def _take_back(file: FileIO, old: bytes, journal: Path, path: Path) -> None:
    """Puts the old header back after a fault. Raises OutputError where that fails too."""
    try:
        if os.path.lexists(journal):
            _write(file, old, path)
        journal.unlink(missing_ok=True)
    except OSError:
        pass  # the old header is there; what is left is a journal, which `recover` would carry out
    except OutputError as error:
        text = f"{error.text}: the edit was cut off, {FINISHED_BY}"
        raise OutputError(text, path=path) from error


def _write_journal(journal: Path, header: bytes, found: os.stat_result) -> None:
    head = _JOURNAL.pack(
        _NAME, found.st_dev, found.st_ino, found.st_size, len(header), hashlib.sha256(header).digest()
    )
    out = AtomicFile(journal, len(head) + len(header), overwrite=False)
    try:
        out.write_at(head, 0)
        out.write_at(header, len(head))
        out.seal()
        out.publish()
    except BaseException:
        out.discard()
        raise


def _read_journal(journal: Path, path: Path) -> _Kept | None:
    """What a journal says; None where it has gone meanwhile. Raises InvalidError for what is no journal."""
    try:
        with open(journal, "rb") as file:
            head = file.read(_JOURNAL.size)
            if len(head) == _JOURNAL.size and head.startswith(_NAME):
                _, device, number, size, length, digest = _JOURNAL.unpack(head)
                held = os.fstat(file.fileno()).st_size - len(head)
                header = file.read(length) if length == held else b""
                if hashlib.sha256(header).digest() == digest and header.startswith(MAGIC):
                    return _Kept(device, number, size, header)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed(error, journal) from error
    raise InvalidError(f"{journal.name} beside it is no journal of an edit, or damaged", path=path)


def _remove(journal: Path, path: Path) -> None:
    try:
        journal.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"edited, but {journal.name} cannot be removed: {error.strerror}", path=path) from error


def _failed(error: OSError | ValueError, path: Path) -> OutputError:
    return OutputError(getattr(error, "strerror", None) or str(error), path=path)
