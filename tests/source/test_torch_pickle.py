"""The .bin reader: what torch wrote comes back, and nothing a pickle asks for ever happens."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_forge.errors import (
    ForgeError,
    FormatError,
    InvalidError,
    LimitError,
    TruncatedError,
    UnsafeInputError,
    UnsupportedError,
)
from gguf_forge.source import SourceTensor, open_checkpoint
from gguf_forge.source import tensor as tensor_module
from tests.source.containers import assert_a_checkpoint_or_an_error, tensor_pickle, torch_zip

FIXTURES = Path(__file__).parents[2] / "fixtures" / "torch"
GOOD = sorted(path.stem for path in FIXTURES.glob("*.npz"))
SIXTEEN = np.arange(4, dtype="<f4").tobytes()


def as_floats(tensor: SourceTensor, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Brain floats as float32, all else as it is."""
    return (values.astype(np.uint32) << 16).view(np.float32) if tensor.dtype == "BF16" else values


@pytest.mark.parametrize("name", GOOD)
def test_reads_what_torch_wrote(name: str) -> None:
    expected = np.load(FIXTURES / f"{name}.npz")
    with open_checkpoint(FIXTURES / f"{name}.bin") as checkpoint:
        assert list(checkpoint.tensors) == expected.files
        for key, tensor in checkpoint.tensors.items():
            assert tensor.shape == expected[key].shape
            np.testing.assert_array_equal(as_floats(tensor, tensor.read()), expected[key], err_msg=key)
            if tensor.shape and tensor.shape[0] > 2:
                rows = as_floats(tensor, tensor.rows(1, tensor.shape[0] - 1))
                np.testing.assert_array_equal(rows, expected[key][1:-1], err_msg=key)
                assert rows.flags.c_contiguous


@pytest.mark.parametrize("name", ["views", "views-legacy"])
def test_strided_views_are_gathered_in_small_pieces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_module, "_PIECE_BYTES", 8)
    expected = np.load(FIXTURES / f"{name}.npz")
    with open_checkpoint(FIXTURES / f"{name}.bin") as checkpoint:
        for key, tensor in checkpoint.tensors.items():
            np.testing.assert_array_equal(tensor.read(), expected[key], err_msg=key)


def test_names_of_types() -> None:
    with open_checkpoint(FIXTURES / "dtypes.bin") as checkpoint:
        found = {name: (tensor.dtype, tensor.type.name) for name, tensor in checkpoint.tensors.items()}
    assert found["bfloat16"] == ("BF16", "BF16")
    assert found["float16"] == ("F16", "F16")
    assert found["uint8"] == ("U8", "I16")
    assert found["bool"] == ("BOOL", "I8")
    assert found["int64"] == ("I64", "I64")


def test_tied_tensors_share_their_bytes() -> None:
    with open_checkpoint(FIXTURES / "tied.bin") as checkpoint:
        assert list(checkpoint.tensors) == ["a", "z", "b"]
        assert len({tensor.offset for tensor in checkpoint.tensors.values()}) == 1


def test_big_endian_archive(tmp_path: Path) -> None:
    data = np.arange(4, dtype=">f4").tobytes()
    path = torch_zip(tmp_path / "pytorch_model.bin", tensor_pickle(), {"data/0": data, "byteorder": b"big"})
    with open_checkpoint(path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.tensors["w"].read(), np.arange(4, dtype=np.float32))


class Reduce:
    """Pickles as a call."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call, self.arguments


def billion_laughs() -> bytes:
    """Lists of lists of lists: small as a pickle, without end as text."""
    value: list[Any] = ["ha"]
    for _ in range(60):
        value = [value] * 10
    return pickle.dumps({"w": value})


def hostile() -> dict[str, tuple[bytes, type[ForgeError], str]]:
    import builtins
    import os

    legacy = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    system = pickle.dumps({"w": Reduce(os.system, "touch PWNED")})
    evaluated = pickle.dumps(Reduce(builtins.eval, "open('PWNED', 'w')"), 2)
    return {
        "system": (system, UnsafeInputError, "system"),
        "eval": (evaluated, UnsafeInputError, "eval"),
        "eval-legacy": (legacy + evaluated, UnsafeInputError, "eval"),
        "getattr": (b"\x80\x02cbuiltins\ngetattr\n.", UnsafeInputError, "builtins.getattr"),
        "stack-global": (pickle.dumps(os.getcwd, 4), UnsafeInputError, "getcwd"),
        "dotted": (b"\x80\x04\x8c\x05torch\x8c\x0fos.system.__doc\x93.", UnsafeInputError, "torch.os.system"),
        "instance": (b"(cos\nsystem\nS'touch PWNED'\no.", UnsafeInputError, "os.system"),
        "inst": (b"(S'touch PWNED'\nios\nsystem\n.", UnsafeInputError, "INST"),
        "extension": (b"\x80\x02\x82\x01.", UnsafeInputError, "EXT1"),
        "storage-called": (b"\x80\x02ctorch\nFloatStorage\n)R.", UnsafeInputError, "makes an object"),
        "class-state": (b"\x80\x02ctorch\nFloatStorage\n}b.", UnsafeInputError, "state"),
        "called-text": (b"\x80\x02X\x01\0\0\0x)R.", UnsafeInputError, "calls a str"),
        "set": (b"\x80\x04\x8f.", UnsafeInputError, "EMPTY_SET"),
        "other-rebuild": (b"\x80\x02ctorch._utils\n_rebuild_qtensor\n.", UnsafeInputError, "_rebuild_qtensor"),
        "huge-memo": (b"\x80\x02}r\xff\xff\xff\xff.", FormatError, "archive"),
        "huge-bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", FormatError, "damaged pickle"),
        "laughs": (billion_laughs(), InvalidError, "list, not a tensor"),
        "laughs-name": (pickle.dumps([]) and b"\x80\x02]q\x00(h\x00h\x00h\x00eh\x00\x93.", FormatError, "damaged"),
        "deep-key": (b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"Ns.", InvalidError, "key of type tuple"),
        "empty-stack": (b"\x80\x02R.", FormatError, "damaged pickle"),
        "no-mark": (b"\x80\x02)t.", FormatError, "damaged pickle"),
        "not-a-dictionary": (b"\x80\x02]X\x01\0\0\0xNs.", FormatError, "damaged pickle"),
        "no-stop": (b"\x80\x02}", FormatError, "pickle"),
        "list": (b"\x80\x02].", InvalidError, "holds a list"),
        "number": (pickle.dumps({"epoch": 3}, 2), InvalidError, 'entry "epoch": int, not a tensor'),
        "number-key": (pickle.dumps({3: 3}, 2), InvalidError, "key 3 is not a string"),
        "module": (b"\x80\x02(X\x06\0\0\0moduleNNNNtQ.", InvalidError, "other than a storage"),
    }


HOSTILE = hostile()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_hostile_pickle_is_refused(name: str, container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickled, kind, text = HOSTILE[name]
    path = tmp_path / "pytorch_model.bin"
    if container == "legacy":
        if not pickled.startswith(b"\x80"):
            pickled = b"\x80\x02" + pickled
        header = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
        path.write_bytes(header + pickled + pickle.dumps([], 2))
    else:
        torch_zip(path, pickled)
    if name == "huge-memo":
        with open_checkpoint(path) as checkpoint:
            assert not checkpoint.tensors
        return
    with pytest.raises(ForgeError) as caught:
        open_checkpoint(path)
    if name != "eval-legacy":
        assert type(caught.value) is kind
        assert text in str(caught.value)
    assert not (tmp_path / "PWNED").exists()


AUDIT = """
import sys, pathlib
from gguf_forge.source import open_checkpoint
from gguf_forge.errors import ForgeError
seen = []
forbidden = ("exec", "compile", "pickle.", "import", "os.system", "subprocess.", "socket.", "os.exec", "os.posix_spawn")
folder = sys.argv[1]
def hook(event, args):
    if event.startswith(forbidden):
        seen.append((event, str(args)[:80]))
    if event == "open" and not str(args[0]).startswith(folder):
        seen.append((event, str(args[0])))
paths = sorted(path for path in pathlib.Path(folder).iterdir() if path.suffix in (".bin", ".safetensors"))
open_checkpoint(sys.argv[2]).close()
# Codecs that zipfile and the JSON reader ask for; the interpreter imports them.
"x".encode("cp437"), b"x".decode("utf-8-sig")
sys.addaudithook(hook)
for path in paths:
    try:
        with open_checkpoint(path) as checkpoint:
            for tensor in checkpoint.tensors.values():
                tensor.read()
    except ForgeError:
        pass
print(len(paths), seen, [name for name in ("torch", "jinja2", "transformers") if name in sys.modules])
"""


def test_nothing_is_run_imported_or_opened_elsewhere(tmp_path: Path) -> None:
    """An audit hook sees every import, compile, pickle look-up, process and open of the interpreter."""
    for name, (pickled, _, _) in HOSTILE.items():
        torch_zip(tmp_path / f"{name}.bin", pickled)
    for path in [*FIXTURES.glob("*.bin"), *FIXTURES.parent.glob("safetensors/*.safetensors")]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    command = [sys.executable, "-c", AUDIT, str(tmp_path), str(FIXTURES / "module.bin")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    count = len(list(tmp_path.iterdir()))
    assert done.stdout.strip() == f"{count} [] []"
    assert not (tmp_path / "PWNED").exists()


BAD_TENSORS: dict[str, tuple[dict[str, Any], dict[str, bytes], type[ForgeError], str]] = {
    "beyond": ({"shape": (5,)}, {"data/0": SIXTEEN}, InvalidError, "needs 20 bytes of a storage of 16"),
    "start": ({"start": 1}, {"data/0": SIXTEEN}, InvalidError, "needs 20 bytes"),
    "stride": ({"shape": (2, 2), "strides": (3, 1)}, {"data/0": SIXTEEN}, InvalidError, "needs 20 bytes"),
    "negative-stride": ({"strides": (-1,)}, {"data/0": SIXTEEN}, InvalidError, "strides is -1"),
    "negative-start": ({"start": -1}, {"data/0": SIXTEEN}, InvalidError, "storage offset is -1"),
    "negative-size": ({"shape": (-4,)}, {"data/0": SIXTEEN}, InvalidError, "shape is -4"),
    "wrapping": ({"shape": (2**62, 2**62), "strides": (4, 4)}, {"data/0": SIXTEEN}, InvalidError, "needs"),
    "rank": ({"shape": (1,) * 17, "strides": (1,) * 17}, {"data/0": SIXTEEN}, LimitError, "17 dimensions"),
    "strides": ({"strides": (1, 1)}, {"data/0": SIXTEEN}, InvalidError, "1 sizes and 2 strides"),
    "repeats": ({"shape": (2**40,), "strides": (0,)}, {"data/0": SIXTEEN}, LimitError, "repeat"),
    "short": ({}, {"data/0": SIXTEEN[:-1]}, TruncatedError, "has 15 bytes, needs 16"),
    "absent": ({}, {}, TruncatedError, "data/0"),
    "elsewhere": ({"key": "../../0"}, {"data/0": SIXTEEN}, TruncatedError, "no member"),
    "order": ({}, {"data/0": SIXTEEN, "byteorder": b"middle"}, FormatError, "middle"),
    "script": ({}, {"data/0": SIXTEEN, "constants.pkl": b""}, UnsupportedError, "TorchScript"),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_tensor_outside_its_storage_is_refused(name: str, tmp_path: Path) -> None:
    words, members, kind, text = BAD_TENSORS[name]
    path = torch_zip(tmp_path / "pytorch_model.bin", tensor_pickle(**words), members)
    with pytest.raises(ForgeError) as caught:
        open_checkpoint(path)
    assert type(caught.value) is kind
    assert text in str(caught.value)


def test_the_builder_itself_is_read(tmp_path: Path) -> None:
    path = torch_zip(tmp_path / "pytorch_model.bin", tensor_pickle(), {"data/0": SIXTEEN})
    with open_checkpoint(path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.tensors["w"].read(), np.arange(4))


@pytest.mark.parametrize(
    ("name", "kind"), [("deflated", UnsupportedError), ("torchscript", UnsupportedError)], ids=["deflated", "script"]
)
def test_archives_that_are_not_plain_weights(name: str, kind: type[ForgeError]) -> None:
    with pytest.raises(kind):
        open_checkpoint(FIXTURES / f"{name}.bad.bin")


def test_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_pickle(count=1 << 24, shape=(1 << 24,)))
        archive.writestr("archive/data/0", bytes(1 << 26))
    with pytest.raises(UnsupportedError, match="compressed"):
        open_checkpoint(path)


def test_two_members_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", tensor_pickle())
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("archive/data.pkl", tensor_pickle())
    with pytest.raises(InvalidError, match="two members"):
        open_checkpoint(path)


@pytest.mark.parametrize("start", [b"", b"PK", b"GGUF", b"PK\x03\x04", b"\x80", b"\x80\x02K\x05.", b"<html>"])
def test_what_is_no_archive(start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(start)
    with pytest.raises(FormatError, match=r"pytorch_model\.bin"):
        open_checkpoint(path)


@pytest.mark.long
@pytest.mark.parametrize("name", ["tied", "views-legacy"])
def test_every_prefix_is_refused(name: str, tmp_path: Path) -> None:
    whole = (FIXTURES / f"{name}.bin").read_bytes()
    path = tmp_path / "pytorch_model.bin"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ForgeError, match="pytorch_model"):
            open_checkpoint(path)


@pytest.mark.long
@pytest.mark.parametrize("name", ["tied", "views-legacy"])
def test_every_changed_byte_is_an_error_or_a_file(name: str, tmp_path: Path) -> None:
    whole = (FIXTURES / f"{name}.bin").read_bytes()
    path = tmp_path / "pytorch_model.bin"
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << at * 5 % 8
        path.write_bytes(changed)
        assert_a_checkpoint_or_an_error(path)
