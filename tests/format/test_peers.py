"""The same files through other tools: gguf-py's reader and writer, and ggml's gguf_init_from_file."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import gguf_forge
from gguf_forge.errors import ForgeError
from gguf_forge.format import reader, values
from gguf_forge.format.findings import findings
from gguf_forge.format.layout import ValueType
from gguf_forge.format.plan import Declared
from gguf_forge.format.values import Value
from gguf_forge.format.writer import GGUFWriter
from tests.format import strategies
from tests.format.recipes import HEADERS, KEYS, ODD, TENSORS, Opens, Refused

gguf: Any = pytest.importorskip("gguf", reason="gguf-py is not installed")
pytestmark = pytest.mark.peer

METADATA = {
    "general.architecture": values.string("llama"),
    "a.u8": values.u8(200),
    "a.i8": values.i8(-7),
    "a.u16": values.u16(60000),
    "a.i16": values.i16(-30000),
    "a.u32": values.u32(2**32 - 1),
    "a.i32": values.i32(-(2**31)),
    "a.u64": values.u64(2**64 - 1),
    "a.i64": values.i64(-(2**63)),
    "a.f32": values.f32(0.1),
    "a.f64": values.f64(0.1),
    "a.bool": values.boolean(True),
    "a.words": values.strings(["a", "bb", "é" * 200]),
    "a.ints": values.array(ValueType.INT32, [1, -2]),
    "a.floats": values.array(ValueType.FLOAT32, [1.5, -2.5]),
    "a.bools": values.array(ValueType.BOOL, [True, False, True]),
}
TENSORS_IN: dict[str, NDArray[Any]] = {
    "w": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "h": np.arange(5, dtype=np.float16),
    "i": np.arange(7, dtype=np.int8),
}


def write_ours(path: Path, endian: str = "little") -> None:
    with GGUFWriter(path, METADATA, endian=endian) as out:
        for name, data in TENSORS_IN.items():
            out.add_tensor(name, data)


def write_theirs(path: Path, endian: str = "little") -> None:
    order = gguf.GGUFEndian.LITTLE if endian == "little" else gguf.GGUFEndian.BIG
    out = gguf.GGUFWriter(path, "llama", endianess=order)
    for key, value in METADATA.items():
        if key == "general.architecture":
            continue
        plain = value.value.tolist() if isinstance(value.value, np.ndarray) else value.value
        kind = gguf.GGUFValueType(int(value.type))
        sub = None if value.element is None else gguf.GGUFValueType(int(value.element))
        out.add_key_value(key, plain, kind, sub_type=sub)
    for name, data in TENSORS_IN.items():
        out.add_tensor(name, data.astype(data.dtype.newbyteorder(">" if endian == "big" else "<")))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def test_our_file_is_theirs_to_the_byte(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    write_ours(ours)
    write_theirs(theirs)
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("endian", ["little", "big"])
def test_their_reader_reads_ours(endian: str, tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"
    write_ours(path, endian)
    found = gguf.GGUFReader(path)
    for key, value in METADATA.items():
        plain = value.value.tolist() if isinstance(value.value, np.ndarray) else value.value
        theirs = found.get_field(key).contents()
        assert theirs == (pytest.approx(plain) if isinstance(plain, float) else plain)
    for tensor in found.tensors:
        assert np.array_equal(tensor.data, TENSORS_IN[tensor.name])


def _their_view(path: Path) -> dict[str, Any]:
    found = gguf.GGUFReader(path)
    return {
        "fields": {k: v.contents() for k, v in found.fields.items() if not k.startswith("GGUF.")},
        "tensors": [
            (t.name, int(t.tensor_type), [int(d) for d in t.shape], int(t.data_offset), int(t.n_bytes))
            for t in found.tensors
        ],
    }


def _our_view(path: Path) -> dict[str, Any]:
    with gguf_forge.open(path) as file:
        plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in file.metadata.items()}
        tensors = [(t.name, t.type.id, list(t.shape[::-1]), t.offset, t.nbytes) for t in file.tensors.values()]
    return {"fields": plain, "tensors": tensors}


def test_both_readers_see_the_same(tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"
    write_theirs(path)
    assert _our_view(path) == _their_view(path)
    imatrix = Path(__file__).resolve().parents[2] / "fixtures/models/PyLlama-7M/imatrix.gguf"
    assert _our_view(imatrix) == _their_view(imatrix)


#: Reports what ggml makes of each file named on its command line; a process of its own, since ggml may abort.
_PROBE = """
import ctypes, json, sys
lib = ctypes.CDLL(sys.argv[1])
class Params(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]
text = lambda raw: raw.decode("utf-8", "surrogateescape")
def declare(name, result, *arguments):
    call = getattr(lib, name)
    call.restype, call.argtypes = result, arguments
    return call
P, I, S = ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p
init = declare("gguf_init_from_file", P, S, Params)
n_kv, n_tensors = declare("gguf_get_n_kv", I, P), declare("gguf_get_n_tensors", I, P)
key, kind = declare("gguf_get_key", S, P, I), declare("gguf_get_kv_type", ctypes.c_int, P, I)
name, type = declare("gguf_get_tensor_name", S, P, I), declare("gguf_get_tensor_type", ctypes.c_int, P, I)
N = ctypes.c_size_t
offset, size = declare("gguf_get_tensor_offset", N, P, I), declare("gguf_get_tensor_size", N, P, I)
start, free = declare("gguf_get_data_offset", N, P), declare("gguf_free", None, P)
for path in sys.argv[2:]:
    g = init(path.encode(), Params(True, None))
    if not g:
        print("null", flush=True)
        continue
    print(json.dumps({
        "keys": [[text(key(g, i)), kind(g, i)] for i in range(n_kv(g))],
        "tensors": [[text(name(g, i)), type(g, i), start(g) + offset(g, i), size(g, i)] for i in range(n_tensors(g))],
    }), flush=True)
    free(g)
"""


@pytest.fixture(scope="module")
def ggml() -> str:
    pytest.importorskip("pywhispercpp", reason="pywhispercpp, which brings libggml, is not installed")
    for folder in {Path(p) for p in sys.path}:
        for found in sorted(folder.glob("pywhispercpp.libs/libggml-base*")) + sorted(
            folder.glob("**/libggml-base*.so*")
        ):
            ctypes.CDLL(str(found))
            return str(found)
    pytest.skip("no libggml-base in the pywhispercpp wheel")


def probe(library: str, paths: list[Path]) -> list[dict[str, Any] | None]:
    """What ggml finds in each file; None where it refuses, or where it ends the process, as some versions do."""
    found: list[dict[str, Any] | None] = []
    while len(found) < len(paths):
        run = subprocess.run(
            [sys.executable, "-c", _PROBE, library, *map(str, paths[len(found) :])],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        )
        found += [json.loads(line) for line in run.stdout.splitlines()]
        if run.returncode:
            found.append(None)
    return found


#: The highest type id that the oldest ggml tried knows. (It also divides by zero on dims of 0, so there are none.)
NEWEST = 41


@settings(max_examples=6, phases=[Phase.generate])
@given(cases=st.lists(st.tuples(strategies.METADATA, strategies.tensors()), min_size=5, max_size=5))
def test_ggml_opens_what_we_write(
    ggml: str,
    tmp_path_factory: pytest.TempPathFactory,
    cases: list[tuple[dict[str, Value], list[tuple[Declared, NDArray[np.uint8]]]]],
) -> None:
    folder = tmp_path_factory.mktemp("ggml")
    paths, expected = [], []
    for i, (metadata, tensors) in enumerate(cases):
        kept = {k: v for k, v in metadata.items() if v.element is not ValueType.ARRAY}  # which ggml does not read
        tensors = [(d, raw) for d, raw in tensors if raw.size and d.type.id <= NEWEST]  # noqa: PLW2901
        path = folder / f"{i}.gguf"
        with GGUFWriter(path, kept) as out:
            for declared, _ in tensors:
                out.declare(declared.name, declared.shape, declared.type)
            plan = out.begin()
            for declared, raw in tensors:
                out.write(declared.name, raw)
        paths.append(path)
        extents = [plan.tensors[d.name] for d, _ in tensors]
        expected.append(
            {
                "keys": [[k, int(v.type)] for k, v in kept.items()],
                "tensors": [[e.name, e.type.id, e.offset, e.nbytes] for e in extents],
            }
        )
    assert probe(ggml, paths) == expected


#: All that we refuse and some version of ggml's parser takes: names with NUL, bad UTF-8 or nothing in them, keys of any
#: length, an alignment in an array of one, and overflows or missing data that only its loader notices.
STRICTER = {
    "A11",
    "K05",
    "K06",
    "K07",
    "T04",
    "T05",
    "T06",
    "T08",
    "T19",
    "T24",
    "T25",
    "T26",
    "T27",
    "T44",
    "T45",
    "T50",
}


#: Of types that the older ggml does not know.
NEWER = {"T57"}


def test_what_ggml_refuses_we_refuse_or_find_odd(ggml: str, tmp_path: Path) -> None:
    cases: list[Refused | Opens] = [*HEADERS, *KEYS, *TENSORS, *ODD]
    paths = []
    for case in cases:
        paths.append(tmp_path / f"{case.id}.gguf")
        paths[-1].write_bytes(case.data)
    theirs = probe(ggml, paths)
    stricter = set()
    for case, path, found in zip(cases, paths, theirs, strict=True):
        try:
            with reader.open(path) as file:
                odd = findings(file)
            assert found is not None or odd or case.id in NEWER, f"{case.id}: ggml refuses it, we see nothing odd"
        except ForgeError:
            if found is not None:
                stricter.add(case.id)
    assert sorted(stricter - STRICTER) == []
