"""A file that appears under its name only when it is whole and on disk. Knows names and bytes, no format, and by way
of system.py no difference between systems; docs/platforms.md says what each of them can promise.

Life: create (a locked sibling `.NAME.part`, its space reserved) -> write_at, from any thread -> seal (flush) ->
publish (rename, flush of the name), or discard at any point before. A sibling that is `spare`d stays when it is
discarded, for a later run to `keep` what is in it. Of several files that belong together: create
all, seal all, then publish all, the one that readers look for first as the last.

A signal may raise between any two steps of Python, also between making a file and noting that it was made. So a
finalizer that knows the sibling's name is set up before the sibling exists: whatever is neither published nor discarded
is removed when its AtomicFile dies, or at the end of the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import weakref
from collections.abc import Callable
from hashlib import sha256
from io import FileIO
from pathlib import Path

from gguf_forge import system
from gguf_forge.errors import OutputError

_CHUNK = 1 << 30
#: Bytes written at once that the medium may as well have soon.
_WORTH_FLUSHING = 1 << 18
#: Bytes of a file's name.
_NAME_MAX = 255


def names_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a path, where there may be nothing yet, can only be a folder's: it ends in a separator."""
    return os.fspath(path).endswith(tuple(separator for separator in (os.sep, os.altsep) if separator))


class AtomicFile:
    """An output of `size` bytes, all zero until written. A symlink given as `path` stays; its target is replaced.

    Raises OutputError when the folder is missing or read-only, the file is in the way (`overwrite` False, a folder, a
    device), another writer has the same output, or `size` bytes are not free.
    `keep`: of a sibling that a run left, and which is this writer's now, is asked with its size whether what is in it
    stays (`kept`); where it raises the sibling stays as it is.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: int,
        *,
        overwrite: bool = True,
        keep: Callable[[int], bool] | None = None,
    ) -> None:
        self.path = Path(path)
        self.size = size
        self._overwrite = overwrite
        if names_folder(path):
            raise OutputError("names a folder, as it ends in a separator", path=path)
        refused = system.refused_name(self.path.name)
        if refused:
            raise OutputError(refused, path=path)
        self._target = self.path
        try:
            self._target = target_of(self.path)
        except (OSError, ValueError) as error:
            raise self._error(error) from error
        mode = self._check_target()
        self._sibling = _Sibling(self.path, sibling_path(self._target))
        self._finalizer = weakref.finalize(self, self._sibling.remove)
        try:
            self._sibling.create(keep)
            if not self.kept:
                self._reserve(mode)
        except (OSError, ValueError) as error:
            self.discard()
            raise self._error(error) from error
        except BaseException:
            self.discard()
            raise

    def _check_target(self) -> int | None:
        """The mode bits of the file to be replaced, if there is one."""
        try:
            found = os.stat(self._target)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self._error(error) from error
        if not stat.S_ISREG(found.st_mode):
            raise OutputError("exists and is not a regular file", path=self.path)
        if not self._overwrite:
            raise OutputError("exists already", path=self.path)
        try:
            system.require_replaceable(self._target)
        except OSError as error:
            raise self._error(error) from error
        return stat.S_IMODE(found.st_mode) & 0o777

    def _reserve(self, mode: int | None) -> None:
        if mode is not None:
            system.set_mode(self._fd, mode)
        if self.size > system.free_space(self._target.parent):  # asking might fill the disk for others before it fails
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        system.reserve(self._fd, self.size)

    @property
    def _fd(self) -> int:
        return -1 if self._sibling.file is None else self._sibling.file.fileno()

    @property
    def kept(self) -> bool:
        """Whether what an earlier run left in the sibling is still there."""
        return self._sibling.kept

    def spare(self, spared: bool = True) -> None:
        """Whether `discard`, and the end of the process, leave the sibling as it is."""
        self._sibling.spared = spared

    def read_at(self, view: memoryview, offset: int) -> None:
        """Fills `view` with what the file holds from `offset` on. Raises OutputError."""
        done = 0
        while done < len(view):
            try:
                count = system.read_at(self._fd, view[done:], offset + done)
            except OSError as error:
                raise self._error(error) from error
            if not count:
                raise OutputError("was cut while it was written", path=self.path, offset=offset + done)
            done += count

    def write_at(self, data: bytes | memoryview, offset: int) -> None:
        """Writes all of `data` (contiguous bytes) at `offset`. From any thread. Raises OutputError."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            try:
                count = system.write_at(self._fd, view[done : done + _CHUNK], offset + done)
            except (OSError, ValueError) as error:
                raise self._error(error) from error
            if count <= 0:
                raise OutputError(f"wrote {done} of {len(view)} bytes at offset {offset:#x}", path=self.path)
            done += count
        if done >= _WORTH_FLUSHING:
            system.begin_flush(self._fd, offset, done)

    def share(self, source: int, offset: int, at: int, count: int) -> bool:
        """Takes bytes of an open file over without copying them, where the file system can; see `share_extents`.

        Raises OutputError.
        """
        try:
            return system.share_extents(source, offset, self._fd, at, count)
        except OSError as error:
            raise self._error(error) from error

    def seal(self) -> None:
        """Waits until all bytes are on disk. Raises OutputError; then discard the file, a second try would lie."""
        try:
            system.flush(self._fd)
        except OSError as error:
            raise self._error(error) from error

    def publish(self) -> None:
        """Gives the sealed file its name, replacing an old one, and waits until the folder is on disk."""
        if not self._overwrite and os.path.lexists(self._target):
            raise OutputError("exists already", path=self.path)
        file = self._sibling.file
        assert file is not None
        try:
            system.replace(file, self._sibling.path, self._target)
            self._finalizer.detach()
            try:
                system.flush_entry(file, self._target.parent)
            finally:
                self._sibling.close()
        except OSError as error:
            raise self._error(error) from error

    def take_back(self) -> None:
        """Takes the published file's name away: it is one of a set whose others could not be published, and there was
        none before. The file is removed, or if it is spared a sibling again.
        """
        with contextlib.suppress(OSError):
            if self._sibling.spared:
                self._target.replace(self._sibling.path)
            else:
                self._target.unlink()

    def discard(self) -> None:
        """Removes what was written, unless it is spared. Does nothing after publish, or twice."""
        if self._finalizer.alive:
            self._sibling.remove()
            self._finalizer.detach()

    def _error(self, error: OSError | ValueError) -> OutputError:
        if not isinstance(error, OSError):
            return OutputError(str(error), path=self.path)
        text = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text += f": needs {self.size} bytes, {system.free_space(self._target.parent)} free in {self._target.parent}"
        elif error.errno == errno.EFBIG:
            text += f": needs {self.size} bytes"
        elif error.errno == errno.ENOENT:
            text = f"no folder {self._target.parent}"
        return OutputError(text, path=self.path)


class _Sibling:
    """What is written before it has its name, `output`: open and locked. Its methods may be broken off anywhere."""

    def __init__(self, output: Path, path: Path) -> None:
        self.output = output
        self.path = path
        self.file: FileIO | None = None
        self.kept = self.spared = False
        self._made = False
        self._process = os.getpid()

    def create(self, keep: Callable[[int], bool] | None) -> None:
        """Makes and locks it. What a killed writer left there is unlocked, and taken over, where there are locks.

        Raises OutputError when another writer has it or something else is in the way, OSError when it cannot be made.
        """
        while True:
            self._made = False
            try:
                self.file = system.create(self.path)
                self._made = True
            except FileExistsError:
                try:
                    self.file = system.open_itself(self.path)
                except FileNotFoundError:
                    continue
                except BlockingIOError as error:
                    raise self._taken() from error
            if self._claim(self.file):
                break
            self.close()
        if keep is not None and not self._made:
            self.spared = True  # whatever is said or raised: until it is known that nobody wants it
            self.spared = self.kept = keep(os.fstat(self.file.fileno()).st_size)
        if not self.kept:
            os.ftruncate(self.file.fileno(), 0)

    def remove(self) -> None:
        """Removes it: if it is ours, or was on the way of becoming so and nobody has it now; but not if spared."""
        if self._process != os.getpid():
            return  # a forked child ends with its parent's files still in the making
        if self.spared:
            self.close()
            return
        try:
            if self.file is None or self.file.closed:
                self.file = system.open_itself(self.path)
            if self._claim(self.file):
                self.path.unlink(missing_ok=True)
        except (OSError, OutputError):
            pass  # the fault that led here is the one to report
        self.close()

    def close(self) -> None:
        """Closes it, which unlocks it too."""
        if self.file is not None:
            self.file.close()

    def _claim(self, file: FileIO) -> bool:
        """Locks an open file, again if it is ours. False if it has lost its name: its writer published or gave up."""
        try:
            locked = system.lock(file)
            named = os.stat(self.path, follow_symlinks=False)
        except BlockingIOError as error:
            raise self._taken() from error
        except FileNotFoundError:
            return False
        found = os.fstat(file.fileno())
        if not os.path.samestat(named, found):
            return False
        if not stat.S_ISREG(named.st_mode) or found.st_nlink != 1:
            raise OutputError(f"{self.path.name} is in the way and not a writer's leftover", path=self.output)
        if not locked and not self._made:
            text = "is another writer's, or was; remove it if none is at work: this file system has no locks to tell"
            raise OutputError(f"{self.path.name} {text}", path=self.output)
        return True

    def _taken(self) -> OutputError:
        return OutputError("another writer is making this file", path=self.output)


def target_of(path: Path) -> Path:
    """The file that gets the name: where `path` is a link, what that leads to. Raises OSError, ValueError."""
    return Path(os.path.realpath(system.long_path(path)))


def sibling_path(target: Path) -> Path:
    """Where a file is while it is made. `target`: the file itself, no link to it."""
    return target.with_name(sibling_name(target.name))


def sibling_name(name: str, ending: str = ".part") -> str:
    """`.NAME.part`, or a digest for NAME where that is longer than file systems take."""
    raw = os.fsencode(name)
    return f".{name if len(raw) + 1 + len(ending) <= _NAME_MAX else sha256(raw).hexdigest()}{ending}"
