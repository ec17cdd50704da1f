"""Every kernel once on little data at odd addresses, in memory that ends where the data end: for compute-sanitizer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import gguf_forge
from gguf_forge.types import TensorType
from tests.cuda.card import RESULTS, Card, product_types, types

Items = dict[str, Callable[[], dict[str, Any]]]
TILE = 8192


def items(_: str, card: Card) -> Items:
    """All kernels, an item each."""
    found: Items = {}
    for t in types("decoded"):
        found |= {f"decode {t} {dtype}": partial(decode, card, t, dtype) for dtype in RESULTS}
    for t in types("encoded"):
        found |= {f"encode {t} {how}": partial(encode, card, t, how) for how in card.hows(t)}
    for t in product_types(card):
        for dtype in ("float32", "float16"):
            found |= {f"product {t} {dtype} {n}": partial(product, card, t, dtype, n) for n in (1, 3, 4, 5)}
    return found


def decode(card: Card, kind: TensorType, dtype: str) -> dict[str, Any]:
    """A tile and a bit, from an odd address, to one that is no boundary of 16 bytes."""
    count, size = TILE // kind.block_size + 3, 4 if dtype == "float32" else 2
    for before, past in ((0, 0), (3, 1)):
        blocks = card.memory(before + count * kind.block_bytes)
        card.send(card.noise(blocks.size)[before:], blocks.address + before)
        out = card.memory(size * (past + count * kind.block_size))
        start = card.decoder(
            kind, RESULTS[dtype], blocks.address + before, out.address + size * past, count * kind.block_size
        )
        start()
        card.stream.wait()
    return {}


def encode(card: Card, kind: TensorType, how: str) -> dict[str, Any]:
    """Rows of which blocks do not fill a CTA, to an odd address."""
    rows, width = 3, 11 * max(kind.block_size, 32)
    x = card.placed(card.values(rows, width))
    weights, squares = card.placed(card.weights(width)), card.memory(4 * rows)
    out, key = card.memory(rows * kind.row_bytes(width)), card.key()
    places = (x.address, weights.address if how == "with" else 0, squares.address, out.address)
    card.encoder(kind, places, (rows, width), key.address)()
    return {"equal": not card.refused(key)}


def product(card: Card, kind: TensorType, dtype: str, vectors: int) -> dict[str, Any]:
    """An odd number of rows."""
    rows, width = 9, 7 * 256
    matrix = card.placed(gguf_forge.quantize(card.values(rows, width), kind))
    x = card.placed(card.rng.standard_normal((vectors, width), np.float32).astype(dtype))
    y = card.memory(4 * rows * vectors)
    card.product(kind, dtype, (rows, width, vectors), (matrix.address, x.address, y.address))()
    card.stream.wait()
    return {}
