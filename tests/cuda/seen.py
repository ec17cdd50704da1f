"""Which device there is, with which driver, beside which processors; or that there is none."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path
from typing import Any

from gguf_forge import _native
from gguf_forge.cuda.context import Context
from gguf_forge.cuda.declarations import LIBRARIES, NO_DEVICE
from gguf_forge.cuda.driver import VARIABLE, CudaError, driver
from gguf_forge.quant import codec
from tests.cuda.checkout import ROOT


def device(ordinal: int) -> dict[str, Any]:
    """A record of the device; of what is wrong; or, as "absent", of why there is none."""
    about = {"processor": processor(), "isa": _native.ISA, "processors": codec.thread_count(None), "commit": commit()}
    try:
        found = driver()
        context = Context(found, ordinal)
    except CudaError as error:
        none = error.code == NO_DEVICE or not _library()
        cards = said("nvidia-smi", "-L")
        if none and "GPU " not in cards:
            return {**about, "absent": str(error)}
        return {**about, "failed": f"{error}; nvidia-smi says: {cards or 'nothing'}", "code": error.code}
    about |= {"device": context.name, "capability": list(context.capability), "memory": context.total}
    number = said("nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader")
    return {**about, "free": context.free(), "cuda": found.version_name, "driver": number.splitlines()[:1]}


def _library() -> bool:
    """Whether a library of the driver can be opened, of whatever age."""
    for name in [os.environ[VARIABLE]] if os.environ.get(VARIABLE) else LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def processor() -> str:
    """The model name of the processors."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def commit() -> str:
    """The hash of the checkout's commit, with + where files differ, or nothing where there is no repository."""
    found = said("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    return found + ("+" if found and said("git", "-C", str(ROOT), "status", "--porcelain", "-uno") else "")


def said(*command: str) -> str:
    """What a program prints, or nothing where it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
