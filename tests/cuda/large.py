"""A tensor of more than 2^32 weights, decoded: indices and offsets of 64 bits, and a grid of all of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import gguf_forge
from gguf_forge.types import TENSOR_TYPES, TensorType
from tests.cuda.card import Card
from tests.cuda.compare import Difference, float_pieces

KINDS = ("Q4_K", "Q8_0")
#: Weights that are made; the tensor repeats them.
BASE = 1 << 24


def items(_: str, card: Card) -> dict[str, Callable[[], dict[str, Any]]]:
    """Some types, to float16."""
    return {name: partial(decode, card, TENSOR_TYPES[name]) for name in KINDS}


def decode(card: Card, kind: TensorType) -> dict[str, Any]:
    """Whether all of it is what the core makes."""
    elements = card.sizes.large // kind.block_size * kind.block_size
    base = min(BASE, elements // 4096 * 4096)  # of which a piece is a multiple
    assert card.sizes.piece // 2 % base == 0
    nbytes = elements // kind.block_size * kind.block_bytes
    if nbytes + 2 * elements > card.context.free():
        return {"missing": "the device has too little memory"}
    data = card.noise(base // kind.block_size * kind.block_bytes)
    made = gguf_forge.dequantize(data.reshape(base // 4096, -1), kind, "float16")
    wanted = np.resize(made, card.sizes.piece // 2)
    blocks, out = card.memory(nbytes), card.memory(2 * elements)
    card.send(data, blocks.address)
    card.repeat(blocks.address, data.size, nbytes)
    card.decoder(kind, "f16", blocks.address, out.address, elements)()
    difference = Difference()
    for at, piece in card.pieces(out.address, 2 * elements):
        found = piece.view(np.float16)
        float_pieces(found, wanted[: found.size], "float16", at // 2, difference)
    return {"elements": elements, **difference.told()}
