"""A write that fails leaves the old file as it was, no litter, and says so; the name never holds half a file."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from gguf_forge import system
from gguf_forge.errors import OutputError
from gguf_forge.format import atomic, reader, values, writer
from gguf_forge.format.writer import GGUFWriter
from tests.conftest import PLATFORM, make_pipe

OLD = b"the old file"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(OLD)
    return path


def build(path: Path, rows: int = 64, **options: Any) -> None:
    with GGUFWriter(path, {"general.architecture": values.string("llama")}, **options) as out:
        out.declare("w", (rows, 256), "F32")
        out.begin()
        for row in range(rows):
            out.write("w", np.full(256, row, np.float32), row)


def assert_built(path: Path, rows: int = 64) -> None:
    with reader.open(path) as file:
        assert np.array_equal(file.tensors["w"].dequantize()[:, 0], np.arange(rows))


def assert_untouched(path: Path) -> None:
    assert path.read_bytes() == OLD
    assert os.listdir(path.parent) == [path.name]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_too_large_a_file_fails_before_it_is_written(target: Path) -> None:
    out = GGUFWriter(target)
    out.declare("w", (64, 256), "F32")
    with file_size_limit(1 << 14), pytest.raises(OutputError, match="File too large: needs 65632 bytes"):
        out.begin()
    assert_untouched(target)


def test_a_full_disk_says_what_is_needed_and_free(target: Path) -> None:
    free = system.free_space(target.parent)
    out = GGUFWriter(target)
    out.declare("w", (2 * free // 1024, 256), "F32")
    with pytest.raises(OutputError, match=r"No space left on device: needs \d+ bytes, \d+ free in "):
        out.begin()
    assert_untouched(target)


#: Calls that a write makes, and errors they may give.
FAULTS = [
    ("create", errno.EACCES, ""),
    ("reserve", errno.ENOSPC, ": needs"),
    ("reserve", errno.EDQUOT, ": needs"),
    ("write_at", errno.EIO, ""),
    ("write_at", errno.ENOSPC, ": needs"),
    ("flush", errno.EIO, ""),
    ("replace", errno.EXDEV, ""),
    ("set_mode", errno.EPERM, ""),
    ("require_replaceable", errno.EACCES, ""),
]


@pytest.mark.parametrize(("call", "number", "more"), FAULTS)
def test_a_failing_call_is_reported_and_cleaned_up(
    call: str, number: int, more: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(system, call, fail)
    with pytest.raises(OutputError, match=re.escape(os.strerror(number) + more)) as caught:
        build(target)
    assert caught.value.path == str(target)
    monkeypatch.undo()
    assert_untouched(target)


def test_each_write_that_fails_in_turn(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = system.write_at
    for failing in range(9):  # the header, then eight rows
        calls = 0

        def fail(fd: int, data: memoryview, offset: int, failing: int = failing) -> int:
            nonlocal calls
            calls += 1
            if calls == failing + 1:
                raise OSError(errno.EIO, "Input/output error")
            return real(fd, data, offset)

        monkeypatch.setattr(system, "write_at", fail)
        with pytest.raises(OutputError, match="Input/output error"):
            build(target, rows=8)
        assert_untouched(target)


def test_short_writes_are_continued(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = system.write_at
    monkeypatch.setattr(system, "write_at", lambda fd, data, offset: real(fd, data[:100], offset))
    build(target)
    assert_built(target)


def test_a_write_of_nothing_is_an_error(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "write_at", lambda fd, data, offset: 0)
    with pytest.raises(OutputError, match="wrote 0 of"):
        build(target)
    assert_untouched(target)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, ValueError])
@pytest.mark.parametrize("begun", [True, False])
def test_an_exception_leaves_the_old_file(error: type[BaseException], begun: bool, target: Path) -> None:
    def fail() -> None:
        with GGUFWriter(target) as out:
            out.declare("w", (64, 256), "F32")
            if begun:
                out.begin()
                out.write("w", np.zeros(256, np.float32))
            raise error

    with pytest.raises(error):
        fail()
    assert_untouched(target)


@pytest.mark.parametrize("call", ["create", "reserve", "write_at", "flush", "replace", "set_mode"])
def test_an_interrupt_within_a_call(call: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(system, call, interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(target)
    monkeypatch.undo()
    assert_untouched(target)


class Interrupts:
    """Raises KeyboardInterrupt before the n-th bytecode that runs in the modules that write."""

    modules = (writer.__file__, atomic.__file__, system.__file__, weakref.__file__)

    def __init__(self, step: int) -> None:
        self.left = step

    def trace(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        if frame.f_code.co_filename not in self.modules:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.trace

    def interrupted(self, path: Path) -> bool:
        sys._getframe().f_trace_opcodes = True  # or Python 3.12 sends none to a tracer until another has asked
        before = sys.gettrace()  # of what measures the tests
        sys.settrace(self.trace)
        try:
            build(path, rows=2)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False


@pytest.mark.skipif(PLATFORM == "win32", reason="in the instant of its opening a file can be lost, and stays locked")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("leftover", [False, True])
def test_an_interrupt_before_every_bytecode(leftover: bool, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = target.parent / ".model.gguf.part"
    monkeypatch.setattr(system, "flush", lambda fd: None)  # for the test's sake: most of its time
    outcomes = set()
    for step in count():
        target.write_bytes(OLD)
        if leftover:
            part.write_bytes(OLD)
        interrupted = Interrupts(step).interrupted(target)
        built = target.read_bytes() != OLD
        outcomes.add(built)
        if built:
            assert_built(target, rows=2)
        if not (leftover and part.exists() and part.read_bytes() == OLD):  # not touched yet
            assert os.listdir(target.parent) == [target.name], step
        if not interrupted:
            break
    assert step > 500
    assert outcomes == {True, False}


def test_the_first_error_is_reported_when_cleaning_up_fails_too(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(system, "flush", fail)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match="Input/output error"):
        build(target)
    assert target.read_bytes() == OLD


@pytest.mark.skipif(PLATFORM == "win32", reason="a file's mode is not who may read it")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_of_the_umask(umask: int, tmp_path: Path) -> None:
    old = os.umask(umask)
    try:
        build(tmp_path / "new.gguf")
    finally:
        os.umask(old)
    assert (tmp_path / "new.gguf").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.skipif(PLATFORM == "win32", reason="a file's mode is not who may read it")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o777])
def test_a_replaced_file_keeps_its_mode(mode: int, target: Path) -> None:
    target.chmod(mode)
    build(target)
    assert target.stat().st_mode & 0o777 == mode


def test_a_symlink_stays_and_its_target_is_replaced(target: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "link.gguf"
    link.symlink_to("../model.gguf")
    build(link)
    assert link.is_symlink()
    assert_built(target)
    assert os.listdir(tmp_path / "links") == ["link.gguf"]
    dangling = tmp_path / "dangling.gguf"
    dangling.symlink_to("fresh.gguf")
    build(dangling)
    assert_built(tmp_path / "fresh.gguf")


def test_outputs_that_cannot_be(target: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        build(target, overwrite=False)
    for path, text in (
        (tmp_path, "not a regular file"),
        (tmp_path / "absent" / "x.gguf", "no folder"),
        (target / "x.gguf", "Not a directory|no folder"),
        (tmp_path / ("n" * 256), "File name too long|no folder|cannot hold|syntax"),
        (Path(os.devnull), "not a regular file|a device's name"),
        (Path("nul\0byte"), "null|cannot hold"),
    ):
        with pytest.raises(OutputError, match=text):
            build(path)
    assert_untouched(target)


@pytest.mark.parametrize("name", ["n" * 249, "n" * 250, "\N{SNOWMAN}" * 85])
def test_names_as_long_as_can_be(name: str, tmp_path: Path) -> None:
    build(tmp_path / name)
    assert_built(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    out = GGUFWriter(path, overwrite=False)
    out.begin()
    path.write_bytes(OLD)
    with pytest.raises(OutputError, match="exists already"):
        out.commit()
    assert_untouched(path)


@pytest.mark.skipif(PLATFORM == "win32", reason="what is mapped cannot be replaced")
def test_the_output_may_be_the_input(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    build(path)
    with reader.open(path) as file, GGUFWriter(path, dict.fromkeys(["a.b"], values.u32(1))) as out:
        tensor = file.tensors["w"]
        out.declare("w", tensor.shape, tensor.type)
        out.begin()
        for row in range(tensor.rows):
            out.write("w", tensor.read_rows(row, row + 1), row)
    assert_built(path)


def test_a_second_writer_is_refused_at_once(target: Path) -> None:
    with GGUFWriter(target) as first:
        first.begin()
        with pytest.raises(OutputError, match="another writer is making this file"):
            build(target)
    with reader.open(target) as file:
        assert len(file.tensors) == 0
    assert os.listdir(target.parent) == [target.name]


def test_races_of_two_writers(target: Path) -> None:
    def attempt(_: int) -> str:
        try:
            build(target, rows=4)
        except OutputError as error:
            return error.text
        return "written"

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(attempt, range(60)))
    assert {"written"} <= {*results} <= {"written", "another writer is making this file"}
    assert_built(target, rows=4)
    assert os.listdir(target.parent) == [target.name]


def test_what_a_killed_writer_left_is_taken_over(target: Path) -> None:
    litter = target.parent / ".model.gguf.part"
    litter.write_bytes(b"x" * 1_000_000)
    build(target)
    assert_built(target)
    assert b"xxxx" not in target.read_bytes()
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("kind", ["symlink", "hard link", "folder", "fifo"])
def test_what_is_no_litter_is_not_touched(kind: str, target: Path, tmp_path: Path) -> None:
    part = tmp_path / ".model.gguf.part"
    victim = tmp_path / "victim"
    victim.write_bytes(OLD)
    make: dict[str, Callable[[], object]] = {
        "symlink": lambda: part.symlink_to(victim),
        "hard link": lambda: part.hardlink_to(victim),
        "folder": part.mkdir,
        "fifo": lambda: make_pipe(part),
    }
    make[kind]()
    with pytest.raises(OutputError):
        build(target)
    assert victim.read_bytes() == OLD
    assert target.read_bytes() == OLD
    assert part.exists()


def test_rows_from_many_threads_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    order = np.random.default_rng(1).permutation(512)
    with GGUFWriter(path) as out:
        out.declare("w", (512, 256), "F32")
        out.begin()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda row: out.write("w", np.full(256, row, np.float32), row), order.tolist()))
    assert_built(path, 512)


def test_a_failure_in_one_thread_aborts(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, lock, count = system.write_at, threading.Lock(), [0]

    def fail(fd: int, data: memoryview, offset: int) -> int:
        with lock:
            count[0] += 1
            if count[0] == 30:
                raise OSError(errno.EIO, "Input/output error")
        return real(fd, data, offset)

    monkeypatch.setattr(system, "write_at", fail)

    def build_with_threads() -> None:
        with GGUFWriter(target) as out, ThreadPoolExecutor(4) as pool:
            out.declare("w", (64, 256), "F32")
            out.begin()
            list(pool.map(lambda row: out.write("w", np.zeros(256, np.float32), row), range(64)))

    with pytest.raises(OutputError, match="Input/output"):
        build_with_threads()
    assert_untouched(target)


_CHILD = """
import sys
import numpy as np
from gguf_forge.format.writer import GGUFWriter
print("ready", flush=True)
while True:
    with GGUFWriter(sys.argv[1]) as out:
        out.declare("w", (64, 256), "F32")
        out.begin()
        for row in range(64):
            out.write("w", np.full(256, row, np.float32), row)
"""


@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_a_writer_killed_at_random(how: str, tmp_path: Path) -> None:
    if how == "interrupt" and PLATFORM == "win32":
        pytest.skip("no signal reaches a single process")
    path = tmp_path / "model.gguf"
    rng = np.random.default_rng(7)
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(float(rng.uniform(0.002, 0.05)))
        child.kill() if how == "kill" else child.send_signal(signal.SIGINT)
        child.wait(timeout=60)
        child.stdout.close()
        left = {*os.listdir(tmp_path)} - {path.name}
        assert left <= ({".model.gguf.part"} if how == "kill" else set())
        if path.exists():
            assert_built(path)
    build(path)
    assert os.listdir(tmp_path) == [path.name]


def test_a_set_of_files_is_sealed_before_any_is_published(tmp_path: Path) -> None:
    paths = [tmp_path / f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    writers = [GGUFWriter(p, {"split.no": values.u16(i), "split.count": values.u16(3)}) for i, p in enumerate(paths)]
    for i, out in enumerate(writers):
        out.add_tensor(f"t{i}", np.full(3, i, np.float32))
        out.begin()
    for out in writers:
        out.seal()
    assert not any(p.exists() for p in paths)
    for out in reversed(writers):
        assert not paths[0].exists()
        out.publish()
    with reader.open(paths[0]) as file:
        assert list(file.tensors) == ["t0", "t1", "t2"]
    assert len(os.listdir(tmp_path)) == 3
