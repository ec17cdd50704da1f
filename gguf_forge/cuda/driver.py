"""NVIDIA's driver, its library opened at run time: calls, and their results as errors of one line.

The driver brings the library; nothing of the CUDA toolkit is needed. GGUF_FORGE_CUDA names another file. Knows no
kernels and owns no memory.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import cffi

from gguf_forge.cuda.declarations import DECLARATIONS, LIBRARIES, MEANINGS
from gguf_forge.errors import ForgeError, printable

VARIABLE = "GGUF_FORGE_CUDA"


class CudaError(ForgeError):
    """The driver, a device or the kernels are missing or too old, or a call failed. `code`: the driver's, or None."""

    def __init__(self, text: str, code: int | None = None, **place: Any) -> None:
        super().__init__(text, **place)
        self.code = code


class Driver:
    """The library, loaded and initialized. path: its file; None for the installed driver's.

    Raises CudaError: there is no driver, it is too old, or it sees no device.
    """

    def __init__(self, path: str | None = None) -> None:
        self._process = os.getpid()
        self.ffi: Any = cffi.FFI()
        self.ffi.cdef(DECLARATIONS)
        self._library = self._opened([path] if path else LIBRARIES)
        self._functions = {name: self._function(name) for name in _names()}
        self.call("cuInit", 0)
        version = self.ffi.new("int *")
        self.call("cuDriverGetVersion", version)
        #: 13010 for 13.1: the newest CUDA that the driver knows.
        self.version = int(version[0])

    def __repr__(self) -> str:
        return f"<Driver of CUDA {self.version_name}>"

    @property
    def version_name(self) -> str:
        """The newest CUDA that the driver knows, as in 13.1."""
        return f"{self.version // 1000}.{self.version % 1000 // 10}"

    def call(self, name: str, *args: Any) -> None:
        """Calls a function. Raises CudaError for any result other than success."""
        if self.forked:
            raise CudaError("CUDA does not survive a fork: start processes anew (multiprocessing's spawn)")
        code = int(self._functions[name](*args))
        if code:
            raise CudaError(self.meaning(code, name), code)

    def quietly(self, name: str, *args: Any) -> bool:
        """Calls a function by which something is given back; says whether it succeeded, for no one can help it."""
        return self.result(name, *args) == 0

    def result(self, name: str, *args: Any) -> int:
        """Calls a function and returns its result; 0 without a call in a forked child."""
        return 0 if self.forked else int(self._functions[name](*args))

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that opened the driver, to which nothing of it belongs."""
        return os.getpid() != self._process

    def meaning(self, code: int, function: str) -> str:
        """A failure in one line: what it means, the driver's name for it, and the call."""
        named = self.ffi.new("const char **")
        self._functions["cuGetErrorName"](code, named)
        name = printable(self.ffi.string(named[0]).decode("utf-8", "replace")) if named[0] else "unknown"
        return f"CUDA: {MEANINGS.get(code, 'a call failed')} ({name}, {code}, from {function})"

    def device_count(self) -> int:
        """How many devices are seen."""
        count = self.ffi.new("int *")
        self.call("cuDeviceGetCount", count)
        return int(count[0])

    def _opened(self, names: Any) -> Any:
        reasons = []
        for name in names:
            try:
                return self.ffi.dlopen(name)
            except OSError as error:
                reasons.append(str(error))
        if len(reasons) == 1:
            raise CudaError(f"cannot be loaded: {reasons[0]}", field=VARIABLE)
        raise CudaError(f"NVIDIA's driver is not installed: neither {' nor '.join(names)} can be loaded")

    def _function(self, name: str) -> Any:
        try:
            return getattr(self._library, name)
        except AttributeError:
            raise CudaError(f"NVIDIA's driver is too old: it has no {name}") from None


def _names() -> list[str]:
    """The functions of the declarations."""
    return [line.split("(")[0].split()[-1] for line in DECLARATIONS.splitlines() if line.startswith("CUresult cu")]


@cache
def driver() -> Driver:
    """The driver, loaded once. Raises CudaError where there is none, it is too old, or sees no device."""
    return Driver(os.environ.get(VARIABLE) or None)
