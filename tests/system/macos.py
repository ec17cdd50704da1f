"""A macOS to try the package on where there is none: `pytest -p tests.system.as_macos`, or `imitate()` first of all.

Only gguf_forge.system takes it for one, and every module feels that calls are missing. fcntl knows two requests more:
F_PREALLOCATE, which takes space and leaves the length, and F_FULLFSYNC; both can be missing, as on network volumes. Not
imitated: its file systems, of which most do not tell upper from lower case. Under Linux only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import importlib
import os
import struct
import sys
import types
from typing import Any

assert sys.platform == "linux"

LACKING = ("posix_fallocate", "posix_fadvise", "sched_getaffinity", "sched_setaffinity", "fdatasync")
PREALLOCATE, FULLFSYNC = 42, 51


class Requests:
    """The two requests. `lacking`: the error of a volume that knows neither."""

    def __init__(self, lacking: int | None = None) -> None:
        self.lacking = lacking
        self.seen: list[int] = []
        self._fcntl, self._libc = fcntl.fcntl, ctypes.CDLL(None, use_errno=True)

    def fcntl(self, fd: Any, request: int, given: Any = 0) -> Any:
        """fcntl.fcntl with the two."""
        if request not in (PREALLOCATE, FULLFSYNC):
            return self._fcntl(fd, request, given)
        self.seen.append(request)
        if self.lacking is not None:
            raise OSError(self.lacking, os.strerror(self.lacking))
        if request == FULLFSYNC:
            os.fsync(fd)
            return 0
        flags, mode, offset, length, _ = struct.unpack("@Iiqqq", given)
        assert (flags, mode, offset, len(given)) == (4, 3, 0, 32)
        if not length:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if self._libc.fallocate(fd, 1, ctypes.c_longlong(0), ctypes.c_longlong(length)):  # 1: keeps the length
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return given


def imitate(lacking: int | None = None, old: bool = False) -> Requests:
    """Makes this process take gguf_forge.system, which must not be imported yet, through its way on macOS.

    `old`: before version 11, which has no preadv.
    """
    assert "gguf_forge" not in sys.modules
    requests = Requests(lacking)
    for name in (*LACKING, *(("preadv", "pwritev") if old else ())):
        delattr(os, name)
    vars(fcntl).update(fcntl=requests.fcntl, F_FULLFSYNC=FULLFSYNC)
    real, sys.platform = sys.platform, "darwin"
    try:
        system = importlib.import_module("gguf_forge.system")
    finally:
        sys.platform = real
    vars(system)["sys"] = types.SimpleNamespace(platform="darwin")
    return requests
