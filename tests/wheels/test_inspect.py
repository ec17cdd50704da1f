"""The check of extensions sees what it is there to find."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("lief")
pytest.importorskip("ziglang")

from tests.wheels.check import check_extension
from tests.wheels.compile import ZIG, call
from tests.wheels.inspect_library import read_library
from tests.wheels.targets import TARGETS, Form, Target

FUSED = "float PyInit__core(float a, float b, float c) { return __builtin_fmaf(a, b, c); }\n"
PLAIN = "float PyInit__core(float a, float b, float c) { return a * b + c; }\nint forge(void) { return 1; }\n"


def library(target: Target, text: str, folder: Path, *flags: str) -> Path:
    source, made = folder / "x.c", folder / target.extension
    source.write_text(text)
    call([*ZIG, "cc", "-target", target.zig, "-shared", "-O2", "-nostdlib", *flags, str(source), "-o", str(made)])
    return made


@pytest.mark.parametrize(("name", "flag"), [("manylinux-x86_64", "-mfma"), ("manylinux-aarch64", "-O2")])
def test_fused_instructions_are_seen(name: str, flag: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    assert read_library(library(target, FUSED, tmp_path, flag), Form.ELF).fused()
    assert not read_library(library(target, PLAIN, tmp_path, flag, "-ffp-contract=off"), Form.ELF).fused()


def test_another_export_is_seen(tmp_path: Path) -> None:
    target = TARGETS["manylinux-x86_64"]
    (wrong,) = check_extension(library(target, PLAIN, tmp_path), target)
    assert wrong == "its extension exports ['PyInit__core', 'forge']"


def test_another_machine_is_seen(tmp_path: Path) -> None:
    made = library(TARGETS["manylinux-x86_64"], PLAIN.splitlines()[0], tmp_path)
    assert list(check_extension(made, TARGETS["manylinux-aarch64"])) == ["its extension is for x86_64"]
