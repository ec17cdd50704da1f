"""`python -m tests.cuda`: everything on a real GPU, in under eight minutes, and one table of what came of it.

Without a GPU it says why, and ends well. Needs no network and installs nothing: Python, NumPy, cffi and the core built
in place; kernels from GGUF_FORGE_KERNELS or build/cuda, or nvcc for them; torch, CuPy and compute-sanitizer if they are
there.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def main() -> int:
    """Measures, prints the table, writes it to build/cuda-table.md, and says whether all bits were equal."""
    parser = argparse.ArgumentParser(prog="python -m tests.cuda", description="Every kernel on a GPU, and a table.")
    parser.add_argument("--device", type=int, default=0, help="the device's number")
    parser.add_argument("--minutes", type=float, default=7.0, help="after which no more is begun")
    parser.add_argument("--small", action="store_true", help="little data: for compute-sanitizer, and for rehearsals")
    parser.add_argument("--only-bits", action="store_true", help="no rates of products, no model, no other libraries")
    parser.add_argument("--table", type=Path, default=ROOT / "build/cuda-table.md", help="where the table goes")
    given = parser.parse_args()
    try:
        from tests.cuda import report
    except ImportError as error:
        print(f"test-cuda: not run: {error} (build the core with: {sys.executable} setup.py build_ext --inplace)")
        return 2
    return report.run(given)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
