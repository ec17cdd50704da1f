"""Files that go to the standard output: the same bytes, in order, and no success where the reader left."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gguf_forge
from gguf_forge import Edits, edit_file, merge_files, quantize_file, split_file
from gguf_forge.errors import OutputError, QuantError, RequestError
from gguf_forge.format.plan import Declared
from gguf_forge.format.stream import StreamWriter
from gguf_forge.types import TENSOR_TYPES
from tests.cli.conftest import Forge
from tests.whole.conftest import MODEL
from tests.whole.test_split import small


class Halting(io.RawIOBase):
    """Takes a few bytes at a time, and fails after a number of them."""

    def __init__(self, most: int) -> None:
        self.held, self.most = b"", most

    def writable(self) -> bool:
        return True

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        if len(self.held) >= self.most:
            raise BrokenPipeError(32, "Broken pipe")
        self.held += bytes(data[:7])
        return min(len(data), 7)


def test_a_stream_gets_the_bytes_of_the_file(tmp_path: Path) -> None:
    path = small(tmp_path / "a.gguf")
    made = split_file(path, tmp_path / "x", max_tensors=2)
    for out in (io.BytesIO(), Halting(1 << 30)):
        done = merge_files(made[1].path, out)  # type: ignore[arg-type]
        assert (out.getvalue() if isinstance(out, io.BytesIO) else out.held) == path.read_bytes()
        assert done.nbytes == path.stat().st_size
    edits = Edits(set={"n": 1}, drop_tensors=["t1"], slack=100)
    edit_file(path, tmp_path / "b.gguf", edits)
    edited = io.BytesIO()
    edit_file(path, edited, edits)
    assert edited.getvalue() == (tmp_path / "b.gguf").read_bytes()
    nothing = io.BytesIO()
    edit_file(path, nothing, edits, dry_run=True)
    merge_files(made[1].path, nothing, dry_run=True)
    assert nothing.getvalue() == b""


def test_what_a_stream_cannot(tmp_path: Path) -> None:
    made = split_file(small(tmp_path / "a.gguf"), tmp_path / "x", max_tensors=2)
    with pytest.raises(RequestError, match="cannot be read again"):
        merge_files(made[0].path, io.BytesIO(), delete=True)
    for most in (0, 50, 300):
        with pytest.raises(OutputError, match="standard output: Broken pipe"):
            merge_files(made[0].path, Halting(most))  # type: ignore[arg-type]
    out = StreamWriter(io.BytesIO(), {}, [Declared(n, (8,), TENSOR_TYPES["F32"]) for n in "ab"])
    out.begin()
    out.write_bytes("b", memoryview(np.zeros(32, np.uint8)), 0)
    with pytest.raises(OutputError, match='tensor "a": byte'):
        out.write_bytes("a", memoryview(np.zeros(32, np.uint8)), 0)
    short = StreamWriter(io.BytesIO(), {}, [Declared("a", (8,), TENSOR_TYPES["F32"])])
    short.begin()
    with pytest.raises(OutputError, match="of 96 bytes written"):
        short.seal()


def forged(*words: object) -> list[str]:
    return [sys.executable, "-m", "gguf_forge", *map(str, words)]


def test_the_command_line(tmp_path: Path, forge: Forge) -> None:
    path = small(tmp_path / "a.gguf")
    made = split_file(path, tmp_path / "x", max_tensors=2)
    merged = subprocess.run(forged("merge", made[0].path, "-o", "-"), capture_output=True, check=True)
    assert merged.stdout == path.read_bytes()
    assert b"standard output: 6 tensors" in merged.stderr
    edited = subprocess.run(forged("edit", path, "-o", "-", "--set", "n=u8:1"), capture_output=True, check=True)
    edit_file(path, tmp_path / "b.gguf", Edits(set={"n": np.uint8(1)}))
    assert edited.stdout == (tmp_path / "b.gguf").read_bytes()
    for words in (["merge", made[0].path, "-", "--json"], ["edit", path, "-o", "-", "--set", "n=u8:1", "--dry-run"]):
        assert forge(*words).code == 2
    with subprocess.Popen(
        forged("merge", made[0].path, "-"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        said = child.stderr.read()
    assert (child.returncode, said.count(b"\n")) == (1, 1)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("type", ["COPY", "Q4_K_M", "F32"])
def test_a_quantized_file_comes_in_order_from_any_number_of_threads(
    f16: Path, tmp_path: Path, type: str, threads: int
) -> None:
    quantize_file(f16, tmp_path / "a.gguf", type)
    out = io.BytesIO()
    made = quantize_file(f16, out, type, threads=threads)
    assert out.getvalue() == (tmp_path / "a.gguf").read_bytes()
    assert (str(made.path), made.nbytes) == ("standard output", len(out.getvalue()))
    nothing = io.BytesIO()
    quantize_file(f16, nothing, type, dry_run=True)
    assert nothing.getvalue() == b""


@pytest.mark.parametrize("type", ["f16", "Q4_K_M", "NVFP4"])
def test_a_checkpoint_goes_to_a_stream(tmp_path: Path, type: str) -> None:
    for endian in ("little", "big"):
        gguf_forge.convert_checkpoint(MODEL, tmp_path / "a.gguf", type, endian=endian)
        out = io.BytesIO()
        gguf_forge.convert_checkpoint(MODEL, out, type, endian=endian, threads=3)
        assert out.getvalue() == (tmp_path / "a.gguf").read_bytes()


@pytest.mark.parametrize("most", [0, 200_000, 3_000_000])
def test_a_reader_that_leaves_ends_all_threads(f16: Path, most: int) -> None:
    class Left(io.BytesIO):
        def write(self, data: memoryview) -> int:  # type: ignore[override]
            if self.tell() >= most:
                raise BrokenPipeError(32, "Broken pipe")
            return super().write(data)

    with pytest.raises(OutputError, match="Broken pipe"):
        quantize_file(f16, Left(), "Q4_0", threads=4)


def test_a_tensor_that_cannot_be_encoded_ends_all_threads(tmp_path: Path) -> None:
    with gguf_forge.GGUFWriter(tmp_path / "a.gguf", {"general.architecture": "llama"}) as writer:
        for n in range(8):
            data = np.ones((4096, 1024), np.float32)
            if n == 3:
                data[5, 5] = np.nan
            writer.add_tensor(f"blk.{n}.ffn_up.weight", data)
        writer.add("llama.block_count", 8)
        writer.add("llama.attention.head_count", 8)
    with pytest.raises(QuantError, match=r"blk.3.ffn_up.weight"):
        quantize_file(tmp_path / "a.gguf", io.BytesIO(), "Q8_0", threads=4)


def test_several_files_do_not_go_to_one_stream(f16: Path, forge: Forge) -> None:
    with pytest.raises(RequestError, match="neither several nor a set"):
        gguf_forge.convert_checkpoint(MODEL, io.BytesIO(), "f16,Q4_0")
    for splitting in (gguf_forge.Splitting(max_tensors=3), gguf_forge.Splitting(keep=True)):
        with pytest.raises(RequestError, match="neither several nor a set"):
            quantize_file(f16, io.BytesIO(), "Q4_0", splitting=splitting)
    assert forge("quantize", f16, "-", "Q4_0", "--dry-run").code == 2
    assert "a set is several files" in forge("split", f16, "-o", "-").err
    assert forge("convert", MODEL, "-o", "-", "--check-tokenizer").code == 2


def test_quantize_and_convert_write_to_the_standard_output(f16: Path, q4: Path) -> None:
    for words in (["quantize", f16, "-", "Q4_K_M"], ["convert", MODEL, "--type", "Q4_K_M", "-o", "-"]):
        done = subprocess.run(forged(*words), capture_output=True, check=True)
        assert done.stdout == q4.read_bytes()
        assert b"standard output: Q4_K_M" in done.stderr
