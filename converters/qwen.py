"""Qwen2, Qwen2.5, Qwen3, and their mixtures of experts (Qwen1.5-MoE among them)."""

from __future__ import annotations

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, ConfigClass, Rule, Table, rule, u32
from gguf_forge.convert.hparams import gather_rope, refuse_rope
from gguf_forge.convert.ops import COPY, STACK, Split

from .common import BASE, BUFFERS, DECODER, QK_NORM, WRAPPERS, filled, layer_types, pooling

POOLING = u32("pooling_type", value=pooling)

#: Experts stored one by one, then as two tensors a layer.
EXPERTS: Table[Rule] = Table(
    (
        *(
            rule(
                f"blk.{{l}}.ffn_{part}_exps.weight",
                f"model.layers.{{l}}.mlp.experts.{{e}}.{part}_proj.weight",
                verb=STACK,
                group="experts",
                every=False,
            )
            for part in ("down", "gate", "up")
        ),
        *(
            rule(
                f"blk.{{l}}.ffn_{out}_exps.weight",
                f"model.layers.{{l}}.mlp.experts.{source}",
                variant=f"fused{end}",
                every=False,
                verb=verb,
            )
            for end in ("", ".weight")
            for out, source, verb in (
                ("down", f"down_proj{end}", COPY),
                ("gate", f"gate_up_proj{end}", Split(0, 2)),
                ("up", f"gate_up_proj{end}", Split(1, 2)),
            )
        ),
    )
)

#: A dense layer among layers of experts.
SOME_DENSE: Table[Rule] = Table(
    tuple(
        rule(f"blk.{{l}}.ffn_{part}", f"model.layers.{{l}}.mlp.{part}_proj", every=False)
        for part in ("gate", "up", "down")
    )
)

SHARED_EXPERT: Table[Rule] = Table(
    (
        rule("blk.{l}.ffn_gate_inp_shexp", "model.layers.{l}.mlp.shared_expert_gate", every=False),
        *(
            rule(f"blk.{{l}}.ffn_{part}_shexp", f"model.layers.{{l}}.mlp.shared_expert.{part}_proj", every=False)
            for part in ("gate", "up", "down")
        ),
    )
)

MOE: Table[Rule] = (
    DECODER | SOME_DENSE | rule("blk.{l}.ffn_gate_inp", "model.layers.{l}.mlp.gate", every=False) | EXPERTS
)

MOE_KEYS = (
    BASE
    | u32("expert_feed_forward_length", "moe_intermediate_size")
    | u32("expert_shared_feed_forward_length", "shared_expert_intermediate_size")
)

QWEN2 = Arch(
    "qwen2",
    hf=("Qwen2ForCausalLM", "Qwen2Model"),
    hparams=BASE | POOLING,
    tensors=DECODER,
    vocab=vocab.QWEN,
    renames=WRAPPERS,
    drop=BUFFERS,
)
QWEN2_MOE = Arch(
    "qwen2moe",
    hf=("Qwen2MoeForCausalLM",),
    hparams=MOE_KEYS,
    tensors=MOE | SHARED_EXPERT,
    vocab=vocab.BPE,
    renames=WRAPPERS,
    drop=BUFFERS,
)
QWEN3 = Arch(
    "qwen3",
    hf=("Qwen3ForCausalLM", "Qwen3Model"),
    hparams=BASE | POOLING,
    tensors=DECODER | QK_NORM,
    vocab=vocab.QWEN,
    renames=WRAPPERS,
    drop=BUFFERS,
)
QWEN3_MOE = Arch(
    "qwen3moe",
    hf=("Qwen3MoeForCausalLM",),
    hparams=MOE_KEYS,
    tensors=MOE | QK_NORM,
    vocab=vocab.BPE,
    renames=WRAPPERS,
    drop=BUFFERS,
)

ARCHS = (QWEN2, QWEN2_MOE, QWEN3, QWEN3_MOE)

_DENSE = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": filled(32),
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "layer_types": layer_types,
}
_MOE = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "num_hidden_layers": 24,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
}

CLASSES = (
    ConfigClass("qwen2", _DENSE, rope=gather_rope, refuses=refuse_rope),
    ConfigClass("qwen3", {**_DENSE, "head_dim": 128}, rope=gather_rope, refuses=refuse_rope),
    ConfigClass(
        "qwen2_moe",
        {
            **_MOE,
            "intermediate_size": 5632,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
            "num_experts_per_tok": 4,
            "num_experts": 60,
            "layer_types": layer_types,
        },
        nullable=("num_key_value_heads",),
        rope=gather_rope,
        refuses=refuse_rope,
    ),
    ConfigClass(
        "qwen3_moe",
        {
            **_MOE,
            "intermediate_size": 6144,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "moe_intermediate_size": 768,
            "num_experts_per_tok": 8,
            "num_local_experts": 128,
        },
        renames={"num_experts": "num_local_experts"},
        rope=gather_rope,
        refuses=refuse_rope,
    ),
)
