"""Byte orders: files of either hold the same model, and go over into each other and back bit for bit."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

import gguf_forge
from gguf_forge import Edits, GGUFWriter, diff_files, edit_file
from gguf_forge.format import orders, reader, values
from gguf_forge.format.plan import Declared
from gguf_forge.format.values import Value, encode
from gguf_forge.types import TENSOR_TYPES
from tests.cli.conftest import Forge
from tests.format import strategies
from tests.format.test_roundtrip import write
from tests.test_public import BIG_ENDIAN

BLOCKS = [kind for kind in TENSOR_TYPES.values() if kind.quantized]


@pytest.mark.parametrize("kind", ["f16", "f32"])
def test_a_file_becomes_what_the_converter_writes_big_endian(kind: str, tmp_path: Path, forge: Forge) -> None:
    model = Path(__file__).resolve().parents[2] / "fixtures" / "models" / "PyLlama-7M"
    gguf_forge.convert_checkpoint(model, tmp_path / "a.gguf", kind)
    assert forge("edit", tmp_path / "a.gguf", "-o", tmp_path / "b.gguf", "--endian", "big").code == 0
    assert sha256((tmp_path / "b.gguf").read_bytes()).hexdigest() == BIG_ENDIAN[kind]
    before = (tmp_path / "a.gguf").read_bytes()
    assert forge("edit", tmp_path / "b.gguf", "--endian", "little").code == 0
    assert (tmp_path / "b.gguf").read_bytes() == before


@settings(max_examples=100)
@given(metadata=strategies.METADATA, tensors=strategies.tensors())
def test_there_and_back(
    tmp_path_factory: pytest.TempPathFactory,
    metadata: dict[str, Value],
    tensors: list[tuple[Declared, NDArray[np.uint8]]],
) -> None:
    folder = tmp_path_factory.mktemp("orders", numbered=True)
    path = folder / "a.gguf"
    write(path, metadata, tensors, "little", 32)
    edit_file(path, folder / "b.gguf", Edits(endian="big"))
    with reader.open(folder / "b.gguf") as big:
        assert big.endian == "big"
        assert {key: big.metadata.value(key) for key in big.metadata} == metadata
    found = diff_files(path, folder / "b.gguf", values=False)
    assert (found.keys, found.tensors, found.endian) == ([], [], ("little", "big"))
    edit_file(folder / "b.gguf", edits=Edits(endian="little"))
    assert (folder / "b.gguf").read_bytes() == path.read_bytes()


def test_every_type_has_its_numbers() -> None:
    assert {kind.name for kind in BLOCKS} == {*orders.NUMBERS}
    for kind in BLOCKS:
        taken = [byte for start, width in orders.NUMBERS[kind.name] for byte in range(start, start + width)]
        assert len(taken) == len({*taken})
        assert not taken or max(taken) < kind.block_bytes
        raw = np.arange(3 * kind.block_bytes, dtype=np.uint8)
        assert np.array_equal(orders.swapped(orders.swapped(raw, kind), kind), raw)


@pytest.mark.parametrize("kind", [kind for kind in BLOCKS if kind.decodes], ids=lambda kind: kind.name)
def test_blocks_decode_to_the_same_values(kind: Any, tmp_path: Path, q4: Path) -> None:
    rng = np.random.default_rng(7)
    raw = rng.integers(0, 256, (4, 2 * kind.block_bytes), np.uint8)
    little, big = tmp_path / "a.gguf", tmp_path / "b.gguf"
    with GGUFWriter(little, {"general.architecture": "llama"}) as out:
        out.add_tensor("t", raw, kind)
    edit_file(little, big, Edits(endian="big"))
    with gguf_forge.open(little) as one, gguf_forge.open(big) as two:
        expected, found = one.tensors["t"].dequantize(), two.tensors["t"].dequantize()
        assert np.array_equal(expected.view(np.uint32), found.view(np.uint32))
        size = kind.block_size
        assert np.array_equal(two.tensors["t"].read_values(size, 3 * size), expected.reshape(-1)[size : 3 * size], True)
    copied = gguf_forge.quantize_file(
        big, tmp_path / "c.gguf", "COPY", quantization=gguf_forge.Quantization(allow_nonfinite=True)
    )
    with gguf_forge.open(copied.path) as back:
        assert back.endian == "little"
        assert np.array_equal(back.tensors["t"].data, raw)


@pytest.mark.peer
def test_blocks_are_swapped_as_gguf_py_swaps_them() -> None:
    scripts = pytest.importorskip("gguf.scripts.gguf_convert_endian")
    rng = np.random.default_rng(3)
    compared = set()
    for theirs, swap in scripts.byteswap_tensors.items():
        kind = TENSOR_TYPES[theirs.name]

        class Tensor:
            data = rng.integers(0, 256, 5 * kind.block_bytes, np.uint8)

        expected = orders.swapped(Tensor.data.copy(), kind)
        for block in range(5):
            swap(Tensor, block * kind.block_bytes)
        assert np.array_equal(Tensor.data, expected)
        compared.add(kind.name)
    assert {"Q4_0", "Q8_0", "Q4_K", "Q6_K"} <= compared


def test_numbers_of_no_value_keep_their_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with GGUFWriter(path, {"f": values.f32(0), "a": np.zeros(2, np.float64)}) as out:
        out.add_tensor("t", np.array([1, 2], np.float32))
    raw = path.read_bytes()
    at = raw.index(b"f\6\0\0\0") + 5
    raw = raw[:at] + b"\1\0\x80\x7f" + raw[at + 4 :]  # a signalling NaN
    path.write_bytes(raw)
    edit_file(path, tmp_path / "b.gguf", Edits(endian="big"))
    with reader.open(tmp_path / "b.gguf") as file:
        assert encode(file.metadata.stored("f"), ">") == b"\x7f\x80\0\1"
    edit_file(tmp_path / "b.gguf", edits=Edits(endian="little"))
    assert (tmp_path / "b.gguf").read_bytes() == raw


@pytest.mark.parametrize("name", ["Q4_0", "Q5_1", "Q4_K_M", "Q3_K_S", "IQ4_XS", "TQ1_0", "MXFP4_MOE", "BF16", "Q8_0"])
def test_a_file_is_quantized_into_either_order_from_either(name: str, f16: Path, tmp_path: Path, forge: Forge) -> None:
    little, big, source = (tmp_path / f"{word}.gguf" for word in ("little", "big", "source"))
    assert forge("quantize", f16, little, name).code == 0
    assert forge("quantize", f16, big, name, "--endian", "big").code == 0
    edit_file(little, tmp_path / "edited.gguf", Edits(endian="big"))
    assert big.read_bytes() == (tmp_path / "edited.gguf").read_bytes()
    edit_file(f16, source, Edits(endian="big"))
    assert forge("quantize", source, big, name).code == 0
    assert big.read_bytes() == little.read_bytes()
    assert forge("quantize", source, big, name, "--endian", "big").code == 0
    assert big.read_bytes() == (tmp_path / "edited.gguf").read_bytes()


def test_blocks_are_quantized_again_and_copied_across_orders(q4: Path, tmp_path: Path, forge: Forge) -> None:
    big, back = tmp_path / "big.gguf", tmp_path / "back.gguf"
    assert forge("quantize", q4, big, "COPY", "--endian", "big").code == 0
    assert forge("quantize", big, back, "COPY").code == 0
    assert back.read_bytes() == q4.read_bytes()
    for source, to in ((q4, "a"), (big, "b")):
        assert forge("quantize", source, tmp_path / f"{to}.gguf", "Q3_K_S", "--allow-requantize").code == 0
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_a_checkpoint_is_converted_to_blocks_in_either_order(q4: Path, tmp_path: Path, forge: Forge) -> None:
    model = Path(__file__).resolve().parents[2] / "fixtures" / "models" / "PyLlama-7M"
    assert forge("convert", model, "--type", "Q4_K_M", "-o", tmp_path / "big.gguf", "--bigendian").code == 0
    edit_file(q4, tmp_path / "edited.gguf", Edits(endian="big"))
    assert (tmp_path / "big.gguf").read_bytes() == (tmp_path / "edited.gguf").read_bytes()
