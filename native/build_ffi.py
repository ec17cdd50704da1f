"""Describes gguf_forge._core to cffi: one extension from the C core, no per-file flags. compilers.py has the flags."""

import sysconfig
from pathlib import Path

import cffi

HERE = Path(__file__).resolve().parent
ISA = ("scalar", "avx2", "avx512", "neon")

ffi = cffi.FFI()
for header in ("forge.h", "dlpack.h"):
    text = (HERE / header).read_text(encoding="utf-8")
    ffi.cdef(text.split("/* cdef begin */")[1].split("/* cdef end */")[0])
ffi.set_source(
    "gguf_forge._core",
    '#include "forge.h"\n#include "dlpack.h"',
    sources=[
        *(f"native/{name}.c" for name in ("core", "grid", "lattice", "strided")),
        *(f"native/isa/{isa}.c" for isa in ISA),
    ],
    include_dirs=["native"],
    depends=[str(p.relative_to(HERE.parent)) for p in HERE.rglob("*.*") if p.suffix in {".h", ".def", ".py"}],
    py_limited_api=not sysconfig.get_config_var("Py_GIL_DISABLED"),  # as in setup.py
)
