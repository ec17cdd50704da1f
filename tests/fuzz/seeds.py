"""Inputs to start from, for each row of targets.py and of core.c: those of the test suite, and small ones made here."""

from __future__ import annotations

import io
import json
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

import gguf_forge
from gguf_forge.quant.imatrix import Entry, Imatrix, save_imatrix
from gguf_forge.types import TENSOR_TYPES
from tests.format.notation import Order, big, little, pad
from tests.format.recipes import HEADERS, KEYS, ODD, TENSORS, Opens, Refused
from tests.format.test_sweeps import SEEDS
from tests.whole.small import write

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
#: Larger ones only slow the search down.
MOST = 8192


def _files(folder: str, *patterns: str) -> Iterator[bytes]:
    for pattern in patterns:
        for path in sorted((FIXTURES / folder).glob(pattern)):
            if path.stat().st_size <= MOST:
                yield path.read_bytes()


def _finds(target: str) -> Iterator[bytes]:
    """What fuzzing found before."""
    yield from _files(f"fuzz/{target}", "*")


def _blocks(order: Order) -> Iterator[bytes]:
    """A file with a block of each type."""
    for kind in TENSOR_TYPES.values():
        data = np.random.default_rng(kind.id).integers(0, 256, kind.block_bytes, np.uint8).tobytes()
        yield pad(order.h(1, 0) + order.ti("a", [kind.block_size], kind.id)) + pad(data)


def gguf() -> Iterator[bytes]:
    """Small GGUF files, good, odd and bad."""
    yield from SEEDS.values()
    cases: list[Refused | Opens] = [*HEADERS, *KEYS, *TENSORS, *ODD]
    yield from (case.data for case in cases if len(case.data) <= MOST)
    yield from _files("gguf/bad", "*.gguf")
    for order in (little, big):
        yield from _blocks(order)
    for target in ("gguf", "rewrite"):
        yield from _finds(target)


def models() -> Iterator[bytes]:
    """Models that llama.cpp would load but for their data, and what `gguf` has."""
    with tempfile.TemporaryDirectory() as folder:
        data = write(Path(folder, "a.gguf")).read_bytes()
        yield data[:MOST]
        yield data
    yield from gguf()
    yield from _finds("check")


def safetensors(name: str = "a") -> bytes:
    """A file of three tensors."""
    entries = {
        f"{name}.f32": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        f"{name}.bf16": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
        f"{name}.u8": {"dtype": "U8", "shape": [], "data_offsets": [32, 33]},
        "__metadata__": {"format": "pt"},
    }
    head = json.dumps(entries).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + bytes(33)


def safetensors_files() -> Iterator[bytes]:
    """Files of one checkpoint, good and bad."""
    yield safetensors()
    yield from _files("safetensors", "*.safetensors")
    yield from _finds("safetensors")


def indices() -> Iterator[bytes]:
    """index.json files for two files that `safetensors` makes."""
    weight_map = {
        f"{number}.{kind}": f"model-{number}-of-00002.safetensors"
        for number in ("00001", "00002")
        for kind in ("f32", "bf16", "u8")
    }
    yield json.dumps({"metadata": {"total_size": 66}, "weight_map": weight_map}).encode()
    for bad in ("../a", "/etc/passwd", "a/b", "", ".", "a\0", "con", 1, None, ["a"]):
        yield json.dumps({"weight_map": {"00001.f32": bad}}).encode()
    for text in ("", "[]", "{}", "\ufeff{}", "{", '{"weight_map": []}', "[" * 200, "1e999"):
        yield text.encode()
    yield b'{"weight_map": {"a": "b"}, "weight_map": {}}'
    yield from _finds("index")


def torch_files() -> Iterator[bytes]:
    """Files of torch.save, both containers."""
    yield from _files("torch", "*.bin", "*.pt")
    yield from _finds("torch")


def pickles() -> Iterator[bytes]:
    """The pickles within."""
    for data in torch_files():
        if data[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                yield from (archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
        else:
            yield data
    yield from _finds("pickle")


def _imatrix_bytes(legacy: bool) -> Iterator[bytes]:
    one = Entry(np.arange(8, dtype=np.float32).reshape(1, 8), np.array([4], np.int64))
    experts = Entry(np.ones((3, 4), np.float32), np.array([1, 0, 2], np.int64))
    for entries in ({"blk.0.attn_q.weight": one}, {"blk.0.attn_q.weight": one, "blk.0.ffn_up_exps.weight": experts}):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a")
            save_imatrix(Imatrix("", entries, ("text",), 2, 512), path, legacy=legacy)
            yield path.read_bytes()


def imatrices() -> Iterator[bytes]:
    """Importance matrices as GGUF."""
    yield from _imatrix_bytes(False)
    yield from _finds("imatrix_gguf")


def old_imatrices() -> Iterator[bytes]:
    """Importance matrices in the form .dat."""
    yield from _imatrix_bytes(True)
    yield struct.pack("<ii1siif", 1, 1, b"a", 0, 1, 1.0)
    yield from _finds("imatrix_dat")


def journals() -> Iterator[bytes]:
    """Journals of edits: a byte that says what state the file is in, and a journal or the header it holds."""
    for state in range(8):
        yield bytes([state]) + SEEDS["ok"][:64]
        yield bytes([state]) + b"GGUF Forge edit1" + bytes(64)
        yield bytes([state]) + SEEDS["rich"]
    yield from _finds("journal")


def journals_of_runs() -> Iterator[bytes]:
    """Journals of runs that were cut off: a byte, and what tests/fuzz/targets.py says of it."""
    owner = {"encoder": {"version": "1"}, "source": [["a", 1, 2, "b"]], "plan": {"header": "c"}}
    for name, kept in (("sound", owner), ("other", {**owner, "plan": {}, "source": [1, []]}), ("odd", {})):
        first = json.dumps({"journal": "GGUF Forge 1", **kept}).encode()
        done = [[0, 0, 40, name, None, None], [1, 1, 2, name, [0.5, 2.0], [1, "NaN"]], [2, -1, 1e9, 0, {}, True]]
        lines = [first, json.dumps({"done": done}).encode(), b'{"done": 5}', b"[" * 40]
        yield b"\1" + b"\n".join(lines)
        yield b"\1" + b"\n".join(lines[:2])
        yield b"\0" + b"".join(b"%b %b\n" % (sha256(text).hexdigest()[:16].encode(), text) for text in lines[:3])
    yield from _finds("resume")


def parts() -> Iterator[bytes]:
    """Parts of a file: a byte, and what tests/fuzz/targets.py says of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.gguf"
        with gguf_forge.GGUFWriter(path, {"general.architecture": "llama"}) as out:
            for name in ("a", "b"):
                out.add_tensor(name, np.ones((3, 5), np.float32))
        for count in (1, 2):
            made = gguf_forge.quantize_file(path, Path(folder) / "b.gguf", "COPY", part=(1, count)).path.read_bytes()
            yield b"\0" + made
            stop = 56 + int.from_bytes(made[16:24], "little")
            yield b"\1" + made[56:stop] + b"\0" + made[stop:]
    yield from _finds("part")


def templates() -> Iterator[bytes]:
    """Chat templates."""
    yield from _files("templates", "*")
    yield b"{% for m in messages %}{{ m.content | trim }}{% endfor %}"
    yield b"{{ ''.__class__.__mro__[1].__subclasses__() }}{% include 'x' %}"
    yield b"{% macro f(a, b=1) %}{{ a ** b }}{% endmacro %}{%- set n = namespace(x=[1, 2][0:1], y={'a': 1}) -%}"
    yield b"{{ range(10 ** 9) | join(', ') if not n.x is none else 'b' * 999999999 }}"
    yield from _finds("template")


def blocks(target: str) -> Iterator[bytes]:
    """Of a target of core.c: golden blocks, or rows of floats, behind the bytes that say how they are taken."""
    yield from _finds(target)
    with np.load(FIXTURES / "blocks" / "inputs.npz") as held:
        rows = held["x"]
    if target == "decode":
        for path in sorted((FIXTURES / "blocks").glob("*.npz")):
            with np.load(path) as held:
                for made in held.values():
                    if made.dtype == np.uint8:
                        yield bytes([TENSOR_TYPES[path.stem].id, 0]) + made[0].tobytes()[:292]
        for kind in TENSOR_TYPES.values():
            yield bytes([kind.id, 1]) + bytes(range(8)) + b"\xff\x7c\0\0"
    elif target.startswith("encode"):
        for which in range(16):
            for flags in (0x00, 0x20, 0x70):
                yield bytes([which, flags]) + rows[which % len(rows)][:64].astype("<f4").tobytes()
            yield bytes([which, 0xA1]) + rows[which % len(rows)][:64].astype("<f2").tobytes()
            yield bytes([which, 0x23]) + bytes(range(64))
            yield bytes([which, 0xE2]) + bytes(range(64))
    elif target == "convert":
        for kind in TENSOR_TYPES.values():
            yield bytes([kind.id, 0, 0x80, 1]) + bytes(range(64))
            yield bytes([0, kind.id, 0x84, 1]) + bytes(range(64))
    else:
        for first in range(44):
            yield bytes([first, first, 5, 3]) + bytes(range(60))
