"""Checkpoints that do not tell by config.json what they are, but by their tensors or by files beside them.

Must not know single families: each says in its table (`Arch.configure`) what its checkpoints' configuration would be.
"""

from __future__ import annotations

from gguf_forge.convert.registry import architectures
from gguf_forge.source.checkpoint import Checkpoint


def supply_config(checkpoint: Checkpoint) -> None:
    """Gives a checkpoint the configuration that a family makes of it, if one knows it for its own."""
    if checkpoint.native:
        return
    for arch in architectures():
        made = None if arch.configure is None else arch.configure(checkpoint)
        if made is not None:
            checkpoint.config = made
            return
