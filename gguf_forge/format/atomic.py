"""A file that appears under its name only when it is whole and on disk. Knows names, locks and bytes, no format.

Life: create (a locked sibling `.NAME.part`, its space reserved) -> write_at, from any thread -> seal (fsync) ->
publish (rename, fsync of the folder), or discard at any point before. Of several files that belong together: create
all, seal all, then publish all, the one that readers look for first as the last.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

from gguf_forge.errors import OutputError

#: Errors of posix_fallocate that say the file system has no such call, not that space lacks.
_NO_FALLOCATE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV)
_CHUNK = 1 << 30


class AtomicFile:
    """An output of `size` bytes, all zero until written. A symlink given as `path` stays; its target is replaced.

    Raises OutputError when the folder is missing or read-only, the file is in the way (`overwrite` False, a folder, a
    device), another writer has the same output, or `size` bytes are not free.
    """

    def __init__(self, path: str | os.PathLike[str], size: int, *, overwrite: bool = True) -> None:
        self.path = Path(path)
        self.size = size
        self._overwrite = overwrite
        try:
            self._target = Path(os.path.realpath(self.path))
        except ValueError as error:
            raise self._error(error) from error
        self._part = self._target.with_name(f".{self._target.name}.part")
        self._fd = -1
        mode = self._check_target()
        self._lock()
        try:
            if mode is not None:
                os.fchmod(self._fd, mode)
            self._reserve()
        except OSError as error:
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
        return stat.S_IMODE(found.st_mode) & 0o777

    def _lock(self) -> None:
        """Opens the sibling and locks it. What a killed writer left there is unlocked, and taken over."""
        while True:
            try:
                fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
            except (OSError, ValueError) as error:
                raise self._error(error) from error
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = os.fstat(fd)
                current = _stat(self._part)
                if current is None or (current.st_dev, current.st_ino) != (found.st_dev, found.st_ino):
                    os.close(fd)
                    continue
                if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                    raise OutputError(f"{self._part.name} is in the way and not a writer's leftover", path=self.path)
                os.ftruncate(fd, 0)
            except BlockingIOError as error:
                os.close(fd)
                raise OutputError("another writer is making this file", path=self.path) from error
            except OSError as error:
                os.close(fd)
                raise self._error(error) from error
            except BaseException:
                os.close(fd)
                raise
            self._fd = fd
            return

    def _reserve(self) -> None:
        if self.size > _free(self._part.parent):  # asking for it might fill the disk for others before it fails
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            if self.size:
                os.posix_fallocate(self._fd, 0, self.size)
        except OSError as error:
            if error.errno not in _NO_FALLOCATE:
                raise
            os.ftruncate(self._fd, self.size)

    def write_at(self, data: bytes | memoryview, offset: int) -> None:
        """Writes all of `data` (contiguous bytes) at `offset`. From any thread. Raises OutputError."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            try:
                count = os.pwrite(self._fd, view[done : done + _CHUNK], offset + done)
            except OSError as error:
                raise self._error(error) from error
            if count <= 0:
                raise OutputError(f"wrote {done} of {len(view)} bytes at offset {offset:#x}", path=self.path)
            done += count

    def seal(self) -> None:
        """Waits until all bytes are on disk. Raises OutputError; then discard the file, a second try would lie."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._error(error) from error

    def publish(self) -> None:
        """Gives the sealed file its name, replacing an old one, and waits until the folder is on disk."""
        if not self._overwrite and os.path.lexists(self._target):
            raise OutputError("exists already", path=self.path)
        try:
            os.replace(self._part, self._target)
        except OSError as error:
            raise self._error(error) from error
        fd, self._fd = self._fd, -1
        try:
            os.close(fd)
            folder = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems sync no folders
                    raise
            finally:
                os.close(folder)
        except OSError as error:
            raise self._error(error) from error

    def discard(self) -> None:
        """Removes what was written. Does nothing after publish, or twice."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            self._part.unlink(missing_ok=True)
        except OSError:
            pass  # the fault that led here is the one to report
        finally:
            os.close(fd)

    def _error(self, error: OSError | ValueError) -> OutputError:
        if not isinstance(error, OSError):
            return OutputError(str(error), path=self.path)
        text = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text += f": needs {self.size} bytes, {_free(self._part.parent)} free in {self._part.parent}"
        elif error.errno == errno.EFBIG:
            text += f": needs {self.size} bytes"
        elif error.errno == errno.ENOENT:
            text = f"no folder {self._part.parent}"
        return OutputError(text, path=self.path)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
