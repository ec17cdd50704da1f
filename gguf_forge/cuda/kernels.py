"""The kernels' files as `make cuda` makes them, loaded into a context, and launches computed from kernels.json.

GGUF_FORGE_KERNELS names their folder, else they are the package gguf_forge_cuda, which has no code.
native/cuda/launch.h says what each kernel is given. Knows no arrays.
"""

from __future__ import annotations

import importlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import Any

from gguf_forge.cuda.context import Context
from gguf_forge.cuda.declarations import KERNELS_NEED, KERNELS_NEED_DRIVER, MOST_CTAS, NO_CODE
from gguf_forge.cuda.driver import CudaError

VARIABLE = "GGUF_FORGE_KERNELS"
LIST = "kernels.json"
#: The package of kernels alone, and the extra that brings it.
PACKAGE, EXTRA = "gguf_forge_cuda", "gguf-forge[cuda]"
MISSING = f"the kernels are missing: pip install '{EXTRA}', or name the folder that `make cuda` made in {VARIABLE}"

#: How arguments of kernels lie in memory, each on a boundary of so many bytes.
_SLOTS, _SLOT = {"uint64_t": struct.Struct("=Q"), "float": struct.Struct("=f4x")}, 8
#: How a fatbin begins: a magic number, its version, bytes of this head, and bytes of what follows.
HEAD, MAGIC = struct.Struct("<IHHQ"), 0xBA55ED50


@dataclass(frozen=True)
class Launch:
    """A row of kernels.json: the module's file, threads of a CTA, and what a CTA makes of the named unit."""

    module: str
    threads: int
    each: int
    lattice: str | None
    mean_squares: bool

    def grid(self, units: int) -> int:
        """CTAs for so many units; any grid does all the work."""
        return max(1, min(-(-units // self.each), MOST_CTAS))


def find_kernels() -> Path:
    """The kernels' folder: GGUF_FORGE_KERNELS, or that of the installed package. Raises CudaError."""
    named = os.environ.get(VARIABLE)
    if not named:
        return _installed()
    if not os.path.isfile(os.path.join(named, LIST)):
        raise CudaError(f"no kernels there: {LIST} is missing", path=named, field=VARIABLE)
    return Path(named)


def _installed() -> Path:
    """The folder of the package of kernels, which is of this package's version. Raises CudaError."""
    try:
        package = importlib.import_module(PACKAGE)
        found = str(package.__version__)
    except (ImportError, AttributeError):
        raise CudaError(MISSING) from None
    try:
        ours = version("gguf-forge")
    except PackageNotFoundError:  # a source tree
        ours = found
    if found != ours:
        raise CudaError(f"the kernels are of version {found}, and this is {ours}: pip install --upgrade '{EXTRA}'")
    folder = Path(str(package.__file__)).parent
    if not (folder / LIST).is_file():
        raise CudaError(f"no kernels there: {LIST} is missing", path=folder)
    return folder


def read_launches(folder: Path) -> dict[str, Launch]:
    """How each kernel is started, by its name. Raises CudaError for a list that is none."""
    path = folder / LIST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: _launch(row["module"], row["launch"]) for name, row in found.items()}
    except OSError as error:
        raise CudaError(f"cannot be read: {error.strerror}", path=path) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CudaError(f"no list of kernels: {error!r:.80}", path=path) from None


def _launch(module: Any, row: dict[str, Any]) -> Launch:
    each = next(row[unit] for unit in ("elements", "blocks", "rows", "threads") if unit in row)
    threads, lattice = row["threads"], row.get("lattice")
    if not (isinstance(module, str) and module == os.path.basename(module) and module.endswith(".fatbin")):
        raise ValueError("module")
    if not (isinstance(threads, int) and 0 < threads <= 1024 and isinstance(each, int) and 0 < each <= 1 << 20):
        raise ValueError("threads")
    if not (lattice is None or isinstance(lattice, str)):
        raise ValueError("lattice")
    return Launch(module, threads, each, lattice, bool(row.get("mean_squares")))


class Kernels:
    """The kernels in a context; a file is loaded when a kernel of it is first asked for. For several threads."""

    def __init__(self, context: Context, folder: Path) -> None:
        self.context, self.folder = context, folder
        self.launches = read_launches(folder)
        self._lock = Lock()
        self._modules: dict[str, _Module] = {}
        self._functions: dict[str, Any] = {}

    def load(self) -> None:
        """Loads every kernel. Raises CudaError where a file or a kernel is missing, or has no code for the device."""
        for name in self.launches:
            self._function(name)

    def launch(self, name: str, units: int, stream: Any, *arguments: Any) -> None:
        """Starts a kernel on a stream: `units` of what its row counts; arguments: cffi's, each of its C type.

        The context is current. Raises CudaError.
        """
        self.prepared(name, units, stream, *arguments)()

    def prepared(self, name: str, units: int, stream: Any, *arguments: Any) -> Callable[[], None]:
        """What starts a kernel so, as often as it is called."""
        function = self._function(name)
        row, ffi = self.launches[name], self.context.driver.ffi
        values = ffi.from_buffer(b"".join([_SLOTS[kind].pack(value) for kind, value in arguments]))
        pointers = ffi.new("void *[]", [values + i * _SLOT for i in range(len(arguments))])
        grid, threads, call = row.grid(units), row.threads, self.context.driver.call

        def start(held: Any = values) -> None:
            try:
                call("cuLaunchKernel", function, grid, 1, 1, threads, 1, 1, 0, stream, pointers, ffi.NULL)
            except CudaError as error:
                raise self.context.no_room(name, error) from None

        return start

    def _function(self, name: str) -> Any:
        if (known := self._functions.get(name)) is not None:
            return known
        with self._lock:
            if name not in self._functions:
                row = self.launches.get(name)
                if row is None:
                    raise CudaError(f"there is no kernel {name}", path=self.folder)
                found = self.context.driver.ffi.new("CUfunction *")
                self.context.make("cuModuleGetFunction", found, self._module(row.module).handle, name.encode())
                self._functions[name] = found[0]
            return self._functions[name]

    def _module(self, name: str) -> _Module:
        if name not in self._modules:
            self._modules[name] = _Module(self.context, self.folder / name)
        return self._modules[name]


class _Module:
    """A file of kernels, loaded."""

    def __init__(self, context: Context, path: Path) -> None:
        if context.driver.version < KERNELS_NEED:
            raise CudaError(
                f"NVIDIA's driver is too old for these kernels: it knows CUDA {context.driver.version_name}, "
                f"they need {KERNELS_NEED // 1000}.0 (driver {KERNELS_NEED_DRIVER} or newer)",
                path=path,
            )
        made = context.driver.ffi.new("CUmodule *")
        image = _image(path)
        try:
            context.make("cuModuleLoadData", made, context.driver.ffi.from_buffer(image))
        except CudaError as error:
            raise _no_code(context, path, error) from None
        self.handle = made[0]
        context.own(self, "cuModuleUnload", made[0])


def _image(path: Path) -> bytes:
    """A file of kernels, which is as long as its head says: the driver does not know where it ends."""
    try:
        image = path.read_bytes()
    except OSError as error:
        raise CudaError(f"cannot be read: {error.strerror}", path=path) from None
    if len(image) >= HEAD.size:
        magic, _, head, size = HEAD.unpack_from(image)
        if magic == MAGIC and head + size <= len(image):
            return image
    raise CudaError("no file of kernels, or cut", path=path)


def _no_code(context: Context, path: Path, error: CudaError) -> CudaError:
    if error.code not in NO_CODE:
        return context.no_memory(path.stat().st_size, "device memory", error)
    major, minor = context.capability
    return CudaError(f"no code for {context.name}, of compute capability {major}.{minor}", error.code, path=path)


