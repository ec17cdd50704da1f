"""A Windows to try the package on where there is none: `pytest -p tests.system.as_windows`, or `imitate()`.

Only gguf_forge.system takes it for one, and every module feels that calls are missing. The calls it has instead keep
books on who has which file open, with what access and with what he lets others do, and refuse as Windows does: no
second writer, no rename over an open file, no removal of one, unless all who have it open allow it. What is not
imitated: mandatory locks, paths of Windows, its file systems. Under Linux only.
"""

from __future__ import annotations

import concurrent.futures.thread
import ctypes
import errno
import importlib
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy
import rich.console
import rich.progress
import safetensors
import sentencepiece
import tokenizers
import yaml

assert sys.platform == "linux"

#: What is imported before anything is taken away, as it may look for it when it is imported.
FIRST = [concurrent.futures.thread, click, mmap, numpy, rich.console, rich.progress, safetensors, sentencepiece]
FIRST += [subprocess, tempfile, tokenizers, yaml]

#: Names of `os` that Windows lacks, as far as the standard library itself lives without them.
LACKING = (
    "preadv", "pwritev", "pread", "pwrite", "readv", "writev", "posix_fallocate", "posix_fadvise", "fchmod",
    "fchown", "chown", "statvfs", "fstatvfs", "sched_getaffinity", "sched_setaffinity", "mkfifo", "mknod", "sync",
    "fdatasync", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC",
)  # fmt: skip
READ, WRITE, DELETE = 1, 2, 4
#: Error numbers of Windows, as Python gives them.
ERRORS = {
    2: (errno.ENOENT, "The system cannot find the file specified"),
    3: (errno.ENOENT, "The system cannot find the path specified"),
    5: (errno.EACCES, "Access is denied"),
    32: (errno.EACCES, "The process cannot access the file because it is being used by another process"),
    80: (errno.EEXIST, "The file exists"),
    87: (errno.EINVAL, "The parameter is incorrect"),
}


@dataclass(frozen=True)
class Opened:
    """A file that is open: which, how, and what may be done meanwhile by others (READ | WRITE | DELETE)."""

    fd: int
    path: str
    inode: int
    access: int
    shared: int

    @property
    def alive(self) -> bool:
        try:
            return os.fstat(self.fd).st_ino == self.inode
        except OSError:
            return False


class Kernel:
    """kernel32.dll, as far as it is called. `old`: of the time before files could be replaced while they are open."""

    def __init__(self, old: bool = False) -> None:
        self.old = old
        self.error = 0
        self._opened: dict[int, Opened] = {}
        self._lock = threading.RLock()
        self._replace, self._unlink = os.replace, os.unlink
        self.calls: list[tuple[Any, ...]] = []
        # bound methods take no attributes, which ctypes' functions have
        self.CreateFileW = lambda *given: self._one_at_a_time(self._create, *given)
        self.SetFileInformationByHandle = lambda *given: self._one_at_a_time(self._set_information, *given)

    def _one_at_a_time(self, call: Any, *given: Any) -> Any:
        with self._lock:
            return call(*given)

    def holders(self, path: str | os.PathLike[str]) -> list[Opened]:
        """Those who have the file at `path` open."""
        inode = os.stat(path, follow_symlinks=False).st_ino
        return [opened for opened in self._opened.values() if opened.inode == inode and opened.alive]

    def hold(self, path: str | os.PathLike[str], shared: int = READ | WRITE) -> int:
        """Opens a file as another program does, by default as C libraries do: not to be replaced."""
        fd = os.open(path, os.O_RDONLY)
        self._opened[fd] = Opened(fd, os.fspath(path), os.fstat(fd).st_ino, READ, shared)
        return fd

    def _fail(self, error: int, failed: int) -> int:
        self.error = error
        return failed

    def _create(self, path: str, access: int, shared: int, _: None, how: int, flags: int, __: None) -> int:
        wanted = (READ if access >> 31 & 1 else 0) | (WRITE if access >> 30 & 1 else 0)
        wanted |= DELETE if access & 0x10000 else 0
        invalid = ctypes.c_void_p(-1).value or 0
        exists = os.path.lexists(path)
        if not exists and not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            return self._fail(3, invalid)
        if how == 1 and exists:
            return self._fail(80, invalid)
        if how == 3 and not exists:
            return self._fail(2, invalid)
        if os.path.isdir(path) and not flags & 0x02000000:
            return self._fail(5, invalid)
        if exists:
            for other in self.holders(path if flags & 0x00200000 else os.path.realpath(path)):
                if wanted & ~other.shared or other.access & ~shared:
                    return self._fail(32, invalid)
        native = os.O_RDWR if wanted & WRITE else os.O_RDONLY
        native |= os.O_CREAT | os.O_EXCL if how == 1 else 0
        fd = os.open(path, native | NOFOLLOW if flags & 0x00200000 else native | NONBLOCK, 0o666)
        self._opened[fd] = Opened(fd, path, os.fstat(fd).st_ino, wanted, shared)
        return fd

    def _set_information(self, fd: int, kind: int, data: bytes, size: int) -> int:
        assert size == len(data)
        self.calls.append((fd, kind))
        if kind == 6:
            os.ftruncate(fd, *struct.unpack("@q", data))
            return 1
        assert kind == 22
        head = struct.calcsize("@IPI")
        flags, folder, length = struct.unpack("@IPI", data[:head])
        assert (flags, folder, data[head + length :]) == (3, 0, b"\0\0")
        target = data[head : head + length].decode("utf-16-le", "surrogatepass")
        if self.old:
            return self._fail(87, 0)
        ours = self._opened[fd]
        assert ours.alive
        assert ours.access & DELETE
        if os.path.lexists(target):
            mapped = os.path.realpath(target) in Path("/proc/self/maps").read_text(encoding="utf-8")
            if mapped or not all(other.shared & DELETE for other in self.holders(target)):
                return self._fail(5, 0)
        self._replace(ours.path, target)
        return 1

    def replace(self, source: Any, target: Any) -> None:
        """MoveFileEx: not over a file that anybody has open, nor of one whose holders do not let it go."""
        with self._lock:
            if not all(opened.shared & DELETE for opened in self.holders(source)):
                raise failure(32)
            if os.path.lexists(target) and self.holders(target):
                raise failure(5)
            self._replace(source, target)

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        """DeleteFile: not where a holder does not let the file go."""
        with self._lock:
            if dir_fd is None and os.path.lexists(path) and not all(o.shared & DELETE for o in self.holders(path)):
                raise failure(32)
            self._unlink(path, dir_fd=dir_fd)


def failure(error: int) -> OSError:
    """An OSError as Windows gives it, with both its numbers."""
    made = OSError(*ERRORS[error])
    vars(made)["winerror"] = error
    return made


NOFOLLOW, NONBLOCK = os.O_NOFOLLOW, os.O_NONBLOCK


def imitate(old: bool = False) -> Kernel:
    """Makes this process take gguf_forge.system, which must not be imported yet, through its way on Windows."""
    assert "gguf_forge" not in sys.modules
    kernel = Kernel(old)
    statvfs, cloexec = os.statvfs, os.O_CLOEXEC
    for name in LACKING:
        delattr(os, name)
    for name in ("SIGHUP", "pthread_kill"):
        delattr(signal, name)
    for name in ("fcntl", "resource", "termios", "pty"):
        sys.modules[name] = None  # type: ignore[assignment]

    def disk_usage(path: Any) -> Any:
        found = statvfs(path)
        return types.SimpleNamespace(free=found.f_bavail * found.f_frsize)

    added: dict[Any, dict[str, Any]] = {
        os: {"O_BINARY": 0, "O_NOINHERIT": cloexec, "replace": kernel.replace, "unlink": kernel.unlink},
        ctypes: {
            "WinDLL": lambda name, use_last_error: kernel,
            "get_last_error": lambda: kernel.error,
            "WinError": failure,
        },
        shutil: {"disk_usage": disk_usage},
        signal: {"SIGBREAK": signal.SIGUSR1},
    }
    for module, names in added.items():
        vars(module).update(names)
    sys.modules["msvcrt"] = types.ModuleType("msvcrt")
    vars(sys.modules["msvcrt"]).update(
        open_osfhandle=lambda handle, flags: handle, get_osfhandle=lambda fd: fd
    )
    real, sys.platform = sys.platform, "win32"
    try:
        system = importlib.import_module("gguf_forge.system")
    finally:
        sys.platform = real
    vars(system).update(sys=types.SimpleNamespace(platform="win32"), _LONG=sys.maxsize)
    return kernel

