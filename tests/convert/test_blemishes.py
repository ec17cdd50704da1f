"""NaNs, infinities and numbers beyond a type's scales in files: refused with their place, or noted where allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge.convert.files import Planned, convert_checkpoint, quantize_file
from gguf_forge.convert.job import Quantization
from gguf_forge.errors import QuantError
from gguf_forge.format import reader, values
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.quant.codec import quantize
from gguf_forge.quant.imatrix import Entry, Imatrix
from gguf_forge.quant.overrides import parse_override
from gguf_forge.types import TENSOR_TYPES
from tests.cli.conftest import Forge, forge  # noqa: F401 - a fixture
from tests.oracle import Oracle

MODEL = Path(__file__).resolve().parents[2] / "fixtures" / "models" / "PyLlama-7M"
META = {"general.architecture": values.string("llama"), "llama.block_count": values.u32(1)}
WEIGHT, NORM = "blk.0.attn_q.weight", "blk.0.attn_norm.weight"
ALLOWED = Quantization(allow_nonfinite=True)
BLOCKS = [t.name for t in TENSOR_TYPES.values() if t.quantized and t.encodes]


def matrix() -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((6, 512)).astype(np.float32) * np.float32(0.02)


def write(path: Path, weight: NDArray[np.generic], norm: float = 1, kind: str | None = None) -> Path:
    with GGUFWriter(path, META) as out:
        out.add_tensor("token_embd.weight", matrix())
        out.add_tensor(WEIGHT, weight, kind)
        out.add_tensor(NORM, np.array([1, norm, 1], np.float32))
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Makes a copy of the trained model with these bytes (BF16) as the eighth element of a tensor."""

    def make(name: str, bits: bytes) -> Path:
        folder = tmp_path / "model"
        folder.mkdir()
        for file in MODEL.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        data = bytearray((folder / "model.safetensors").read_bytes())
        size = int.from_bytes(data[:8], "little")
        entry = data[8 : 8 + size].decode().split(f'"{name}"')[1].split('"data_offsets":[')[1]
        at = 8 + size + int(entry.split(",")[0]) + 14
        data[at : at + 2] = bits
        (folder / "model.safetensors").write_bytes(data)
        return folder

    return make


@pytest.mark.parametrize(("bits", "what"), [(b"\xc0\x7f", "NaN"), (b"\x80\xff", "an infinity")])
def test_a_norm_of_a_checkpoint(
    bits: bytes, what: str, broken: Callable[[str, bytes], Path], tmp_path: Path, forge: Forge  # noqa: F811
) -> None:
    """Floats are written as they are, with a note; a quantized file is refused, and left where it was."""
    folder = broken("model.layers.2.input_layernorm.weight", bits)
    place = f"{what} at row 0, column 7"
    for name in ("f32", "f16", "bf16", "auto"):
        done = forge("convert", folder, "--type", name, "-o", tmp_path / "out.gguf")
        assert (done.code, f"blk.2.attn_norm.weight: {place}" in done.err) == (0, True)
    before = (tmp_path / "out.gguf").read_bytes()
    for name in ("Q4_K_M", "Q8_0", "q8_0", "tq2_0", "f16,Q4_0"):
        output = "{ftype}.gguf" if "," in name else "out.gguf"
        done = forge("convert", folder, "--type", name, "-o", tmp_path / output)
        assert done.code == 1
        assert f'tensor "blk.2.attn_norm.weight": {place} (--allow-nonfinite writes it)' in done.err
        assert done.err.count("\n") == 1
    assert (tmp_path / "out.gguf").read_bytes() == before
    assert not (tmp_path / "f16.gguf").exists()
    done = forge("convert", folder, "--type", "Q4_K_M", "--allow-nonfinite", "-o", tmp_path / "out.gguf")
    assert (done.code, place in done.err) == (0, True)
    with reader.open(tmp_path / "out.gguf") as file:
        assert np.isfinite(file.tensors["blk.2.attn_norm.weight"].dequantize()).sum() == 255
    done = forge("quantize", tmp_path / "out.gguf", tmp_path / "again.gguf", "COPY")
    assert (done.code, place in done.err) == (1, True)
    done = forge("quantize", tmp_path / "out.gguf", tmp_path / "again.gguf", "COPY", "--allow-nonfinite")
    assert done.code == 0


def test_no_block_can_hold_a_nan_whatever_is_allowed(tmp_path: Path) -> None:
    x = matrix()
    x[4, 300] = np.nan
    source = write(tmp_path / "in.gguf", x)
    for how in (None, ALLOWED):
        with pytest.raises(QuantError, match=rf'tensor "{WEIGHT}": Q5_0 cannot hold NaN .* row 4, column 300$'):
            quantize_file(source, tmp_path / "out.gguf", "Q5_0", quantization=how)
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("value", [1e12, 1e20, 3e38])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_weight_that_no_scale_reaches(name: str, value: float, tmp_path: Path) -> None:
    """Near the end of F16 a scale is infinite; far beyond it the searches write zeros. Neither passes unnoticed."""
    kind, x = TENSOR_TYPES[name], matrix()
    x[3, 300] = -value
    source = write(tmp_path / "in.gguf", x)
    ones = np.ones((1, 512), np.float32)
    imatrix = Imatrix("ones", {WEIGHT: Entry(ones, np.array([1]))})
    how = Quantization(imatrix=imatrix, overrides=[parse_override(f"attn_q={name}")])

    def make(allowed: bool = False) -> Planned:
        return quantize_file(
            source, tmp_path / "out.gguf", "Q8_0", quantization=replace(how, allow_nonfinite=allowed)
        )  # fmt: skip

    if name == "MXFP4":
        assert make().notes == ()
        return
    with pytest.raises(QuantError, match=rf'tensor "{WEIGHT}": .*{name}.* row 3, column'):
        make()
    plan = make(allowed=True)
    with reader.open(plan.path) as file:
        np.testing.assert_array_equal(file.tensors[WEIGHT].data, quantize(x, kind, ones[0]))


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K", "IQ4_NL", "IQ4_XS", "TQ1_0"])
def test_a_scale_past_the_end_of_f16(name: str, tmp_path: Path, oracle: Oracle) -> None:
    """Refused exactly where llama-quantize refuses the blocks; rows and columns say where the block is."""
    kind = TENSOR_TYPES[name]
    start = 300 // kind.block_size * kind.block_size
    columns = f"row 3, columns {start} to {start + kind.block_size - 1}, where values reach "
    how = Quantization(overrides=[parse_override(f"attn_q={name}")])
    outcomes = set()
    for value in (1e3, 1e5, 4e5, 1e6, 1e7, 1e8, 5e8):
        x = matrix()
        x[3, 300] = value
        source = write(tmp_path / "in.gguf", x)
        accepted = oracle.accepts(oracle.encode(x, kind), kind)
        outcomes.add(accepted)
        if accepted:
            assert quantize_file(source, tmp_path / "out.gguf", "Q8_0", quantization=how).notes == ()
            continue
        text = f"a block of {name} whose scale is not finite at {columns}{value:.6g}"
        with pytest.raises(QuantError, match=re.escape(text)):
            quantize_file(source, tmp_path / "out.gguf", "Q8_0", quantization=how)
    assert outcomes == {True, False}


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "F64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("recipe", ["COPY", "Q4_0", "F16"])
def test_floats_that_are_kept(kind: str, value: float, recipe: str, tmp_path: Path) -> None:
    stored = np.ones((3, 5), np.float64)
    stored[1, 4] = value
    dtype = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "BF16": np.float32}[kind]
    array = stored.astype(dtype)
    with GGUFWriter(tmp_path / "in.gguf", META) as out:
        out.add_tensor("x.bias", (array.view(np.uint32) >> 16).astype(np.uint16) if kind == "BF16" else array, kind)
    what = "NaN" if np.isnan(value) else "an infinity"
    with pytest.raises(QuantError, match=rf'^tensor "x.bias": {what} at row 1, column 4 \(--allow-nonfinite'):
        quantize_file(tmp_path / "in.gguf", tmp_path / "out.gguf", recipe)
    plan = quantize_file(tmp_path / "in.gguf", tmp_path / "out.gguf", recipe, quantization=ALLOWED)
    assert plan.notes[-1] == f"x.bias: {what} at row 1, column 4"
    with reader.open(plan.path) as file:
        np.testing.assert_array_equal(file.tensors["x.bias"].dequantize(), stored.astype(np.float32))


@pytest.mark.parametrize("name", ["Q8_0", "Q4_K", "Q2_K", "Q6_K", "TQ2_0", "IQ1_M", "MXFP4"])
def test_blocks_that_are_kept(name: str, tmp_path: Path) -> None:
    kind = TENSOR_TYPES[name]
    blocks = np.zeros((6, kind.row_bytes(512)), np.uint8)
    blocks[5, -kind.block_bytes :] = 0xFF
    source = write(tmp_path / "in.gguf", blocks, kind=name)
    place = f"row 5, columns {512 - kind.block_size} to 511"
    with pytest.raises(QuantError, match=f"a block of {name} whose scale is not finite at {place} "):
        quantize_file(source, tmp_path / "out.gguf", "COPY")
    plan = quantize_file(source, tmp_path / "out.gguf", "COPY", quantization=ALLOWED)
    with reader.open(plan.path) as file:
        np.testing.assert_array_equal(file.tensors[WEIGHT].data, blocks)


def test_f16_overflows_are_noted_or_refused(tmp_path: Path) -> None:
    x = matrix()
    x[2, 9], x[5, 0] = 70000, -80000
    source = write(tmp_path / "in.gguf", x)
    text = "70000 at row 2, column 9 is too large for F16"
    with pytest.raises(QuantError, match=text):
        quantize_file(source, tmp_path / "out.gguf", "F16")
    plan = quantize_file(source, tmp_path / "out.gguf", "F16", quantization=ALLOWED)
    assert plan.notes == (f"{WEIGHT}: {text}",)


def test_many_tensors_make_few_lines(tmp_path: Path) -> None:
    with GGUFWriter(tmp_path / "in.gguf", META) as out:
        for i in range(20):
            out.add_tensor(f"x{i:02}.bias", np.array([1, np.nan], np.float32))
    plan = quantize_file(tmp_path / "in.gguf", tmp_path / "out.gguf", "COPY", quantization=ALLOWED)
    assert plan.notes[0] == "x00.bias: NaN at row 0, column 1"
    assert plan.notes[-1] == "12 more tensors hold values that are not finite"
    assert len(plan.notes) == 9


def test_a_sound_model_says_nothing(tmp_path: Path) -> None:
    for plan in convert_checkpoint(MODEL, tmp_path, "f16,bf16,q8_0,Q4_K_M,IQ4_XS"):
        assert plan.notes == ()
