"""Rows of weights that another tool quantized, as blocks of the type that was chosen for them.

Knows the parts of a stored form and what a type takes (quant.exact); must not know why the type was chosen.
"""

from __future__ import annotations

import numpy as np

from gguf_forge.convert.imported.choice import Choice
from gguf_forge.convert.view import F16, Array, View
from gguf_forge.quant.exact import blocks


def pack(view: View, choice: Choice | None, start: int, stop: int) -> Array:
    """Rows of blocks of the type chosen, uint8; floats of stored F16 as float16."""
    stored = view.stored
    assert stored is not None
    parts = [part.rows(start, stop) for part in stored.parts]
    if choice is None:
        return parts[0].view(np.float16) if stored.parts[0].type is F16 else parts[0]
    codes, scales, *rest = parts
    offsets = rest[0] if rest else None
    home = choice.home
    given: Array | None = None
    zeros: Array | None = None
    packed = stored.low if stored.packed else None
    if home.offset and packed is not None:  # such types count codes from zero, as packed ones are counted
        packed = 0
    elif home.offset and stored.low:
        codes = (codes.astype(np.int16) - np.int16(stored.low)).astype(np.uint8)
    if home.offset == "minimum":
        assert offsets is not None
        if stored.offset == "zeros":
            offsets = (stored.low - offsets.astype(np.float64)) * scales.astype(np.float64)
        elif stored.low:
            offsets = offsets.astype(np.float64) + stored.low * scales.astype(np.float64)
        given = offsets.astype(np.float16)
    elif home.offset == "steps":
        steps = np.zeros(scales.shape, np.int16) if offsets is None else offsets.astype(np.int16)
        given = steps - np.int16(stored.low)
    else:
        zeros = offsets
    if choice.wholes:
        scales = np.ones_like(scales)
    halves = (-scales if choice.flipped else scales).astype(np.float16, copy=False)
    return blocks(home, codes, halves, given, zeros=zeros, flip=choice.flipped, packed=packed)
