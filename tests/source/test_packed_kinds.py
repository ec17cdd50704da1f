"""Kinds that libraries write beside their usual ones: scales of all, tiles, narrow codes in bytes, 4-bit floats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_forge.convert.imported import choose
from gguf_forge.convert.origin import source_view
from gguf_forge.errors import CheckpointError
from gguf_forge.source.checkpoint import open_checkpoint
from gguf_forge.source.dtypes import DTYPES
from gguf_forge.source.packed import PackedTensor, unpacked
from tests.source.containers import entry, safetensors_bytes
from tests.source.test_packed_layouts import Arrays, checkpoint_of, read

RNG = np.random.default_rng(12)
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def _chosen(folder: Path) -> str:
    """The type and status of a folder's one weight."""
    with open_checkpoint(folder) as checkpoint:
        (weight,) = unpacked(checkpoint).values()
        assert isinstance(weight, PackedTensor)
        made, _ = choose(source_view(weight))
        return f"{made.kind} {made.status}"


def _compressed(layout: str, **scheme: Any) -> dict[str, Any]:
    groups = {"group_0": {"targets": ["Linear"], "weights": scheme}}
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": groups}


@pytest.mark.parametrize("zero", [None, 3])
def test_compressed_tensors_one_scale_of_packed_codes(zero: int | None, tmp_path: Path) -> None:
    """The zero of a whole tensor is not packed (compressors/pack_quantized/base.py)."""
    codes = RNG.integers(-8, 8, (4, 64))
    words = ((codes.reshape(4, 8, 8) + 8) << 4 * np.arange(8)).sum(axis=2).astype(np.uint32).view(np.int32)
    tensors: dict[str, tuple[str, np.ndarray[Any, Any]]] = {
        "a.weight_packed": ("I32", words),
        "a.weight_scale": ("F16", np.array([0.75], np.float16)),
        "a.weight_shape": ("I64", np.array([4, 64])),
    }
    if zero is not None:
        tensors["a.weight_zero_point"] = ("I8", np.array([zero], np.int8))
    settings = _compressed("pack-quantized", num_bits=4, type="int", strategy="tensor", symmetric=zero is None)
    found = read(checkpoint_of(tmp_path, tensors, settings))
    assert np.array_equal(found["a.weight"], (codes - (zero or 0)) * np.float32(0.75))
    assert _chosen(tmp_path) == ("Q5_0 lossless" if zero else "Q4_0 lossless")


@pytest.mark.parametrize(("symmetric", "kind"), [(True, "Q4_0 lossless"), (False, "Q5_0 lossless")])
def test_compressed_tensors_narrow_codes_that_take_a_byte(symmetric: bool, kind: str, tmp_path: Path) -> None:
    """With quantized activations codes of any width are I8 (format int-quantized)."""
    codes, zeros = RNG.integers(-8, 8, (4, 64)).astype(np.int8), RNG.integers(-8, 8, (4, 2)).astype(np.int8)
    scales = RNG.uniform(0.5, 1, (4, 2)).astype(np.float16)
    tensors: dict[str, tuple[str, np.ndarray[Any, Any]]] = {
        "a.weight": ("I8", codes),
        "a.weight_scale": ("F16", scales),
    }
    if not symmetric:
        tensors["a.weight_zero_point"] = ("I8", zeros)
    scheme = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": symmetric}
    found = read(checkpoint_of(tmp_path, tensors, _compressed("int-quantized", **scheme)))
    steps = codes.reshape(4, 2, 32) - (0 if symmetric else zeros[..., None].astype(np.float32))
    assert np.array_equal(found["a.weight"], (steps * scales[..., None].astype(np.float32)).reshape(4, 64))
    assert _chosen(tmp_path) == kind


def test_compressed_tensors_codes_beyond_their_width_are_refused(tmp_path: Path) -> None:
    tensors: Arrays = {
        "a.weight": ("I8", np.full((4, 64), 8, np.int8)),
        "a.weight_scale": ("F16", np.ones((4, 1), np.float16)),
    }
    settings = _compressed("int-quantized", num_bits=4, type="int", strategy="channel", symmetric=True)
    with pytest.raises(CheckpointError, match=r'"a\.weight".*has codes that 4 bits have not'):
        read(checkpoint_of(tmp_path, tensors, settings))


@pytest.mark.parametrize("shape", [(70, 96), (64, 80)])
def test_compressed_tensors_tiles_of_whole_numbers(shape: tuple[int, int], tmp_path: Path) -> None:
    out, width = shape
    codes = RNG.integers(-128, 128, shape).astype(np.int8)
    scales = RNG.uniform(0.5, 1, (-(-out // 32), -(-width // 64))).astype(np.float32)
    tensors: Arrays = {"a.weight": ("I8", codes), "a.weight_scale": ("F32", scales)}
    scheme = {"num_bits": 8, "type": "int", "strategy": "block", "block_structure": [32, 64]}
    found = read(checkpoint_of(tmp_path, tensors, _compressed("int-quantized", **scheme)))
    wide = scales[np.arange(out)[:, None] // 32, np.arange(width) // 64]
    assert np.array_equal(found["a.weight"], codes * wide)


def test_compressed_tensors_groups_of_8_bit_floats(tmp_path: Path) -> None:
    codes, scales = RNG.integers(0, 0x7E, (4, 96), dtype=np.uint8), RNG.uniform(0.5, 1, (4, 2)).astype(np.float32)
    tensors: Arrays = {"a.weight": ("F8_E4M3", codes), "a.weight_scale": ("F32", scales)}
    scheme = {"num_bits": 8, "type": "float", "strategy": "group", "group_size": 48}
    found = read(checkpoint_of(tmp_path, tensors, _compressed("float-quantized", **scheme)))
    values = np.asarray(DTYPES["F8_E4M3"].table)[codes].reshape(4, 2, 48) * scales[..., None]
    assert np.array_equal(found["a.weight"], values.reshape(4, 96))


def _torchao(folder: Path, tensors: Arrays, **said: Any) -> Path:
    """A checkpoint of torchao's, whose header says of its weight what `said` does."""
    header: dict[str, Any] = {"__metadata__": {"tensor_names": '["a.weight"]', "a.weight": json.dumps(said)}}
    data = b""
    for name, (dtype, values) in tensors.items():
        header[name] = entry(dtype, list(values.shape), [len(data), len(data) + values.nbytes])
        data += np.ascontiguousarray(values).tobytes()
    (folder / "model.safetensors").write_bytes(safetensors_bytes(header, data))
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "torchao"}}))
    return folder


def _for_kernels(scales: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Scales in tiles of 128 rows and 4 groups, row i + 32 k and group g of one at 16 i + 4 k + g; none are zero."""
    out, groups = scales.shape
    high, broad = -(-out // 128), -(-groups // 4)
    found = np.zeros((high * broad, 512), scales.dtype)
    for row in range(out):
        for group in range(groups):
            inside = row % 128
            found[row // 128 * broad + group // 4, inside % 32 * 16 + inside // 32 * 4 + group % 4] = scales[row, group]
    return found.reshape(high * 32, broad * 16)


@pytest.mark.parametrize("swizzled", [False, True])
@pytest.mark.parametrize("shape", [(8, 64), (130, 192)])
@pytest.mark.parametrize("kind", ["MXFP4", "MXFP8", "NVFP4"])
def test_torchaos_small_floats(kind: str, shape: tuple[int, int], swizzled: bool, tmp_path: Path) -> None:
    out, width = shape
    run = 16 if kind == "NVFP4" else 32
    fields = RNG.integers(0, 16, shape, dtype=np.uint8)
    dtype = "F8_E4M3" if kind == "NVFP4" else "F8_E8M0"
    octets = RNG.integers(100, 126, (out, width // run), dtype=np.uint8)
    steps = np.asarray(DTYPES[dtype].table)[octets].astype(np.float64)
    stored: tuple[str, Any] = ("U8", fields[:, 0::2] | fields[:, 1::2] << 4)
    values = E2M1[fields].astype(np.float64)
    if kind == "MXFP8":
        stored = "F8_E4M3", RNG.integers(0, 0x7E, shape, dtype=np.uint8)
        values = np.asarray(DTYPES["F8_E4M3"].table)[stored[1]].astype(np.float64)
    tensors = {"a._weight_qdata": stored, "a._weight_scale": (dtype, _for_kernels(octets) if swizzled else octets)}
    if kind == "NVFP4":
        tensors["a._weight_per_tensor_scale"] = ("F32", np.array(0.75, np.float32))
        steps *= 0.75
    said = {"_type": "NVFP4Tensor" if kind == "NVFP4" else "MXTensor", "_data": {"is_swizzled_scales": swizzled}}
    found = read(_torchao(tmp_path, tensors, **said))
    exact = (values.reshape(out, -1, run) * steps[..., None]).reshape(shape)
    assert list(found) == ["a.weight"]
    assert np.array_equal(found["a.weight"], exact.astype(np.float32))


def test_torchaos_header_says_how_wide_codes_are(tmp_path: Path) -> None:
    """The configuration may say it by patterns, of several widths."""
    codes, scales = RNG.integers(-8, 8, (4, 64)).astype(np.int8), RNG.uniform(0.5, 1, (4, 2)).astype(np.float16)
    tensors: Arrays = {"a._weight_qdata": ("I8", codes), "a._weight_scale": ("F16", scales)}
    width = {"target_dtype": {"_type": "torch.dtype", "_data": "int4"}}
    folder = _torchao(tmp_path, tensors, _type="IntxUnpackedToInt8Tensor", _data=width)
    assert _chosen(folder) == "Q4_0 lossless"


def test_torchaos_one_scale_has_one_zero(tmp_path: Path) -> None:
    codes = RNG.integers(-128, 128, (4, 32)).astype(np.int8)
    tensors: Arrays = {
        "a._weight_qdata": ("I8", codes),
        "a._weight_scale": ("F32", np.array([[0.75]], np.float32)),
        "a._weight_zero_point": ("I8", np.zeros((1, 1), np.int8)),
    }
    found = read(_torchao(tmp_path, tensors, _type="Int8Tensor", _data={}))
    assert np.array_equal(found["a.weight"], codes * np.float32(0.75))


def test_torchaos_tiles_of_8_bit_floats(tmp_path: Path) -> None:
    codes, scales = RNG.integers(0, 0x7E, (6, 96), dtype=np.uint8), RNG.uniform(0.5, 1, (6, 2)).astype(np.float32)
    tensors: Arrays = {"a._weight_qdata": ("F8_E4M3", codes), "a._weight_scale": ("F32", scales)}
    found = read(_torchao(tmp_path, tensors, _type="Float8Tensor", _data={"block_size": [1, 48]}))
    values = np.asarray(DTYPES["F8_E4M3"].table)[codes].reshape(6, 2, 48) * scales[..., None]
    assert np.array_equal(found["a.weight"], values.reshape(6, 96))


def test_torchaos_layouts_for_kernels_are_refused(tmp_path: Path) -> None:
    tensors: Arrays = {
        "a._weight_qdata": ("I32", np.zeros((2, 1, 32, 4), np.int32)),
        "a._weight_scale": ("BF16", np.zeros((1, 16), np.uint16)),
    }
    folder = _torchao(tmp_path, tensors, _type="Int4TilePackedTo4dTensor", _data={})
    with pytest.raises(CheckpointError, match=r'"a\._weight_qdata".*is Int4TilePackedTo4dTensor'):
        read(folder)


def test_mlxs_stacks_of_8_bit_floats_become_experts(tmp_path: Path) -> None:
    """Whether MLX calls them switch_mlp, or experts as the families' own code does."""
    codes, powers = RNG.integers(0, 0x7E, (3, 4, 64), dtype=np.uint8), RNG.integers(120, 130, (3, 4, 2), dtype=np.uint8)
    said = {"group_size": 32, "bits": 8, "mode": "mxfp8"}
    values = np.asarray(DTYPES["F8_E4M3"].table)[codes].reshape(3, 4, 2, 32)
    exact = (values * np.exp2(powers.astype(np.float64) - 127)[..., None]).reshape(3, 4, 64).astype(np.float32)
    for stack in ("switch_mlp", "experts"):
        tensors: Arrays = {
            f"m.mlp.{stack}.up_proj.weight": ("U32", codes.view("<u4")),
            f"m.mlp.{stack}.up_proj.scales": ("U8", powers),
        }
        found = read(checkpoint_of(tmp_path, tensors, said, quantization=said))
        assert list(found) == [f"m.mlp.experts.{number}.up_proj.weight" for number in range(3)]
        assert np.array_equal(np.stack(list(found.values())), exact)


def test_mlxs_experts_have_a_scale_of_their_own(tmp_path: Path) -> None:
    fields = RNG.integers(0, 16, (3, 4, 64), dtype=np.uint8)
    octets, wholes = RNG.integers(0x30, 0x60, (3, 4, 4), dtype=np.uint8), np.array([2688.0, 1344.0, 672.0], np.float32)
    tensors: Arrays = {
        "m.switch_mlp.up_proj.weight": ("U32", (fields[..., 0::2] | fields[..., 1::2] << 4).view("<u4")),
        "m.switch_mlp.up_proj.scales": ("U8", octets),
        "m.switch_mlp.up_proj.global_scale": ("F32", wholes),
    }
    said = {"group_size": 16, "bits": 4, "mode": "nvfp4"}
    found = read(checkpoint_of(tmp_path, tensors, said, quantization=said))
    assert list(found) == [f"m.experts.{number}.up_proj.weight" for number in range(3)]
    steps = np.asarray(DTYPES["F8_E4M3"].table)[octets] * (wholes / 2688)[:, None, None]
    exact = (E2M1[fields].reshape(3, 4, 4, 16) * steps[..., None]).reshape(3, 4, 64)
    assert np.array_equal(np.stack(list(found.values())), exact)


@pytest.mark.parametrize("dtype", ["I32", "F16"])
def test_hqqs_three_bits_under_any_element_type(dtype: str, tmp_path: Path) -> None:
    """`view_as_float` stores the same bytes as halves."""
    codes = RNG.integers(0, 8, (12, 32))  # of (6, 64) in groups of 32; ten groups to a word
    padded = np.concatenate([codes, np.zeros((8, 32), np.int64)]).reshape(10, 2, 32)
    words = (padded << (27 - 3 * np.arange(10))[:, None, None]).sum(axis=0).astype(np.int32)
    scale, zero = RNG.uniform(0.1, 1, (2, 12, 1)).astype(np.float16)
    said = {"nbits": 3, "group_size": 32, "axis": 1}
    tensors: dict[str, tuple[str, np.ndarray[Any, Any]]] = {
        "a.W_q": (dtype, words if dtype == "I32" else words.view(np.float16)),
        "a.scale": ("F16", scale),
        "a.zero": ("F16", zero),
        "a.shape": ("I64", np.array([6, 64])),
        **{f"a.{key}": ("I32", np.array(value, np.int32)) for key, value in said.items()},
    }
    found = read(checkpoint_of(tmp_path, tensors, {"quant_method": "hqq"}))
    exact = (codes - zero.astype(np.float64)) * scale
    assert np.array_equal(found["a.weight"], exact.reshape(6, 64).astype(np.float32))


def _modelopt(folder: Path, tensors: Arrays, **said: str) -> np.ndarray[Any, Any]:
    return read(checkpoint_of(folder, tensors, {"quant_method": "modelopt", **said}))["a.weight"]


def test_modelopts_tiles_of_8_bit_floats(tmp_path: Path) -> None:
    """Scales have an axis of one for the rows and the columns of a tile (fp8_pb_wo)."""
    codes = RNG.integers(0, 0x7E, (256, 384), dtype=np.uint8)
    scales = RNG.uniform(0.5, 1, (2, 1, 3, 1)).astype(np.float32)
    found = _modelopt(tmp_path, {"a.weight": ("F8_E4M3", codes), "a.weight_scale": ("F32", scales)})
    wide = scales[np.arange(256)[:, None] // 128, 0, np.arange(384) // 128, 0]
    assert np.array_equal(found, np.asarray(DTYPES["F8_E4M3"].table)[codes] * wide)


@pytest.mark.parametrize("kind", ["MXFP4", "NVFP4", "NVFP4 of 32"])
def test_modelopts_4_bit_floats(kind: str, tmp_path: Path) -> None:
    run, dtype = 16 if kind == "NVFP4" else 32, "U8" if kind == "MXFP4" else "F8_E4M3"
    fields, octets = RNG.integers(0, 16, (6, 128), dtype=np.uint8), RNG.integers(100, 126, (6, 128 // run), np.uint8)
    tensors: dict[str, tuple[str, np.ndarray[Any, Any]]] = {
        "a.weight": ("U8", fields[:, 0::2] | fields[:, 1::2] << 4),
        "a.weight_scale": (dtype, octets),
    }
    steps = np.asarray(DTYPES["F8_E8M0" if kind == "MXFP4" else "F8_E4M3"].table)[octets].astype(np.float64)
    if kind != "MXFP4":
        tensors["a.weight_scale_2"] = ("F32", np.array(0.75, np.float32))
        steps *= 0.75
    exact = (E2M1[fields].reshape(6, -1, run) * steps[..., None]).reshape(6, 128)
    said = {"quant_algo": "W4A8_NVFP4_FP8"} if kind == "NVFP4 of 32" else {}
    assert np.array_equal(_modelopt(tmp_path, tensors, **said), exact.astype(np.float32))
    assert _chosen(tmp_path) in ("MXFP4 lossless", "floats dequantized")  # NVFP4 wants a place for its scale


def test_modelopts_8_bits_and_what_scales_inputs(tmp_path: Path) -> None:
    codes, scales = RNG.integers(-128, 128, (4, 64)).astype(np.int8), RNG.uniform(0.5, 1, 4).astype(np.float32)
    before = RNG.uniform(0.5, 2, 64).astype(np.float32)
    tensors: Arrays = {"a.weight": ("I8", codes), "a.weight_scale": ("F32", scales)}
    assert np.array_equal(_modelopt(tmp_path, tensors), codes * scales[:, None])
    tensors = {**tensors, "a.pre_quant_scale": ("F32", before)}
    assert np.array_equal(_modelopt(tmp_path, tensors), codes * scales[:, None] * before)


def _quark(folder: Path, tensors: Arrays, kind: str) -> np.ndarray[Any, Any]:
    scheme = "per_channel" if tensors["a.weight_scale"][1].shape else "per_tensor"
    settings = {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": kind, "qscheme": scheme}}}
    return read(checkpoint_of(folder, tensors, settings))["a.weight"]


@pytest.mark.parametrize(
    ("kind", "dtype", "low", "high", "chosen"),
    [
        ("int2", "I32", -2, 1, "Q4_0 lossless"),
        ("int8", "I8", -128, 127, "Q8_0 lossless"),
        ("uint8", "U8", 0, 255, "floats dequantized"),
    ],
)
def test_quarks_codes_by_groups_lie_along_the_outputs(
    kind: str, dtype: str, low: int, high: int, chosen: str, tmp_path: Path
) -> None:
    stored = {"I32": np.int32, "I8": np.int8, "U8": np.uint8}[dtype]
    codes, zeros = RNG.integers(low, high + 1, (64, 6)).astype(stored), np.zeros((2, 6), stored)
    if kind == "uint8":
        zeros += RNG.integers(100, 140, (2, 6)).astype(stored)
    scales = RNG.uniform(0.5, 1, (2, 6)).astype(np.float16)
    tensors: Arrays = {
        "a.weight": (dtype, codes),
        "a.weight_scale": ("F16", scales),
        "a.weight_zero_point": (dtype, zeros),
    }
    steps = codes.astype(np.float64).reshape(2, 32, 6) - zeros[:, None].astype(np.float64)
    exact = (steps * scales[:, None]).reshape(64, 6).T
    assert np.array_equal(_quark(tmp_path, tensors, kind), exact.astype(np.float32))
    assert _chosen(tmp_path) == chosen


@pytest.mark.parametrize("shape", [(), (4,)])
@pytest.mark.parametrize("kind", ["int3", "int4", "uint8"])
def test_quarks_codes_by_rows_or_beside_one_scale(kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    low, high = {"int3": (-4, 3), "int4": (-8, 7), "uint8": (0, 255)}[kind]
    codes = RNG.integers(low, high + 1, (8, 64))
    scales, zeros = RNG.uniform(0.5, 1, (8,) if shape else ()).astype(np.float32), np.zeros(8, np.int64)
    tensors: dict[str, tuple[str, np.ndarray[Any, Any]]] = {"a.weight_scale": ("F32", scales)}
    if kind == "int4":
        order = np.array([0, 2, 4, 6, 1, 3, 5, 7])
        fields = ((codes & 15).reshape(8, 8, 8)[..., order] << 4 * np.arange(8)).sum(axis=2)
        tensors["a.weight"] = "I32", fields.astype(np.uint32).view(np.int32)
        tensors["a.weight_zero_point"] = "I32", np.zeros((1,) if shape else (), np.int32)
    elif kind == "int3":
        bits = (codes & 7)[..., None] >> np.arange(3) & 1
        tensors["a.weight"] = "U8", np.packbits(bits.reshape(8, -1).astype(np.uint8), axis=1, bitorder="little")
    else:
        zeros = RNG.integers(100, 140, 8) if shape else np.full(8, 130)
        tensors["a.weight"] = "U8", codes.astype(np.uint8)
        tensors["a.weight_zero_point"] = "U8", zeros.astype(np.uint8) if shape else np.array(130, np.uint8)
    exact = (codes - zeros[:, None]) * scales.reshape(-1, 1)
    assert np.array_equal(_quark(tmp_path, tensors, kind), exact.astype(np.float32))


def test_quarks_wider_exponents_of_6_bits_are_refused(tmp_path: Path) -> None:
    tensors: Arrays = {
        "a.weight": ("U8", np.zeros((4, 24), np.uint8)),
        "a.weight_scale": ("U8", np.full((4, 1), 127, np.uint8)),
    }
    assert not _quark(tmp_path, tensors, "fp6_e2m3").any()
    with pytest.raises(CheckpointError, match=r'"a\.weight".*codes of fp6_e3m2 are not read'):
        _quark(tmp_path, tensors, "fp6_e3m2")


def _gptq(module: str, bits: int, group: int) -> dict[str, tuple[str, np.ndarray[Any, Any]]]:
    """Any codes of 64 inputs and 32 outputs."""
    words, groups = 64 * bits // 32, 64 // group
    return {
        f"{module}.qweight": ("I32", RNG.integers(0, 2**31, (words, 32)).astype(np.int32)),
        f"{module}.qzeros": ("I32", np.zeros((groups, bits), np.int32)),
        f"{module}.scales": ("F16", np.ones((groups, 32), np.float16)),
    }


def test_autorounds_own_widths_are_by_name_or_by_pattern(tmp_path: Path) -> None:
    """A pattern is looked for anywhere in a name; the name itself comes first (inference/utils.py)."""
    tensors: Arrays = {
        **_gptq("model.layers.0.mlp.up_proj", 4, 32),
        **_gptq("model.layers.0.mlp.down_proj", 8, 64),
        **_gptq("model.layers.1.mlp.down_proj", 2, 32),
    }
    settings: dict[str, Any] = {
        "quant_method": "auto-round",
        "packing_format": "auto_round:auto_gptq",
        "bits": 4,
        "group_size": 32,
        "extra_config": {"model.layers.1.mlp.down_proj": {"bits": 2}, r".*down_proj": {"bits": 8, "group_size": 64}},
    }
    assert len(read(checkpoint_of(tmp_path, tensors, settings))) == 3
    settings["extra_config"] = {}
    with pytest.raises(CheckpointError, match=r"down_proj.*holds (?:2|8) bits, and the configuration says 4"):
        read(checkpoint_of(tmp_path, tensors, settings))


def test_autorounds_8_bit_floats(tmp_path: Path) -> None:
    codes, scales = RNG.integers(0, 0x7E, (4, 32), dtype=np.uint8), RNG.uniform(0.5, 1, (4, 1)).astype(np.float32)
    tensors: Arrays = {"a.weight": ("F8_E4M3", codes), "a.weight_scale": ("F32", scales)}
    settings = {"quant_method": "auto-round", "packing_format": "auto_round:fp8_static", "data_type": "fp"}
    found = read(checkpoint_of(tmp_path, tensors, settings))
    assert np.array_equal(found["a.weight"], np.asarray(DTYPES["F8_E4M3"].table)[codes] * scales)


@pytest.mark.parametrize(
    "said",
    [
        {"quant_method": "auto-round", "packing_format": "auto_round:llm_compressor_nvfp4_e5m3"},
        {"quant_method": "compressed-tensors", "format": "nvfp4-e5m3-pack-quantized"},
    ],
)
def test_scales_of_another_8_bit_float_are_refused(said: dict[str, Any], tmp_path: Path) -> None:
    """They are bytes, as E4M3's are in some files, and mean other numbers."""
    tensors: Arrays = {
        "a.weight_packed": ("U8", np.zeros((4, 32), np.uint8)),
        "a.weight_scale": ("U8", np.full((4, 4), 0x38, np.uint8)),
        "a.weight_global_scale": ("F32", np.ones(1, np.float32)),
    }
    with pytest.raises(CheckpointError, match="e5m3"):
        read(checkpoint_of(tmp_path, tensors, said))


def test_transformers_metal_is_mlxs_grid_under_other_names(tmp_path: Path) -> None:
    codes = RNG.integers(0, 16, (4, 64)).astype(np.uint32)
    words = (codes.reshape(4, 8, 8) << (4 * np.arange(8, dtype=np.uint32))).sum(axis=2).astype(np.uint32)
    scales, biases = RNG.uniform(-1, 1, (2, 4, 2)).astype(np.float16)
    tensors: Arrays = {"a.weight": ("U32", words), "a.scales": ("F16", scales), "a.qbiases": ("F16", biases)}
    found = read(checkpoint_of(tmp_path, tensors, {"quant_method": "metal", "bits": 4, "group_size": 32}))
    exact = codes.reshape(4, 2, 32) * scales[..., None].astype(np.float64) + biases[..., None]
    assert np.array_equal(found["a.weight"], exact.reshape(4, 64).astype(np.float32))


def test_gemmas_rows_of_2_4_and_8_bits(tmp_path: Path) -> None:
    tensors: dict[str, tuple[str, np.ndarray[Any, Any]]] = {}
    exact = {}
    for name, bits, ends in (("a.q", 2, "weight"), ("a.k", 4, "weight"), ("a.v", 8, "weight"), ("e", 2, "embedding")):
        half = 1 << bits - 1
        codes, scales = RNG.integers(-half, half, (6, 64)), RNG.uniform(0.5, 1, (6, 1)).astype(np.float32)
        fields = (codes + half)[..., None] >> np.arange(bits) & 1
        stored = np.packbits(fields.reshape(6, -1).astype(np.uint8), axis=1, bitorder="little")
        tensors[f"{name}.{'embedding_quantized' if ends == 'embedding' else ends}"] = (
            ("I8", codes.astype(np.int8)) if bits == 8 else ("U8", stored)
        )
        tensors[f"{name}.{ends}_scale"] = "F32", scales
        exact[f"{name}.weight"] = codes.astype(np.float32) * scales
    tensors["a.q.input_activation_scale"] = "F32", np.array(0, np.float32)
    widths = {"q$": {"num_bits": 2}, "^e": {"num_bits": 2}}
    settings = {"quant_method": "gemma", "num_bits": 4, "module_quant_configs": widths}
    found = read(checkpoint_of(tmp_path, tensors, settings))
    assert found.keys() == exact.keys()
    assert all(np.array_equal(found[name], values) for name, values in exact.items())


def test_codes_of_an_unknown_method_are_no_plain_weights(tmp_path: Path) -> None:
    tensors: Arrays = {"a.weight": ("U8", np.zeros((4, 32), np.uint8)), "a.steps": ("F16", np.ones(4, np.float16))}
    with pytest.raises(CheckpointError, match=r"quantized by newest \(as 'a\.weight' shows\), which is not read"):
        read(checkpoint_of(tmp_path, tensors, {"quant_method": "newest"}))


@pytest.mark.parametrize(
    "said",
    [
        {"quant_method": "gptq", "rotation": "hadamard"},
        {"quant_method": "gptq", "meta": {"rotation": "random"}},
        {"quant_method": "auto-round", "packing_format": "auto_round:llm_compressor", "rotation_config": {"a": 1}},
        {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "spinquant_config": {"r4": True}},
        {"quant_method": "quark", "algo_config": [{"name": "rotation", "r1": True, "r4": True}]},
        {"quant_method": "quark", "algo_config": [{"name": "rotation", "r4": False, "online_r1_rotation": True}]},
    ],
)
def test_rotated_inputs_are_refused(said: dict[str, Any], tmp_path: Path) -> None:
    """GPTQModel's rotation turns the inputs of down_proj while the model runs (models/loader.py); others say which."""
    tensors: Arrays = _gptq("model.layers.0.mlp.down_proj", 4, 32)
    with pytest.raises(CheckpointError, match=r"(rotation|_config) asks for rotations while the model runs"):
        read(checkpoint_of(tmp_path, tensors, {"bits": 4, "group_size": 32, **said}))


def test_rotations_of_weights_alone_need_nothing(tmp_path: Path) -> None:
    tensors: Arrays = {"a.weight": ("I8", np.ones((4, 32), np.int8)), "a.weight_scale": ("F32", np.ones(4, np.float32))}
    step = {"name": "rotation", "r1": True, "r2": True, "r3": True, "r4": False, "online_r1_rotation": False}
    settings = {
        "quant_method": "quark",
        "algo_config": [step, {"name": "gptq"}],
        "global_quant_config": {"weight": {"dtype": "int8"}},
    }
    assert (read(checkpoint_of(tmp_path, tensors, settings))["a.weight"] == 1).all()


def test_scales_that_divide_are_refused(tmp_path: Path) -> None:
    """GPTQModel's, under the name of those that multiply."""
    tensors: Arrays = {
        "a.weight": ("F8_E4M3", np.full((4, 32), 0x38, np.uint8)),
        "a.weight_scale_inv": ("F32", np.full(4, 2, np.float32)),
    }
    assert (read(checkpoint_of(tmp_path, tensors, {"quant_method": "fp8"}))["a.weight"] == 2).all()
    for said in ({"weight_scale_semantics": "inverse"}, {"meta": {"weight_scale_semantics": "inverse"}}):
        with pytest.raises(CheckpointError, match=r'"a\.weight_scale_inv".*divides'):
            read(checkpoint_of(tmp_path, tensors, {"quant_method": "fp8", **said}))
