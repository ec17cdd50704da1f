"""A worker's rehearsal without a GPU: the library in the driver's place runs kernels on the emulated one, or fails.

FORGE_REHEARSAL says what, where GGUF_FORGE_CUDA names that library: "emulated"; "nothing", for kernels that do
nothing; "refuse", for a driver that is too old to read them; or what happens at the kernel that is named behind it:
"hang", "die", "lose" (the device, as by a bad address) or "spoil" (one byte of what it writes).
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

VARIABLE = "FORGE_REHEARSAL"
_LAUNCHER = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.POINTER(ctypes.c_void_p)
)
#: The result of a kernel that reached for memory that is not its own.
BAD_ADDRESS = 700
#: That of kernels which a driver cannot read.
NOT_READ = 222
_held: list[Any] = []


def begin() -> None:
    """Sets the library up, if this is a rehearsal."""
    what, _, kernel = os.environ.get(VARIABLE, "").partition(" ")
    if not what:
        return
    stub = ctypes.CDLL(os.environ["GGUF_FORGE_CUDA"])
    if what == "refuse":
        stub.stub_reset(1, 12080, None, None)
        stub.stub_fail(b"cuModuleLoadData", ctypes.c_long(1), NOT_READ, 0)
        return
    if what == "nothing":
        stub.stub_reset(1, 13000, None, None)
        return
    from tests.cuda import host

    emulated = host.library()

    def launch(name: bytes, first: int, grid: int, threads: int, args: Any) -> int:
        found = kernel and name.decode() == kernel
        if found and what == "hang":
            time.sleep(3600)
        if found and what == "die":
            os.abort()
        if found and what == "lose":
            stub.stub_fail(b"cuStreamSynchronize", ctypes.c_long(1), BAD_ADDRESS, 1)
            return 0
        code: int = emulated.emulated_launch(name, first, grid, threads, args)
        if found and what == "spoil":  # the second argument of a decoder is where it writes to
            at = ctypes.cast(args[1], ctypes.POINTER(ctypes.c_uint64))[0]
            ctypes.cast(at, ctypes.POINTER(ctypes.c_uint8))[9] ^= 1
        return code

    launcher = _LAUNCHER(launch)
    _held.append(launcher)
    stub.stub_reset(1, 13000, launcher, ctypes.cast(emulated.emulated_arguments, ctypes.c_void_p))
