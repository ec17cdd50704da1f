"""Checkpoints without config.json, of families that tell their own by names and shapes of tensors alone.

Must not know single families: each says in its table (`Arch.configure`) what its checkpoints' configuration would be.
"""

from __future__ import annotations

from gguf_forge.convert.registry import architectures
from gguf_forge.source.checkpoint import Checkpoint


def supply_config(checkpoint: Checkpoint) -> None:
    """Gives a checkpoint that has no config.json the one that its family makes of its tensors, if one knows them."""
    if checkpoint.native or checkpoint.read_json("config.json") is not None:
        return
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}
    for arch in architectures():
        made = None if arch.configure is None else arch.configure(shapes)
        if made is not None:
            checkpoint.config = made
            return
