"""Writes a checkpoint with random weights: `python -m tests.bench.make_checkpoint FOLDER MEGABYTES [FORM]`.

BF16 safetensors in shards of at most 1 GB, tokenizers of the fixtures, widths of a 1.1B model; the number of
layers follows from the size asked for. FORM is `dense` (a Llama), `experts` (a Qwen3-MoE whose experts are stored one
by one), or `fused` (the same with the experts of a layer in two tensors).
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
BYTE_LEVEL = FIXTURE.parents[1] / "vocab" / "bytelevel"
#: What the pre-tokenizer of the byte-level vocabulary is called, whose fingerprint nobody knows.
PRE = "gpt-2"
HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, VOCABULARY = 2048, 5632, 32, 4, 4096
SHARD_BYTES = 10**9


#: Experts of a layer, and their width: with them a layer of a mixture has about four times the bytes of a dense one.
EXPERTS, EXPERT_WIDTH = 32, 768
FORMS = ("dense", "experts", "fused")


def attention_shapes() -> dict[str, tuple[int, ...]]:
    narrow = HIDDEN * KV_HEADS // HEADS
    return {
        "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
        "self_attn.k_proj.weight": (narrow, HIDDEN),
        "self_attn.v_proj.weight": (narrow, HIDDEN),
        "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
        "input_layernorm.weight": (HIDDEN,),
        "post_attention_layernorm.weight": (HIDDEN,),
    }


def layer_shapes(form: str) -> dict[str, tuple[int, ...]]:
    if form == "dense":
        return attention_shapes() | {
            "mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            "mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            "mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
        }
    found = attention_shapes() | {
        "self_attn.q_norm.weight": (HIDDEN // HEADS,),
        "self_attn.k_norm.weight": (HIDDEN // HEADS,),
        "mlp.gate.weight": (EXPERTS, HIDDEN),
    }
    if form == "fused":
        return found | {
            "mlp.experts.gate_up_proj": (EXPERTS, 2 * EXPERT_WIDTH, HIDDEN),
            "mlp.experts.down_proj": (EXPERTS, HIDDEN, EXPERT_WIDTH),
        }
    for expert in range(EXPERTS):
        found |= {
            f"mlp.experts.{expert}.gate_proj.weight": (EXPERT_WIDTH, HIDDEN),
            f"mlp.experts.{expert}.up_proj.weight": (EXPERT_WIDTH, HIDDEN),
            f"mlp.experts.{expert}.down_proj.weight": (HIDDEN, EXPERT_WIDTH),
        }
    return found


def shapes(layers: int, form: str) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        found |= {f"model.layers.{layer}.{name}": shape for name, shape in layer_shapes(form).items()}
    return found | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def config_of(layers: int, form: str) -> dict[str, object]:
    config: dict[str, object] = json.loads((FIXTURE / "config.json").read_text(encoding="utf-8"))
    config |= {
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HIDDEN // HEADS,
        "num_hidden_layers": layers,
        "vocab_size": VOCABULARY,
    }
    if form != "dense":
        config |= {
            "architectures": ["Qwen3MoeForCausalLM"],
            "model_type": "qwen3_moe",
            "num_experts": EXPERTS,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": EXPERT_WIDTH,
        }
    return config


def copy_tokenizer(folder: Path, form: str) -> None:
    """A tokenizer of the kind that the family has: SentencePiece for the Llama, byte-level for the mixtures."""
    source = FIXTURE if form == "dense" else BYTE_LEVEL
    for path in source.iterdir():
        if path.name.startswith("tokenizer"):
            shutil.copyfile(path, folder / path.name)


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


def make(folder: Path, nbytes: int, form: str = "dense") -> Path:
    """Writes the checkpoint (at least `nbytes` of weights) unless the folder holds it already; returns the folder."""
    per_layer = 2 * sum(prod(shape) for shape in layer_shapes(form).values())
    rest = 4 * VOCABULARY * HIDDEN
    layers = max(1, -(-(nbytes - rest) // per_layer))
    done = folder / f".made-{layers}"
    if done.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_of(layers, form), indent=1), encoding="utf-8")
    copy_tokenizer(folder, form)
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in shapes(layers, form).items():
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
    make(Path(sys.argv[1]), int(float(sys.argv[2]) * 1e6), *sys.argv[3:4])
