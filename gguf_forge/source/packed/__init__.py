"""Checkpoints quantized by other tools: their tensors under the names of the plain ones, in one form (form.py).

One module a format; this one knows which are a checkpoint's. Must not know model families, nor GGUF's choices.
"""

from __future__ import annotations

from gguf_forge.source.packed.find import unpacked
from gguf_forge.source.packed.form import AnyTensor, Blocks, Grid, PackedTensor, Part

__all__ = ["AnyTensor", "Blocks", "Grid", "PackedTensor", "Part", "unpacked"]
