"""ggml's encoder of one type, run apart: its search of lattice types ends the process on some inputs.

    python -m tests.native.lattice_oracle TYPE PACKAGE < cases > results

A case is rows, width, has weights (int32 each), the values, the weights; a result is a 1 and the blocks. Where ggml
gave up there is none.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gguf_forge.types import TENSOR_TYPES, TensorType
from tests.oracle import JUDGE, OLDER, Oracle, Wheel

Case = tuple[NDArray[np.float32], NDArray[np.float32] | None]


def judge(kind: TensorType, cases: Sequence[Case], wheel: Wheel = JUDGE) -> list[NDArray[np.uint8] | None]:
    """What ggml makes of each case; None where it ended the process."""
    wheel.library()  # an error where it is missing: it would look like an input ggml gives up on
    results: list[NDArray[np.uint8] | None] = []
    while len(results) < len(cases):
        left = cases[len(results) :]
        packed = b"".join(
            np.array([*x.shape, w is not None], "<i4").tobytes() + x.tobytes() + (b"" if w is None else w.tobytes())
            for x, w in left
        )
        command = [sys.executable, "-m", "tests.native.lattice_oracle", kind.name, wheel.package]
        # Where gdb is installed, a ggml that gives up calls it to print its stack.
        quick = {**os.environ, "GGML_NO_BACKTRACE": "1"}
        out = subprocess.run(command, input=packed, capture_output=True, check=False, timeout=600, env=quick).stdout
        for x, _ in left:
            size = x.shape[0] * kind.row_bytes(x.shape[1])
            if len(out) < 1 + size:
                results.append(None)
                break
            results.append(np.frombuffer(out[1 : 1 + size], np.uint8).reshape(x.shape[0], -1))
            out = out[1 + size :]
    return results


def main() -> None:
    kind, wheel = TENSOR_TYPES[sys.argv[1]], next(w for w in (JUDGE, OLDER) if w.package == sys.argv[2])
    data = sys.stdin.buffer.read()
    sink = os.dup(1)
    os.dup2(2, 1)  # ggml prints its complaints
    oracle, at = Oracle(wheel), 0
    while at < len(data):
        rows, width, weighted = (int(i) for i in np.frombuffer(data, "<i4", 3, at))
        x = np.frombuffer(data, "<f4", rows * width, at + 12).reshape(rows, width)
        at += 12 + x.nbytes
        w = np.frombuffer(data, "<f4", width, at) if weighted else None
        at += 0 if w is None else w.nbytes
        os.write(sink, b"\1" + oracle.encode(x, kind, w).tobytes())


if __name__ == "__main__":
    main()
