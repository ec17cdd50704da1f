"""Builds gguf_forge._core: one extension from the C core, no per-file flags."""

import os
import sysconfig
from pathlib import Path

import cffi

HERE = Path(__file__).resolve().parent
ISA = ("scalar", "avx2", "avx512", "neon")

header = (HERE / "forge.h").read_text(encoding="utf-8")
cdef = header.split("/* cdef begin */")[1].split("/* cdef end */")[0]
sanitize = os.environ.get("GGUF_FORGE_SANITIZE", "")

if os.name == "nt":
    flags = ["/O2", "/fp:precise", "/std:c11"]
else:
    # Contraction to fused multiply-add would change the last bit of a scale: never allow it.
    # Debug information, which Python's own flags ask for, would be nine tenths of the library.
    flags = ["-O3", "-g0", "-std=c11", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"]
if os.environ.get("GGUF_FORGE_WERROR"):
    flags += ["/WX" if os.name == "nt" else "-Werror"]
links = []
if sanitize:
    flags += [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", "-g", "-O1"]
    links += [f"-fsanitize={sanitize}"]

ffi = cffi.FFI()
ffi.cdef(cdef)
ffi.set_source(
    "gguf_forge._core",
    '#include "forge.h"',
    sources=["native/core.c", "native/lattice.c", *(f"native/isa/{isa}.c" for isa in ISA)],
    include_dirs=["native"],
    depends=[str(p.relative_to(HERE.parent)) for p in HERE.rglob("*.*") if p.suffix in {".h", ".def", ".py"}],
    extra_compile_args=flags,
    extra_link_args=links,
    py_limited_api=not sysconfig.get_config_var("Py_GIL_DISABLED"),  # as in setup.py
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
