"""Checkpoints as named tensors that are read in runs of rows. Knows containers; must not know architectures."""

from gguf_forge.source.checkpoint import Checkpoint, open_checkpoint
from gguf_forge.source.tensor import SourceTensor

__all__ = ["Checkpoint", "SourceTensor", "open_checkpoint"]
