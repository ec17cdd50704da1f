"""A small model that llama.cpp loads, to be changed in one place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import gguf_forge
from gguf_forge.format import values
from gguf_forge.format.layout import ValueType
from gguf_forge.format.values import Value

LAYERS, WIDTH, WIDE, HEADS, SHARED, TOKENS = 2, 64, 96, 4, 2, 20
KEYS: Mapping[str, Value] = {
    "general.architecture": values.string("llama"),
    "general.name": values.string("Small"),
    "llama.block_count": values.u32(LAYERS),
    "llama.context_length": values.u32(64),
    "llama.embedding_length": values.u32(WIDTH),
    "llama.feed_forward_length": values.u32(WIDE),
    "llama.attention.head_count": values.u32(HEADS),
    "llama.attention.head_count_kv": values.u32(SHARED),
    "llama.rope.dimension_count": values.u32(WIDTH // HEADS),
    "llama.attention.layer_norm_rms_epsilon": values.scalar(ValueType.FLOAT32, 1e-5),
    "tokenizer.ggml.model": values.string("llama"),
    "tokenizer.ggml.tokens": values.strings(["<unk>", "<s>", "</s>", "<0x0A>", *(chr(97 + i) for i in range(16))]),
    "tokenizer.ggml.scores": values.array(ValueType.FLOAT32, [-float(i) for i in range(TOKENS)]),
    "tokenizer.ggml.token_type": values.array(ValueType.INT32, [2, 3, 3, 6, *[1] * 16]),
    "tokenizer.ggml.bos_token_id": values.u32(1),
    "tokenizer.ggml.eos_token_id": values.u32(2),
    "tokenizer.ggml.add_bos_token": values.scalar(ValueType.BOOL, True),
    "tokenizer.chat_template": values.string("{% for m in messages %}{{ m.content | trim }}{% endfor %}"),
}
#: The same with a tokenizer that merges pairs.
MERGING: Mapping[str, Value] = {
    **KEYS,
    "tokenizer.ggml.model": values.string("gpt2"),
    "tokenizer.ggml.pre": values.string("default"),
    "tokenizer.ggml.merges": values.strings(["a b", "c d"]),
}


def shapes(kv: int = SHARED * WIDTH // HEADS) -> dict[str, tuple[int, ...]]:
    """The tensors' shapes by name, the contiguous axis last."""
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (TOKENS, WIDTH), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        parts: dict[str, tuple[int, ...]] = {
            "attn_norm": (WIDTH,),
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (kv, WIDTH),
            "attn_v": (kv, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_norm": (WIDTH,),
            "ffn_gate": (WIDE, WIDTH),
            "ffn_up": (WIDE, WIDTH),
            "ffn_down": (WIDTH, WIDE),
        }
        found |= {f"blk.{layer}.{name}.weight": shape for name, shape in parts.items()}
    return found


def tensors() -> dict[str, Any]:
    """The tensors, float32."""
    rng = np.random.default_rng(7)
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes().items()}


def write(
    path: Path,
    keys: Mapping[str, Value | None] | None = None,
    arrays: Mapping[str, Any] | None = None,
    base: Mapping[str, Value] = KEYS,
) -> Path:
    """Writes the model with keys and tensors added or replaced; those that are None are left out.

    A tensor is an array, or a pair of a type's name and its blocks.
    """
    with gguf_forge.GGUFWriter(path) as writer:
        for key, value in {**base, **(keys or {})}.items():
            if value is not None:
                writer.add(key, value)
        for name, array in {**tensors(), **(arrays or {})}.items():
            if isinstance(array, tuple):
                kind, blocks = array
                writer.add_tensor(name, blocks, kind)
            elif array is not None:
                writer.add_tensor(name, array)
    return path
