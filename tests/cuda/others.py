"""Arrays given to torch and CuPy and taken from them without a copy, each library in a worker of its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

import gguf_forge
from gguf_forge import cuda
from tests.cuda.compare import floats

Items = dict[str, Callable[[], dict[str, Any]]]


def items(what: str, device: int, _: bool) -> Items:
    """The one library, if it is installed."""
    return {what: lambda: _tried(what, device)}


def _tried(what: str, device: int) -> dict[str, Any]:
    if importlib.util.find_spec(what) is None:
        return {"missing": f"{what} is not installed"}
    x = np.random.default_rng(2).standard_normal((64, 512)).astype(np.float32)
    blocks = gguf_forge.quantize(x, "Q4_K")
    return {"torch": _torch, "cupy": _cupy}[what](device, x, blocks, gguf_forge.dequantize(blocks, "Q4_K"))


def _torch(device: int, x: Any, blocks: Any, wanted: Any) -> dict[str, Any]:
    import torch

    if torch.version.cuda is None:
        return {"missing": f"torch {torch.__version__} is one without CUDA"}
    where = f"cuda:{device}"
    stream = torch.cuda.Stream(where)
    with torch.cuda.stream(stream):
        given = torch.from_numpy(x).to(where, non_blocking=True) + 0
        made = cuda.quantize(given, "Q4_K", stream=stream)
    ours = torch.from_dlpack(cuda.dequantize(torch.from_dlpack(made), "Q4_K"))
    half = given.to(torch.bfloat16)
    bits = cuda.quantize(half, "BF16").numpy().reshape(-1).view(np.uint16)
    return {
        "version": torch.__version__,
        "equal": bool(
            (made.numpy() == blocks).all()
            and not floats(ours.cpu().numpy(), wanted, "float32").size
            and (half.view(torch.int16).cpu().numpy().reshape(-1).view(np.uint16) == bits).all()
        ),
    }


def _cupy(device: int, x: Any, blocks: Any, wanted: Any) -> dict[str, Any]:
    import cupy

    with cupy.cuda.Device(device):
        given = cupy.asarray(x) + 0
        made = cuda.quantize(given, "Q4_K", stream=cupy.cuda.get_current_stream())
        ours = cupy.asarray(cuda.dequantize(cupy.asarray(made), "Q4_K"))
        right = (made.numpy() == blocks).all() and not floats(cupy.asnumpy(ours), wanted, "float32").size
    return {"version": cupy.__version__, "equal": bool(right)}
