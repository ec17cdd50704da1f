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

ABSENT = (
    "test-cuda: not run: {}. Build the core in place: python setup.py build_ext --inplace; and where a package is "
    "missing, bring it: pip install --target FOLDER cffi, for this Python, and PYTHONPATH=FOLDER"
)


def main(arguments: list[str] | None = None) -> int:
    """Does it all, prints the table, writes it to the folder of outputs, and says whether all is well."""
    from tests.cuda.plan import PARTS

    parser = argparse.ArgumentParser(prog="python -m tests.cuda", description="Every kernel on a GPU, and a table.")
    parser.add_argument("--device", type=int, default=0, help="the device's number")
    parser.add_argument("--minutes", type=float, help="after which all is over: 7.5, or 1.5 with --quick")
    parser.add_argument("--quick", action="store_true", help="only whether kernels load, and bits on little data")
    parser.add_argument("--out", type=Path, default=ROOT / "build/cuda-report", help="folder of table and results")
    parser.add_argument("--without", nargs="*", default=[], choices=[part.name for part in PARTS], metavar="PART")
    parser.add_argument("--little", action="store_true", help="little data, for rehearsals")
    parser.add_argument("--patience", type=float, default=1.0, help="times the seconds that an item may take")
    given = parser.parse_args(arguments)
    given.out = given.out.resolve()
    given.minutes = given.minutes or (1.5 if given.quick else 7.5)
    os.chdir(ROOT)
    try:
        from tests.cuda.checkout import complete

        complete()
        from tests.cuda import report
    except ImportError as error:
        print(ABSENT.format(error))
        return 2
    return report.run(given)


if __name__ == "__main__":
    sys.exit(main())
