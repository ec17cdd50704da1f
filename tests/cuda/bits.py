"""Every type both ways on a million weights by the package's own functions, twice, over memory that was poisoned."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gguf_forge
from gguf_forge import cuda
from gguf_forge.types import TensorType
from tests.cuda.card import RESULTS, Card, product_types, types
from tests.cuda.compare import Difference, blocks, floats
from tests.cuda.products import Exact
from tests.cuda.rates import twice

Items = dict[str, Callable[[], dict[str, Any]]]


def items(_: str, card: Card) -> Items:
    """All types: decoders, encoders, products."""
    found: Items = {f"decode {t} {d}": partial(decode, card, t, d) for t in types("decoded") for d in RESULTS}
    found |= {f"encode {t} {how}": partial(encode, card, t, how) for t in types("encoded") for how in card.hows(t)}
    pairs = [(t, dtype) for t in product_types(card) for dtype in ("float32", "float16")]
    found |= {f"product {t} {dtype}": partial(product, card, t, dtype) for t, dtype in pairs}
    return found


def decode(card: Card, kind: TensorType, dtype: str) -> dict[str, Any]:
    """From the host's memory and from the device's."""
    rows, width = card.sizes.bits
    data = card.noise(rows * kind.row_bytes(width)).reshape(rows, -1)
    wanted = gguf_forge.dequantize(data, kind, dtype)
    made = cuda.DeviceArray(card.device, (rows, width), dtype)
    found = []
    for source in (data, cuda.upload(data, device=card.device)):
        card.poison(made.address, made.nbytes)
        card.stream.wait()
        cuda.dequantize(source, kind, dtype, device=card.device, out=made)
        found.append(_told(wanted.size, floats(made.numpy(), wanted, dtype)))
    return twice(found)


def encode(card: Card, kind: TensorType, how: str) -> dict[str, Any]:
    """From the host's memory and from the device's."""
    rows, width = card.sizes.bits
    x, given = card.values(rows, width), card.weights(width) if how == "with" else None
    wanted = gguf_forge.quantize(x, kind, given)
    made = cuda.DeviceArray(card.device, wanted.shape, "uint8")
    found = []
    for source in (x, cuda.upload(x, device=card.device)):
        card.poison(made.address, made.nbytes)
        card.stream.wait()
        cuda.quantize(source, kind, given, device=card.device, out=made)
        found.append(_told(x.size // kind.block_size, blocks(made.numpy(), wanted, kind.block_bytes)))
    return twice(found)


def product(card: Card, kind: TensorType, dtype: str) -> dict[str, Any]:
    """An odd number of rows by one vector and by some; twice the same, and within rounding of float64."""
    rows, width = card.sizes.bits
    matrix = gguf_forge.quantize(card.values(rows, width), kind)
    there = cuda.upload(matrix, device=card.device)
    exact = Exact(gguf_forge.dequantize(matrix, kind))
    right = same = True
    for vectors in (1, 3, 4, 5):
        x = card.rng.standard_normal((vectors, width), np.float32).astype(dtype)
        made = cuda.DeviceArray(card.device, (vectors, rows), "float32")
        results: list[NDArray[Any]] = []
        for _ in range(2):
            card.poison(made.address, made.nbytes)
            card.stream.wait()
            results.append(cuda.matvec(there, x, kind, device=card.device, out=made).numpy())
        same &= results[0].tobytes() == results[1].tobytes()
        right &= exact.near(results[0], x)
    return {"equal": same and right, "right": right, "again": "the same" if same else "another"}


def _told(size: int, where: NDArray[np.int64]) -> Difference:
    difference = Difference()
    difference.add(size, where)
    return difference
