"""Capsules of DLPack: what they hold is let go of in time, but not once the interpreter ends."""

from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_forge.cuda import dlpack

HOST = 1, 0


class Owner:
    """Memory of the host that goes as DLPack to whoever asks."""

    def __init__(self, dtype: str = "float32") -> None:
        self.dtype = dtype
        self.x = np.arange(6, dtype=np.float32)

    def __dlpack_device__(self) -> tuple[int, int]:
        return HOST

    def __dlpack__(self, *, versioned: bool = False, **wishes: Any) -> Any:
        versioned = versioned or bool(wishes.get("max_version"))
        return dlpack.capsule(self, self.x.ctypes.data, HOST, (2, 3), dlpack.ELEMENTS[self.dtype], versioned)


@pytest.mark.parametrize("versioned", [False, True])
def test_a_capsule_that_no_one_takes(versioned: bool) -> None:
    one = Owner()
    gone, capsule = weakref.ref(one), one.__dlpack__(versioned=versioned)
    found = dlpack.described(capsule)
    assert found == dlpack.Described(one.x.ctypes.data, HOST, (2, 3), (3, 1), dlpack.ELEMENTS["float32"])
    del one
    assert gone() is not None
    del capsule
    assert gone() is None


def test_a_capsule_that_is_taken() -> None:
    one = Owner()
    gone = weakref.ref(one)
    array = np.from_dlpack(one)
    del one
    assert gone() is not None
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    del array
    assert gone() is None


def test_let_go_while_an_exception_is_raised() -> None:
    """NumPy lets go of what it cannot take when it has said so already."""
    one = Owner("bfloat16")
    gone = weakref.ref(one)
    with pytest.raises((BufferError, RuntimeError), match="dtype"):
        np.from_dlpack(one)
    del one
    assert gone() is None


@pytest.mark.parametrize("what", [3, None, np.zeros(3)])
def test_no_capsule(what: Any) -> None:
    with pytest.raises(ValueError, match="no capsule of DLPack"):
        dlpack.described(what)


def test_what_outlives_the_modules() -> None:
    """An array that only the interpreter's end lets go of, when what made it is gone."""
    text = (
        "import builtins, sys, numpy\nfrom tests.cuda.test_dlpack import Owner\n"
        "builtins.kept, sys.kept = numpy.from_dlpack(Owner()), [numpy.from_dlpack(Owner()), Owner().__dlpack__()]\n"
        "try:\n    import torch\n    builtins.torchs = torch.from_dlpack(Owner())\nexcept ImportError:\n    pass\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", text], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
