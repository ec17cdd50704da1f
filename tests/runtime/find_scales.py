"""Finds which weights llama.cpp multiplies by a scale beside them, architecture by architecture: convert/scales.py.

`python -m tests.runtime.find_scales CHECKPOINTS`: a folder with a small checkpoint of each architecture. A weight
made small beside a scale that makes it what it was must leave the logits as they are, and small alone must change them.
The factor is so small that even where a norm follows, which undoes a factor, its epsilon tells; as a power of two it
changes no digit.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import gguf_forge
from gguf_forge.quant.recipe import ModelFacts
from tests.runtime import llama

NAMES = (
    *("attn_q", "attn_k", "attn_v", "attn_output", "attn_qkv", "attn_gate"),
    *("ffn_gate", "ffn_down", "ffn_up", "ffn_gate_shexp", "ffn_down_shexp", "ffn_up_shexp"),
    *("ffn_gate_exps", "ffn_down_exps", "ffn_up_exps", "ssm_in", "ssm_out", "ssm_alpha", "ssm_beta"),
)
TOKENS = [3, 7, 11, 19, 2]
SMALL = 2.0**-14
_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.weight")


def made_small(source: Path, target: Path, name: str, *, scale: bool) -> None:
    """A file whose weights of this name are small, beside scales that undo it if asked for.

    In the layers that predict further tokens all stays as it is: llama.cpp leaves them out, and their scales would be
    tensors that it does not know.
    """
    with gguf_forge.open(source) as file, gguf_forge.GGUFWriter(target) as writer:
        for key in file.metadata:
            writer.add(key, file.metadata.value(key))
        facts = ModelFacts.from_metadata(file.metadata)
        for full, tensor in file.tensors.items():
            match = _NAME.fullmatch(full)
            values = tensor.dequantize() if tensor.type.floating else tensor.data
            own = match is not None and int(match[1]) < facts.layers - facts.extra_layers
            if match is None or match[2] != name or len(tensor.shape) < 2 or not own:
                writer.add_tensor(full, values)
                continue
            writer.add_tensor(full, (values * SMALL).astype(np.float32))
            if scale:
                count = tensor.shape[0] if len(tensor.shape) == 3 else 1
                writer.add_tensor(f"{full.removesuffix('weight')}scale", np.full(count, 1 / SMALL, np.float32))


def applied(source: Path, names: list[str], folder: Path) -> Iterator[str]:
    """Those of the names whose scale a model's graph applies."""
    base = llama.logits(source, TOKENS)
    embeddings = not base.any()
    base = llama.logits(source, TOKENS, embeddings=True) if embeddings else base
    reach = float(np.abs(base).max())

    def change(name: str, *, scale: bool) -> float:
        target = folder / "small.gguf"
        made_small(source, target, name, scale=scale)
        found: NDArray[np.float32] = llama.logits(target, TOKENS, embeddings=embeddings)
        return float(np.abs(found - base).max()) / reach

    for name in names:
        if change(name, scale=True) < 1e-4 and change(name, scale=False) > 1e-3:
            yield name


def main(checkpoints: Path) -> None:
    seen: set[tuple[str, str]] = set()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for checkpoint in sorted(checkpoints.iterdir()):
            source = folder / "model.gguf"
            try:
                plan = gguf_forge.convert_checkpoint(checkpoint, source, "f32")[0]
                arch = str(plan.metadata["general.architecture"].value)
                matches = (_NAME.fullmatch(c.name) for c in plan.choices if len(c.shape) > 1)
                here = {match[2] for match in matches if match is not None and match[2] in NAMES}
                names = sorted(name for name in here if (arch, name) not in seen)
                found = list(applied(source, names, folder)) if names else []
            except (gguf_forge.ForgeError, llama.RuntimeRefusalError) as error:
                print(f"# {checkpoint.name}: {str(error)[:100]}")
                continue
            seen.update((arch, name) for name in names)
            print(f"{arch}: {' '.join(found)}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
