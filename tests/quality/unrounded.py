"""A quantized model as one to quantize: `python -m tests.quality.unrounded IN.gguf OUT.gguf` writes F16.

Trained models that come with packages are quantized already. Quantized again as they are they would flatter a type that
has the old one's levels, since all weights lie on them. So columns are scaled, each by a factor of its own between 0.7
and 1.4, and what makes their inputs is divided by it: the norm before queries, keys and values, and before gate and up;
the values' rows before the output; the rows of up before down. The model computes what it did, and its weights are on
no lattice. For models of that form: Llama, Qwen2, Gemma 3.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import gguf_forge

SEED, OCTAVE = 20, 0.5
Weights = dict[str, np.ndarray]


def factors(random: np.random.Generator, count: int) -> np.ndarray:
    return (2 ** random.uniform(-OCTAVE, OCTAVE, count)).astype(np.float32)


def scale_columns(weights: Weights, names: list[str], by: np.ndarray) -> None:
    for name in names:
        weights[name] = weights[name] * by


def unround(weights: Weights, layer: int, heads: int, shared: int, random: np.random.Generator) -> None:
    """One layer. heads: of queries; shared: keys and values."""

    def named(*parts: str) -> list[str]:
        return [f"blk.{layer}.{part}.weight" for part in parts]

    for norm, readers in (("attn_norm", ("attn_q", "attn_k", "attn_v")), ("ffn_norm", ("ffn_gate", "ffn_up"))):
        by = factors(random, len(weights[named(norm)[0]]))
        weights[named(norm)[0]] = weights[named(norm)[0]] / by
        scale_columns(weights, named(*readers), by)
    value, output, up, down = named("attn_v", "attn_output", "ffn_up", "ffn_down")
    by = factors(random, len(weights[value]))
    weights[value] = weights[value] / by[:, None]
    bias = f"blk.{layer}.attn_v.bias"
    if bias in weights:
        weights[bias] = weights[bias] / by
    columns = np.repeat(by.reshape(shared, -1), heads // shared, axis=0).ravel()
    scale_columns(weights, [output], columns)
    by = factors(random, len(weights[up]))
    weights[up] = weights[up] / by[:, None]
    scale_columns(weights, [down], by)


def main(source: Path, target: Path) -> None:
    random = np.random.default_rng(SEED)
    with gguf_forge.open(source) as gguf:
        architecture = gguf.metadata["general.architecture"]
        layers, heads, shared = (
            gguf.metadata[f"{architecture}.{key}"]
            for key in ("block_count", "attention.head_count", "attention.head_count_kv")
        )
        keys = {key: gguf.metadata.value(key) for key in gguf.metadata}
        keys["general.file_type"] = gguf_forge.values.u32(1)
        weights = {name: tensor.dequantize() for name, tensor in gguf.tensors.items()}
        for layer in range(layers):
            unround(weights, layer, heads, shared, random)
        with gguf_forge.GGUFWriter(target, keys) as out:
            for name, tensor in gguf.tensors.items():
                data = weights.pop(name)
                out.add_tensor(name, data if tensor.type.name == "F32" else data.astype(np.float16))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
