"""`python -m tests.wheels.run FOLDER WORLD ...`: installs the wheels of FOLDER in each world and runs them there.

Run are the tests of golden bytes of every codec on every instruction set, from the source distribution (nothing of the
repository's package can be imported by mistake), and a conversion of the trained model, whose file must be the same in every
world. Exit code 1 when a world fails.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tarfile
import time
from pathlib import Path

from tests.wheels.assemble import python
from tests.wheels.compile import ROOT
from tests.wheels.targets import TARGETS
from tests.wheels.worlds import WORLDS, World

MODEL = ROOT / "fixtures" / "models" / "PyLlama-7M"
GOLDEN = "tests/native/test_golden.py"
#: The file's bytes, which tests/cli compares with the reference's.
CONVERTED_SHA256 = "SHA"


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


def install(world: World, wheel: Path, site: Path) -> None:
    """The wheel, what it depends on, and pytest, as that world's pip would choose them."""
    shutil.rmtree(site, ignore_errors=True)
    older = [f"manylinux2014_{p.rsplit('_', 2)[-1]}" for p in world.platforms if p.startswith("manylinux")]
    tags = [*world.platforms, *TARGETS[world.target].tags, *older]
    words = ["-m", "pip", "install", "-q", "--only-binary", ":all:", "--implementation", "cp", "--target", str(site)]
    abi = f"cp{world.version.replace('.', '')}"
    words += ["--python-version", world.version, "--abi", abi, "--abi", "abi3", "--abi", "none"]
    words += [word for tag in dict.fromkeys(tags) for word in ("--platform", tag)]
    python(*words, str(wheel), "pytest", "hypothesis", *world.extras)


def run_in(name: str, folder: Path, work: Path) -> list[str]:
    """What goes wrong in a world; nothing when all is well."""
    place = work / name
    place.mkdir(parents=True, exist_ok=True)
    world = WORLDS[name](place)
    (wheel,) = folder.glob(f"*{TARGETS[world.target].tags[0]}*.whl")
    site, tests, converted = place / "site", place / "tests", place / "converted.gguf"
    install(world, wheel, site)
    take_tests(folder, tests)
    converted.unlink(missing_ok=True)
    about = world.run("-c", "import sys, platform; print(sys.version, platform.platform())", folder=tests, site=site)
    print(f"{name}: {wheel.name} on {' '.join(about.stdout.split())}", flush=True)
    wrong = []
    golden = world.run("-m", "pytest", "-q", "-p", "no:cacheprovider", GOLDEN, folder=tests, site=site)
    print(f"{name}: {golden.stdout.strip().splitlines()[-1]}", flush=True)
    if golden.returncode != 0:
        wrong.append(golden.stdout)
    words = ["-m", "gguf_forge", "convert", str(MODEL), "--type", "Q4_K_M", "--outfile", str(converted)]
    done = world.run(*words, folder=tests, site=site)
    if done.returncode != 0 or not converted.exists():
        wrong.append(f"the conversion ended with {done.returncode}:\n{done.stdout}")
    elif (made := hashlib.sha256(converted.read_bytes()).hexdigest()) != CONVERTED_SHA256:
        wrong.append(f"the converted file is another: sha256 {made}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("worlds", nargs="+", choices=WORLDS)
    options = parser.parse_args()
    failed = 0
    for name in options.worlds:
        start = time.monotonic()
        wrong = run_in(name, options.folder.resolve(), Path("build/worlds").resolve())
        for text in wrong:
            print(f"{name}: {text}", file=sys.stderr)
        failed += bool(wrong)
        print(f"{name}: {'failed' if wrong else 'all well'} after {time.monotonic() - start:.0f} s", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
