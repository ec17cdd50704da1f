"""GGUF Forge: make, read, check and change .gguf files."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gguf_forge.convert.files import Planned as Planned
    from gguf_forge.convert.files import convert_checkpoint as convert_checkpoint
    from gguf_forge.convert.files import quantize_file as quantize_file
    from gguf_forge.convert.job import Quantization as Quantization
    from gguf_forge.errors import ForgeError as ForgeError
    from gguf_forge.format.layout import ValueType as ValueType
    from gguf_forge.format.writer import GGUFWriter as GGUFWriter
    from gguf_forge.opening import open as open  # noqa: A004 - the public name
    from gguf_forge.quant.codec import dequantize as dequantize
    from gguf_forge.quant.codec import quantize as quantize
    from gguf_forge.quant.imatrix import load_imatrix as load_imatrix
    from gguf_forge.quant.roundtrip import RoundTrip as RoundTrip
    from gguf_forge.quant.roundtrip import roundtrip as roundtrip
    from gguf_forge.types import TENSOR_TYPES as TENSOR_TYPES

#: Public name -> the module that defines it, imported when the name is first used. All else may move.
_PUBLIC = {
    "ForgeError": "gguf_forge.errors",
    "GGUFWriter": "gguf_forge.format.writer",
    "Planned": "gguf_forge.convert.files",
    "Quantization": "gguf_forge.convert.job",
    "RoundTrip": "gguf_forge.quant.roundtrip",
    "TENSOR_TYPES": "gguf_forge.types",
    "ValueType": "gguf_forge.format.layout",
    "convert_checkpoint": "gguf_forge.convert.files",
    "dequantize": "gguf_forge.quant.codec",
    "load_imatrix": "gguf_forge.quant.imatrix",
    "open": "gguf_forge.opening",
    "quantize": "gguf_forge.quant.codec",
    "quantize_file": "gguf_forge.convert.files",
    "roundtrip": "gguf_forge.quant.roundtrip",
}


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'gguf_forge' has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
