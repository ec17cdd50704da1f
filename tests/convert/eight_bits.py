"""Models of fixtures/ with 8-bit floats for weights, as transformers' FP8 and compressed-tensors store them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from gguf_forge.convert.origin import source_view
from gguf_forge.convert.view import widen
from gguf_forge.source.checkpoint import open_checkpoint
from gguf_forge.source.dtypes import DTYPES
from tests.source.containers import entry, safetensors_bytes

_TABLE = np.asarray(DTYPES["F8_E4M3"].table, np.float32)[:127]
_HALFWAY = (_TABLE[1:] + _TABLE[:-1]) / 2
_COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True},
        }
    },
}


def store_in_fp8(model: Path, folder: Path, *, by_row: bool = False) -> Path:
    """The model with 8-bit floats for the matrices of its layers: beside one scale each, or, as compressed-tensors, one
    for each row.
    """
    shutil.copytree(model, folder)
    header: dict[str, Any] = {}
    data = b""

    def put(name: str, dtype: str, values: np.ndarray[Any, Any]) -> None:
        nonlocal data
        header[name] = entry(dtype, list(values.shape), [len(data), len(data) + values.nbytes])
        data += np.ascontiguousarray(values).tobytes()

    with open_checkpoint(model / "model.safetensors") as checkpoint:
        for name, tensor in checkpoint.tensors.items():
            view = source_view(tensor)
            values = np.asarray(widen(view.read(), view.type), np.float32)
            if values.ndim < 2 or ".layers." not in name or name.endswith(".gate.weight"):
                put(name, "F32", values)
                continue
            scales = np.abs(values).max(axis=1, keepdims=True) if by_row else np.abs(values).max()
            scales = np.asarray(scales / np.float32(448), np.float32)
            codes = np.searchsorted(_HALFWAY, np.abs(values / scales)).astype(np.uint8)
            put(name, "F8_E4M3", codes | np.signbit(values).astype(np.uint8) << np.uint8(7))
            put(f"{name}_scale", "F32", scales.reshape(-1, 1) if by_row else scales.reshape(1))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(safetensors_bytes(header, data))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = _COMPRESSED if by_row else {"quant_method": "fp8"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
