"""The systems the core is compiled for: one row each. What a row says of a wheel is what check.py holds it to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Form(Enum):
    """How a system's libraries are made."""

    ELF = "linux"
    MACH_O = "macos"
    PE = "windows"


@dataclass(frozen=True)
class Target:
    """`zig` is what zig cc calls it, with the oldest release of the system it must run on; `tags` are its wheel's
    platform tags, none where the core is compiled only; `libraries` are all that the extension may ask for."""

    zig: str
    form: Form
    tags: tuple[str, ...] = ()
    libraries: frozenset[str] = frozenset()
    oldest: tuple[int, ...] = ()  # glibc, or macOS

    @property
    def extension(self) -> str:
        """The file name of the extension."""
        return "_core.pyd" if self.form is Form.PE else "_core.abi3.so"


GLIBC = frozenset(["libc.so.6", "libm.so.6"])
MUSL = frozenset(["libc.so"])
MACOS = frozenset(["/usr/lib/libSystem.B.dylib"])
#: The interpreter's stable interface, the kernel, and the parts of the C library that Windows 10 and later bring.
WINDOWS = frozenset(
    ["python3.dll", "kernel32.dll", "ntdll.dll"]
    + [
        f"api-ms-win-crt-{part}-l1-1-0.dll"
        for part in ("environment", "heap", "math", "private", "runtime", "stdio", "string", "time", "utility")
    ]
)

TARGETS = {
    "manylinux-x86_64": Target(
        "x86_64-linux-gnu.2.17", Form.ELF, ("manylinux_2_17_x86_64", "manylinux2014_x86_64"), GLIBC, (2, 17)
    ),
    "manylinux-aarch64": Target(
        "aarch64-linux-gnu.2.17", Form.ELF, ("manylinux_2_17_aarch64", "manylinux2014_aarch64"), GLIBC, (2, 17)
    ),
    "musllinux-x86_64": Target("x86_64-linux-musl", Form.ELF, ("musllinux_1_2_x86_64",), MUSL),
    "musllinux-aarch64": Target("aarch64-linux-musl", Form.ELF, ("musllinux_1_2_aarch64",), MUSL),
    "macos-x86_64": Target("x86_64-macos.10.15", Form.MACH_O, ("macosx_10_15_x86_64",), MACOS, (10, 15)),
    "macos-arm64": Target("aarch64-macos.11.0", Form.MACH_O, ("macosx_11_0_arm64",), MACOS, (11, 0)),
    "windows-amd64": Target("x86_64-windows-gnu", Form.PE, ("win_amd64",), WINDOWS),
    "windows-arm64": Target("aarch64-windows-gnu", Form.PE, ("win_arm64",), WINDOWS),
    "riscv64": Target("riscv64-linux-musl", Form.ELF),
}
