"""The programs of the CUDA toolkit, and kernels for the device at hand: those given, or compiled for it."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
from glob import glob
from pathlib import Path
from typing import Any

from gguf_forge.cuda.driver import CudaError
from gguf_forge.cuda.kernels import LIST, VARIABLE, find_kernels
from tests.cuda.checkout import ROOT
from tests.cuda.watch import kill

PLACES = ("bin", "compute-sanitizer")


def tool(name: str) -> str | None:
    """A program of the toolkit: in PATH, CUDA_HOME, or where toolkits are installed."""
    homes = [os.environ.get("CUDA_HOME", ""), os.environ.get("CUDA_PATH", ""), *sorted(glob("/usr/local/cuda*"))]
    found = [shutil.which(name), *(shutil.which(name, path=f"{home}/{p}") for home in homes if home for p in PLACES)]
    return next((path for path in found if path), None)


def prepare(capability: tuple[int, int], log: Path, seconds: float) -> dict[str, Any]:
    """Has GGUF_FORGE_KERNELS name kernels with code for a device; says which, and their hash. Raises CudaError."""
    folder, said = _given(), ""
    if folder is not None and (wrong := _unfit(folder, capability)):
        folder, said = (folder, wrong) if tool("nvcc") is None else (None, f"; those given were not: {wrong}")
        if folder is not None and "as the sources" in wrong:
            raise CudaError(f"the kernels are {wrong}, and there is no nvcc: run `make cuda` where there is one")
    if folder is None:
        folder = _compiled(capability, log, seconds)
        said = f", compiled here{said}"
    os.environ[VARIABLE] = str(folder)
    marks = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(folder.glob("*.fatbin")))).hexdigest()[:12]
    return {"kernels": f"{folder.name} ({marks}){said}", "folder": str(folder)}


def builder() -> dict[str, Any]:
    """What native/cuda/build.py has."""
    return runpy.run_path(str(ROOT / "native/cuda/build.py"))


def _given() -> Path | None:
    if not os.environ.get(VARIABLE) and (ROOT / "build/cuda" / LIST).exists():
        return ROOT / "build/cuda"
    try:
        return find_kernels()
    except CudaError:
        if os.environ.get(VARIABLE):
            raise
        return None


def _unfit(folder: Path, capability: tuple[int, int]) -> str:
    """Why kernels are not those of this checkout, or not for this device."""
    listed = json.loads((folder / LIST).read_text(encoding="utf-8"))
    made_by = builder()
    starts, made_of = made_by["launches"](), folder / made_by["SOURCES"]
    if made_of.exists() and made_of.read_text(encoding="utf-8").strip() != made_by["sources"]():
        return "not made as the sources say"
    for name, launch in starts.items():
        same = [kernel for kernel in listed if kernel == name or (name.endswith("_") and kernel.startswith(name))]
        rows = [listed[kernel] for kernel in same]
        if not rows or any(row["launch"] != launch for row in rows):
            return f"not started as the sources say, {name} for one"
    major, minor = capability
    codes = {int(sm) for row in listed.values() for sm in row.get("resources", {})}
    if codes and not any(major == sm // 10 and sm % 10 <= minor for sm in codes):
        return f"without machine code for sm_{major}{minor}"
    return ""


def _compiled(capability: tuple[int, int], log: Path, seconds: float) -> Path:
    compiler = tool("nvcc")
    if compiler is None:
        raise CudaError("no kernels in build/cuda, and no nvcc to make them: run `make cuda` where there is one")
    folder, sm = ROOT / "build/cuda-here", "{}{}".format(*capability)
    path = f"{Path(compiler).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [sys.executable, "native/cuda/build.py", str(folder), sm]
    with log.open("ab") as to:
        compiling = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PATH": path}, stdout=to, stderr=to, start_new_session=True
        )
        try:
            status = compiling.wait(seconds)
        except subprocess.TimeoutExpired:
            raise CudaError(f"nvcc was not done within {seconds:.0f} s") from None
        finally:
            kill(compiling)
    if status:
        raise CudaError(f"the kernels could not be compiled: status {status}, see {log.name}")
    if wrong := _unfit(folder, capability):
        raise CudaError(f"the kernels that nvcc made are {wrong}, see {log.name}")
    return folder


def resources(folder: str, capability: tuple[int, int]) -> dict[str, str]:
    """Registers, stack and spilled bytes of each kernel, as compiled for a device, where its list has them."""
    try:
        listed = json.loads((Path(folder) / LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = {}
    for name, row in listed.items():
        codes = row.get("resources", {})
        fit = [sm for sm in codes if int(sm) // 10 == capability[0] and int(sm) % 10 <= capability[1]]
        if fit:
            r = codes[max(fit, key=int)]
            found[name] = f"{r['registers']}/{r['stack']}/{r['spilled']}"
    return found
