"""Files of which the first bytes come a few at a time, as those behind URLs do; and bytes taken over without copies."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from gguf_forge import system, values
from gguf_forge.errors import ForgeError, LimitError, OutputError, TruncatedError
from gguf_forge.format import part as module
from gguf_forge.format import reader
from gguf_forge.format.layout import LIMITS, Limits, ValueType
from gguf_forge.format.mapped import MappedFile
from gguf_forge.format.part import Part
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.system import EXTENT


class Slow(MappedFile):
    """A file whose head grows by one byte more than is asked for."""

    local = False
    step = 1

    def head(self, stop: int) -> bytes:
        return bytes(self._buffer[: min(max(stop, 24) + self.step - 1, self.size)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.gguf"
    with GGUFWriter(path, {"general.architecture": "llama", "n": 5, "long": "x" * 400}) as out:
        out.add("words", values.strings(["", "a", "b" * 300, *(f"w{i}" for i in range(1200))]))
        out.add("numbers", values.array(ValueType.FLOAT32, np.arange(50, dtype=np.float32)))
        out.add_tensor("t", np.ones((4, 32), np.float32))
    return path


@pytest.mark.parametrize("step", [1, 100, 1 << 20])
def test_a_header_is_the_same_however_much_of_it_comes_at_a_time(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(Slow, "step", step)
    with reader.open(path) as whole:
        expected = {key: whole.metadata.value(key) for key in whole.metadata}
        records = whole.parts[0].checked.header.infos
    monkeypatch.setattr(module, "open_storage", Slow)
    with reader.open(path) as file:
        assert {key: file.metadata.value(key) for key in file.metadata} == expected
        assert file.parts[0].checked.header.infos == records
        assert len(file.parts[0].buffer) <= max(file.parts[0].checked.header.end, 24) + step


def test_a_header_ends_where_the_file_does(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = path.read_bytes()
    for cut in (30, 70, 600, 2000, len(data) - 200):
        path.write_bytes(data[:cut])
        said = []
        for storage in (MappedFile, Slow):
            monkeypatch.setattr(module, "open_storage", storage)
            with pytest.raises(TruncatedError) as caught:
                Part(path, LIMITS)
            said.append(str(caught.value))
        assert said[0] == said[1]


def test_no_more_of_a_header_is_asked_for_than_the_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "open_storage", Slow)
    with pytest.raises(LimitError, match=r"goes on to byte \d+, at most 100 are fetched"):
        Part(path, Limits(remote_header_bytes=100))


def test_a_file_of_keys_alone_may_end_with_them(tmp_path: Path) -> None:
    for pad, size in ((True, 64), (False, 63)):
        with GGUFWriter(tmp_path / "a.gguf", {"general.name": "1234567"}, pad=pad):
            pass
        assert os.path.getsize(tmp_path / "a.gguf") == size
        with reader.open(tmp_path / "a.gguf") as file:
            assert file.metadata["general.name"] == "1234567"


# Bytes that are taken over.


def write(path: Path, offset: int, share: bool, source: Path) -> tuple[int, int]:
    """A file with one tensor of three extents, from `offset` of the source on; what of it was shared."""
    data = np.frombuffer(source.read_bytes(), np.uint8)[offset : offset + 3 * EXTENT]
    with GGUFWriter(path, {"general.architecture": "llama"}) as out, source.open("rb") as held:
        out.declare("t", (3 * EXTENT // 4,), "F32")
        out.begin()
        first, last = out.share_bytes("t", held.fileno(), offset, 3 * EXTENT) if share else (0, 0)
        out.write_bytes("t", data[:first].copy(), 0)
        out.write_bytes("t", data[last:].copy(), last)
    with reader.open(path) as file:
        assert np.array_equal(file.tensors["t"].data, data)
    return first, last


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(8 * EXTENT))
    return path


def copied(source: int, offset: int, target: int, at: int, count: int) -> bool:
    assert [number % EXTENT for number in (offset, at, count)] == [0, 0, 0]
    with open(os.dup(source), "rb") as held, open(os.dup(target), "r+b") as out:
        held.seek(offset)
        out.seek(at)
        out.write(held.read(count))
    return True


def test_only_whole_extents_that_lie_alike_are_shared(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "b.gguf"
    write(out, 0, False, source)
    with reader.open(out) as file:
        start = file.tensors["t"].offset
    monkeypatch.setattr(system, "share_extents", copied)
    assert write(out, start, True, source) == (EXTENT - start, 3 * EXTENT - start)
    assert write(out, start + 32, True, source) == (0, 0)
    monkeypatch.setattr(system, "share_extents", lambda *_: False)
    assert write(out, start, True, source) == (0, 0)


def test_an_error_of_sharing_is_one_of_the_output(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "b.gguf"
    write(out, 0, False, source)
    with reader.open(out) as file:
        start = file.tensors["t"].offset

    def full(*_: int) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(system, "share_extents", full)
    with pytest.raises(OutputError, match="No space"):
        write(out, start, True, source)


def test_a_closed_file_has_no_descriptor(path: Path) -> None:
    with reader.open(path) as file:
        tensor = file.tensors["t"]
        found = tensor.descriptor()
        assert found is not None
        os.fstat(found)
    with pytest.raises(ForgeError, match="closed"):
        tensor.descriptor()
