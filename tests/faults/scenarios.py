"""Pieces of work with files, and what may be there when one ends: the old files, the new ones, nothing between."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gguf_forge import Edits, Splitting, edit_file, join, merge_files, split_file
from gguf_forge.errors import ForgeError
from gguf_forge.whole.inplace import pending, recover
from tests.convert.resuming import eager, quantize
from tests.whole.small import write

OLD = b"the old file"
#: Hidden files that a killed run may leave: files in the making, and journals.
LITTER = re.compile(r"\.+.*\.(part|journal|edit)")


@dataclass
class Scenario:
    """Work in a folder. `new`: the files that it makes, or changes; all others in the folder stay.

    together: the files are a set, whose first is the last to come. mends: what a run does after a killed one.
    """

    folder: Path
    run: Callable[[Path], object]
    new: Mapping[str, bytes]
    together: tuple[str, ...] = ()
    mends: Callable[[Path], object] | None = None
    refusals: tuple[type[BaseException], ...] = (ForgeError, OSError)
    old: Mapping[str, bytes] = field(default_factory=dict)

    def judge(self, work: Path, code: int, said: str, *, killed: bool) -> str:
        """What is wrong with what a run left, '' if nothing is."""
        names = sorted(os.listdir(work))
        found = {name: (work / name).read_bytes() for name in names if (work / name).is_file()}
        hidden = [name for name in names if name.startswith(".")]
        if code < 0 and not killed:
            return f"ended by signal {-code}"
        if code not in (0, 1) and not killed:
            return f"no error of the package: {said}"
        for name in {*self.old, *self.new, *found}:
            allowed = [self.old.get(name), self.new.get(name)]
            if name not in hidden and found.get(name) not in allowed and not self._closed(work, name):
                return f"{name} is neither the old file nor the new one"
        if code == 0 and any(found.get(name) != data for name, data in self.new.items()):
            return "said to be done, and is not"
        told = [name for name in hidden if code != 0 or killed or name.endswith(".journal")]
        if any(not LITTER.fullmatch(name) for name in hidden) or told != hidden:
            return f"litter: {', '.join(hidden)}"
        there = [name for name in self.together if name in found]
        if there not in [[*self.together[i:]] for i in range(len(self.together) + 1)]:
            return f"of the set there are {there}"
        if killed and self.mends is not None:
            self.mends(work)
            if any((work / name).read_bytes() != data for name, data in self.new.items()):
                return "what a killed run left was not mended"
        return ""

    def _closed(self, work: Path, name: str) -> bool:
        """Whether a file says itself that an edit of it was cut off, and is the new one when that is finished."""
        if name not in self.new or not pending(work / name):
            return False
        return recover(work / name) and (work / name).read_bytes() == self.new[name]


def _start(folder: Path) -> Path:
    start = folder / "start"
    start.mkdir(parents=True, exist_ok=True)
    return start


def _made(folder: Path, run: Callable[[Path], object], names: tuple[str, ...], **more: object) -> Scenario:
    """A scenario, of which `run` is tried once to see what it makes."""
    start, once = folder / "start", folder / "once"
    shutil.rmtree(once, ignore_errors=True)
    shutil.copytree(start, once)
    run(once)
    old = {path.name: path.read_bytes() for path in start.iterdir()}
    new = {**{name: data for name, data in old.items() if (once / name).exists()}}
    new |= {name: (once / name).read_bytes() for name in names}
    return Scenario(folder, run, new, old=old, **more)  # type: ignore[arg-type]


def conversion(folder: Path) -> Scenario:
    """A file that replaces an old one, with a journal that is written at once."""
    eager()
    start = _start(folder)
    write(start / "f32.gguf")
    (start / "a.gguf").write_bytes(OLD)
    return _made(
        folder,
        lambda work: quantize(start / "f32.gguf", work / "a.gguf"),
        ("a.gguf",),
        mends=lambda work: quantize(start / "f32.gguf", work / "a.gguf", resume=True),
    )


def plain_conversion(folder: Path) -> Scenario:
    """The same as it is when it takes less than ten seconds: without a journal."""
    start = _start(folder)
    write(start / "f32.gguf")
    (start / "a.gguf").write_bytes(OLD)

    def run(work: Path) -> object:
        return quantize(start / "f32.gguf", work / "a.gguf")

    return _made(folder, run, ("a.gguf",), mends=run)


def resumption(folder: Path) -> Scenario:
    """One that goes on where another was cut off."""
    eager()
    start = _start(folder)
    write(start / "f32.gguf")
    if not (start / ".a.gguf.part").exists():

        def stop(done: int, total: int) -> None:
            if done > 0.7 * total:
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            quantize(start / "f32.gguf", start / "a.gguf", progress=stop)

    def run(work: Path) -> object:
        return quantize(start / "f32.gguf", work / "a.gguf", resume=True)

    return _made(folder, run, ("a.gguf",), mends=run)


def conversion_to_a_set(folder: Path) -> Scenario:
    """One that makes shards, whose journal is written before they get their names."""
    start = _start(folder)
    write(folder / "f32.gguf")
    names = tuple(f"a-{i:05}-of-00003.gguf" for i in (1, 2, 3))
    cut = Splitting(max_tensors=7)

    def mend(work: Path) -> object:
        whole = all((work / name).exists() for name in names) and not (work / f".{names[0]}.journal").exists()
        return None if whole else quantize(folder / "f32.gguf", work / "a.gguf", resume=True, splitting=cut)

    (start / "b").write_bytes(OLD)
    return _made(
        folder,
        lambda work: quantize(folder / "f32.gguf", work / "a.gguf", splitting=cut),
        names,
        together=names,
        mends=mend,
    )


def edit(folder: Path) -> Scenario:
    """A header that is changed in place."""
    write(_start(folder) / "a.gguf")
    edits = Edits(set={"general.name": "Large"})
    return _made(folder, lambda work: edit_file(work / "a.gguf", edits=edits), ("a.gguf",))


def edit_anew(folder: Path) -> Scenario:
    """A file that an edit writes again."""
    write(_start(folder) / "a.gguf")

    def run(work: Path) -> object:
        return edit_file(work / "a.gguf", edits=Edits(set={"long": "x" * 500}))

    return _made(folder, run, ("a.gguf",))


def split(folder: Path) -> Scenario:
    """A file that is cut into a set."""
    write(_start(folder) / "a.gguf")
    names = tuple(f"x-{i:05}-of-00003.gguf" for i in (1, 2, 3))
    return _made(folder, lambda work: split_file(work / "a.gguf", work / "x", max_tensors=7), names, together=names)


def merge(folder: Path) -> Scenario:
    """A set that is merged into a file, which replaces an old one."""
    start = _start(folder)
    write(start / "b.gguf")
    if not (start / "x-00001-of-00003.gguf").exists():
        split_file(start / "b.gguf", start / "x", max_tensors=7)
    (start / "a.gguf").write_bytes(OLD)

    def run(work: Path) -> object:
        return merge_files(work / "x-00001-of-00003.gguf", work / "a.gguf")

    return _made(folder, run, ("a.gguf",), mends=run)


def joining(folder: Path) -> Scenario:
    """Parts that are joined into a file, which replaces an old one."""
    start = _start(folder)
    write(folder / "f32.gguf")
    for i in (1, 2):
        quantize(folder / "f32.gguf", start / "a.gguf", part=(i, 2))
    (start / "a.gguf").write_bytes(OLD)
    names = [f"a.gguf.{i:05}-of-00002.part" for i in (1, 2)]

    def run(work: Path) -> object:
        return join(work / "a.gguf", [work / name for name in names])

    return _made(folder, run, ("a.gguf",), mends=run)


SCENARIOS: Mapping[str, Callable[[Path], Scenario]] = {
    "conversion": plain_conversion,
    "conversion with a journal": conversion,
    "resumed conversion": resumption,
    "conversion to a set": conversion_to_a_set,
    "edit in place": edit,
    "edit anew": edit_anew,
    "split": split,
    "merge": merge,
    "join": joining,
}
