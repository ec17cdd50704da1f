"""`python -m tests.wheels FOLDER [--only NAME ...]`: builds the source distribution and a wheel for each target, checks
them, and lists them in FOLDER. `--compile-only` compiles the core for every target and makes no wheel. Exit code 1 when
anything is wrong."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.wheels import assemble, check
from tests.wheels.compile import CompileFailedError, build_extension
from tests.wheels.targets import TARGETS


def report(name: str, wrong: list[str]) -> bool:
    """Prints what is wrong with a file; whether anything is."""
    for sentence in wrong:
        print(f"{name}: {sentence}", file=sys.stderr)
    return bool(wrong)


def compile_all(names: list[str], work: Path) -> dict[str, Path]:
    """The extension of each target, by its name; the ones that fail are reported and left out."""
    made = {}
    for name in names:
        try:
            made[name] = build_extension(TARGETS[name], work / name)
            print(f"{name}: compiled, {made[name].stat().st_size} bytes", flush=True)
        except CompileFailedError as error:
            report(name, [str(error)])
    return made


def make_wheels(names: list[str], work: Path, folder: Path) -> bool:
    """The source distribution and the wheels of these targets in `folder`; whether anything is wrong."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sdist = assemble.build_sdist(folder)
    wrong = report(sdist.name, check.check_sdist(sdist))
    base = assemble.wheel_of_sdist(sdist, work)
    extensions = compile_all(names, work)
    for name, extension in extensions.items():
        wheel = assemble.swap_extension(base, TARGETS[name], extension, work / "swap", folder)
        wrong |= report(wheel.name, check.check_wheel(wheel, TARGETS[name]))
        with tempfile.TemporaryDirectory() as again:
            second = assemble.swap_extension(base, TARGETS[name], extension, work / "swap", Path(again))
            if second.read_bytes() != wheel.read_bytes():
                wrong = report(wheel.name, ["packed again, it has other bytes"])
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size:9d}  {path.name}")
    return wrong or len(extensions) < len(names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", choices=TARGETS, default=[])
    parser.add_argument("--compile-only", action="store_true")
    options = parser.parse_args()
    work = Path("build/wheels").resolve()
    if options.compile_only:
        names = options.only or list(TARGETS)
        return int(len(compile_all(names, work)) < len(names))
    names = options.only or [name for name, target in TARGETS.items() if target.tags]
    return int(make_wheels(names, work, options.folder.resolve()))


if __name__ == "__main__":
    sys.exit(main())
