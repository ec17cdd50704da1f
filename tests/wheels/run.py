"""`python -m tests.wheels.run FOLDER WORLD ...`: installs the wheels of FOLDER in each world and runs them there.

Run are the tests of golden bytes of every codec on every instruction set, from the source distribution (nothing of the
repository's package can be imported by mistake), and a conversion of the trained model, whose file must be the one that
the package as built here makes. Exit code 1 when a world fails.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tarfile
import time
import zipfile
from pathlib import Path

from tests.wheels.assemble import python
from tests.wheels.compile import ROOT
from tests.wheels.targets import TARGETS
from tests.wheels.worlds import WORLDS, World

MODEL = ROOT / "fixtures" / "models" / "PyLlama-7M"
GOLDEN = "tests/native/test_golden.py"
#: Says where it runs, and fails where the package is not the wheel's.
ABOUT = """
import platform, sys, pathlib, gguf_forge._core
assert pathlib.Path(gguf_forge._core.__file__).parents[1].name == "site", gguf_forge._core.__file__
print(sys.version, platform.platform())
"""
FORGE = ("-m", "gguf_forge")


def jobs(work: Path) -> dict[str, tuple[str, ...]]:
    """What the package is asked to do in each world, before the name of the file to make."""
    return {
        "convert": ("convert", str(MODEL), "--type", "Q4_K_M", "--outfile"),
        "quantize": ("quantize", "--type", "Q4_K_M", str(work / "f16.gguf")),
    }


def take_tests(folder: Path, to: Path) -> None:
    """The tests and fixtures of the source distribution in `folder`, without the package beside them."""
    (sdist,) = folder.glob("*.tar.gz")
    shutil.rmtree(to, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(to.parent / "sdist", filter="data")
    (tree,) = (to.parent / "sdist").iterdir()
    for name in ("tests", "fixtures"):
        shutil.copytree(tree / name, to / name)
    shutil.rmtree(to.parent / "sdist")
    (to / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # or the repository's settings would be found above


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing"])[-1]


def dependencies(wheel: Path) -> list[str]:
    """What the wheel says it needs, extras aside."""
    with zipfile.ZipFile(wheel) as archive:
        about = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(about).decode().splitlines()
    return [line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ") and "extra ==" not in line]


def install(world: World, wheel: Path, site: Path) -> None:
    """The wheel, what it depends on, and pytest, as that world's pip would choose them."""
    shutil.rmtree(site, ignore_errors=True)
    words = ["-m", "pip", "install", "-q", "--only-binary", ":all:", "--implementation", "cp", "--target", str(site)]
    abi = f"cp{world.version.replace('.', '')}"
    words += ["--python-version", world.version, "--abi", abi, "--abi", "abi3", "--abi", "none"]
    words += [word for tag in (*world.platforms, *TARGETS[world.target].tags) for word in ("--platform", tag)]
    needed = [name for name in dependencies(wheel) if not name.startswith(world.without or ("none",))]
    python(*words, *needed, "pytest", "hypothesis", *world.extras)
    python(*words, "--no-deps", "--upgrade", str(wheel))


def run_in(name: str, folder: Path, work: Path) -> list[str]:
    """What goes wrong in a world; nothing when all is well."""
    place = work / name
    place.mkdir(parents=True, exist_ok=True)
    world = WORLDS[name](place)
    (wheel,) = folder.glob(f"*{TARGETS[world.target].tags[0]}*.whl")
    site, tests = place / "site", place / "tests"
    install(world, wheel, site)
    take_tests(folder, tests)
    about = world.run("-c", ABOUT, folder=tests, site=site)
    print(f"{name}: {wheel.name} on {last_line(about.stdout)}", flush=True)
    wrong = [] if about.returncode == 0 else [about.stdout]
    golden = world.run("-m", "pytest", "-q", "-p", "no:cacheprovider", GOLDEN, folder=tests, site=site)
    print(f"{name}: {last_line(golden.stdout)}", flush=True)
    if golden.returncode != 0:
        wrong.append(golden.stdout)
    for job, words in jobs(work).items():
        if job not in world.jobs:
            continue
        made = place / f"{job}.gguf"
        made.unlink(missing_ok=True)
        done = world.run(*FORGE, *words, str(made), folder=tests, site=site)
        if done.returncode != 0 or not made.exists():
            wrong.append(f"{job} ended with {done.returncode}:\n{done.stdout}")
        elif made.read_bytes() != (work / f"{job}.gguf").read_bytes():
            wrong.append(f"{job} made another file than here: {made}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("worlds", nargs="+", choices=WORLDS)
    options = parser.parse_args()
    work = Path("build/worlds").resolve()
    work.mkdir(parents=True, exist_ok=True)
    python(*FORGE, "convert", str(MODEL), "--type", "F16", "--outfile", str(work / "f16.gguf"))
    for job, words in jobs(work).items():
        python(*FORGE, *words, str(work / f"{job}.gguf"))
    failed = 0
    for name in options.worlds:
        start = time.monotonic()
        wrong = run_in(name, options.folder.resolve(), work)
        for text in wrong:
            print(f"{name}: {text}", file=sys.stderr)
        failed += bool(wrong)
        print(f"{name}: {'failed' if wrong else 'all well'} after {time.monotonic() - start:.0f} s", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
