"""How far quantized files of a Llama lie from their checkpoint, computed without llama.cpp.

    python -m tests.quality.judge fixtures/models/PyLlama-7M A.gguf B.gguf --text heldout.txt --every 2

The forward pass is PyTorch's and this file's own, the checkpoint's weights are read by safetensors, its text by
sentencepiece, and each GGUF file is decoded by this package's reader: what `gguf-forge evaluate` says through llama.cpp
is checked by code that shares nothing with it. Judged are the second halves of windows of 256 tokens as
llama-perplexity cuts them: the first token of each gives way to the one that begins a text, and the 127 positions from
128 on foretell the token after them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import load_file
from torch.nn import functional

import gguf_forge

WINDOW = 256
#: Windows computed at a time: their logits are 128 positions of float32 (vocabulary) each.
BATCH = 16
#: GGUF's names of a layer's matrices, and the checkpoint's.
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
MODEL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Shape:
    """What of config.json the forward pass needs."""

    layers: int
    heads: int
    kv_heads: int
    eps: float
    theta: float

    @classmethod
    def read(cls, folder: Path) -> Shape:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        rope = config.get("rope_parameters", config)
        heads = config["num_attention_heads"]
        return cls(
            config["num_hidden_layers"],
            heads,
            config.get("num_key_value_heads", heads),
            config["rms_norm_eps"],
            rope["rope_theta"],
        )


@dataclass(frozen=True)
class Verdict:
    """kl is in nats, a mean over positions; agreement is the share of positions with the same likeliest token."""

    file: str
    bytes: int
    kl: float
    kl_median: float
    perplexity: float
    agreement: float
    positions: int


def checkpoint_weights(folder: Path, shape: Shape) -> Weights:
    """The checkpoint's own, under GGUF's names, float32."""
    stored: Weights = {}
    for part in sorted(folder.glob("*.safetensors")):
        stored |= load_file(part)
    wanted = dict(MODEL)
    for layer in range(shape.layers):
        wanted |= {f"blk.{layer}.{ours}": f"model.layers.{layer}.{theirs}" for ours, theirs in LAYER.items()}
    weights = {
        name: stored[f"{theirs}.weight"].float() for name, theirs in wanted.items() if f"{theirs}.weight" in stored
    }
    weights.setdefault("output", weights["token_embd"])
    return weights


def file_weights(path: Path, shape: Shape) -> Weights:
    """A GGUF file's, decoded, the rows of queries and keys put back into the checkpoint's order."""
    with gguf_forge.open(path) as file:
        weights = {
            name.removesuffix(".weight"): torch.from_numpy(tensor.dequantize()) for name, tensor in file.tensors.items()
        }
    for name, matrix in weights.items():
        for part, heads in (("attn_q", shape.heads), ("attn_k", shape.kv_heads)):
            if name.endswith(part):  # llama.cpp turns neighbours, the checkpoint's classes turn halves
                weights[name] = matrix.view(heads, -1, 2, matrix.shape[1]).transpose(1, 2).reshape(matrix.shape)
    weights.setdefault("output", weights["token_embd"])
    return weights


def rotate(x: torch.Tensor, theta: float) -> torch.Tensor:
    """Rotary positions over (..., positions, head), first half against second."""
    positions, width = x.shape[-2:]
    rates = theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.outer(torch.arange(positions, dtype=torch.float64), rates)
    cos, sin = angles.cos().float(), angles.sin().float()
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def normed(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def forward(weights: Weights, tokens: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Logarithms of probabilities, float32 (windows, positions that are judged, vocabulary)."""
    windows, count = tokens.shape
    x = weights["token_embd"][tokens]
    for layer in range(shape.layers):

        def times(name: str, value: torch.Tensor, layer: int = layer) -> torch.Tensor:
            return value @ weights[f"blk.{layer}.{name}"].T

        y = normed(x, weights[f"blk.{layer}.attn_norm"], shape.eps)
        q = rotate(times("attn_q", y).view(windows, count, shape.heads, -1).transpose(1, 2), shape.theta)
        k = rotate(times("attn_k", y).view(windows, count, shape.kv_heads, -1).transpose(1, 2), shape.theta)
        v = times("attn_v", y).view(windows, count, shape.kv_heads, -1).transpose(1, 2)
        group = shape.heads // shape.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + times("attn_output", attended.transpose(1, 2).reshape(windows, count, -1))
        y = normed(x, weights[f"blk.{layer}.ffn_norm"], shape.eps)
        x = x + times("ffn_down", functional.silu(times("ffn_gate", y)) * times("ffn_up", y))
    last = normed(x[:, WINDOW // 2 : -1], weights["output_norm"], shape.eps)
    return torch.log_softmax(last @ weights["output"].T, dim=-1)


def cut(folder: Path, text: Path, every: int) -> torch.Tensor:
    """Every `every`-th window of the text's tokens, int64 (windows, WINDOW)."""
    processor = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    tokens = [processor.bos_id(), *processor.encode(text.read_text(encoding="utf-8"))]
    whole = torch.tensor(tokens[: len(tokens) // WINDOW * WINDOW]).view(-1, WINDOW)
    whole[:, 0] = processor.bos_id()
    return whole[::every]


def judge(folder: Path, files: Sequence[Path], text: Path, every: int) -> Iterator[Verdict]:
    """Of the checkpoint's own weights first, then of each file."""
    shape = Shape.read(folder)
    windows = cut(folder, text, every)
    base_weights = checkpoint_weights(folder, shape)
    base = [forward(base_weights, batch, shape) for batch in windows.split(BATCH)]
    chosen = windows[:, WINDOW // 2 + 1 :]
    for path in (folder, *files):
        weights = base_weights if path == folder else file_weights(path, shape)
        divergence, losses, same = [], [], []
        for batch, targets, theirs in zip(windows.split(BATCH), chosen.split(BATCH), base, strict=True):
            ours = forward(weights, batch, shape)
            divergence.append((theirs.exp() * (theirs - ours)).sum(-1).double())
            losses.append(-ours.gather(-1, targets[..., None]).double())
            same.append((ours.argmax(-1) == theirs.argmax(-1)).double())
        kl = torch.cat(divergence)
        parts = folder.glob("*.safetensors") if path == folder else [path]
        yield Verdict(
            str(path),
            sum(part.stat().st_size for part in parts),
            kl.mean().item(),
            kl.median().item(),
            torch.cat(losses).mean().exp().item(),
            torch.cat(same).mean().item(),
            kl.numel(),
        )


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="take every n-th window")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    if not chosen.json:
        print("  KL x 1000     median  perplexity  same top       bytes  file")
    with torch.inference_mode():
        for verdict in judge(chosen.checkpoint, chosen.files, chosen.text, chosen.every):
            if chosen.json:
                print(json.dumps(asdict(verdict)), flush=True)
                continue
            print(
                f"{verdict.kl * 1000:11.3f}{verdict.kl_median * 1000:11.3f}{verdict.perplexity:12.4f}"
                f"{verdict.agreement:10.2%}{verdict.bytes:12d}  {verdict.file}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
