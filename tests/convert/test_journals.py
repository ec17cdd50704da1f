"""Journals that are cut, damaged, or say anything: refused with their line, or gone on from with the right result."""

from __future__ import annotations

import json
import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gguf_forge.convert import identity
from gguf_forge.errors import ForgeError, InputError, InvalidError, OutputError
from gguf_forge.format import journal as module
from gguf_forge.format.journal import journal_path, parse_journal, read_journal
from tests.convert.resuming import JOURNAL, PART, cut_off, eagerly, f32, quantize, whole

__all__ = ["eagerly", "f32", "whole"]  # fixtures


@pytest.fixture
def left(f32: Path, tmp_path: Path, eager: None) -> tuple[Path, dict[str, bytes]]:
    """What a run left, and where."""
    cut_off(f32, tmp_path / "a.gguf")
    return tmp_path, {name: (tmp_path / name).read_bytes() for name in (PART, JOURNAL)}


HYPOTHESIS = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def goes_on(left: tuple[Path, dict[str, bytes]], journal: bytes, whole: bytes) -> ForgeError | None:
    """Resumes with a journal of these bytes; the error, where it is refused, and then nothing is touched."""
    folder, files = left
    for name, data in {**files, JOURNAL: journal}.items():
        (folder / name).write_bytes(data)
    try:
        quantize(folder / "source" / "f32.gguf", folder / "a.gguf", resume=True)
    except ForgeError as error:
        assert (folder / JOURNAL).read_bytes() == journal
        assert (folder / PART).read_bytes() == files[PART]
        return error
    assert (folder / "a.gguf").read_bytes() == whole
    (folder / "a.gguf").unlink()
    return None


@HYPOTHESIS
@given(data=st.data())
def test_journals_that_are_cut(left: tuple[Path, dict[str, bytes]], whole: bytes, data: st.DataObject) -> None:
    raw = left[1][JOURNAL]
    size = data.draw(st.integers(0, len(raw) - 1))
    error = goes_on(left, raw[:size], whole)
    if size <= raw.index(b"\n"):
        assert isinstance(error, InvalidError)
        assert "offset 0x0, line 1: not as it was written" in str(error)
    else:
        assert error is None


@HYPOTHESIS
@given(data=st.data())
def test_journals_with_a_wrong_bit(left: tuple[Path, dict[str, bytes]], whole: bytes, data: st.DataObject) -> None:
    raw = bytearray(left[1][JOURNAL])
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    error = goes_on(left, bytes(raw), whole)
    sound = left[1][JOURNAL]
    # Without the end of the line before it the last line is a longer one, which was not written to its end either.
    if at < sound.rindex(b"\n", 0, -1):
        assert isinstance(error, InvalidError)
        line = sound.count(b"\n", 0, at) + 1
        assert re.search(rf"offset 0x[0-9a-f]+, line {line}: not as it was written", str(error))
    else:
        assert error is None


@HYPOTHESIS
@given(raw=st.binary(max_size=200))
def test_journals_that_are_none(left: tuple[Path, dict[str, bytes]], whole: bytes, raw: bytes) -> None:
    assert isinstance(goes_on(left, raw, whole), InvalidError)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@HYPOTHESIS
@given(done=JSON, line=st.integers(1, 4), key=st.sampled_from(["done", "plan", "source", "encoder", "journal"]))
def test_journals_that_say_anything(
    left: tuple[Path, dict[str, bytes]], whole: bytes, done: Any, line: int, key: str
) -> None:
    lines = [json.loads(text.partition(b" ")[2]) for text in left[1][JOURNAL].splitlines()]
    lines[line - 1] = {**lines[line - 1], key: done}
    goes_on(left, b"".join(map(module._line, lines)), whole)


def test_records_that_cannot_be(left: tuple[Path, dict[str, bytes]], whole: bytes) -> None:
    lines = [json.loads(text.partition(b" ")[2]) for text in left[1][JOURNAL].splitlines()]
    ((number, start, stop, stated, *rest),) = lines[2]["done"]
    for done, said in (
        (None, "line 3: no list of what is done"),
        ([[1 << 40, start, stop, stated, *rest]], "line 3: what is done cannot be"),
        ([[-1, start, stop, stated, *rest]], "line 3: what is done cannot be"),
        ([[True, start, stop, stated, *rest]], "line 3: what is done cannot be"),
        ([[number, stop, start, stated, *rest]], "line 3: what is done cannot be"),
        ([[number, start, 1 << 40, stated, *rest]], "line 3: what is done cannot be"),
        ([[number, start, stop, 5, *rest]], "line 3: what is done cannot be"),
        ([[number, start, stop, stated, ["a", 1.0], None]], "line 3: what is done cannot be"),
        ([[number, start, stop, stated, None, [1, 2]]], "line 3: what is done cannot be"),
        ([[number, start, stop, stated, *rest]] * 2, "are done twice"),
    ):
        error = goes_on(left, b"".join(map(module._line, [*lines[:2], {"done": done}, *lines[3:]])), whole)
        assert error is not None
        assert said in str(error)
    wrong = b"".join(map(module._line, [*lines[:2], {"done": [[number, start, stop, "0" * 32, *rest]]}, *lines[3:]]))
    assert goes_on(left, wrong, whole) is None  # made again
    deep = b"[" * 100_000
    line = b"%b %b\n" % (sha256(deep).hexdigest()[:16].encode(), deep)
    assert "line 1: not a JSON object" in str(goes_on(left, line, whole))


def test_a_journal_that_is_no_file_or_too_long(
    left: tuple[Path, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_JOURNAL", 100)
    with pytest.raises(ForgeError, match="a journal of more than 100 bytes"):
        quantize(tmp_path / "source" / "f32.gguf", tmp_path / "a.gguf", resume=True)
    (tmp_path / JOURNAL).unlink()
    (tmp_path / JOURNAL).mkdir()
    with pytest.raises(ForgeError, match=r"not a regular file|Is a directory|Permission denied"):
        quantize(tmp_path / "source" / "f32.gguf", tmp_path / "a.gguf", resume=True)
    assert read_journal(tmp_path / "none") is None
    assert parse_journal(left[1][JOURNAL], tmp_path).nbytes == len(left[1][JOURNAL])
    assert len(os.fsencode(journal_path(tmp_path / ("n" * 250)).name)) <= 255


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_a_journal_is_no_link(left: tuple[Path, dict[str, bytes]], whole: bytes, tmp_path: Path) -> None:
    """What stands in its place is never written through."""
    other = tmp_path / "other"
    other.write_bytes(left[1][JOURNAL])
    (tmp_path / JOURNAL).unlink()
    (tmp_path / JOURNAL).symlink_to(other)
    with pytest.raises(OutputError, match="is a link, which no journal is"):
        quantize(tmp_path / "source" / "f32.gguf", tmp_path / "a.gguf", resume=True)
    quantize(tmp_path / "source" / "f32.gguf", tmp_path / "a.gguf")
    assert other.read_bytes() == left[1][JOURNAL]
    assert (tmp_path / "a.gguf").read_bytes() == whole
    assert not (tmp_path / JOURNAL).is_symlink()


def test_a_source_that_is_gone_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        identity._facts(tmp_path / "gone")
