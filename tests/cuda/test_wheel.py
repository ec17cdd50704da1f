"""The wheel of kernels alone: what is in it, and that the package finds what it installs."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import runpy
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gguf_forge.cuda import kernels
from gguf_forge.cuda.driver import CudaError
from tests.cuda import host

WHEEL: dict[str, Any] = runpy.run_path(str(host.ROOT / "native/cuda/wheel.py"))
VERSION: str = WHEEL["package_version"]()


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder as build.py leaves it."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    row = {"module": "a.fatbin", "launch": {"threads": 256, "elements": 8192}}
    (folder / "kernels.json").write_text(json.dumps({"forge_decode_q4_k_f32": row}))
    (folder / "a.fatbin").write_bytes(bytes(range(256)) * 9)
    return folder


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Path]]:
    """Unpacks a wheel where Python looks for packages."""
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    sys.modules.pop(kernels.PACKAGE, None)

    def unpack(wheel: Path) -> Path:
        site = tmp_path / "site"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        monkeypatch.syspath_prepend(site)
        return site / kernels.PACKAGE

    yield unpack
    sys.modules.pop(kernels.PACKAGE, None)


def test_what_is_in_it(built: Path, tmp_path: Path) -> None:
    made = WHEEL["make_wheel"](built, tmp_path / "dist")
    again = WHEEL["make_wheel"](built, tmp_path / "again")
    assert made.read_bytes() == again.read_bytes()
    assert made.name == f"gguf_forge_cuda-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(made) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    info = f"gguf_forge_cuda-{VERSION}.dist-info"
    assert files["gguf_forge_cuda/a.fatbin"] == (built / "a.fatbin").read_bytes()
    assert f"Version: {VERSION}\n".encode() in files[f"{info}/METADATA"]
    record = {name: (digest, size) for name, digest, size in csv.reader(io.StringIO(files[f"{info}/RECORD"].decode()))}
    assert record.keys() == files.keys()
    for name, data in files.items():
        if not name.endswith("RECORD"):
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert record[name] == (f"sha256={digest}", str(len(data)))


def test_the_extra_asks_for_this_version() -> None:
    text = (host.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'cuda = ["gguf-forge-cuda=={VERSION}"]' in text


def test_found(
    built: Path, tmp_path: Path, install: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "version", lambda name: VERSION)
    with pytest.raises(CudaError, match=r"the kernels are missing: pip install 'gguf-forge\[cuda\]', or name"):
        kernels.find_kernels()
    folder = install(WHEEL["make_wheel"](built, tmp_path / "dist"))
    assert kernels.find_kernels() == folder
    assert kernels.read_launches(folder)["forge_decode_q4_k_f32"].threads == 256
    monkeypatch.setenv(kernels.VARIABLE, str(built))
    assert kernels.find_kernels() == built
    monkeypatch.delenv(kernels.VARIABLE)
    monkeypatch.setattr(kernels, "version", lambda name: "99")
    with pytest.raises(CudaError, match=f"the kernels are of version {VERSION}, and this is 99: pip install --upgrade"):
        kernels.find_kernels()
    monkeypatch.setattr(kernels, "version", lambda name: VERSION)
    (folder / "kernels.json").unlink()
    with pytest.raises(CudaError, match=r"kernels.json is missing"):
        kernels.find_kernels()


def test_nothing_to_pack(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make cuda"):
        WHEEL["make_wheel"](tmp_path, tmp_path / "dist")
