"""The core does not let itself be compiled into something that rounds otherwise."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from setuptools.errors import CompileError

from native.compilers import CLANG_CL, GNU, INEXACT, refuse_inexact

NATIVE = Path(__file__).resolve().parents[2] / "native"
COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
SOURCE = '#include "exact.h"\nfloat f(float a, float b, float c) { return a * b + c; }\n'


def compile_text(compiler: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [compiler, "-std=c11", f"-I{NATIVE}", *flags, "-x", "c", "-", "-o", "-"]
    return subprocess.run(command, input=SOURCE, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_ordinary_flags_compile(compiler: str) -> None:
    made = compile_text(compiler, "-S", *GNU)
    assert made.returncode == 0, made.stderr


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("flag", ["-ffast-math", "-Ofast", "-ffinite-math-only", "-m32"])
def test_the_source_refuses(compiler: str, flag: str) -> None:
    """Of 32-bit x86, because its floats are computed as doubles and more."""
    made = compile_text(compiler, "-S", flag)
    assert made.returncode != 0
    assert "must be exact" in made.stderr


@pytest.mark.skipif("clang" not in COMPILERS, reason="needs clang")
def test_the_source_alone_stops_clang_from_fusing() -> None:
    """Apple's compiler fuses by default wherever the processor can, as on every ARM Mac."""
    fusing = ["-S", "-O2", "-ffp-contract=on", "-ffreestanding", "--target=aarch64-linux-gnu"]
    assert "fmadd" not in compile_text("clang", *fusing).stdout
    unguarded = ["clang", *fusing, "-x", "c", "-", "-o", "-"]
    text = SOURCE.replace('#include "exact.h"', "")
    assert "fmadd" in subprocess.run(unguarded, input=text, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("flag", sorted(INEXACT))
def test_the_build_refuses(flag: str) -> None:
    with pytest.raises(CompileError, match=flag):
        refuse_inexact(["cc", "-O2", flag])


def test_the_build_takes_ordinary_flags() -> None:
    refuse_inexact(["cc", "-O2", "-Wall", "-fno-math-errno", *GNU, *CLANG_CL])
