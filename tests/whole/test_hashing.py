"""Hashes of tensors: llama-gguf-hash's, to the letter; what a manifest of them says of a file."""

from __future__ import annotations

import hashlib
import json
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge import FileHashes, hash_file, split_file
from gguf_forge.errors import FormatError, InputError, LimitError, RequestError, UnsupportedError
from gguf_forge.format.layout import Limits
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.whole import hashing
from gguf_forge.whole.hashing import Manifest, holds
from tests.cli.conftest import Forge
from tests.whole.conftest import FIXTURES

GOLDEN = {name: (FIXTURES / "tools" / f"hash-{name}.txt").read_text() for name in ("f16", "q4_k_m")}
UUID = "0981b718-6e9f-50cc-94e5-efdeadf8ae66"


@pytest.fixture
def here(f16: Path, q4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with both files, in which the commands run: hashes go by the names that files were called by."""
    (tmp_path / "f16.gguf").hardlink_to(f16)
    (tmp_path / "q4.gguf").hardlink_to(q4)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("file", "golden"), [("f16.gguf", "f16"), ("q4.gguf", "q4_k_m")])
def test_lines_are_those_of_the_reference(file: str, golden: str, here: Path, forge: Forge) -> None:
    pytest.importorskip("xxhash")
    ended = forge("hash", "--all", file)
    assert (ended.code, ended.err, ended.out) == (0, "", GOLDEN[golden])
    assert forge("hash", "--all", "--no-layer", file).out == "".join(GOLDEN[golden].splitlines(keepends=True)[-3:])


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_one_algorithm_needs_no_other(algorithm: str, here: Path, forge: Forge) -> None:
    lines = [line for line in GOLDEN["q4_k_m"].splitlines() if line.startswith(f"{algorithm} ")]
    assert forge("hash", f"--{algorithm}", "q4.gguf").out.splitlines() == lines


def test_the_uuid_is_llama_cpps(here: Path, forge: Forge) -> None:
    assert forge("hash", "--uuid", "q4.gguf").out == f"uuid      {UUID}  q4.gguf\n"
    assert uuid.uuid5(uuid.NAMESPACE_URL, "en.wikipedia.org/wiki/Llama.cpp") == hashing.NAMESPACE


def test_without_a_word_it_is_sha256(here: Path, forge: Forge) -> None:
    assert forge("hash", "q4.gguf").out == forge("hash", "--sha256", "q4.gguf").out


@pytest.mark.parametrize("piece", [1000, 1 << 20])
def test_a_set_has_the_hashes_of_the_file(
    piece: int, q4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = hash_file(q4, ["sha1", "uuid"])
    made = split_file(q4, tmp_path / "x", max_tensors=9, tensors_in_first=False)
    monkeypatch.setattr(hashing, "PIECE", piece)
    found = hash_file(made[2].path, ["uuid", "sha1"])
    assert (found.whole, found.tensors) == (whole.whole, whole.tensors)
    assert found.whole["uuid"] == UUID


def test_big_endian_files_count_as_they_are_stored(tmp_path: Path) -> None:
    data = np.arange(6, dtype=np.float32)
    with GGUFWriter(tmp_path / "b.gguf", endian="big") as out:
        out.add_tensor("t", data)
    found = hash_file(tmp_path / "b.gguf")
    assert found.tensors["t"]["sha256"] == hashlib.sha256(data.astype(">f4").tobytes()).hexdigest()
    assert found.whole == found.tensors["t"]


def test_a_file_without_tensors(tmp_path: Path) -> None:
    with GGUFWriter(tmp_path / "a.gguf"):
        pass
    assert hash_file(tmp_path / "a.gguf").whole == {"sha256": hashlib.sha256().hexdigest()}


def test_what_is_no_hash_and_what_is_not_there(q4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for algorithms, text in ((["md5"], "no hash md5; there are xxh64, sha1, sha256, uuid"), ([], "no hash is named")):
        with pytest.raises(RequestError, match=text):
            hash_file(q4, algorithms)
    with pytest.raises(LimitError):
        hash_file(q4, limits=Limits(string_bytes=3))
    monkeypatch.setitem(sys.modules, "xxhash", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'gguf-forge\[hash\]'"):
        hash_file(q4, ["xxh64"])


@pytest.mark.parametrize("words", [[], ["--sha1"], ["--no-layer"], ["--sha1", "--sha256"]])
@pytest.mark.parametrize("file", ["q4.gguf", "./q4.gguf", "renamed.gguf"])
def test_a_file_is_checked_against_the_references_manifest(
    file: str, words: list[str], here: Path, forge: Forge
) -> None:
    manifest = FIXTURES / "tools" / "hash-q4_k_m.txt"
    (here / "renamed.gguf").hardlink_to(here / "q4.gguf")
    ended = forge("hash", "-c", manifest, *words, file)
    assert (ended.code, ended.err) == (0, f"{Path(file)}: is what {manifest} tells of\n")
    assert {line.rpartition("  -  ")[2] for line in ended.out.splitlines()} == {"Ok"}
    assert ended.out.splitlines()[-1].startswith("sha1" if words == ["--sha1"] else "sha256")
    other = forge("hash", "-c", manifest, "f16.gguf", *words)
    assert other.code == 1
    assert "is not what" in other.err


def changed(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)


def test_one_bit_is_seen_and_named(q4: Path, tmp_path: Path, forge: Forge) -> None:
    copy = tmp_path / "q4.gguf"
    copy.write_bytes(q4.read_bytes())
    manifest = tmp_path / "m.txt"
    manifest.write_text(forge("hash", copy).out)
    assert forge("hash", "-q", "-c", manifest, copy).out == ""
    changed(copy, -100)
    ended = forge("hash", "-q", "-c", manifest, copy)
    assert ended.code == 1
    assert [line.split()[2:] for line in ended.out.splitlines()] == [
        [f"{copy}:blk.5.ffn_up.weight", "-", "Mismatch"], [str(copy), "-", "Mismatch"],
    ]  # fmt: skip
    document = json.loads(forge("hash", "--json", "-c", manifest, copy).out)
    assert document["check"]["holds"] is False
    assert [h["tensor"] for h in document["check"]["hashes"] if not h["same"]] == ["blk.5.ffn_up.weight", None]


def of(names: list[str], path: str = "a.gguf") -> FileHashes:
    return FileHashes(Path(path), {n: {"sha256": f"{i:064x}"} for i, n in enumerate(names)}, {"sha256": "f" * 64})


def judged(lines: list[tuple[str, str, str]], found: FileHashes) -> bool:
    return holds(Manifest(lines, Path("m")).check(found))


def test_what_a_manifest_lacks() -> None:
    found = of(["x", "y", "z:0:1"])
    lines = found.lines()
    assert judged(lines, found)
    assert judged(lines[-1:], found)  # the whole tells
    assert judged(lines[:-1], found)  # so do all tensors
    assert not judged(lines[1:-1], found)  # but not some
    assert judged(lines[1:], found)
    assert not judged(lines, of(["x", "y"]))  # a tensor that the file lacks
    assert not judged([], found)
    assert not judged([("sha1", "0" * 40, "a.gguf")], found)
    assert not judged([(a, "0" * 64, n) if n == "a.gguf" else (a, h, n) for a, h, n in lines], found)
    two = lines + of(["q"], "b.gguf").lines()
    assert judged(two, found)
    assert judged(two, FileHashes(Path("elsewhere/a.gguf"), found.tensors, found.whole))
    assert not judged(two, FileHashes(Path("c.gguf"), found.tensors, found.whole))


@given(
    names=st.lists(st.text("ab:./ é", min_size=1, max_size=7).filter(lambda n: n.strip() == n), unique=True),
    path=st.sampled_from(["a.gguf", "C:\\x\\a.gguf", "/m:1/a b.gguf"]),
)
def test_what_is_printed_is_read_again(names: list[str], path: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    found = of([name for name in names if name.count(":") <= hashing.MOST_COLONS - 1], path)
    manifest = tmp_path_factory.getbasetemp() / "manifest.txt"
    manifest.write_text("".join(f"{a:<8}  {h}  {n}\n" for a, h, n in found.lines()), "utf-8")
    assert holds(Manifest.read(manifest).check(found))


def test_what_is_no_manifest(tmp_path: Path, q4: Path, forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError):
        Manifest.read(tmp_path / "absent")
    for raw in (b"", b"\xff\xfe\n\0", b"md5 abc a.gguf\n", b"sha256 abc\n", q4.read_bytes()):
        (tmp_path / "m").write_bytes(raw)
        with pytest.raises(FormatError, match="no manifest"):
            Manifest.read(tmp_path / "m")
    monkeypatch.setattr(hashing, "MOST_MANIFEST", 10)
    ended = forge("hash", "-c", tmp_path / "m", q4)
    assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
