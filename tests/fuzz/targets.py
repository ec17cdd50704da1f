"""What is fuzzed in Python: each row takes bytes from outside, and may return or raise a ForgeError, nothing else.

Knows the readers' entry points and what must hold of what they give. Needs no fuzzer: test_targets.py runs every row
over its seeds. tests/fuzz/core.c has the rows of the C core.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import gguf_forge
from gguf_forge.convert.identity import differences
from gguf_forge.convert.resume import read_piece
from gguf_forge.errors import ForgeError
from gguf_forge.format.journal import parse_journal
from gguf_forge.format.layout import EDITING, MAGIC
from gguf_forge.format.reader import GGUFFile
from gguf_forge.format.values import StoredValue
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.quant.imatrix import Imatrix, load_imatrix, save_imatrix
from gguf_forge.source.checkpoint import open_checkpoint
from gguf_forge.source.input_file import InputFile
from gguf_forge.source.safetensors import read_safetensors
from gguf_forge.source.tensor import SourceTensor
from gguf_forge.source.torch_pickle import read_module_pickle, read_torch_pickle
from gguf_forge.whole.check.template import find_in_template
from gguf_forge.whole.inplace import journal_path, recover
from tests.fuzz import seeds

#: Bytes of Python's and NumPy's memory that an input may take: so much, and so many for each of its own. Decoded blocks
#: take the most: 256 float32 come of the 18 bytes of a block of 128 one-bit weights, twice.
MEMORY_BASE, MEMORY_FACTOR = 4 << 20, 128


@dataclass(frozen=True)
class Target:
    """`run` takes an input and a folder that is its own; `most`: bytes of an input."""

    run: Callable[[bytes, Path], None]
    seeds: Callable[[], Iterable[bytes]]
    most: int = 4096


def _use(file: GGUFFile) -> None:
    """Touches all that an open file offers."""
    for key in file.metadata:
        file.metadata.stored(key)
        file.metadata.value(key).plain()
    for tensor in file.tensors.values():
        assert tensor.data.nbytes == tensor.nbytes
        tensor.read_rows(0, min(tensor.rows, 4))
        with suppress(ForgeError):
            assert tensor.dequantize().shape == tensor.shape
    file.listing()


def _gguf(data: bytes, folder: Path) -> None:
    path = folder / "a.gguf"
    path.write_bytes(data)
    with gguf_forge.open(path, unknown_types=True) as file:
        _use(file)


def _check(data: bytes, folder: Path) -> None:
    path = folder / "a.gguf"
    path.write_bytes(data)
    for finding in gguf_forge.check(path, data=True).findings:
        assert str(finding).isprintable()


def _written(file: GGUFFile, path: Path) -> bytes:
    """A file with the same metadata and tensors, by the writer."""
    metadata = {key: file.metadata.stored(key) for key in file.metadata}
    with GGUFWriter(path, metadata, endian=file.endian, alignment=file.alignment) as out:
        for tensor in file.tensors.values():
            out.declare(tensor.name, tensor.shape, tensor.type)
        out.begin()
        for tensor in file.tensors.values():
            out.write_bytes(tensor.name, tensor.data.reshape(-1), 0)
    return path.read_bytes()


def _rewrite(data: bytes, folder: Path) -> None:
    path, again = folder / "a.gguf", folder / "b.gguf"
    path.write_bytes(data)
    with gguf_forge.open(path) as file:
        made = _written(file, again)
        with gguf_forge.open(again) as second:
            assert list(second.metadata) in (list(file.metadata), [*file.metadata, "general.alignment"])
            for key in file.metadata:
                ours, theirs = second.metadata.stored(key), file.metadata.stored(key)
                assert isinstance(ours, StoredValue)
                assert isinstance(theirs, StoredValue)
                assert (ours.type, ours.element, ours.raw) == (theirs.type, theirs.element, theirs.raw), key
            assert list(second.tensors) == list(file.tensors)
            for name, tensor in file.tensors.items():
                other = second.tensors[name]
                assert (other.shape, other.type) == (tensor.shape, tensor.type), name
                assert np.array_equal(other.data, tensor.data), name
            assert _written(second, folder / "c.gguf") == made


def _read(tensors: Iterable[SourceTensor]) -> None:
    """Rows of tensors, as far as their values can be read and are not many."""
    for tensor in tensors:
        if tensor.size <= 1 << 16:
            with suppress(ForgeError):
                assert tensor.read().shape == tensor.shape


def _safetensors(data: bytes, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(data)
    with InputFile(path) as file:
        _read(read_safetensors(file, [], {}).values())


def _index(data: bytes, folder: Path) -> None:
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        if not (folder / name).exists():
            (folder / name).write_bytes(seeds.safetensors(name[6:11]))
    (folder / "model.safetensors.index.json").write_bytes(data)
    with open_checkpoint(folder) as checkpoint:
        _read(checkpoint.tensors.values())


def _torch(data: bytes, folder: Path) -> None:
    path = folder / "pytorch_model.bin"
    path.write_bytes(data)
    with InputFile(path) as file:
        numbers: dict[str, int | float] = {}
        _read(read_torch_pickle(file, [], numbers).values())


def _pickle(data: bytes, folder: Path) -> None:
    """A pickle in an archive that is sound, with storages called 0 to 3: read both ways."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("a/data.pkl", data)
        for key in range(4):
            archive.writestr(f"a/data/{key}", bytes(range(256)))
    path = folder / "pytorch_model.bin"
    path.write_bytes(held.getvalue())
    with InputFile(path) as file:
        with suppress(ForgeError):
            _read(read_torch_pickle(file, []).values())
        with suppress(ForgeError):
            _read(read_module_pickle(file, {}).values())


def _same_matrices(one: Imatrix, other: Imatrix) -> bool:
    return one.entries.keys() == other.entries.keys() and all(
        np.array_equal(entry.sums, other.entries[name].sums) for name, entry in one.entries.items()
    )


def _imatrix(data: bytes, folder: Path) -> None:
    path, again = folder / "a.imatrix", folder / "b.imatrix"
    path.write_bytes(data)
    matrix = load_imatrix(path)
    for name, entry in matrix.entries.items():
        matrix.weights(name)
        matrix.weights(name, (2, entry.sums.size))
    save_imatrix(matrix, again)
    assert _same_matrices(load_imatrix(again), matrix)
    save_imatrix(matrix, again, legacy=True)


_JOURNAL_HEAD = struct.Struct("<16sQQQQ32s")


def _journal(data: bytes, folder: Path) -> None:
    """An edit that was cut off. What follows an odd byte is a header that the journal holds, else the journal."""
    path = folder / "a.gguf"
    state, rest = (data[0], data[1:]) if data else (0, b"")
    path.write_bytes((EDITING if state & 2 else MAGIC) + bytes(60))
    if state & 1:
        found = path.stat()
        size = 64 if state & 4 else found.st_size + 1
        head = (b"GGUF Forge edit1", found.st_dev, found.st_ino, size, len(rest), hashlib.sha256(rest).digest())
        rest = _JOURNAL_HEAD.pack(*head) + rest
    journal_path(path).write_bytes(rest)
    try:
        assert recover(path)
        assert not journal_path(path).exists()
        header = rest[_JOURNAL_HEAD.size :]
        assert path.read_bytes()[: len(header)] == header
    finally:
        journal_path(path).unlink(missing_ok=True)


_RUN = {"a": 40, "b": 2}


def _resume(data: bytes, folder: Path) -> None:
    """The journal of a run that was cut off. After an odd byte come its lines without their digests, else itself."""
    state, rest = (data[0], data[1:]) if data else (0, b"")
    if state & 1:
        rest = b"".join(b"%b %b\n" % (_digest(text)[:16].encode(), text) for text in rest.split(b"\n"))
    kept = parse_journal(rest, folder / "a.journal")
    assert kept.nbytes <= len(rest)
    differences(kept.owner, {"encoder": {"version": "1"}, "source": [["a", 1, 2, "b"]], "plan": {"header": "c"}})
    for _, record in kept.records:
        for one in record["done"] if isinstance(record.get("done"), list) else ():
            found = read_piece(one, [*_RUN], _RUN)
            assert found is None or 0 <= found[0].start < found[0].stop <= _RUN[found[0].name]


def _part(data: bytes, folder: Path) -> None:
    """A part of a file. After an odd byte come its index, a 0 and what follows, without what leads; else all of it."""
    state, rest = (data[0], data[1:]) if data else (0, b"")
    if state & 1:
        index, _, pieces = rest.partition(b"\0")
        rest = struct.pack("<16sQ32s", b"GGUF Forge part1", len(index), hashlib.sha256(index).digest()) + index + pieces
    path, out = folder / "a.part", folder / "joined.gguf"
    path.write_bytes(rest)
    try:
        gguf_forge.join(out, [path])
        gguf_forge.open(out).close()
    finally:
        out.unlink(missing_ok=True)


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _template(data: bytes, _: Path) -> None:
    for rule, text in find_in_template(data.decode("utf-8", "surrogateescape")):
        assert rule.isprintable()
        assert text


#: What is fuzzed, by name.
TARGETS = {
    "gguf": Target(_gguf, seeds.gguf),
    "check": Target(_check, seeds.models, 8192),
    "rewrite": Target(_rewrite, seeds.gguf),
    "safetensors": Target(_safetensors, seeds.safetensors_files),
    "index": Target(_index, seeds.indices),
    "torch": Target(_torch, seeds.torch_files, 6000),
    "pickle": Target(_pickle, seeds.pickles),
    "imatrix_gguf": Target(_imatrix, seeds.imatrices),
    "imatrix_dat": Target(_imatrix, seeds.old_imatrices),
    "journal": Target(_journal, seeds.journals),
    "resume": Target(_resume, seeds.journals_of_runs),
    "part": Target(_part, seeds.parts),
    "template": Target(_template, seeds.templates),
}


def attempt(target: Target, data: bytes, folder: Path) -> str:
    """Runs a row on an input: "ok", or the class of the ForgeError it raised. Anything else it raises is a find."""
    try:
        target.run(data, folder)
    except ForgeError as error:
        refused = error
    else:
        return "ok"
    assert str(refused).isprintable(), refused
    return type(refused).__name__
