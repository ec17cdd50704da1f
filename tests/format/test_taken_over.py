"""Files in the making that stay when a run ends, and what a later run keeps of them."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from gguf_forge import system
from gguf_forge.errors import OutputError
from gguf_forge.format import reader
from gguf_forge.format.atomic import AtomicFile, sibling_name
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.system import EXTENT

ROW = np.arange(3, dtype=np.float32)


def part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def declared(path: Path) -> GGUFWriter:
    """Two tensors of 24 bytes, so that there is padding between and behind."""
    out = GGUFWriter(path, {"k": 1})
    out.declare("a", (2, 3), "F32")
    out.declare("b", (2, 3), "F32")
    return out


def left(path: Path) -> int:
    """What a run leaves that wrote all but the last row, and whose padding a crash has spoilt; the file's size."""
    out = declared(path)
    plan = out.begin()
    for name, row in (("a", 0), ("a", 1), ("b", 0)):
        out.write(name, ROW + row, row)
    out.flush()
    out.spare()
    out.abort()
    raw = bytearray(part(path).read_bytes())
    for name in ("a", "b"):
        end = plan.tensors[name].offset + 24
        raw[end : end + 8] = b"\xff" * 8
    part(path).write_bytes(raw)
    return plan.size


def test_rows_of_an_earlier_run_are_claimed(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    left(path)
    assert os.listdir(tmp_path) == [".a.gguf.part"]
    out = declared(path)
    plan = out.begin(keep=lambda: True)
    out.claim("a", 0, 2)
    out.claim("b", 0, 1)
    assert out.page_sum("a", 0, 2) == out.page_sum("a", 0, 2) != out.page_sum("a", 0, 1)
    one = np.zeros(512, "<u8")
    one.view(np.uint8)[:12] = ROW.view(np.uint8)
    total = (12).to_bytes(8, "little") + int(one.sum()).to_bytes(8, "little")
    assert out.page_sum("b", 0, 1) == out.page_sum("a", 0, 1) == hashlib.sha256(total).hexdigest()[:32]
    with pytest.raises(OutputError, match="12 of 24 bytes written") as caught:
        out.seal()
    assert caught.value.field == 'tensor "b"'
    out.write("b", ROW + 1, 1)
    assert out.page_sum("b", 1, 2) == out.page_sum("a", 1, 2) != out.page_sum("a", 0, 1)
    out.commit()
    with reader.open(path) as file:
        for name in ("a", "b"):
            assert file.tensors[name].dequantize().tolist() == [ROW.tolist(), (ROW + 1).tolist()]
    raw = path.read_bytes()
    assert len(raw) == plan.size
    assert raw[plan.tensors["a"].offset + 24 : plan.tensors["b"].offset] == bytes(8)
    assert raw[plan.tensors["b"].offset + 24 :] == bytes(8)
    assert out.header_digest() == hashlib.sha256(plan.header).hexdigest()


@pytest.mark.parametrize("why", ["another size", "not asked for", "unwanted"])
def test_what_is_not_kept_is_zeros(why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    left(path)
    if why == "another size":
        with part(path).open("ab") as file:
            file.write(b"x")
    out = declared(path)
    plan = out.begin(None if why == "not asked for" else lambda: why != "unwanted")
    raw = part(path).read_bytes()
    assert raw == plan.header + bytes(plan.size - len(plan.header))
    out.abort()
    assert os.listdir(tmp_path) == []


def test_an_answer_that_fails_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    left(path)
    before = part(path).read_bytes()

    def keep() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        declared(path).begin(keep)
    assert part(path).read_bytes() == before


def test_spared_and_not(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for spared, there in ((True, [".a.part"]), (False, [])):
        file = AtomicFile(path, 3)
        assert not file.kept
        file.spare(True)
        file.spare(spared)
        file.discard()
        assert os.listdir(tmp_path) == there
    out = GGUFWriter(tmp_path / "b")
    out.spare()  # before there is anything
    out.begin()
    out.abort()
    assert os.listdir(tmp_path) == []
    out = GGUFWriter(tmp_path / "b")
    out.begin()
    out.spare()
    out.spare(False)
    out.abort()
    assert os.listdir(tmp_path) == []


def test_a_new_file_asks_nobody(tmp_path: Path) -> None:
    asked: list[int] = []

    def keep(size: int) -> bool:
        asked.append(size)
        return True

    file = AtomicFile(tmp_path / "a", 3, keep=keep)
    assert not file.kept
    file.write_at(b"abc", 0)
    file.spare()
    file.discard()
    again = AtomicFile(tmp_path / "a", 3, keep=keep)
    assert asked == [3]
    assert again.kept
    view = bytearray(2)
    again.read_at(memoryview(view), 1)
    assert view == b"bc"
    again.discard()
    assert os.listdir(tmp_path) == [".a.part"]  # what is kept once is spared
    last = AtomicFile(tmp_path / "a", 3, keep=keep)
    last.spare(False)
    last.discard()
    assert os.listdir(tmp_path) == []


def test_what_is_read_back_and_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AtomicFile(tmp_path / "a", 3)
    file.write_at(b"abc", 0)
    with pytest.raises(OutputError, match="was cut while it was written") as caught:
        file.read_at(memoryview(bytearray(2)), 2)
    assert caught.value.offset == 3
    assert caught.value.path == str(tmp_path / "a")

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(system, "read_at", fail)
    with pytest.raises(OutputError, match="Input/output error"):
        file.read_at(memoryview(bytearray(2)), 0)
    file.discard()


def test_names_beside_long_ones() -> None:
    assert sibling_name("a") == ".a.part"
    assert sibling_name("n" * 249) == f".{'n' * 249}.part"
    assert sibling_name("n" * 250) == f".{hashlib.sha256(b'n' * 250).hexdigest()}.part"
    assert sibling_name("n" * 246, ".journal") == f".{'n' * 246}.journal"
    assert sibling_name("n" * 247, ".journal") == f".{hashlib.sha256(b'n' * 247).hexdigest()}.journal"


def test_bytes_are_shared_between_the_ends_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the file system can: what is asked for, and what is left to copy."""
    asked: list[tuple[int, int, int]] = []

    def share(source: int, offset: int, target: int, at: int, count: int) -> bool:
        asked.append((offset, at, count))
        system.write_at(target, memoryview(data[offset : offset + count]), at)
        return can

    source = tmp_path / "source"
    data = np.random.default_rng(1).integers(0, 256, 5 * EXTENT, np.uint8).tobytes()
    source.write_bytes(data)
    monkeypatch.setattr(system, "share_extents", share)
    out = GGUFWriter(tmp_path / "a.gguf")
    out.declare("a", (3 * EXTENT,), "I8")
    with source.open("rb") as file:
        start = out.begin().tensors["a"].offset % EXTENT
        nbytes, can = 3 * EXTENT, True
        for offset, count in ((start + 1, nbytes), (start, nbytes - 1), (start, EXTENT)):
            assert out.share_bytes("a", file.fileno(), offset, count) == (0, 0)
        assert asked == []
        can = False
        assert out.share_bytes("a", file.fileno(), start, nbytes) == (0, 0)
        can = True
        assert asked.pop() == (EXTENT, EXTENT, 2 * EXTENT)
        first, last = out.share_bytes("a", file.fileno(), start + EXTENT, nbytes)
        assert asked == [(2 * EXTENT, EXTENT, 2 * EXTENT)]
        assert (first, last) == (EXTENT - start, 3 * EXTENT - start)
    wanted = data[start + EXTENT : start + EXTENT + nbytes]
    out.write_bytes("a", wanted[:first], 0)
    out.write_bytes("a", wanted[last:], last)
    out.commit()
    with reader.open(tmp_path / "a.gguf") as made:
        assert made.tensors["a"].data.tobytes() == wanted


def test_sharing_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(system, "share_extents", fail)
    file = AtomicFile(tmp_path / "a", EXTENT)
    with pytest.raises(OutputError, match="Input/output error") as caught:
        file.share(0, 0, 0, EXTENT)
    assert caught.value.path == str(tmp_path / "a")
    file.discard()


def test_a_claim_of_rows_that_do_not_begin_at_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    left(path)
    out = declared(path)
    out.begin(keep=lambda: True)
    out.claim("a", 1, 2)
    out.write("a", ROW, 0)
    out.claim("b", 0, 1)
    out.write("b", ROW + 1, 1)
    out.commit()
    with reader.open(path) as file:
        assert file.tensors["a"].dequantize().tolist() == [ROW.tolist(), (ROW + 1).tolist()]


def test_a_file_without_tensors_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    for keep in (None, lambda: True):
        out = GGUFWriter(path, {"k": 1})
        out.begin(keep)
        out.spare(keep is None)
        if keep is None:
            out.abort()
    out.commit()
    with reader.open(path) as file:
        assert file.metadata["k"] == 1


def test_what_cannot_be_shared_is_told_so_whatever_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = GGUFWriter(tmp_path / "a.gguf", {"k": 1})
    out.declare("a", (3 * EXTENT,), "I8")
    plan = out.begin()
    at = plan.tensors["a"].offset % EXTENT
    monkeypatch.setattr(AtomicFile, "share", lambda *_: False)
    assert out.share_bytes("a", 0, at, 3 * EXTENT) == (0, 0)
    assert out.share_bytes("a", 0, at + 1, 3 * EXTENT) == (0, 0)
    assert out.share_bytes("a", 0, at, 3 * EXTENT - 1) == (0, 0)
    monkeypatch.setattr(AtomicFile, "share", lambda *_: True)
    first = -at % EXTENT
    assert out.share_bytes("a", 0, at, 3 * EXTENT) == (first, first + (3 * EXTENT - first) // EXTENT * EXTENT)
    out.abort()


def test_a_block_that_raises_closes_its_writer(tmp_path: Path) -> None:
    out = GGUFWriter(tmp_path / "a.gguf", {"k": 1})
    with suppress(KeyError), out:
        out.begin()
        raise KeyError
    assert os.listdir(tmp_path) == []
    with pytest.raises(OutputError, match="the writer is closed"):
        out.add("l", 2)
