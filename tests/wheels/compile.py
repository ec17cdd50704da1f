"""The core and its Python module compiled by zig cc for one target. Knows compilers and headers, nothing of wheels.

Python's headers are those of the Python that runs this, whichever it is: what they declare of the stable interface is
the same on every platform but for pyconfig.h, in whose place stands include/pyconfig.h. On Windows an extension names
the library that has each function: python3.dll, for every function of the stable interface as abi3info lists it, so
that a function outside of it does not link.
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from abi3info import DATAS, FUNCTIONS

from native.compilers import GNU
from tests.wheels.targets import Form, Target

ROOT = Path(__file__).resolve().parents[2]
OLDEST_PYTHON = (3, 10)
ZIG = [sys.executable, "-m", "ziglang"]
DLLTOOL_MACHINES = {"x86_64": "i386:x86-64", "aarch64": "arm64"}
LINK = {
    Form.ELF: ["-shared", "-s"],
    Form.MACH_O: ["-shared", "-s", "-Wl,-undefined,dynamic_lookup", "-Wl,-install_name,_core.abi3.so"],
    Form.PE: ["-shared", "-s"],
}


class CompileFailedError(Exception):
    """A compiler or linker said no; the message is what it said."""


def call(command: list[str]) -> None:
    """Runs a tool. Raises CompileFailedError with what it said when it fails, or says anything at all."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0 or done.stderr:
        raise CompileFailedError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def copy_headers(folder: Path) -> Path:
    """Python's headers with our pyconfig.h. They name it in quotes, which finds the one beside them first."""
    include = folder / "include"
    if not include.exists():
        shutil.copytree(sysconfig.get_path("include"), include, ignore=shutil.ignore_patterns("pyconfig*.h"))
        shutil.copy(Path(__file__).with_name("include") / "pyconfig.h", include)
    return include


def sources(folder: Path) -> list[Path]:
    """The C files of the extension, of which cffi writes one."""
    ffi: Any = runpy.run_path(str(ROOT / "native" / "build_ffi.py"))["ffi"]
    module = folder / "_core.c"
    ffi.emit_c_code(str(module))
    return [module, *(ROOT / name for name in ffi._assigned_source[3]["sources"])]


def compile_objects(target: Target, folder: Path, files: list[Path], include: list[Path]) -> list[Path]:
    """One object a file, with warnings as errors."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = [*GNU, "-Werror", "-DNDEBUG", *([] if target.form is Form.PE else ["-fPIC"])]
    flags += [f"-I{path}" for path in (ROOT / "native", *include)]

    def compile_one(source: Path) -> Path:
        made = folder / f"{source.stem}.o"
        call([*ZIG, "cc", "-target", target.zig, *flags, "-c", str(source), "-o", str(made)])
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, files))


def import_library(target: Target, folder: Path) -> Path:
    """python3.lib of the stable interface of the oldest Python served."""
    known = {**FUNCTIONS, **DATAS}
    names = {known[s].symbol.name: s for s in known if (known[s].added.major, known[s].added.minor) <= OLDEST_PYTHON}
    data = {symbol.name for symbol in DATAS}
    definition, library = folder / "python3.def", folder / "python3.lib"
    lines = [f"  {name} DATA" if name in data else f"  {name}" for name in sorted(names)]
    definition.write_text("\n".join(["LIBRARY python3.dll", "EXPORTS", *lines, ""]), encoding="ascii")
    machine = DLLTOOL_MACHINES[target.zig.split("-")[0]]
    call([*ZIG, "dlltool", "-m", machine, "-D", "python3.dll", "-d", str(definition), "-l", str(library)])
    return library


def build_extension(target: Target, folder: Path) -> Path:
    """The extension module of a target, stripped, under `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    objects = compile_objects(target, folder / "objects", sources(folder), [copy_headers(folder.parent)])
    libraries = [import_library(target, folder)] if target.form is Form.PE else []
    made = folder / target.extension
    parts = [str(path) for path in (*objects, *libraries)]
    call([*ZIG, "cc", "-target", target.zig, *LINK[target.form], *parts, "-o", str(made)])
    return made
