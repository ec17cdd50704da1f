"""How each compiler is told to build the core exactly, and which commands are refused.

Exact: every float operation rounds by itself and in the order written. Fusing a multiplication with the addition after
it would change the last bit of a scale; clang (Apple's and zig's are clang) does so unless told otherwise, GCC does in
its GNU dialect. MSVC's own compiler is not used: what it makes of the core has been compared with nothing, while
clang-cl, which Visual Studio's installer offers, is the clang whose results are. native/exact.h says the same to the
compiler. Knows compilers and flags; what is compiled is in build_ffi.py.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

#: GCC, clang, Apple's clang, MinGW and zig cc. Debug information, which some Pythons ask for, is five times the code.
GNU = ["-O3", "-g0", "-std=c11", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"]
#: clang-cl; its /W4 is clang's -Wall -Wextra, and /fp:precise would allow contraction.
CLANG_CL = ["/clang:-O3", "/std:c11", "/clang:-ffp-contract=off", "/W4", "-Wno-unused-command-line-argument"]
#: clang-cl compiles for the machine it was made for unless told.
CLANG_TARGETS = {"win-amd64": "x86_64-pc-windows-msvc", "win-arm64": "aarch64-pc-windows-msvc"}

#: What makes arithmetic inexact; clang tells the source only of the first.
INEXACT = frozenset(
    [
        "-ffast-math",
        "-Ofast",
        "-funsafe-math-optimizations",
        "-fassociative-math",
        "-freciprocal-math",
        "-ffinite-math-only",
        "-fno-signed-zeros",
        "-fapprox-func",
        "-ffp-model=fast",
        "-ffp-model=aggressive",
        "/fp:fast",
    ]
)


def refuse_inexact(command: list[str]) -> None:
    """Raises CompileError for a command, CFLAGS included, that would make other bytes than the reference."""
    found = [word for word in command if word in INEXACT]
    if found:
        raise CompileError(
            f"GGUF Forge's results are exact to the bit: it cannot be compiled with {found[0]} (set in CFLAGS?)"
        )


def find_clang_cl(cl: str, folders: tuple[str, ...] = ("x64", "ARM64")) -> str:
    """clang-cl from PATH, of the Visual Studio that has `cl`, or LLVM's own. Raises CompileError when there is none."""
    tools = next((p for p in Path(cl).parents if p.name == "VC"), Path()) / "Tools" / "Llvm"
    program_files = Path(os.environ.get("PROGRAMFILES", "")) / "LLVM" / "bin"
    places = [*(str(tools / folder / "bin") for folder in folders), str(program_files)]
    found = shutil.which("clang-cl") or shutil.which("clang-cl", path=os.pathsep.join(places))
    if found is None:
        raise CompileError(
            "GGUF Forge's core is compiled by clang-cl on Windows and none was found: install 'C++ Clang tools for "
            "Windows' with Visual Studio's installer, or LLVM; or a wheel: pip install --only-binary :all: gguf-forge"
        )
    return found


class BuildCore(build_ext):
    """Setuptools' build_ext, with the flags of the compiler it found."""

    def build_extensions(self) -> None:
        """Builds all extensions. Raises CompileError for a compiler or a flag that exact results forbid."""
        compiler: Any = self.compiler
        links: list[str] = []
        if compiler.compiler_type == "msvc":
            if not compiler.initialized:
                compiler.initialize(self.plat_name)
            compiler.cc = find_clang_cl(compiler.cc)
            flags = [*CLANG_CL, f"--target={CLANG_TARGETS[self.plat_name]}"]
            strict, command = "/WX", os.environ.get("CL", "").split()
        else:
            flags = list(GNU)
            strict, command = "-Werror", list(compiler.compiler_so)
        refuse_inexact(command)
        if os.environ.get("GGUF_FORGE_WERROR"):
            flags.append(strict)
        if sanitize := os.environ.get("GGUF_FORGE_SANITIZE"):
            flags += [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", "-g", "-O1"]
            links.append(f"-fsanitize={sanitize}")
        for extension in self.extensions:
            extension.extra_compile_args = flags
            extension.extra_link_args = links
        if compiler.compiler_type != "msvc":
            compile_side_by_side(compiler)
        super().build_extensions()


def compile_side_by_side(compiler: Any) -> None:
    """Lets setuptools' compiler work on as many files at a time as there are processors."""
    one, every = compiler._compile, compiler.compile

    def compiled(*args: Any, **options: Any) -> Any:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            begun: list[Future[None]] = []
            compiler._compile = lambda *file: begun.append(pool.submit(one, *file))
            objects = every(*args, **options)
            for file in begun:
                file.result()
        return objects

    compiler.compile = compiled
