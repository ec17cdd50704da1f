"""What an extension asks for and gives, whatever system it is for: symbols, libraries, the oldest system, instructions.
Reads the file with LIEF and capstone; knows nothing of wheels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import capstone
import lief

from tests.wheels.targets import Form

LINKERS_OWN = {"__dso_handle", "_mh_dylib_header"}  # zig's linker exports the names it gives to a library's beginning
FUSED = re.compile(r"v?fn?m(add|sub|la|ls)|fn?m(add|sub)|fml[as]")
MACHINES = {
    "x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
}


@dataclass(frozen=True)
class Library:
    """`oldest` is the newest glibc version among the imported symbols, or the macOS release it is made for."""

    machine: str
    exports: frozenset[str]
    libraries: frozenset[str]
    oldest: tuple[int, ...]
    signed: bool
    code: tuple[tuple[int, bytes], ...]

    def instructions(self) -> Iterator[str]:
        """The mnemonic of each instruction, in order; bytes that are none are passed over."""
        decoder = capstone.Cs(*MACHINES[self.machine])
        decoder.skipdata = True
        for address, text in self.code:
            yield from (mnemonic for _, _, mnemonic, _ in decoder.disasm_lite(text, address))

    def fused(self) -> list[str]:
        """Instructions that multiply and add with one rounding."""
        return sorted({m for m in self.instructions() if FUSED.match(m)})


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text))


def read_elf(binary: Any) -> Library:
    versions = [s.symbol_version for s in binary.imported_symbols if s.symbol_version]
    named = [v.symbol_version_auxiliary.name for v in versions if v.has_auxiliary_version]
    return Library(
        machine={"X86_64": "x86_64", "AARCH64": "aarch64"}[binary.header.machine_type.name],
        exports=frozenset(str(s.name) for s in binary.exported_symbols),
        libraries=frozenset(map(str, binary.libraries)),
        oldest=max((numbers(n) for n in named if n.startswith("GLIBC_")), default=()),
        signed=False,
        code=tuple((s.virtual_address, bytes(s.content)) for s in binary.sections if s.name == ".text"),
    )


def read_mach_o(binary: Any) -> Library:
    version = binary.build_version.minos if binary.has_build_version else binary.version_min.version
    return Library(
        machine={"X86_64": "x86_64", "ARM64": "aarch64"}[binary.header.cpu_type.name],
        exports=frozenset(str(s.name).removeprefix("_") for s in binary.exported_symbols) - LINKERS_OWN,
        libraries=frozenset(
            str(library.name) for library in binary.libraries if library.command.name != "ID_DYLIB"  # itself
        ),
        oldest=tuple(version)[:2],
        signed=bool(binary.has_code_signature),
        code=tuple((s.virtual_address, bytes(s.content)) for s in binary.sections if s.name == "__text"),
    )


def read_pe(binary: Any) -> Library:
    return Library(
        machine={"AMD64": "x86_64", "ARM64": "aarch64"}[binary.header.machine.name],
        exports=frozenset(str(entry.name) for entry in binary.get_export().entries),
        libraries=frozenset(str(library.name).lower() for library in binary.imports),
        oldest=(),
        signed=False,
        code=tuple((s.virtual_address, bytes(s.content)) for s in binary.sections if s.name == ".text"),
    )


READERS = {Form.ELF: read_elf, Form.MACH_O: read_mach_o, Form.PE: read_pe}


def read_library(path: Path, form: Form) -> Library:
    """What is in the file at `path`, a library of that form."""
    lief.logging.disable()
    binary: Any = lief.parse(str(path))
    if form is Form.MACH_O and isinstance(binary, lief.MachO.FatBinary):
        binary = binary.at(0)
    return READERS[form](binary)
