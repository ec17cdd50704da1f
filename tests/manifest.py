"""What a reference run wrote, as hashes, and how a file differs from it.

Knows the layout of a little-endian GGUF file from its own few lines of struct, so that it can judge the package's
reader and writer; must not import the package. `python -m tests.manifest OUT.json.xz NAME.json...` packs full manifests
(every key and tensor with its SHA-256, see fixtures/README.md) into one small file.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import struct
import sys
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

HASH_DIGITS = 16
STRING, ARRAY = 8, 9
VALUE_TYPES = (
    *("UINT8", "INT8", "UINT16", "INT16", "UINT32", "INT32", "FLOAT32", "BOOL", "STRING", "ARRAY"),
    *("UINT64", "INT64", "FLOAT64"),
)
VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


@dataclass(frozen=True)
class Key:
    """A metadata key: its value's type and the hash of the bytes after the type."""

    name: str
    type: str
    hash: str


@dataclass(frozen=True)
class Placed:
    """A tensor: dimensions in file order, ggml type id, offset in the data section and hash of its bytes."""

    name: str
    dims: tuple[int, ...]
    type: int
    offset: int
    nbytes: int
    hash: str


@dataclass(frozen=True)
class Manifest:
    """Everything a whole-file comparison needs except the bytes."""

    size: int
    keys: tuple[Key, ...]
    tensors: tuple[Placed, ...]


def digest(data: bytes) -> str:
    """The first digits of the SHA-256."""
    return hashlib.sha256(data).hexdigest()[:HASH_DIGITS]


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def text(self) -> str:
        n = self.take("Q")
        self.at += n
        return self.data[self.at - n : self.at].decode()

    def skip(self, kind: int) -> str:
        """Steps over a value and returns its type's name."""
        if kind == STRING:
            length = self.take("Q")
            self.at += length
        elif kind == ARRAY:
            element, count = self.take("I"), self.take("Q")
            if element in VALUE_BYTES:
                self.at += VALUE_BYTES[element] * count
            else:
                for _ in range(count):
                    self.skip(element)
            return f"ARRAY[{VALUE_TYPES[element]}]"
        else:
            self.at += VALUE_BYTES[kind]
        return VALUE_TYPES[kind]


def read(path: Path, sizes: dict[str, int]) -> Manifest:
    """The manifest of a file. `sizes` gives the bytes of each tensor by name; an unknown one counts as empty."""
    data = path.read_bytes()
    cursor = _Cursor(data)
    assert (cursor.take("4s"), cursor.take("I")) == (b"GGUF", 3)
    tensor_count, key_count = cursor.take("Q"), cursor.take("Q")
    keys = []
    alignment = 32
    for _ in range(key_count):
        name, kind = cursor.text(), cursor.take("I")
        start = cursor.at
        if name == "general.alignment":
            (alignment,) = struct.unpack_from("<I", data, start)
        keys.append(Key(name, cursor.skip(kind), digest(data[start : cursor.at])))
    infos = []
    for _ in range(tensor_count):
        name = cursor.text()
        dims = tuple(cursor.take("Q") for _ in range(cursor.take("I")))
        infos.append((name, dims, cursor.take("I"), cursor.take("Q")))
    base = -(-cursor.at // alignment) * alignment
    tensors = []
    for name, dims, kind, offset in infos:
        nbytes = sizes.get(name, 0)
        tensors.append(Placed(name, dims, kind, offset, nbytes, digest(data[base + offset : base + offset + nbytes])))
    return Manifest(len(data), tuple(keys), tuple(tensors))


def differences(path: Path, golden: Manifest, apart: Collection[str] = ()) -> list[str]:
    """One line for each thing that differs, most telling first; empty when the files have the same bytes.

    The keys and tensors `apart` (with * for any part of a name) must have other values than the reference's, or be in
    one file only: a line for each pattern of which nothing differs.
    """
    found = read(path, {t.name: t.nbytes for t in golden.tensors})
    ours, theirs = _contents(found), _contents(golden)
    changed = [name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)]
    lines = [f"as in the reference: {one}" for one in apart if not any(fnmatchcase(name, one) for name in changed)]

    def kept(entries: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(e for e in entries if not any(fnmatchcase(e.name, pattern) for pattern in apart))

    lines += _compare("key", kept(found.keys), kept(golden.keys))
    lines += _compare("tensor", kept(found.tensors), kept(golden.tensors))
    if not lines and found.size != golden.size and not apart:
        lines.append(f"file has {found.size} bytes, reference {golden.size}")
    return lines


def _contents(file: Manifest) -> dict[str, tuple[Any, ...]]:
    """What each key and tensor holds, wherever it lies."""
    keys: dict[str, tuple[Any, ...]] = {k.name: (k.type, k.hash) for k in file.keys}
    return keys | {t.name: (t.type, t.dims, t.hash) for t in file.tensors}


def _compare(what: str, found: tuple[Any, ...], golden: tuple[Any, ...]) -> list[str]:
    ours, theirs = {x.name: x for x in found}, {x.name: x for x in golden}
    lines = [f"{what} missing: {name}" for name in theirs if name not in ours]
    lines += [f"{what} not in the reference: {name}" for name in ours if name not in theirs]
    both = [name for name in theirs if name in ours]
    lines += [f"{what}: {ours[x]} but reference {theirs[x]}" for x in both if ours[x] != theirs[x]]
    if not lines and [x.name for x in found] != [x.name for x in golden]:
        lines.append(f"order of {what}s differs")
    return lines


def from_full(full: dict[str, Any]) -> Manifest:
    """From a full manifest (JSON with kv and tensors, each with its sha256)."""
    keys = tuple(
        Key(e["key"], f"ARRAY[{e['etype']}]" if "etype" in e else e["type"], e["sha256"][:HASH_DIGITS])
        for e in full["kv"]
    )
    tensors = tuple(
        Placed(e["name"], tuple(e["dims"]), e["type"], e["offset"], e["nbytes"], e["sha256"][:HASH_DIGITS])
        for e in full["tensors"]
    )
    return Manifest(full["file_size"], keys, tensors)


def load(path: Path) -> dict[str, Manifest]:
    """The packed manifests of a .json.xz file by name."""
    packed = json.loads(lzma.decompress(path.read_bytes()))
    return {
        name: Manifest(
            entry["size"],
            tuple(Key(*row) for row in entry["keys"]),
            tuple(Placed(row[0], tuple(row[1]), *row[2:]) for row in entry["tensors"]),
        )
        for name, entry in packed.items()
    }


def pack(sources: list[Path]) -> bytes:
    """Full manifests as one packed file."""
    entries = {}
    for source in sources:
        full = json.loads(source.read_text(encoding="utf-8", errors="surrogatepass"))
        if "kv" not in full:
            continue
        manifest = from_full(full)
        entries[source.name.removesuffix(".json")] = {
            "size": manifest.size,
            "keys": [[k.name, k.type, k.hash] for k in manifest.keys],
            "tensors": [[t.name, t.dims, t.type, t.offset, t.nbytes, t.hash] for t in manifest.tensors],
        }
    return lzma.compress(json.dumps(entries, separators=(",", ":")).encode(), preset=9 | lzma.PRESET_EXTREME)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(pack([Path(name) for name in sorted(sys.argv[2:])]))
