"""Parts that are made apart and joined: the file of one run, or an error that says which part is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gguf_forge
from gguf_forge import join
from gguf_forge.convert import files, run
from gguf_forge.convert.run import share, whole
from gguf_forge.convert.view import View
from gguf_forge.errors import ForgeError, FormatError, IncompleteSetError, InvalidError, OutputError, RequestError
from gguf_forge.format import share as module
from gguf_forge.format.share import read_part
from gguf_forge.types import tensor_type
from tests.cli.conftest import Forge
from tests.convert import resuming
from tests.convert.resuming import CutOffError, f32, quantize
from tests.whole.conftest import MODEL
from tests.whole.killing import killed, needs_fork

__all__ = ["f32"]  # a fixture


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of few rows, so that there are more of them than parts."""
    monkeypatch.setattr(run, "RUN_ELEMENTS", 2048)


def parts(f32: Path, output: Path, count: int = 3, **options: Any) -> list[Path]:
    return [quantize(f32, output, part=(i, count), **options).path for i in range(1, count + 1)]


def changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes the index of a part, with a digest that fits."""
    raw = path.read_bytes()
    _, length, _ = module._HEAD.unpack(raw[: module._HEAD.size])
    end = module._HEAD.size + length
    index = json.loads(raw[module._HEAD.size : end])
    found = change(index)
    text = json.dumps(index if found is None else found, separators=(",", ":")).encode()
    head = module._HEAD.pack(module._MAGIC, len(text), sha256(text).digest())
    path.write_bytes(head + text + raw[end:])


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K_M", "F16", "COPY"])
def test_all_parts_are_the_file(count: int, kind: str, f32: Path, tmp_path: Path) -> None:
    wanted = quantize(f32, tmp_path / "whole.gguf", type=kind).path.read_bytes()
    made = parts(f32, tmp_path / "a.gguf", count, type=kind)
    assert made[0].name == f"a.gguf.00001-of-{count:05}.part"
    shard = join(tmp_path / "a.gguf", made[::-1])
    assert (tmp_path / "a.gguf").read_bytes() == wanted
    assert (shard.nbytes, len(shard.tensors)) == (len(wanted), 20)
    assert {*os.listdir(tmp_path)} == {"source", "whole.gguf", "a.gguf", *(path.name for path in made)}


def test_a_conversion_of_several_types_on_the_command_line(forge: Forge, tmp_path: Path) -> None:
    words = ("convert", MODEL, "--type", "f16,Q4_K_M", "-q")
    assert forge(*words, "-o", tmp_path / "{ftype}.gguf").code == 0
    wanted = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for i in (1, 2):
        ended = forge(*words[:-1], "-o", tmp_path / "{ftype}.gguf", "--part", f"{i}/2")
        assert ended.code == 0
        assert f"f16.gguf.{i:05}-of-00002.part: part {i} of 2 of F16, 13.10 MiB" in ended.err
    for name, raw in wanted.items():
        given = sorted(tmp_path.glob(f"{name}.*.part"))
        ended = forge("join", tmp_path / "joined.gguf", *given)
        assert (ended.code, ended.out) == (0, "")
        assert "joined.gguf: 57 tensors of 2 parts, " in ended.err
        assert (tmp_path / "joined.gguf").read_bytes() == raw
        assert forge("join", "--no-overwrite", tmp_path / "joined.gguf", *given).err.endswith("exists already\n")


@given(
    shapes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 3000)), max_size=9),
    count=st.integers(1, 12),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_shares_are_all_rows_once_and_alike(shapes: list[tuple[int, int, int]], count: int) -> None:
    kind = tensor_type("F32")
    views = [View(str(i), shape, kind, lambda start, stop: np.zeros(0)) for i, shape in enumerate(shapes)]
    every = [share(views, i, count) for i in range(1, count + 1)]
    wanted = [(one.view.name, row) for one in whole(views) for row in range(one.start, one.stop)]
    assert [(one.view.name, row) for part in every for one in part for row in range(one.start, one.stop)] == wanted
    sizes = [sum((one.stop - one.start) * one.view.width for one in part) for part in every]
    step = max([run.RUN_ELEMENTS, *(view.width for view in views)])
    assert all(abs(size - sum(sizes) / count) <= step + 1 for size in sizes)


def test_parts_that_do_not_belong_together_are_named(
    f32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = parts(f32, tmp_path / "a.gguf")
    out = tmp_path / "out.gguf"
    with pytest.raises(IncompleteSetError, match="not all parts are given; missing: 2 of 3"):
        join(out, [made[0], made[2]])
    with pytest.raises(IncompleteSetError, match="no parts given"):
        join(out, [])
    with pytest.raises(InvalidError, match=r"is part 1, as .*00001-of-00003.part is"):
        join(out, [*made, made[0]])
    other = parts(f32, tmp_path / "b.gguf", 2)
    with pytest.raises(InvalidError, match=r"part 1 of 2, of a file of .* is of another"):
        join(out, [made[0], other[0]])
    for name, options, said in (
        ("c", {"metadata": {"general.name": "Llama"}}, "of another plan: header"),
        ("d", {"type": "Q4_1"}, "part 2 of 3, of a file of .* is of another"),
        ("e", {"quantization": gguf_forge.Quantization(prefer="small")}, "of another plan: codes"),
    ):
        foreign = parts(f32, tmp_path / f"{name}.gguf", **options)
        with pytest.raises(InvalidError, match=said):
            join(out, [made[0], foreign[1], made[2]])
    os.utime(f32)  # as files of another machine have it
    later = quantize(f32, tmp_path / "a.gguf", part=(2, 3)).path
    join(out, made)
    out.unlink()
    monkeypatch.setattr("gguf_forge.convert.identity.encoder_version", lambda: "9.9")
    later = quantize(f32, tmp_path / "a.gguf", part=(2, 3)).path
    with pytest.raises(InvalidError, match=r"of another encoder: version 9\.9, not "):
        join(out, [made[0], later, made[2]])
    monkeypatch.undo()
    raw = f32.read_bytes()
    f32.write_bytes(raw[:-1] + b"\1")
    later = quantize(f32, tmp_path / "a.gguf", part=(2, 3)).path
    with pytest.raises(InvalidError, match=r"of another source: f32\.gguf has another content"):
        join(out, [made[0], later, made[2]])
    assert not out.exists()


def test_parts_that_are_damaged(f32: Path, tmp_path: Path) -> None:
    made = parts(f32, tmp_path / "a.gguf", 2)
    out = tmp_path / "out.gguf"
    good = [path.read_bytes() for path in made]

    def refused(said: str, kind: type[ForgeError] = FormatError) -> None:
        with pytest.raises(kind, match=said):
            join(out, made)
        assert not out.exists()
        for path, raw in zip(made, good, strict=True):
            path.write_bytes(raw)

    for size in (0, 10, 55, 56, 57, 300, len(good[1]) - 1):
        made[1].write_bytes(good[1][:size])
        refused("no part of a file|needs .* bytes, file has|not as it was written")
    made[1].write_bytes(good[1] + b"\0")
    refused("needs .* bytes, file has")
    for at, said in ((60, "the index is not as it was written"), (-1, "bytes are not as they were written")):
        raw = bytearray(good[1])
        raw[at] ^= 1
        made[1].write_bytes(raw)
        refused(said)
    made[0].write_bytes(good[1])
    refused("is part 2, as")
    made[1].write_bytes(module._HEAD.pack(module._MAGIC, 1 << 60, bytes(32)))
    refused("an index of")
    out.write_bytes(good[0])
    with pytest.raises(OutputError, match="is the input"):
        join(made[0], made)
    out.unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda index: {}, "does not say what one says"),
        (lambda index: index.update(part=[1]), "does not say what one says"),
        (lambda index: index.update(part=[3, 2]), "does not say what one says"),
        (lambda index: index.update(pieces={}), "does not say what one says"),
        (lambda index: index["pieces"].reverse(), "does not say what one says"),
        (lambda index: index["pieces"][-1].append(1), "does not say what one says"),
        (lambda index: index["pieces"][-1].__setitem__(0, 1 << 70), "does not say what one says"),
        (lambda index: index["pieces"].pop(0), "needs .* bytes, file has"),
        (lambda index: index.update(size=index["size"] + 32), "of a file of .* is of another"),
        (lambda index: index["pieces"][1].__setitem__(0, index["pieces"][1][0] - 1), "does not say what|no part"),
        (lambda index: index["pieces"][-1].__setitem__(0, index["pieces"][-1][0] + 32), "does not say what|no part"),
        (lambda index: index.update(plan=[]), "its header is not the plan's|of another plan"),
        (lambda index: index.update(source=5), "of another source: other files"),
        (lambda index: index.update(encoder=None), "of another encoder"),
    ],
)
def test_indexes_that_say_anything(
    change: Callable[[dict[str, Any]], Any], said: str, f32: Path, tmp_path: Path
) -> None:
    for number in (0, 1):
        made = parts(f32, tmp_path / "a.gguf", 2)
        changed(made[number], lambda index: {} if change(index) == {} else None)
        with pytest.raises(ForgeError, match=said):
            join(tmp_path / "out.gguf", made)
        assert not (tmp_path / "out.gguf").exists()


def test_a_size_that_is_not_the_headers(f32: Path, tmp_path: Path) -> None:
    for more in (32, 1 << 50):
        (made,) = parts(f32, tmp_path / "a.gguf", 1)
        changed(made, lambda index, more=more: index.update(size=index["size"] + more))  # type: ignore[misc]
        with pytest.raises(InvalidError, match=r"data end at \d+, and the file is to have \d+ bytes"):
            join(tmp_path / "out.gguf", [made])


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_wrong_bit_gets_through(f32: Path, tmp_path: Path, data: st.DataObject) -> None:
    if not (tmp_path / "whole.gguf").exists():
        quantize(f32, tmp_path / "whole.gguf")
        parts(f32, tmp_path / "a.gguf", 2)
    made = sorted(tmp_path.glob("a.gguf.*.part"))
    number = data.draw(st.integers(0, 1))
    raw = bytearray(made[number].read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    wrong = tmp_path / "wrong.part"
    wrong.write_bytes(raw)
    with pytest.raises(ForgeError):
        join(tmp_path / "out.gguf", [wrong, made[1 - number]])
    assert not (tmp_path / "out.gguf").exists()


def test_what_is_no_part(f32: Path, tmp_path: Path, forge: Forge) -> None:
    assert read_part("2/8") == (2, 8)
    for word in ("0/1", "3/2", "1", "a/b", "1/2/3", "-1/2", "1/100000", ""):
        with pytest.raises(RequestError, match="no part I/N"):
            read_part(word)
        ended = forge("quantize", f32, tmp_path / "a.gguf", "Q4_0", "--part", word)
        assert ended.code == 2
    with pytest.raises(RequestError, match="no part I/N"):
        quantize(f32, tmp_path / "a.gguf", part=(3, 2))
    ended = forge("quantize", f32, tmp_path / "a.gguf", "Q4_0", "--part", "1/2", "--split-max-tensors", 3)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "a part is of one file" in ended.err
    assert os.listdir(tmp_path) == ["source"]


def test_a_part_is_gone_on_with(f32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "saving", resuming.at_once)
    wanted = quantize(f32, tmp_path / "whole.gguf").path.read_bytes()
    path = tmp_path / "a.gguf"

    def stop(done: int, total: int) -> None:
        if done > 0.6 * total:
            raise CutOffError

    with pytest.raises(CutOffError):
        quantize(f32, path, part=(2, 2), progress=stop)
    left = ".a.gguf.00002-of-00002.part"
    assert sorted(name for name in os.listdir(tmp_path) if name[0] == ".") == [f"{left}.journal", f"{left}.part"]
    os.rename(tmp_path / f"{left}.journal", tmp_path / ".a.gguf.00001-of-00002.part.journal")
    os.rename(tmp_path / f"{left}.part", tmp_path / ".a.gguf.00001-of-00002.part.part")
    with pytest.raises(InvalidError, match="is of another plan: part"):
        quantize(f32, path, part=(1, 2), resume=True)
    os.rename(tmp_path / ".a.gguf.00001-of-00002.part.journal", tmp_path / f"{left}.journal")
    os.rename(tmp_path / ".a.gguf.00001-of-00002.part.part", tmp_path / f"{left}.part")
    again = quantize(f32, path, part=(2, 2), resume=True)
    assert any("goes on, " in note for note in again.notes)
    join(path, [quantize(f32, path, part=(1, 2)).path, again.path])
    assert path.read_bytes() == wanted


@needs_fork
def test_killed_before_every_call(f32: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    (start / "a.gguf").write_bytes(b"the old file")
    wanted = quantize(f32, tmp_path / "whole.gguf").path.read_bytes()
    made = [path.name for path in parts(f32, start / "a.gguf", 2)]
    work = f"from gguf_forge import join; join(work / 'a.gguf', [work / name for name in {made!r}])"
    seen = []
    for folder in killed(start, work, tmp_path):
        found = (folder / "a.gguf").read_bytes()
        seen.append({wanted: "new", b"the old file": "old"}[found])
        assert {*os.listdir(folder)} <= {"a.gguf", ".a.gguf.part", *made}
        join(folder / "a.gguf", [folder / name for name in made])
        assert (folder / "a.gguf").read_bytes() == wanted
        assert {*os.listdir(folder)} == {"a.gguf", *made}
    assert list(dict.fromkeys(seen)) == ["old", "new"]
