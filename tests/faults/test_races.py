"""Two writers of one file, a source that is cut while it is read, small disks, power that is lost."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from gguf_forge import Edits, edit_file, merge_files, split_file
from gguf_forge.errors import ForgeError
from tests.convert.power_loss import PowerLoss
from tests.convert.resuming import at_once, quantize
from tests.faults.conftest import Tell
from tests.whole.small import write

assert sys.platform != "win32"

#: Of each kind; the suite that CI runs has them all.
TRIALS = int(os.environ.get("TRIALS", "1000"))
DONE, REFUSED, SURPRISED = 0, 1, 3


def in_child(work: Callable[[], object]) -> int:
    """Begins work in a process of its own; its number. The exit code says how it ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads: they do not take part
        child = os.fork()
    if child:
        return child
    signal.alarm(60)
    code = SURPRISED
    try:
        work()
        code = DONE
    except (ForgeError, OSError):
        code = REFUSED
    finally:
        os._exit(code)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def came(code: int) -> str:
    return {DONE: "done", REFUSED: "refused"}.get(code, "other")


@pytest.mark.parametrize("name", ["conversion", "edit in place", "merge"])
def test_two_writers(name: str, tmp_path: Path, tell: Tell) -> None:
    """Both at once: one makes it, the other does, too, or is told so; what is there is what one makes alone."""
    source, output = write(tmp_path / "f32.gguf"), tmp_path / "a.gguf"
    shards = split_file(source, tmp_path / "x", max_tensors=7)
    edits = Edits(set={"general.name": "Large"})
    work: dict[str, Callable[[], object]] = {
        "conversion": lambda: quantize(source, output),
        "edit in place": lambda: edit_file(output, edits=edits),
        "merge": lambda: merge_files(shards[0].path, output),
    }
    raw = source.read_bytes()
    output.write_bytes(raw)
    work[name]()
    wanted = output.read_bytes()
    counts: Counter[str] = Counter()
    problems = []
    names = sorted(os.listdir(tmp_path))
    for _ in range(TRIALS // 3 + 1):
        output.write_bytes(raw)
        codes = [ended(child) for child in [in_child(work[name]) for _ in range(2)]]
        counts.update(map(came, codes))
        if output.read_bytes() != wanted or DONE not in codes or not {*codes} <= {DONE, REFUSED}:
            problems.append(f"{codes}")
        if sorted(os.listdir(tmp_path)) != names:
            problems.append(f"left {os.listdir(tmp_path)}")
    tell(name, "two at once", counts, problems)


@pytest.mark.parametrize("name", ["conversion", "edit anew", "merge"])
def test_a_source_that_is_cut(name: str, tmp_path: Path, tell: Tell) -> None:
    """At any moment and to any size: the result is right, or the error says that it changed or ends early."""
    folder = tmp_path / "source"
    folder.mkdir()
    source, output = write(folder / "f32.gguf", {"long": None}), tmp_path / "a.gguf"
    shards = [shard.path for shard in split_file(source, folder / "x", max_tensors=7)]
    work: dict[str, Callable[[], object]] = {
        "conversion": lambda: quantize(source, output),
        "edit anew": lambda: edit_file(source, output, Edits(set={"general.name": "Large" * 99})),
        "merge": lambda: merge_files(shards[0], output),
    }
    start = time.monotonic()
    work[name]()
    usual = time.monotonic() - start
    wanted = output.read_bytes()
    raw = {path: path.read_bytes() for path in folder.iterdir()}
    rng = random.Random(0)
    counts: Counter[str] = Counter()
    problems = []
    for _ in range(TRIALS // 3 + 1):
        output.unlink(missing_ok=True)
        for path, data in raw.items():
            path.write_bytes(data)
        cut = rng.choice(shards) if name == "merge" else source
        child = in_child(work[name])
        time.sleep(rng.random() * usual)
        os.truncate(cut, rng.randrange(len(raw[cut])))
        code = ended(child)
        counts[came(code)] += 1
        there = output.read_bytes() if output.exists() else None
        if code not in (DONE, REFUSED) or there != (wanted if code == DONE else None):
            problems.append(f"exit code {code}, {'no' if there is None else len(there)} bytes")
        if any(entry.startswith(".") for entry in os.listdir(tmp_path)):
            problems.append(f"left {os.listdir(tmp_path)}")
    tell(name, "its source is cut", counts, problems)


def test_a_power_loss(tmp_path: Path, tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """After every call, ten times over, with what was not flushed lost, cut or scrambled at random."""
    source, out = write(tmp_path / "f32.gguf"), tmp_path / "out"
    out.mkdir()
    wanted = quantize(source, out / "a.gguf").path.read_bytes()
    monkeypatch.setattr("gguf_forge.convert.files.saving", at_once)
    monkeypatch.setattr("gguf_forge.convert.run.RUN_ELEMENTS", 4096)
    with monkeypatch.context() as patch:
        loss = PowerLoss(patch)
        quantize(source, out / "a.gguf")
    rng = np.random.default_rng(0)
    counts: Counter[str] = Counter()
    problems = []
    states = [count for count in range(1, len(loss.events) + 1) for _ in range(TRIALS // len(loss.events) + 1)]
    for count in states:
        for path in out.iterdir():
            path.unlink()
        for name, data in loss.after(count, rng).items():
            (out / name).write_bytes(data)
        if (out / "a.gguf").exists() and (out / "a.gguf").read_bytes() != wanted:
            problems.append(f"after {count} calls: half a file under its name")
        notes = quantize(source, out / "a.gguf", resume=True).notes
        if (out / "a.gguf").read_bytes() != wanted or any("not what the journal says" in note for note in notes):
            problems.append(f"after {count} calls: {notes}")
        counts["done"] += 1
    tell("resumed conversion", "power is lost", counts, problems)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes; skips the test where none can be mounted."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk(tmp_path: Path, tell: Tell) -> None:
    """Of every size from nothing to more than is needed: made, or refused with the bytes that are needed and free."""
    source = write(tmp_path / "f32.gguf")
    wanted = quantize(source, tmp_path / "once.gguf").path.read_bytes()
    counts: Counter[str] = Counter()
    problems = []
    for pages in range(1, len(wanted) // 4096 + 6):
        with small_disk(tmp_path / f"disk-{pages}", pages * 4096) as disk:
            try:
                quantize(source, disk / "a.gguf")
                counts["done"] += 1
                right = (disk / "a.gguf").read_bytes() == wanted
            except ForgeError as error:
                counts["refused"] += 1
                right = re.search(rf"needs {len(wanted)} bytes, \d+ free", str(error)) is not None
                right &= os.listdir(disk) == []
            if not right:
                problems.append(f"{pages} pages: {os.listdir(disk)}")
    assert counts["done"]
    assert counts["refused"]
    tell("conversion", "the disk is full", counts, problems)


def test_a_limit_of_a_files_size(tmp_path: Path, tell: Tell) -> None:
    """RLIMIT_FSIZE of any number of bytes."""
    source, output = write(tmp_path / "f32.gguf"), tmp_path / "a.gguf"
    wanted = quantize(source, output).path.read_bytes()
    counts: Counter[str] = Counter()
    problems = []
    for size in [*range(0, len(wanted), len(wanted) // 50), len(wanted) - 1, len(wanted), len(wanted) + 1]:
        output.write_bytes(b"old")

        def limited(size: int = size) -> None:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            quantize(source, output)

        code = ended(in_child(limited))
        counts[came(code)] += 1
        there = output.read_bytes()
        if there != (wanted if code == DONE else b"old") or code != (DONE if size >= len(wanted) else REFUSED):
            problems.append(f"{size} bytes: exit code {code}")
        if sorted(os.listdir(tmp_path)) != ["a.gguf", "f32.gguf"]:
            problems.append(f"{size} bytes: left {os.listdir(tmp_path)}")
    tell("conversion", "a limit of files' size", counts, problems)
