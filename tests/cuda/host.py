"""The kernels of native/cuda/ as the emulated GPU of emulation.cpp runs them, from Python."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.types import TENSOR_TYPES

ROOT = Path(__file__).resolve().parents[2]
#: As the core is compiled; what only nvcc knows of is passed over, and bytes are read as words.
EXACT = ["-ffp-contract=off", "-fno-strict-aliasing", "-Wall", "-Wno-unknown-pragmas", "-Werror"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
RESULTS: dict[str, Any] = {"f32": np.float32, "f16": np.uint16, "bf16": np.uint16}
CONSTANT = re.compile(r"^ +(FORGE_\w+) = (\d+)", re.MULTILINE)
ENCODER = re.compile(r"^ENCODER\((\w+), +(\w+), +(\d+), +(\d+), +(-1|LATTICE_\w+), +(\w+)\)", re.MULTILINE)

FLT_MAX = float(np.finfo(np.float32).max)
LATTICES = re.findall(r"^    (LATTICE_\w+),", (ROOT / "native/forge.h").read_text(), re.MULTILINE)
SIZES = {t.name.lower(): t.block_size for t in TENSOR_TYPES.values()}
CONSTANTS = {name: int(value) for name, value in CONSTANT.findall((ROOT / "native/cuda/launch.h").read_text())}


@dataclass(frozen=True)
class Encoder:
    """A row of native/cuda/launch.def."""

    shape: str
    threads: int
    blocks: int
    lattice: str | None
    row_squares: bool


#: Types of products.
PRODUCTS = re.findall(r"^MATVEC\((\w+), ", (ROOT / "native/cuda/launch.def").read_text(), re.MULTILINE)
#: Compute capabilities, times ten, without matrix units of bfloat16 and with them.
CAPABILITIES = (75, 90)
ENCODERS = {
    name: Encoder(shape, int(threads), int(blocks), None if lattice == "-1" else lattice, beside == "ROW_SQUARES")
    for name, shape, threads, blocks, lattice, beside in ENCODER.findall(
        (ROOT / "native/cuda/launch.def").read_text()
    )
}


def compiler() -> str | None:
    """The C++ compiler: of CXX, or g++ or clang++."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def run(*command: str) -> None:
    subprocess.run(command, cwd=ROOT, check=True)


@cache
def library() -> ctypes.CDLL:
    """The emulated GPU, compiled when a source is newer; with sanitizers where GGUF_FORGE_SANITIZE is set."""
    sanitize = bool(os.environ.get("GGUF_FORGE_SANITIZE"))
    folder = ROOT / "build" / ("cuda-host-sanitize" if sanitize else "cuda-host")
    folder.mkdir(parents=True, exist_ok=True)
    found = folder / "emulated.so"
    sources = [p for p in (ROOT / "native").rglob("*.*") if p.suffix in {".c", ".h", ".cu", ".def"}]
    sources += [*(ROOT / "tests/cuda").glob("*.h"), *(ROOT / "tests/cuda").glob("*.cpp")]
    if not found.exists() or found.stat().st_mtime < max(p.stat().st_mtime for p in sources):
        cxx = compiler()
        assert cxx
        flags = [*EXACT, "-O1" if sanitize else "-O2", *(SANITIZE if sanitize else ()), "-fPIC", "-I", "native"]
        making = folder / f"making-{os.getpid()}"
        making.mkdir(exist_ok=True)
        cpp = [*flags, "-std=c++17", "-c", "-x", "c++"]
        emulated = [*cpp, "-include", "tests/cuda/emulation.h"]
        jobs = [[*flags, "-x", "c", "-std=c11", "-c", "native/lattice.c"], [*cpp, "tests/cuda/emulation.cpp"]]
        jobs += [[*emulated, str(p.relative_to(ROOT))] for p in sorted((ROOT / "native/cuda").glob("*.cu"))]
        objects = [str(making / f"{i}.o") for i in range(len(jobs))]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda job, to: run(cxx, *job, "-o", to), jobs, objects))
        run(cxx, *flags, "-shared", *objects, "-o", str(making / "emulated.so"), "-lm")
        (making / "emulated.so").replace(found)
        shutil.rmtree(making)
    return ctypes.CDLL(str(found))


def launch(name: str, grid: int, threads: int, *args: Any, first: int = 0) -> None:
    """Runs a kernel: as cuLaunchKernel in one dimension, each argument a ctypes value; only CTAs from `first` on."""
    at = (ctypes.c_void_p * len(args))(*(ctypes.addressof(a) for a in args))
    assert library().emulated_launch(name.encode(), first, grid, threads, at) == 0, f"there is no kernel {name}"


def pointer(data: NDArray[Any] | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if data is None else data.ctypes.data)


def decode(name: str, blocks: NDArray[np.uint8], count: int, out: NDArray[Any], result: str, grid: int) -> None:
    """forge_decode_<name>_<result>; name as types.def has it."""
    threads = CONSTANTS["FORGE_DECODE_THREADS"]
    launch(f"forge_decode_{name}_{result}", grid, threads, pointer(blocks), pointer(out), ctypes.c_uint64(count))


def lattice_of(name: str) -> NDArray[np.uint8] | None:
    """The image that an encoder wants, at its place in memory."""
    row = ENCODERS[name]
    if row.lattice is None:
        return None
    return lattice(LATTICES.index(row.lattice))


@cache
def lattice(which: int) -> NDArray[np.uint8]:
    make = library().forge_lattice_image
    make.restype, make.argtypes = ctypes.c_int64, (ctypes.c_int, ctypes.c_uint64, ctypes.c_void_p)
    words = np.empty(-(-make(which, 0, None) // 8), np.uint64)
    image = words.view(np.uint8)
    make(which, image.ctypes.data, image.ctypes.data)
    return image


def encode(
    name: str, values: NDArray[np.float32], importance: NDArray[np.float32] | None, out: NDArray[np.uint8],
    limit: float = FLT_MAX, grid: int | None = None,
) -> int:  # fmt: skip
    """forge_encode_<name> on values (rows, width); returns the failure's key."""
    row, (rows, width) = ENCODERS[name], values.shape
    size = SIZES[name]
    squares = None
    if row.row_squares and importance is not None:
        squares = np.empty(rows, np.float32)
        threads = CONSTANTS["FORGE_ROW_THREADS"]
        shape = (ctypes.c_uint64(rows), ctypes.c_uint64(width))
        launch("forge_row_mean_squares", max(1, rows // 50), threads, pointer(values), pointer(squares), *shape)
    failure = ctypes.c_uint64((1 << 64) - 1)
    fitting = max(1, -(-rows * width // size // row.blocks))
    launch(
        f"forge_encode_{name}",
        grid or fitting,
        row.threads,
        pointer(values),
        pointer(importance),
        pointer(squares),
        pointer(lattice_of(name)),
        pointer(out),
        ctypes.c_uint64(rows),
        ctypes.c_uint64(width),
        ctypes.c_float(limit),
        ctypes.c_void_p(ctypes.addressof(failure)),
    )
    return failure.value


def matvec(
    name: str, blocks: NDArray[np.uint8], x: NDArray[Any], rows: int, most: int, grid: int | None = None,
    capability: int = CAPABILITIES[-1],
) -> NDArray[np.float32]:  # fmt: skip
    """forge_matvec_<name>_<f32|f16>_<most> of a GPU of this capability: x (vectors, width) of float32 or float16."""
    y = np.full((x.shape[0], rows), np.nan, np.float32)
    suffix = {np.dtype(np.float32): "f32", np.dtype(np.float16): "f16"}[x.dtype]
    threads = CONSTANTS["FORGE_MATVEC_THREADS"]
    fitting = -(-rows // CONSTANTS["FORGE_MATVEC_ROWS"]) * -(-x.shape[0] // most)
    sizes = (ctypes.c_uint64(rows), ctypes.c_uint64(x.shape[1]), ctypes.c_uint64(x.shape[0]))
    emulated = ctypes.c_int.in_dll(library(), "emulated_capability")
    before, emulated.value = emulated.value, capability
    launch(
        f"forge_matvec_{name}_{suffix}_{most}",
        grid or fitting,
        threads,
        pointer(blocks),
        pointer(x),
        pointer(y),
        *sizes,
    )
    emulated.value = before
    return y
