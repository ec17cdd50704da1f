"""Editing: what was asked for and nothing else changes, in place or anew, in files of every kind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import gguf_forge
from gguf_forge import Edits, GGUFWriter, edit_file, split_file
from gguf_forge.errors import ForgeError, InvalidError, OutputError, RecipeError, RequestError, UnsupportedError
from gguf_forge.format import reader, values
from gguf_forge.format.layout import SLACK_KEY
from gguf_forge.format.plan import Declared
from gguf_forge.format.values import Value
from tests.cli.conftest import Forge
from tests.format import strategies, test_peers
from tests.format.test_roundtrip import write

ggml = test_peers.ggml
TENSORS: dict[str, NDArray[Any]] = {
    "blk.0.q.weight": np.arange(64, dtype=np.float32).reshape(2, 32),
    "blk.1.q.weight": np.arange(5, dtype=np.float16),
    "out": np.arange(7, dtype=np.int32),
}


def make(path: Path, keys: dict[str, Any] | None = None, **options: Any) -> Path:
    with GGUFWriter(path, {"general.architecture": "llama", **(keys or {})}, **options) as out:
        for name, data in TENSORS.items():
            out.add_tensor(name, data)
    return path


def held(path: Path) -> tuple[dict[str, Value], dict[str, bytes]]:
    """What a file says and holds, but for the room it keeps."""
    with reader.open(path, alone=True) as file:
        keys = {key: file.metadata.value(key) for key in file.metadata if key != SLACK_KEY}
        return keys, {name: tensor.data.tobytes() for name, tensor in file.tensors.items()}


@settings(max_examples=150)
@given(
    metadata=strategies.METADATA,
    tensors=strategies.tensors(),
    endian=st.sampled_from(["little", "big"]),
    alignment=st.sampled_from([8, 32, 4096]),
    slack=st.sampled_from([0, 0, 5, 300, 5000]),
    data=st.data(),
)
def test_in_place_and_anew_are_the_same_edit(
    tmp_path_factory: pytest.TempPathFactory,
    metadata: dict[str, Value],
    tensors: list[tuple[Declared, NDArray[np.uint8]]],
    endian: str,
    alignment: int,
    slack: int,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("edit", numbered=True)
    path = folder / "a.gguf"
    room = {SLACK_KEY: values.array(gguf_forge.ValueType.UINT8, [0] * slack)} if slack else {}
    write(path, metadata | room, tensors, endian, alignment)
    before = held(path)
    gone = data.draw(st.lists(st.sampled_from(sorted(metadata)), unique=True)) if metadata else []
    new = data.draw(st.dictionaries(strategies.KEYS, strategies.scalars() | strategies.arrays(), max_size=3))
    old = data.draw(st.sampled_from([d.name for d, _ in tensors])) if tensors else None
    edits = Edits(set=new, remove=gone, rename_tensors={} if old is None else {_escaped(old): "renamed"})
    expected = {key: value for key, value in before[0].items() if key not in gone} | new
    made = edit_file(path, folder / "b.gguf", edits)
    planned = edit_file(path, None, edits, dry_run=True)
    assert held(path) == before
    done = edit_file(path, None, edits)
    assert (done.in_place, done.keys, done.tensors) == (planned.in_place, planned.keys, planned.tensors)
    assert not made.in_place
    for found in (held(path), held(folder / "b.gguf")):
        assert found[0] == expected
        assert [*found[0]] == [*expected]
        assert found[1] == {("renamed" if name == old else name): raw for name, raw in before[1].items()}
    assert done.nbytes == path.stat().st_size
    assert sorted(os.listdir(folder)) == ["a.gguf", "b.gguf"]


def _escaped(name: str) -> str:
    import re

    return re.escape(name)


def test_what_takes_no_more_room_is_written_in_place(tmp_path: Path) -> None:
    path = make(tmp_path / "a.gguf", {"name": "x" * 40, "n": 5})
    before = os.stat(path)
    for edits in (
        Edits(set={"n": 6}),
        Edits(set={"name": "y" * 40}),
        Edits(set={"name": "y"}),  # room is kept
        Edits(set={"name": "z" * 40}),
        Edits(remove=["name", "n"]),
        Edits(add={"name": "x" * 40}),
        Edits(rename={"name": "eman"}),
        Edits(rename_tensors={r"blk\.(\d)\.q\.weight": r"\1.q"}),
    ):
        assert edit_file(path, edits=edits).in_place, edits
    assert (os.stat(path).st_ino, os.stat(path).st_size) == (before.st_ino, before.st_size)
    assert held(path)[1] == dict(zip(["0.q", "1.q", "out"], (t.tobytes() for t in TENSORS.values()), strict=True))
    grown = edit_file(path, edits=Edits(set={"name": "x" * 400}))
    assert not grown.in_place
    assert os.stat(path).st_ino != before.st_ino


def test_slack_is_room_for_later(tmp_path: Path, ggml: str) -> None:
    path = make(tmp_path / "a.gguf")
    assert not edit_file(path, edits=Edits(slack=10_000)).in_place
    for length in (9_000, 20, 9_500, 0):
        assert edit_file(path, edits=Edits(set={"tokenizer.chat_template": "t" * length})).in_place
        assert held(path)[0]["tokenizer.chat_template"].value == "t" * length
        assert held(path)[1] == {name: data.tobytes() for name, data in TENSORS.items()}
        assert test_peers.probe(ggml, [path])[0] is not None
    assert not edit_file(path, edits=Edits(set={"tokenizer.chat_template": "t" * 20_000})).in_place
    assert not edit_file(path, edits=Edits(slack=0)).in_place
    with reader.open(path) as file:
        assert SLACK_KEY not in file.metadata
    gguf_forge.edit_file(path, edits=Edits(slack=100))
    copied = gguf_forge.quantize_file(path, tmp_path / "b.gguf", "COPY")
    with reader.open(copied.path) as file:
        assert SLACK_KEY not in file.metadata
    assert gguf_forge.diff_files(path, copied.path).same


def test_a_header_of_a_huge_file_is_changed_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "huge.gguf"
    size = 100_000_000_000
    with GGUFWriter(path, {SLACK_KEY: values.array(gguf_forge.ValueType.UINT8, [0] * 4096)}) as out:
        out.add_tensor("w", np.zeros((4, 64), np.float32))
    raw = path.read_bytes()
    at = raw.index((4).to_bytes(8, "little"), raw.index(b"w", 4096))
    rows = size // 256
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(rows.to_bytes(8, "little"))
        try:
            file.truncate(len(raw) - 4 * 256 + rows * 256)
        except OSError as error:
            pytest.skip(f"no sparse files here: {error.strerror}")
        file.seek(-256, os.SEEK_END)
        file.write(b"\7" * 256)
    before = os.stat(path)
    assert edit_file(path, edits=Edits(set={"tokenizer.chat_template": "{{ messages }}" * 100})).in_place
    after = os.stat(path)
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    assert getattr(after, "st_blocks", 0) * 512 < 1 << 20
    with reader.open(path) as file:
        assert (file.tensors["w"].read_rows(rows - 1, rows) == 7).all()
        assert file.metadata["tokenizer.chat_template"] == "{{ messages }}" * 100


def test_files_that_cannot_be_written_anew_are_edited_in_place(tmp_path: Path) -> None:
    path = make(tmp_path / "a.gguf", {"name": "x" * 40})
    raw = path.read_bytes()
    at = raw.index(b"out") + 3 + 4 + 8
    path.write_bytes(raw[:4] + b"\2" + raw[5:at] + (156).to_bytes(4, "little") + raw[at + 4 :] + b"more")
    assert edit_file(path, edits=Edits(set={"name": "y"})).in_place
    with reader.open(path, unknown_types=True) as file:
        assert (file.version, file.metadata["name"], [*file.unknown]) == (2, "y", ["out"])
    assert path.read_bytes().endswith(b"more")
    with pytest.raises(UnsupportedError, match='tensor "out": of a type that is not read'):
        edit_file(path, edits=Edits(set={"name": "y" * 1000}))


@pytest.mark.parametrize(
    ("edits", "error", "text"),
    [
        (Edits(remove=["nope.*"]), RecipeError, "no key matches 'nope"),
        (Edits(rename={"nope": "x"}), RecipeError, 'key "nope": is not there'),
        (Edits(rename={"a": "b"}), RecipeError, 'key "b": two keys would have this name'),
        (Edits(add={"a": 1}), RecipeError, 'key "a": is there already'),
        (Edits(set={SLACK_KEY: 1}), RequestError, "not for editing"),
        (Edits(set={"a": object()}), InvalidError, 'key "a"'),
        (Edits(set={"": 1}), InvalidError, "empty key"),
        (Edits(set={"general.alignment": values.u32(3)}), InvalidError, "not a power of two"),
        (Edits(drop_tensors=["nope"]), RecipeError, "no tensor matches 'nope'"),
        (Edits(rename_tensors={"nope": "x"}), RecipeError, "no tensor matches 'nope'"),
        (Edits(rename_tensors={"(": "x"}), RequestError, "no regular expression"),
        (Edits(rename_tensors={"out": r"\7"}), RequestError, "stands for no name"),
        (Edits(rename_tensors={"out": "blk.0.q.weight"}), RecipeError, "two tensors would have this name"),
        (Edits(rename_tensors={r"blk.*": "x"}), RecipeError, "two tensors would have this name"),
        (Edits(rename_tensors={"out": "x" * 64}), RecipeError, "63 bytes"),
        (Edits(rename_tensors={"out": "x\0"}), InvalidError, "NUL"),
    ],
)
@pytest.mark.parametrize("elsewhere", [True, False])
def test_what_cannot_be(edits: Edits, error: type[ForgeError], text: str, elsewhere: bool, tmp_path: Path) -> None:
    path = make(tmp_path / "a.gguf", {"a": 1, "b": 2})
    before = path.read_bytes()
    with pytest.raises(error, match=text):
        edit_file(path, tmp_path / "b.gguf" if elsewhere else None, edits)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.gguf"]


def test_another_alignment_moves_the_data(tmp_path: Path) -> None:
    path = make(tmp_path / "a.gguf")
    assert not edit_file(path, edits=Edits(set={"general.alignment": values.u32(64)})).in_place
    with reader.open(path) as file:
        assert file.alignment == 64
        assert all(tensor.offset % 64 == 0 for tensor in file.tensors.values())
    assert held(path)[1] == {name: data.tobytes() for name, data in TENSORS.items()}


def test_an_edit_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    path = make(tmp_path / "a.gguf", {"n": 5})
    os.utime(path, ns=(1, 1))
    done = edit_file(path, edits=Edits(set={"n": 5}))
    assert (done.changed, done.in_place, os.stat(path).st_mtime_ns) == (False, True, 1)


def test_tensors_are_left_out(tmp_path: Path) -> None:
    path = make(tmp_path / "a.gguf")
    done = edit_file(path, edits=Edits(drop_tensors=["blk.0.*"], rename_tensors={"blk.1.(.*)": r"\1"}))
    assert done.tensors == {"blk.0.q.weight": None, "blk.1.q.weight": "q.weight"}
    assert [*held(path)[1]] == ["q.weight", "out"]


def test_shards(tmp_path: Path) -> None:
    made = split_file(make(tmp_path / "a.gguf", {"n": 5}), tmp_path / "x", max_tensors=1)
    paths = [shard.path for shard in made]
    assert edit_file(paths[0], edits=Edits(set={"n": 6})).in_place
    assert not edit_file(paths[0], edits=Edits(set={"long": "x" * 1000})).in_place
    assert edit_file(paths[2], edits=Edits(rename_tensors={"out": "oot"})).in_place
    with gguf_forge.open(paths[1]) as file:
        assert (file.metadata["n"], [*file.tensors]) == (6, ["blk.0.q.weight", "blk.1.q.weight", "oot"])
    before = [path.read_bytes() for path in paths]
    for path, output, edits, error, text in (
        (paths[1], None, Edits(set={"n": 7}), RequestError, "is no place for keys; they are in x-00001-of-00003"),
        (paths[0], None, Edits(set={"split.no": 7}), RequestError, "not for editing"),
        (paths[0], None, Edits(drop_tensors=["*"]), RequestError, "merge it first"),
        (paths[0], tmp_path / "b.gguf", Edits(set={"n": 7}), RequestError, "edited in their place"),
        (paths[2], None, Edits(rename_tensors={"oot": "blk.0.q.weight"}), RecipeError, "two tensors"),
    ):
        with pytest.raises(error, match=text):
            edit_file(path, output, edits)
    assert [path.read_bytes() for path in paths] == before


def test_the_keys_that_llama_cpp_leaves_are_removed(tmp_path: Path) -> None:
    path = make(tmp_path / "a.gguf", {"split.no": values.u16(0), "split.count": values.u16(0)})
    edit_file(path, edits=Edits(remove=["split.*"]))
    assert [*held(path)[0]] == ["general.architecture"]


def test_the_output_must_not_be_the_source_by_another_name(tmp_path: Path) -> None:
    path = make(tmp_path / "a.gguf")
    (tmp_path / "b.gguf").symlink_to(path)
    with pytest.raises(OutputError, match="is the input"):
        edit_file(path, tmp_path / "b.gguf", Edits(set={"n": 1}))
    edit_file(tmp_path / "b.gguf", edits=Edits(set={"n": 1}))
    assert (tmp_path / "b.gguf").is_symlink()
    assert held(path)[0]["n"].value == 1


def test_the_command_line(tmp_path: Path, forge: Forge) -> None:
    path = make(tmp_path / "a.gguf", {"old": 1, "gone.a": 1, "gone.b": 2})
    (tmp_path / "t.jinja").write_text("{% for m in messages %}\n{{ m }}\n{% endfor %}\n")
    (tmp_path / "words.json").write_text('["a", "b\\u00e9"]\n')
    words = (
        "edit", path, "--set", "n=u8:7", "--add", "new.key=str:a=b:c", "--remove", "gone.*", "--rename", "old=older",
        "--chat-template", tmp_path / "t.jinja", "--set-file", f"words=str[]:{tmp_path}/words.json",
        "--rename-tensor", r"o(.*)=o.\1", "--drop-tensor", "blk.1.*",
    )  # fmt: skip
    before = path.read_bytes()
    refused = forge(*words, "--rename-tensor", "blk=x")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    shown = forge(*words, "--dry-run")
    assert shown.code == 0
    assert "tensor out: o.ut" in shown.out
    assert "tensor blk.1.q.weight: left out" in shown.out
    assert "written anew" in shown.out
    assert path.read_bytes() == before
    document = json.loads(forge(*words, "--json", "-o", tmp_path / "b.gguf", "-q").out)
    assert {key["key"] for key in document["keys"]} == {
        "n", "new.key", "gone.a", "gone.b", "old", "older", "tokenizer.chat_template", "words",
    }  # fmt: skip
    keys, tensors = held(tmp_path / "b.gguf")
    assert keys["new.key"].value == "a=b:c"
    assert keys["words"].value == ["a", "b\N{LATIN SMALL LETTER E WITH ACUTE}"]
    assert keys["tokenizer.chat_template"].value == (tmp_path / "t.jinja").read_text()
    assert [*tensors] == ["blk.0.q.weight", "o.ut"]
    assert "its header alone" in forge("edit", path, "--set", "old=u32:3").err
    assert "no edit was cut off" in forge("edit", path, "--recover").err
    for wrong in (
        [], ["--set", "x"], ["--set", "x=u8:300"], ["--rename", "x"], ["--set-file", "x=str:"], ["--slack", "x"],
        ["--set-file", f"x=str:{tmp_path}/absent"], ["--chat-template", path],
    ):  # fmt: skip
        assert forge("edit", path, *wrong).code == 2, wrong
