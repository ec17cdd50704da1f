"""Writes a Llama checkpoint with random weights: `python -m tests.bench.make_checkpoint FOLDER MEGABYTES`.

BF16 safetensors in shards of at most 1 GB, the trained fixture's tokenizer, widths of a 1.1B model; the number of
layers follows from the size asked for.
"""

from __future__ import annotations

import json
import shutil
import struct
import sys
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "models" / "PyLlama-7M"
HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, VOCABULARY = 2048, 5632, 32, 4, 4096
SHARD_BYTES = 10**9


def layer_shapes() -> dict[str, tuple[int, ...]]:
    narrow = HIDDEN * KV_HEADS // HEADS
    return {
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.k_proj": (narrow, HIDDEN),
        "self_attn.v_proj": (narrow, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN),
        "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
        "mlp.up_proj": (INTERMEDIATE, HIDDEN),
        "mlp.down_proj": (HIDDEN, INTERMEDIATE),
        "input_layernorm": (HIDDEN,),
        "post_attention_layernorm": (HIDDEN,),
    }


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in layer_shapes().items()}
    return found | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def draw(shape: tuple[int, ...], generator: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Random BF16 bits: normal, of the spread trained weights have; norms around one."""
    values = generator.standard_normal(shape, dtype=np.float32)
    values = values * np.float32(0.02) if len(shape) > 1 else 1 + values * np.float32(0.06)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def write_shard(path: Path, names: dict[str, tuple[int, ...]], generator: np.random.Generator) -> None:
    header, at = {}, 0
    for name, shape in names.items():
        end = at + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in names.values():
            file.write(draw(shape, generator).tobytes())


def make(folder: Path, nbytes: int) -> Path:
    """Writes the checkpoint (at least `nbytes` of weights) unless the folder holds it already; returns the folder."""
    per_layer = 2 * sum(prod(shape) for shape in layer_shapes().values())
    rest = 4 * VOCABULARY * HIDDEN
    layers = max(1, -(-(nbytes - rest) // per_layer))
    done = folder / f".made-{layers}"
    if done.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = json.loads((FIXTURE / "config.json").read_text(encoding="utf-8"))
    config |= {
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HIDDEN // HEADS,
        "num_hidden_layers": layers,
        "vocab_size": VOCABULARY,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    for name in ("tokenizer.model", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(FIXTURE / name, folder / name)
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in shapes(layers).items():
        if shards[-1] and 2 * sum(prod(s) for s in (*shards[-1].values(), shape)) > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = shape
    generator = np.random.default_rng(20261121)
    where: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_shard(folder / file, names, generator)
        where |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": per_layer * layers + rest}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    done.touch()
    return folder


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(float(sys.argv[2]) * 1e6))
