"""The library in the driver's place, compiled, and fixtures that give it."""

from __future__ import annotations

import ctypes
import gc
import json
import runpy
import struct
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gguf_forge import cuda
from gguf_forge.cuda.driver import Driver
from gguf_forge.types import TENSOR_TYPES
from tests.cuda import host


class Stub:
    """The stub, compiled; `device` gives one of its devices with kernels of an empty file."""

    def __init__(self, folder: Path) -> None:
        self.path, self.kernels = folder / "stub.so", folder
        compiler = host.compiler()
        assert compiler
        host.run(compiler, "-shared", "-fPIC", "-w", "-o", str(self.path), "tests/cuda/stub.cpp")
        self.library = ctypes.CDLL(str(self.path))
        for counted in ("live", "calls", "launches", "torn", "current"):
            getattr(self.library, f"stub_{counted}").restype = ctypes.c_long
        launches: dict[str, Any] = runpy.run_path(str(host.ROOT / "native/cuda/build.py"))["launches"]()
        rows = {name: row for name, row in launches.items() if not name.endswith("_")}
        for kind in TENSOR_TYPES.values():
            for result in ("f32", "f16", "bf16"):
                rows[f"forge_decode_{kind.name.lower()}_{result}"] = launches["forge_decode_"]
        rows["forge_row_mean_squares"] = launches["forge_row_"]
        listed = {name: {"module": "all.fatbin", "launch": row} for name, row in rows.items()}
        (folder / "kernels.json").write_text(json.dumps(listed))
        names = "".join(f"{name}\n" for name in listed).encode()
        (folder / "all.fatbin").write_bytes(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(names)) + names)

    def reset(self, devices: int = 1, version: int = 13000, emulated: bool = False) -> None:
        names = ("emulated_launch", "emulated_arguments") if emulated else ()
        at: list[Any] = [ctypes.cast(getattr(host.library(), name), ctypes.c_void_p) for name in names] or [None, None]
        self.library.stub_reset(devices, version, *at)

    def fail(self, name: str, k: int, code: int, stays: bool = False) -> None:
        self.library.stub_fail(name.encode(), ctypes.c_long(k), code, stays)

    def calls(self, name: str) -> int:
        """How often a function was called."""
        return int(self.library.stub_calls(name.encode()))

    def adopt(self, x: NDArray[Any]) -> None:
        """Lets an array's memory pass for the first device's."""
        self.library.stub_adopt(ctypes.c_void_p(x.ctypes.data), ctypes.c_size_t(x.nbytes))

    def live(self) -> int:
        gc.collect()
        return int(self.library.stub_live())

    def torn(self) -> int:
        """How much work still waited when memory of its was given back."""
        return int(self.library.stub_torn())

    def device(self, ordinal: int = 0) -> cuda.Device:
        return cuda.Device(ordinal, Driver(str(self.path)), self.kernels)
