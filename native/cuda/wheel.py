"""Packs built kernels as a wheel of their own: wheel.py KERNELS FOLDER, what build.py made to a .whl.

It holds data only, for every system and Python: machine code for GPUs is the same everywhere. Its version is the
package's, to which it belongs. Of the same kernels come the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTION, PACKAGE = "gguf-forge-cuda", "gguf_forge_cuda"
INIT = '"""Kernels of GGUF Forge for NVIDIA GPUs, as files: see gguf_forge.cuda."""\n\n__version__ = "{version}"\n'
METADATA = """Metadata-Version: 2.4
Name: {name}
Version: {version}
Summary: Kernels of GGUF Forge for NVIDIA GPUs. Install gguf-forge[cuda].
License-Expression: MIT
License-File: LICENSE
Requires-Python: >=3.10
"""
WHEEL = "Wheel-Version: 1.0\nGenerator: gguf-forge\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
#: The first day that a zip file knows.
DAY = (1980, 1, 1, 0, 0, 0)


def package_version() -> str:
    """The version in pyproject.toml."""
    found = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit("pyproject.toml has no version")
    return found[1]


def files_of(kernels: Path, version: str) -> dict[str, bytes]:
    """The wheel's files by name, RECORD last."""
    listed = kernels / "kernels.json"
    if not listed.is_file():
        raise SystemExit(f"no kernels in {kernels}: make cuda")
    info = f"{PACKAGE}-{version}.dist-info"
    files = {f"{PACKAGE}/__init__.py": INIT.format(version=version).encode()}
    files |= {f"{PACKAGE}/{path.name}": path.read_bytes() for path in [*sorted(kernels.glob("*.fatbin")), listed]}
    files[f"{info}/METADATA"] = METADATA.format(name=DISTRIBUTION, version=version).encode()
    files[f"{info}/WHEEL"] = WHEEL.encode()
    files[f"{info}/licenses/LICENSE"] = (ROOT / "LICENSE").read_bytes()
    record = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    return files


def make_wheel(kernels: Path, folder: Path) -> Path:
    """Writes the wheel; returns its path."""
    version = package_version()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{PACKAGE}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in files_of(kernels, version).items():
            entry = zipfile.ZipInfo(name, DAY)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, data)
    return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    made = make_wheel(Path(sys.argv[1]), Path(sys.argv[2]))
    with zipfile.ZipFile(made) as opened:
        unpacked = sum(entry.file_size for entry in opened.infolist())
    print(f"{made}: {made.stat().st_size} bytes, unpacked {unpacked}")
