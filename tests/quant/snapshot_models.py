"""The tensors of the twelve models in fixtures/snapshots, written down from their published configurations.

A group is a run of layers and the tensors each of them has; shapes in NumPy order (rows, width), stacked experts first.
Tensors of one dimension are left out except where a rule could take them for more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gguf_forge.quant.recipe import ModelFacts, TensorSpec
from gguf_forge.types import tensor_type

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class SnapshotModel:
    facts: ModelFacts
    whole: Shapes
    groups: tuple[tuple[Iterable[int], Shapes], ...]

    def tensors(self) -> list[TensorSpec]:
        named = dict(self.whole)
        for layers, shapes in self.groups:
            for layer in layers:
                named.update({f"blk.{layer}.{part}": shape for part, shape in shapes.items()})
        return [TensorSpec(f"{name}.weight", shape, tensor_type("F32")) for name, shape in named.items()]


def whole(vocab: int, embd: int, *, tied: bool = False) -> Shapes:
    return {
        "token_embd": (vocab, embd),
        "output_norm": (embd,),
        **({} if tied else {"output": (vocab, embd)}),
    }


def attention(embd: int, q: int, kv: int, *, doubled_q: bool = False) -> Shapes:
    """Separate projections; q and kv are the widths of all heads together, q doubled where it holds a gate as well."""
    return {
        "attn_norm": (embd,),
        "attn_q": (q * 2 if doubled_q else q, embd),
        "attn_k": (kv, embd),
        "attn_v": (kv, embd),
        "attn_output": (embd, q),
    }


def latent_attention(embd: int, *, heads: int, q_rank: int, kv_rank: int, nope: int, rope: int, value: int) -> Shapes:
    return {
        "attn_q_a": (q_rank, embd),
        "attn_q_b": (heads * (nope + rope), q_rank),
        "attn_kv_a_mqa": (kv_rank + rope, embd),
        "attn_k_b": (heads, kv_rank, nope),
        "attn_v_b": (heads, value, kv_rank),
        "attn_output": (embd, heads * value),
    }


def delta_net(embd: int, qkv: int, inner: int, **small: int) -> Shapes:
    """Gated delta net of Qwen3-Next and Qwen3.5; `small` names the narrow projections and their rows."""
    return {
        "attn_qkv": (qkv, embd),
        "attn_gate": (inner, embd),
        "ssm_conv1d": (qkv, 4),
        "ssm_out": (embd, inner),
        **{name: (rows, embd) for name, rows in small.items()},
    }


def dense(embd: int, ff: int) -> Shapes:
    return {"ffn_gate": (ff, embd), "ffn_up": (ff, embd), "ffn_down": (embd, ff)}


def experts(embd: int, ff: int, count: int) -> Shapes:
    return {
        "ffn_gate_inp": (count, embd),
        "ffn_gate_exps": (count, ff, embd),
        "ffn_up_exps": (count, ff, embd),
        "ffn_down_exps": (count, embd, ff),
    }


def shared_expert(embd: int, ff: int) -> Shapes:
    return {"ffn_gate_shexp": (ff, embd), "ffn_up_shexp": (ff, embd), "ffn_down_shexp": (embd, ff)}


def shared_gate(embd: int) -> Shapes:
    """Two axes in NumPy, one dimension for ggml."""
    return {"ffn_gate_inp_shexp": (1, embd)}


def without_gate(shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if name not in ("ffn_gate_exps", "ffn_gate_shexp")}


def every(count: int) -> range:
    return range(count)


def full(count: int) -> range:
    """Every fourth layer, from 3 on."""
    return range(3, count, 4)


def linear(count: int) -> list[int]:
    return [i for i in range(count) if i % 4 != 3]


NEMOTRON = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"

MODELS = {
    "qwen3-0.6b": SnapshotModel(
        ModelFacts("qwen3", 28, 16, 8),
        whole(151936, 1024),
        ((every(28), {**attention(1024, 2048, 1024), **dense(1024, 3072)}),),
    ),
    "qwen3-14b": SnapshotModel(
        ModelFacts("qwen3", 40, 40, 8),
        whole(151936, 5120),
        ((every(40), {**attention(5120, 5120, 1024), **dense(5120, 17408)}),),
    ),
    "meta-llama-3.1-70b-instruct": SnapshotModel(
        ModelFacts("llama", 80, 64, 8),
        {"rope_freqs": (64,), **whole(128256, 8192)},
        ((every(80), {**attention(8192, 8192, 1024), **dense(8192, 28672)}),),
    ),
    "gemma-3-4b-it": SnapshotModel(
        ModelFacts("gemma3", 34, 8, 4),
        whole(262144, 2560, tied=True),
        ((every(34), {**attention(2560, 2048, 1024), **dense(2560, 10240)}),),
    ),
    "deepseek-v3.1": SnapshotModel(
        ModelFacts("deepseek2", 61, 128, 1, 256),
        whole(129280, 7168),
        (
            (every(61), latent_attention(7168, heads=128, q_rank=1536, kv_rank=512, nope=128, rope=64, value=128)),
            (range(3), dense(7168, 18432)),
            (range(3, 61), {**experts(7168, 2048, 256), **shared_expert(7168, 2048)}),
        ),
    ),
    "glm-4.6v": SnapshotModel(
        ModelFacts("glm4moe", 46, 96, 8, 128),
        whole(151552, 4096),
        (
            (every(46), attention(4096, 12288, 1024)),
            (range(1), dense(4096, 10944)),
            (range(1, 46), {**experts(4096, 1408, 128), **shared_expert(4096, 1408)}),
        ),
    ),
    "gpt-oss-120b": SnapshotModel(
        ModelFacts("gpt-oss", 36, 64, 8, 128),
        whole(201088, 2880),
        ((every(36), {"attn_sinks": (64,), **attention(2880, 4096, 512), **experts(2880, 2880, 128)}),),
    ),
    # Layer 0 has no attention, so head_count_kv, an array, begins with 0.
    "nvidia-nemotron-3-nano-30b-a3b": SnapshotModel(
        ModelFacts("nemotron_h_moe", 52, 32, 0, 128),
        whole(131072, 2688),
        (
            ([i for i, c in enumerate(NEMOTRON) if c == "*"], attention(2688, 4096, 256)),
            (
                [i for i, c in enumerate(NEMOTRON) if c == "M"],
                {"ssm_in": (10304, 2688), "ssm_conv1d": (6144, 4), "ssm_out": (2688, 4096), "ssm_norm": (8, 512)},
            ),
            (
                [i for i, c in enumerate(NEMOTRON) if c == "E"],
                without_gate({**experts(2688, 1856, 128), **shared_expert(2688, 3712)}),
            ),
        ),
    ),
    "qwen3-coder-next": SnapshotModel(
        ModelFacts("qwen3next", 48, 16, 2, 512),
        whole(151936, 2048),
        (
            (full(48), attention(2048, 4096, 512, doubled_q=True)),
            (linear(48), delta_net(2048, 8192, 4096, ssm_ba=64)),
            (every(48), {**experts(2048, 512, 512), **shared_expert(2048, 512), **shared_gate(2048)}),
        ),
    ),
    "qwen3.5-397b-a17b": SnapshotModel(
        ModelFacts("qwen35moe", 60, 32, 2, 512),
        whole(248320, 4096),
        (
            (full(60), attention(4096, 8192, 512, doubled_q=True)),
            (linear(60), delta_net(4096, 12288, 8192, ssm_alpha=64, ssm_beta=64)),
            (every(60), {**experts(4096, 1024, 512), **shared_expert(4096, 1024), **shared_gate(4096)}),
        ),
    ),
    "qwen3.6-27b": SnapshotModel(
        ModelFacts("qwen35", 64, 24, 4),
        whole(248320, 5120),
        (
            (full(64), attention(5120, 6144, 1024, doubled_q=True)),
            (linear(64), delta_net(5120, 10240, 6144, ssm_alpha=48, ssm_beta=48)),
            (every(64), dense(5120, 17408)),
        ),
    ),
    "step-3.5-flash": SnapshotModel(
        ModelFacts("step35", 45, 64, 8, 288),
        whole(128896, 4096),
        (
            (every(45), {**attention(4096, 8192, 1024), "attn_gate": (64, 4096)}),
            (range(3), dense(4096, 11264)),
            (range(3, 45), {**experts(4096, 1280, 288), **shared_expert(4096, 1280)}),
        ),
    ),
}
