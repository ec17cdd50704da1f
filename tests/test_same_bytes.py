"""The same input gives the same bytes: with 1 to 8 threads, on every instruction set, in every run, on every Python.

What the files hash to is written down in fixtures/golden/same_bytes.json, so that every machine and every Python that
runs this (`make test-pythons` runs it on each) is compared with every other. The weights are numbers by a formula, not
random ones, whose makers may change.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge import _native
from gguf_forge.convert.files import convert_checkpoint, quantize_file
from gguf_forge.convert.job import Quantization
from gguf_forge.format import reader
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.quant.imatrix import Entry, Imatrix
from gguf_forge.types import TENSOR_TYPES

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
HASHES: dict[str, str] = json.loads((FIXTURES / "golden" / "same_bytes.json").read_text(encoding="utf-8"))
#: All that a tensor can be quantized to.
TYPES = [k.name for k in TENSOR_TYPES.values() if k.encodes and (k.quantized or k.name in {"F16", "BF16"})]
#: Rows of 512 weights of each type: several runs of blocks, and a number that no vector's width divides.
ROWS, WIDTH = 21, 512


def numbers(count: int, seed: int) -> NDArray[np.float32]:
    """`count` numbers from -4 to 4 that look like weights: sums of four of a generator's, as float32, all exact."""
    state = np.uint64(seed) + np.arange(4 * count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    parts = ((state >> np.uint64(48)).astype(np.int64) - 32768).reshape(count, 4)
    made: NDArray[np.float32] = (parts.sum(axis=1) / 32768).astype(np.float32)
    return made


def weights_file(folder: Path) -> tuple[Path, Imatrix]:
    """A tensor for each type, and their importances."""
    path, entries = folder / "in.gguf", {}
    with GGUFWriter(path, {"general.architecture": "llama", "llama.block_count": len(TYPES)}) as out:
        for i in range(len(TYPES)):
            name = f"blk.{i}.ffn_up.weight"
            out.add_tensor(name, numbers(ROWS * WIDTH, i).reshape(ROWS, WIDTH))
            entries[name] = Entry(np.abs(numbers(WIDTH, 99 + i))[None], np.array([64], np.int64))
        out.add_tensor("output_norm.weight", numbers(WIDTH, 77))
    return path, Imatrix("", entries, (), 1, 64)


def quantized(folder: Path, threads: int) -> bytes:
    """Every type in one file."""
    source, imatrix = weights_file(folder)
    how = Quantization(imatrix=imatrix, overrides=[f"blk.{i}.ffn={kind}" for i, kind in enumerate(TYPES)])
    out = folder / "out.gguf"
    quantize_file(source, out, "Q4_K_M", quantization=how, threads=threads)
    return out.read_bytes()


def converted(folder: Path, threads: int) -> bytes:
    """A checkpoint with experts, in BF16, with tensors of five types."""
    overrides = ("ffn_down=Q4_1", "ffn_gate_exps=Q5_0", "attn_q=F16", "attn_k=IQ4_NL")
    (planned,) = convert_checkpoint(
        FIXTURES / "models" / "Micro-Mixtral-4x100K", folder / "out.gguf", "Q8_0",
        quantization=Quantization(overrides=overrides), threads=threads,
    )  # fmt: skip
    return planned.path.read_bytes()


WORK: dict[str, Callable[[Path, int], bytes]] = {"quantized": quantized, "converted": converted}


def hashes(folder: Path, threads: int) -> dict[str, str]:
    return {name: hashlib.sha256(work(folder, threads)).hexdigest() for name, work in WORK.items()}


@pytest.mark.parametrize("isa", _native.isa_names())
def test_threads_and_instruction_sets_do_not_show(isa: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "_default", _native.backend(isa))
    for threads in range(1, 9):
        assert hashes(tmp_path, threads) == HASHES, (isa, threads)


def test_other_processes_do_not_show(tmp_path: Path) -> None:
    """Whose hashes of texts, locale, clock and environment are others'; the instruction set forced as users do."""
    for seed, isa in (("1", _native.isa_names()[-1]), ("2", _native.isa_names()[0])):
        env = {**os.environ, "PYTHONHASHSEED": seed, "GGUF_FORGE_ISA": isa, "TZ": "Asia/Kathmandu", "LC_ALL": "C"}
        code = "import sys; from pathlib import Path; from tests.test_same_bytes import hashes; "
        code += "import json; print(json.dumps(hashes(Path(sys.argv[1]), 3)))"
        run = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True, text=True, check=False,
            cwd=FIXTURES.parent,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout) == HASHES, isa


def test_every_type_is_there(tmp_path: Path) -> None:
    quantized(tmp_path, 2)
    with reader.open(tmp_path / "out.gguf") as file:
        assert [file.tensors[f"blk.{i}.ffn_up.weight"].type.name for i in range(len(TYPES))] == TYPES
    converted(tmp_path, 2)
    with reader.open(tmp_path / "out.gguf") as file:
        assert {"Q8_0", "Q4_1", "Q5_0", "F16", "IQ4_NL"} <= {tensor.type.name for tensor in file.tensors.values()}
