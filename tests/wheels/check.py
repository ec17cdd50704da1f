"""What must hold of each wheel and of the source distribution: a function a promise, a sentence for each broken one.
Knows files, not how they were made."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from packaging.utils import parse_wheel_filename

from tests.wheels.compile import ROOT
from tests.wheels.inspect_library import read_library
from tests.wheels.targets import Form, Target

LARGEST_WHEEL, LARGEST_INSTALLED = 3 << 20, 5 << 20
ABOUT = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE")
#: Of tests and fixtures a source distribution has what shows that a compiler made the core right.
SDIST_FOLDERS = ("gguf_forge", "converters", "native", "docs", "tests/native", "fixtures/blocks")
SDIST_FILES = (
    *("pyproject.toml", "setup.py", "MANIFEST.in", "LICENSE", "README.md"),
    *("tests/__init__.py", "tests/conftest.py", "tests/oracle.py", "tests/reference.py", "tests/reference_iq.py"),
)


def tracked(*folders: str) -> list[str]:
    """Files of the repository under these folders, by their path from the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name]


def package_files() -> dict[str, Path]:
    """What a wheel holds of the package: name in the wheel -> file of the repository."""
    files = {}
    for name in tracked("gguf_forge", "converters"):
        if (ROOT / name).is_file():
            files[name if name.startswith("gguf_forge/") else f"gguf_forge/{name}"] = ROOT / name
    return files


def check_tags(wheel: Path, archive: zipfile.ZipFile, about: str, target: Target) -> Iterator[str]:
    expected = {f"cp310-abi3-{tag}" for tag in target.tags}
    named = {str(tag) for tag in parse_wheel_filename(wheel.name)[3]}
    inside = {
        line.removeprefix("Tag: ") for line in archive.read(f"{about}/WHEEL").decode().splitlines() if "Tag: " in line
    }
    if named != expected or inside != expected:
        yield f"its name has the tags {sorted(named)} and WHEEL {sorted(inside)}, not {sorted(expected)}"


def check_contents(archive: zipfile.ZipFile, about: str, target: Target) -> Iterator[str]:
    files = package_files()
    extension = f"gguf_forge/{target.extension}"
    expected = {*files, extension, *(f"{about}/{name}" for name in ABOUT)}
    found = set(archive.namelist())
    if found != expected:
        yield f"beside the package's files it has {sorted(found - expected)} and it lacks {sorted(expected - found)}"
    differing = [name for name in sorted(found & set(files)) if archive.read(name) != files[name].read_bytes()]
    if differing:
        yield f"it holds other bytes than the repository in {differing}"


def check_record(archive: zipfile.ZipFile, about: str) -> Iterator[str]:
    rows = list(csv.reader(io.StringIO(archive.read(f"{about}/RECORD").decode())))
    if sorted(name for name, _, _ in rows) != sorted(archive.namelist()):
        yield "RECORD does not name each file once"
    for name, digest, size in rows:
        if name != f"{about}/RECORD":
            data = archive.read(name)
            made = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            if (digest, size) != (f"sha256={made}", str(len(data))):
                yield f"RECORD states another hash or size of {name}"


def check_sizes(wheel: Path, archive: zipfile.ZipFile) -> Iterator[str]:
    installed = sum(item.file_size for item in archive.infolist())
    if wheel.stat().st_size > LARGEST_WHEEL or installed > LARGEST_INSTALLED:
        yield f"it is {wheel.stat().st_size} bytes and {installed} installed"


def check_extension(path: Path, target: Target) -> Iterator[str]:
    library = read_library(path, target.form)
    if library.machine != target.zig.split("-")[0]:
        yield f"its extension is for {library.machine}"
    if library.exports != {"PyInit__core"}:
        yield f"its extension exports {sorted(library.exports)}"
    if not library.libraries <= target.libraries:
        yield f"its extension asks for {sorted(library.libraries - target.libraries)}"
    if library.oldest != target.oldest and (target.form is Form.MACH_O or library.oldest > target.oldest):
        yield f"its extension needs release {library.oldest} of its system, not {target.oldest}"
    if target.form is Form.MACH_O and library.machine == "aarch64" and not library.signed:
        yield "its extension has no code signature, without which an ARM Mac does not load it"
    if fused := library.fused():
        yield f"its extension fuses multiplications with additions: {fused}"


def check_abi(wheel: Path) -> Iterator[str]:
    command = ["abi3audit", "--strict", "--assume-minimum-abi3", "3.10", str(wheel)]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        yield f"abi3audit says {done.stdout}{done.stderr}"


def check_wheel(wheel: Path, target: Target) -> list[str]:
    """What is wrong with a wheel; nothing when all holds."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        about = next(name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name)
        found = [*check_tags(wheel, archive, about, target), *check_contents(archive, about, target)]
        found += [*check_record(archive, about), *check_sizes(wheel, archive)]
        extension = archive.extract(f"gguf_forge/{target.extension}", folder)
        found += check_extension(Path(extension), target)
    return [*found, *check_abi(wheel)]


def check_sdist(sdist: Path) -> list[str]:
    """What is wrong with a source distribution; nothing when all holds."""
    expected = {*tracked(*SDIST_FOLDERS), *SDIST_FILES}
    with tarfile.open(sdist) as archive:
        found = {m.name.split("/", 1)[1] for m in archive.getmembers() if m.isfile()}
    made = {name for name in found if name.startswith("gguf_forge.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    wrong = []
    if missing := expected - found:
        wrong.append(f"it lacks {sorted(missing)}")
    if surplus := found - expected - made:
        wrong.append(f"it also has {sorted(surplus)}")
    return wrong
