"""From the source tree to one wheel for each target: a source distribution, a wheel built from it alone, and that wheel
again for each target with its own extension in the first one's place. Knows wheels, nothing of compilers.

All wheels thus hold what setuptools put into the first, byte for byte, but for the extension and the tags. Times inside
are SOURCE_DATE_EPOCH, the last commit's time where it is not set, so that the same tree makes the same bytes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.wheels.compile import ROOT
from tests.wheels.targets import Target

EXTENSIONS = "gguf_forge/_core.*"


def source_date() -> str:
    """SOURCE_DATE_EPOCH, or the time of the last commit."""
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        return epoch
    command = ["git", "log", "-1", "--format=%ct"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def python(*words: str, folder: Path = ROOT, **settings: str) -> None:
    """Runs this Python in a folder; what it prints is shown when it fails."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": source_date(), **settings}
    command = [sys.executable, *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} in {folder}\n{done.stdout}")


def build_sdist(folder: Path) -> Path:
    """The source distribution in `folder`."""
    python("-m", "build", "--sdist", "--no-isolation", "--outdir", str(folder))
    (made,) = folder.glob("*.tar.gz")
    return made


def wheel_of_sdist(sdist: Path, folder: Path) -> Path:
    """A wheel for this machine from nothing but the source distribution: no network, and no git to ask."""
    unpacked, made = folder / "unpacked", folder / "here"
    for old in (unpacked, made):
        shutil.rmtree(old, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (tree,) = unpacked.iterdir()
    install = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    without_git = {"GIT_DIR": str(folder / "no-git"), "PATH": path_without_git()}
    python(*install, "--wheel-dir", str(made), ".", folder=tree, **without_git)
    (wheel,) = made.glob("*.whl")
    return wheel


def path_without_git() -> str:
    """PATH less the folders that have git, where a compiler is found all the same."""
    folders = [p for p in os.environ["PATH"].split(os.pathsep) if not (Path(p) / "git").exists()]
    return os.pathsep.join(folders) if shutil.which("cc", path=os.pathsep.join(folders)) else os.environ["PATH"]


def swap_extension(wheel: Path, target: Target, extension: Path, folder: Path, to: Path) -> Path:
    """The wheel again in `to`, with another extension and that target's tags."""
    shutil.rmtree(folder, ignore_errors=True)
    python("-m", "wheel", "unpack", "--dest", str(folder), str(wheel))
    (tree,) = folder.iterdir()
    for old in tree.glob(EXTENSIONS):
        if old.suffix != ".pyi":
            old.unlink()
    shutil.copy(extension, tree / "gguf_forge" / target.extension)
    (about,) = tree.glob("*.dist-info")
    lines = (about / "WHEEL").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("Tag:")]
    tags = [f"Tag: cp310-abi3-{tag}" for tag in target.tags]
    (about / "WHEEL").write_text("\n".join([*kept, *tags, ""]), encoding="utf-8")
    for path in tree.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.name == target.extension else 0o644)  # not what the umask was
    before = set(to.glob("*.whl"))
    python("-m", "wheel", "pack", "--dest-dir", str(to), str(tree))
    made = set(to.glob("*.whl")) - before
    return made.pop()
