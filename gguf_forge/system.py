"""What differs between Linux, macOS and Windows: opening, locks, bytes at offsets, space, durability, names, threads.

Knows the systems' calls and gives each one meaning everywhere; must not know formats, models, or who calls. Every check
of `sys.platform` is here, and every call that one of the three lacks. docs/platforms.md says what a system cannot give.
Functions raise OSError, with a reason fit to be shown.
"""
# ruff: noqa: RET505 - for mypy, what follows `if sys.platform == ...: return` is unreachable; an `else` is not

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from io import FileIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # starting up stays cheap
    import threading
    from pathlib import Path
if sys.platform == "win32":
    import ctypes
    import msvcrt
    import shutil
    from ctypes import wintypes
else:
    import fcntl
if sys.platform == "darwin":
    import unicodedata

StrPath = str | os.PathLike[str]

#: Errors that say a file system lacks a call, not that the call went wrong.
_LACKING = (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.ENOTTY)


# Opening. On Windows through CreateFileW: os.open there lets nobody replace or remove a file while it is open.


def open_to_read(path: StrPath) -> int:
    """A descriptor to read from, without waiting for a pipe's other end; what is no regular file the caller refuses.

    On Windows too, others may replace, rename or remove the file meanwhile.
    """
    if sys.platform == "win32":
        return _opened(path, _GENERIC_READ, _SHARE_ALL, _OPEN_EXISTING, _BACKUP_SEMANTICS)  # folders too, as elsewhere
    else:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def create(path: StrPath) -> FileIO:
    """A new file, open to read and write; FileExistsError where there is something. `lock` it next."""
    return FileIO(path, "x+", opener=_open_alone)


def open_itself(path: StrPath) -> FileIO:
    """Opens what stands at `path` to write: a link and not what it points to, a pipe without waiting.

    BlockingIOError where, on Windows, a writer has it open.
    """
    return FileIO(path, "r+", opener=_open_alone)


def lock(file: FileIO) -> bool:
    """Keeps other writers off a file of `create` or `open_itself` until it is closed; BlockingIOError if one has it.

    False where the file system has no locks. On Windows it is so from opening: such a file is shared with readers only,
    and a second writer cannot open it. The end of a process, however it comes, unlocks.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (*_LACKING, errno.ENOLCK):
                raise
            return False
    return True


def _open_alone(path: StrPath, flags: int) -> int:
    if sys.platform == "win32":
        access, shared = _GENERIC_READ | _GENERIC_WRITE | _DELETE, _SHARE_READ | _SHARE_DELETE
        how = _CREATE_NEW if flags & os.O_EXCL else _OPEN_EXISTING
        try:
            return _opened(path, access, shared, how, _OPEN_REPARSE_POINT)
        except PermissionError as error:
            if error.winerror != _SHARING_VIOLATION:
                raise
            raise BlockingIOError(errno.EAGAIN, error.strerror, os.fspath(path)) from error
    else:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


# Bytes at offsets, from any thread. Where there are no calls for that a file has one position, which a lock guards.
# Windows has one (ReadFile with an offset), and gains nothing by it: on files opened as C libraries open them, it
# serves one request at a time.

if sys.platform != "win32" and hasattr(os, "preadv"):  # macOS has it since version 11

    def read_at(fd: int, view: memoryview, offset: int) -> int:
        """Reads into `view` from `offset`. How many bytes: maybe fewer than there are, 0 only at the end."""
        return os.preadv(fd, [view], offset)

    def bytes_at(fd: int, size: int, offset: int) -> bytes:
        """As `read_at`, of up to `size` bytes, which nobody has to copy."""
        return os.pread(fd, size, offset)

    def write_at(fd: int, view: memoryview, offset: int) -> int:
        """Writes `view` at `offset`. How many bytes of it: maybe not all."""
        return os.pwrite(fd, view, offset)

else:
    import threading

    _POSITIONS = tuple(threading.Lock() for _ in range(64))

    def read_at(fd: int, view: memoryview, offset: int) -> int:
        """Reads into `view` from `offset`. How many bytes: maybe fewer than there are, 0 only at the end."""
        with _POSITIONS[fd % len(_POSITIONS)], FileIO(fd, closefd=False) as file:  # os.read would copy
            file.seek(offset)
            return file.readinto(view) or 0

    def bytes_at(fd: int, size: int, offset: int) -> bytes:
        """As `read_at`, of up to `size` bytes, which nobody has to copy."""
        with _POSITIONS[fd % len(_POSITIONS)], FileIO(fd, closefd=False) as file:
            file.seek(offset)
            return file.read(size) or b""

    def write_at(fd: int, view: memoryview, offset: int) -> int:
        """Writes `view` at `offset`. How many bytes of it: maybe not all."""
        with _POSITIONS[fd % len(_POSITIONS)]:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.write(fd, view)


# Space and durability.


def free_space(folder: StrPath) -> int:
    """Bytes that can still be written to the file system of a folder."""
    if sys.platform == "win32":
        return shutil.disk_usage(folder).free
    else:
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize


def reserve(fd: int, size: int) -> None:
    """Gives an empty file `size` bytes, all zero, with their space where the file system can; else just the length."""
    if sys.platform == "win32":
        _set_information(fd, _END_OF_FILE, struct.pack("@q", size))  # os.ftruncate would write the zeros out
    else:
        try:
            if sys.platform == "darwin":
                # F_PREALLOCATE (42) and a struct fstore: F_ALLOCATEALL, F_PEOFPOSMODE, offset, length, allocated
                fcntl.fcntl(fd, 42, struct.pack("@Iiqqq", 4, 3, 0, size, 0))
            else:
                os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in _LACKING:
                raise
        os.ftruncate(fd, size)  # F_PREALLOCATE leaves the length as it is


#: What places and lengths of shared extents are multiples of, on most file systems that share them.
EXTENT = 4096


def share_extents(source: int, offset: int, target: int, at: int, count: int) -> bool:
    """Has an open file hold, `at` a place in it, `count` bytes of another from `offset` on, without copying any.

    Where both are on one file system that can (Btrfs, XFS, bcachefs, ... on Linux), and all three numbers are multiples
    of its blocks: False otherwise, and on other systems.
    """
    if sys.platform != "linux":
        return False
    else:
        try:
            # FICLONERANGE and a struct file_clone_range: the source's descriptor, its place, length, the place here
            fcntl.ioctl(target, 0x4020940D, struct.pack("@qQQQ", source, offset, count, at))
        except OSError as error:
            if error.errno not in (*_LACKING, errno.EXDEV, errno.EPERM, errno.ETXTBSY):
                raise
            return False
        return True


def set_mode(fd: int, mode: int) -> None:
    """Sets who may read and write an open file, as far as that is a file's mode: not on Windows."""
    if sys.platform != "win32":
        os.fchmod(fd, mode)


def begin_flush(fd: int, offset: int, size: int) -> None:
    """Has the system begin to put bytes that were written on the medium, so that `flush` has less to wait for.

    On Linux, which begins by itself only when much is waiting, or after half a minute; elsewhere nothing is done.
    """
    if sys.platform == "linux":
        call = _sync_file_range()
        if call is not None:
            call(fd, offset, size, 2)  # SYNC_FILE_RANGE_WRITE; what goes wrong, `flush` says


if sys.platform == "linux":

    @cache
    def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
        import ctypes  # noqa: PLC0415 - starting up stays cheap

        try:
            found = ctypes.CDLL(None).sync_file_range
        except (OSError, AttributeError):  # no C library to be looked into, or one without it
            return None
        found.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
        call: Callable[[int, int, int, int], int] = found
        return call


def flush(fd: int) -> None:
    """Waits until all that was written is on the medium. The fsync of macOS alone leaves it in the drive's cache."""
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in _LACKING:
                raise
            os.fsync(fd)  # network volumes
    else:
        os.fsync(fd)


def flush_entry(file: FileIO, folder: StrPath) -> None:
    """Waits until the name that an open file got in `folder` is on the medium.

    Windows flushes no folders; there the file is flushed again, and with it the record of its name.
    """
    if sys.platform == "win32":
        os.fsync(file.fileno())
    else:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            flush(fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems sync no folders
                raise
        finally:
            os.close(fd)


# Replacing a file that others may have open.


def require_replaceable(path: StrPath) -> None:
    """PermissionError where `replace` could not put another file in the place of this one, as far as it shows now.

    On Windows: it is read-only, or open in a program that lets nobody replace it. Elsewhere it always can.
    """
    if sys.platform == "win32":
        if not os.stat(path).st_mode & stat.S_IWRITE:
            raise PermissionError(errno.EACCES, "is read-only", os.fspath(path))
        _patiently(
            lambda: os.close(_opened(path, _DELETE, _SHARE_ALL, _OPEN_EXISTING, 0)), path, _SHARING_VIOLATION
        )


def replace(file: FileIO, path: Path, target: Path) -> None:
    """Gives an open file of `create` or `open_itself`, at `path`, the name `target`, in one step for all who look.

    On Windows another program may have the target open without letting it be replaced: PermissionError, after more than
    a second, in which a virus scanner would have finished.
    """
    if sys.platform == "win32":
        _patiently(lambda: _rename_over_open(file, path, target), target, _ACCESS_DENIED, _SHARING_VIOLATION)
    else:
        os.replace(path, target)


# Names.


def refused_name(name: str) -> str | None:
    """Why there can be no file of this name on this system, though a call might seem to make it; None if there can."""
    return refused_by_windows(name) if sys.platform == "win32" else None


def refused_by_windows(name: str) -> str | None:
    """What is wrong with a file's name on Windows: a device's, a stream of another file's, or not kept as it is."""
    if name.split(".", maxsplit=1)[0].rstrip(" ").upper() in _DEVICES:
        return f"{name} is a device's name on Windows"
    found = next((c for c in name if c in '<>:"|?*\\/' or ord(c) < 32), None)
    if found is not None:
        return f"a file's name cannot hold {found} on Windows"
    return "a file's name cannot end in a dot or a blank on Windows" if name.endswith((".", " ")) else None


#: https://learn.microsoft.com/windows/win32/fileio/naming-a-file: no files of these names, whatever suffix they have.
_DEVICES = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"]
    + [f"{port}{number}" for port in ("COM", "LPT") for number in "123456789\xb9\xb2\xb3"]
)


def path_key(path: StrPath) -> str:
    """Equal for two paths that lead, or would lead, to one file. Raises ValueError for what is no path.

    On macOS also for two that differ in case only, though some volumes tell them apart.
    """
    found = os.path.realpath(path)
    if sys.platform == "darwin":
        return unicodedata.normalize("NFD", found).casefold()
    else:
        return os.path.normcase(found)


def long_path(path: StrPath) -> str:
    r"""The path in a form that may have any length: on Windows with \\?\ before it, which lifts the bound of 259."""
    if sys.platform == "win32":
        found = os.path.abspath(path)
        return prefixed(found) if len(found) >= _LONG else found
    else:
        return os.fspath(path)


def prefixed(path: str) -> str:
    r"""An absolute path of Windows with its prefix: \\?\C:\folder\file, \\?\UNC\server\share\file."""
    if path.startswith(("\\\\?\\", "\\\\.\\")):
        return path
    return f"\\\\?\\UNC\\{path[2:]}" if path.startswith("\\\\") else f"\\\\?\\{path}"


# Processors, threads, streams.


def processors() -> int:
    """Processors this process may run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    else:
        return os.cpu_count() or 1


def join(threads: Iterable[threading.Thread]) -> None:
    """Waits for threads to end; a signal's handler runs meanwhile.

    On Windows within a tenth of a second: Python's own waiting lets no Ctrl-C through
    (https://github.com/python/cpython/issues/139689).
    """
    for thread in threads:
        if sys.platform == "win32":
            while thread.is_alive():
                thread.join(0.1)
        else:
            thread.join()


def reader_left(error: OSError) -> bool:
    """Whether a write to a stream failed because nobody reads it any more.

    On Windows that may come as EINVAL (https://github.com/python/cpython/issues/79935).
    """
    if isinstance(error, BrokenPipeError):
        return True
    return sys.platform == "win32" and error.errno == errno.EINVAL and error.filename is None


if sys.platform == "win32":
    # winnt.h, winbase.h, minwinbase.h
    _GENERIC_READ, _GENERIC_WRITE, _DELETE = 0x80000000, 0x40000000, 0x00010000
    _SHARE_READ, _SHARE_DELETE, _SHARE_ALL = 1, 4, 7
    _CREATE_NEW, _OPEN_EXISTING = 1, 3
    _BACKUP_SEMANTICS, _OPEN_REPARSE_POINT = 0x02000000, 0x00200000
    _END_OF_FILE, _RENAME_EX = 6, 22
    _REPLACE_IF_EXISTS, _POSIX_SEMANTICS = 1, 2
    _ACCESS_DENIED, _SHARING_VIOLATION = 5, 32  # to a rename, the first too says that somebody has the file open
    _INVALID_HANDLE = ctypes.c_void_p(-1).value
    _IN_USE = "is open in another program, which does not let it be replaced"
    #: Seconds between tries to replace a file; 0 after the last.
    _PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0)
    #: Characters from which paths get their prefix: leaves room for a longer name in the same folder.
    _LONG = 180

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _create_file = _kernel32.CreateFileW
    _create_file.restype = wintypes.HANDLE
    _create_file.argtypes = [wintypes.LPCWSTR, wintypes.DWORD, wintypes.DWORD, wintypes.LPVOID]
    _create_file.argtypes += [wintypes.DWORD, wintypes.DWORD, wintypes.HANDLE]
    _set_file_information = _kernel32.SetFileInformationByHandle
    _set_file_information.restype = wintypes.BOOL
    _set_file_information.argtypes = [wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD]

    def _opened(path: StrPath, access: int, shared: int, how: int, flags: int) -> int:
        name = os.fspath(path)
        if "\0" in name:
            raise ValueError("embedded null character")
        handle = _create_file(long_path(name), access, shared, None, how, flags, None)
        if handle == _INVALID_HANDLE:
            error = ctypes.WinError(ctypes.get_last_error())
            error.filename = name
            raise error
        return msvcrt.open_osfhandle(handle, os.O_BINARY | os.O_NOINHERIT)

    def _set_information(fd: int, kind: int, data: bytes) -> None:
        if not _set_file_information(msvcrt.get_osfhandle(fd), kind, data, len(data)):
            raise ctypes.WinError(ctypes.get_last_error())

    def _patiently(call: Callable[[], None], path: StrPath, *busy: int) -> None:
        """Calls again while an error says that another program has the file open, as virus scanners do for a moment."""
        for pause in _PAUSES:
            try:
                call()
                break
            except PermissionError as error:
                if error.winerror not in busy:
                    raise
                if not pause:
                    raise PermissionError(errno.EACCES, _IN_USE, os.fspath(path)) from error
                time.sleep(pause)

    def _rename_over_open(file: FileIO, path: Path, target: Path) -> None:
        """Whoever has the target open, and lets it be removed, keeps the old file: Windows 10 and later, NTFS.

        Elsewhere by the other call, which replaces nothing that is open.
        """
        name = os.fspath(target).encode("utf-16-le", "surrogatepass")
        # FILE_RENAME_INFO: flags, folder (none: the name is absolute), bytes of the name, the name, a 0
        head = struct.pack("@IPI", _REPLACE_IF_EXISTS | _POSIX_SEMANTICS, 0, len(name))
        try:
            _set_information(file.fileno(), _RENAME_EX, head + name + b"\0\0")
        except OSError:
            os.replace(path, target)
