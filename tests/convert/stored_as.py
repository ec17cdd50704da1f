"""The trained model of fixtures/ as other tools store it: a small writer for each way of quantizing its projections.

Codes are rounded to the nearest, by the largest weight of a group or by both ends of its span; what is written is each
format's published layout (named in `gguf_forge.source.packed`), not any tool's search for better codes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gguf_forge.source.checkpoint import open_checkpoint
from gguf_forge.source.dtypes import DTYPES
from tests.source.containers import entry, safetensors_bytes

MODEL = Path(__file__).resolve().parents[2] / "fixtures/models/PyLlama-7M"
Array = np.ndarray[Any, Any]
Tensors = dict[str, tuple[str, Array]]
#: From a module's name and its weight, float32 (out, in), to the tensors that stand for it.
Write = Callable[[str, Array], Tensors]

E4M3 = np.asarray(DTYPES["F8_E4M3"].table)
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
#: NF4's values, as bitsandbytes has them (functional.py).
NF4 = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)


@dataclass(frozen=True)
class Form:
    """A way of storing projections: the tensors of one, and what config.json says."""

    write: Write
    config: Mapping[str, Any] = field(default_factory=dict)


def symmetric(values: Array, group: int, bits: int = 4) -> tuple[Array, Array]:
    """Codes (out, in), from -2^(bits-1), and scales (out, groups), float16."""
    groups = values.reshape(len(values), -1, group)
    scales = (np.abs(groups).max(axis=2) / ((1 << bits - 1) - 1)).astype(np.float16)
    steps = np.where(scales == 0, np.float16(1), scales).astype(np.float32)[..., None]
    half = 1 << bits - 1
    return np.clip(np.rint(groups / steps), -half, half - 1).astype(np.int64).reshape(values.shape), scales


def asymmetric(values: Array, group: int, bits: int = 4) -> tuple[Array, Array, Array]:
    """Codes (out, in) from 0, scales float16 and whole zeros (out, groups)."""
    groups = values.reshape(len(values), -1, group)
    low, high = np.minimum(groups.min(axis=2), 0), np.maximum(groups.max(axis=2), 0)
    most = (1 << bits) - 1
    scales = ((high - low) / most).astype(np.float16)
    steps = np.where(scales == 0, np.float16(1), scales).astype(np.float32)
    zeros = np.clip(np.rint(-low / steps), 0, most)
    codes = np.clip(np.rint(groups / steps[..., None]) + zeros[..., None], 0, most)
    return codes.astype(np.int64).reshape(values.shape), scales, zeros.astype(np.int64)


def words(codes: Array, bits: int) -> Array:
    """Codes along the last axis in words of 32 bits, the first lowest (of widths that divide 32)."""
    fields = codes.reshape(*codes.shape[:-1], -1, 32 // bits).astype(np.uint64)
    shifts = np.arange(32 // bits, dtype=np.uint64) * np.uint64(bits)
    return np.asarray((fields << shifts).sum(axis=-1), np.uint32)


Order = Callable[[str, int], Array]


def gptq(bits: int = 4, group: int = 32, *, asym: bool = False, order: Order | None = None) -> Form:
    """GPTQ's first layout; `order` gives each input's group (act-order)."""

    def write(module: str, values: Array) -> Tensors:
        inputs = values.shape[1]
        index = np.arange(inputs) // group if order is None else order(module, inputs)
        columns = np.argsort(index, kind="stable")
        moved = values[:, columns]
        if asym:
            codes, scales, zeros = asymmetric(moved, group, bits)
        else:
            codes, scales = symmetric(moved, group, bits)
            codes, zeros = codes + (1 << bits - 1), np.full(scales.shape, 1 << bits - 1)
        codes = codes[:, np.argsort(columns)]
        return {
            f"{module}.qweight": ("I32", np.ascontiguousarray(words(codes, bits).T)),
            f"{module}.qzeros": ("I32", words((zeros.T - 1) & ((1 << bits) - 1), bits)),
            f"{module}.scales": ("F16", np.ascontiguousarray(scales.T)),
            f"{module}.g_idx": ("I32", index.astype(np.int32)),
        }

    said = {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": not asym, "desc_act": order is not None}
    return Form(write, {"quantization_config": said})


def awq(group: int = 32) -> Form:
    """AutoAWQ's layout gemm."""

    def write(module: str, values: Array) -> Tensors:
        codes, scales, zeros = asymmetric(values, group)
        place = np.array([0, 2, 4, 6, 1, 3, 5, 7])

        def packed(fields: Array) -> Array:
            return words(fields.reshape(*fields.shape[:-1], -1, 8)[..., place].reshape(fields.shape), 4)

        return {
            f"{module}.qweight": ("I32", packed(np.ascontiguousarray(codes.T))),
            f"{module}.qzeros": ("I32", packed(np.ascontiguousarray(zeros.T))),
            f"{module}.scales": ("F16", np.ascontiguousarray(scales.T)),
        }

    said = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}
    return Form(write, {"quantization_config": said})


def _compressed(write: Write, layout: str, **scheme: Any) -> Form:
    groups = {"group_0": {"targets": ["Linear"], "weights": scheme}}
    said = {"quant_method": "compressed-tensors", "format": layout, "config_groups": groups}
    return Form(write, {"quantization_config": said})


def compressed_int4(group: int = 32) -> Form:
    """compressed-tensors, pack-quantized."""

    def write(module: str, values: Array) -> Tensors:
        codes, scales = symmetric(values, group)
        return {
            f"{module}.weight_packed": ("I32", words(codes + 8, 4)),
            f"{module}.weight_scale": ("F16", scales),
            f"{module}.weight_shape": ("I64", np.array(values.shape)),
        }

    return _compressed(write, "pack-quantized", num_bits=4, type="int", symmetric=True, group_size=group)


def nearest(values: Array, table: Array) -> Array:
    """Of each value the number of the nearest in a table that rises."""
    middles = (table[1:] + table[:-1]) / 2
    return np.searchsorted(middles, values)


def e4m3(values: Array) -> Array:
    """The nearest 8-bit float, as its bits."""
    return (nearest(np.abs(values), E4M3[:127].astype(np.float64)) | np.where(values < 0, 128, 0)).astype(np.uint8)


def e2m1(values: Array) -> Array:
    """The nearest 4-bit float, as its bits, two to a byte."""
    codes = (nearest(np.abs(values), E2M1) | np.where(values < 0, 8, 0)).astype(np.uint8)
    return codes[..., 0::2] | codes[..., 1::2] << 4


def compressed_fp8() -> Form:
    """compressed-tensors, 8-bit floats beside a scale of the whole tensor."""

    def write(module: str, values: Array) -> Tensors:
        scale = np.float32(np.abs(values).max() / 448)
        return {
            f"{module}.weight": ("F8_E4M3", e4m3(values / scale)),
            f"{module}.weight_scale": ("F32", np.array([scale])),
        }

    return _compressed(write, "float-quantized", num_bits=8, type="float", symmetric=True, strategy="tensor")


def compressed_nvfp4() -> Form:
    """compressed-tensors, NVFP4."""

    def write(module: str, values: Array) -> Tensors:
        groups = values.reshape(len(values), -1, 16)
        whole = np.float32(448 * 6 / np.abs(values).max())
        scales = e4m3(np.abs(groups).max(axis=2) / 6 * whole)
        steps = E4M3[scales][..., None] / whole
        codes = e2m1(np.divide(groups, steps, out=np.zeros_like(groups), where=steps > 0).reshape(values.shape))
        return {
            f"{module}.weight_packed": ("U8", codes),
            f"{module}.weight_scale": ("F8_E4M3", scales),
            f"{module}.weight_global_scale": ("F32", np.array([whole])),
        }

    return _compressed(write, "nvfp4-pack-quantized", num_bits=4, type="float", symmetric=True, group_size=16)


def compressed_mxfp4() -> Form:
    """compressed-tensors, MXFP4."""

    def write(module: str, values: Array) -> Tensors:
        groups = values.reshape(len(values), -1, 32)
        most = np.abs(groups).max(axis=2)
        exponents = np.floor(np.log2(np.where(most == 0, 1, most))).astype(np.int64) - 2
        codes = e2m1((groups / np.exp2(exponents)[..., None]).reshape(values.shape))
        scales = (exponents + 127).astype(np.uint8)
        return {f"{module}.weight_packed": ("U8", codes), f"{module}.weight_scale": ("U8", scales)}

    return _compressed(write, "mxfp4-pack-quantized", num_bits=4, type="float", symmetric=True, group_size=32)


def mlx(group: int = 64) -> Form:
    """MLX, 4 bits, affine."""

    def write(module: str, values: Array) -> Tensors:
        groups = values.reshape(len(values), -1, group)
        low, high = groups.min(axis=2), groups.max(axis=2)
        scales, biases = ((high - low) / 15).astype(np.float16), low.astype(np.float16)
        steps = np.where(scales == 0, np.float16(1), scales).astype(np.float32)[..., None]
        codes = np.clip(np.rint((groups - biases[..., None].astype(np.float32)) / steps), 0, 15).astype(np.int64)
        return {
            f"{module}.weight": ("U32", words(codes.reshape(values.shape), 4)),
            f"{module}.scales": ("F16", scales),
            f"{module}.biases": ("F16", biases),
        }

    return Form(write, {"quantization": {"group_size": group, "bits": 4}})


def hqq_parts(values: Array, group: int = 64) -> tuple[Array, Array, Array]:
    """Of HQQ with 4 bits along the inputs: W_q, scale and zero, float16, a row of them for each group."""
    groups = values.reshape(-1, group)
    low, high = groups.min(axis=1, keepdims=True), groups.max(axis=1, keepdims=True)
    scale = ((high - low) / 15).astype(np.float16)
    steps = np.where(scale == 0, np.float16(1), scale).astype(np.float32)
    zero = (-low / steps).astype(np.float16)
    codes = np.clip(np.rint(groups / steps + zero.astype(np.float32)), 0, 15).astype(np.uint8)
    return codes[: len(codes) // 2] << 4 | codes[len(codes) // 2 :], scale, zero


def hqq(group: int = 64) -> Form:
    """HQQ as transformers writes it."""

    def write(module: str, values: Array) -> Tensors:
        codes, scale, zero = hqq_parts(values, group)
        said = {"nbits": 4, "group_size": group, "axis": 1}
        return {
            f"{module}.W_q": ("U8", codes),
            f"{module}.scale": ("F16", scale),
            f"{module}.zero": ("F16", zero),
            f"{module}.shape": ("I64", np.array(values.shape)),
            **{f"{module}.{key}": ("I32", np.array(value, np.int32)) for key, value in said.items()},
        }

    params = {"nbits": 4, "group_size": group, "axis": 1}
    said = {"quant_method": "hqq", "quant_config": {"weight_quant_params": params}}
    return Form(write, {"quantization_config": said})


def nf4(block: int = 64) -> Form:
    """bitsandbytes, NF4 with one layer of scales."""

    def write(module: str, values: Array) -> Tensors:
        blocks = values.reshape(-1, block)
        absmax = np.abs(blocks).max(axis=1)
        steps = np.where(absmax == 0, 1, absmax)[:, None]
        codes = nearest(blocks / steps, NF4).astype(np.uint8).reshape(-1)
        state = {"quant_type": "nf4", "blocksize": block, "dtype": "bfloat16", "shape": list(values.shape)}
        return {
            f"{module}.weight": ("U8", (codes[0::2] << 4 | codes[1::2])[:, None]),
            f"{module}.weight.absmax": ("F32", absmax),
            f"{module}.weight.quant_map": ("F32", NF4),
            f"{module}.weight.quant_state.bitsandbytes__nf4": ("U8", np.frombuffer(json.dumps(state).encode(), "u1")),
        }

    said = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    return Form(write, {"quantization_config": said})


#: Ways of storing the trained model, by what they are called in tables.
FORMS: dict[str, Form] = {
    "GPTQ, 4 bits, symmetric, groups of 32": gptq(),
    "GPTQ, 4 bits, asymmetric, groups of 32": gptq(asym=True),
    "AWQ (gemm), groups of 32": awq(),
    "compressed-tensors, 4 bits, groups of 32": compressed_int4(),
    "compressed-tensors, FP8": compressed_fp8(),
    "compressed-tensors, NVFP4": compressed_nvfp4(),
    "compressed-tensors, MXFP4": compressed_mxfp4(),
    "MLX, 4 bits, groups of 64": mlx(),
    "HQQ, 4 bits, groups of 64": hqq(),
    "bitsandbytes, NF4": nf4(),
}


def store(folder: Path, form: Form, model: Path = MODEL, *, quantized: str = "_proj.weight") -> Path:
    """A copy of a model in which the matrices whose names end so are stored in this form."""
    folder.mkdir(parents=True)
    for path in model.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, folder / path.name)
    tensors: Tensors = {}
    with open_checkpoint(model) as checkpoint:
        for name, tensor in checkpoint.tensors.items():
            values = np.asarray(tensor.read())
            if not name.endswith(quantized):
                tensors[name] = tensor.dtype, values
                continue
            wide = (values.astype(np.uint32) << 16).view(np.float32) if tensor.dtype == "BF16" else values
            tensors |= form.write(name.removesuffix(".weight"), np.asarray(wide, np.float32))
    save(folder / "model.safetensors", tensors)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | dict(form.config)))
    return folder


def save(path: Path, tensors: Tensors) -> None:
    """A safetensors file of these tensors, each under its element type's name there."""
    header: dict[str, Any] = {}
    data = b""
    for name, (dtype, values) in tensors.items():
        header[name] = entry(dtype, list(values.shape), [len(data), len(data) + values.nbytes])
        data += np.ascontiguousarray(values).tobytes()
    path.write_bytes(safetensors_bytes(header, data))
