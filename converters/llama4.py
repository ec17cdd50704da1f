"""Llama 4: Scout, Maverick, and the dense MobileLLM-R1 of its class. Of the multimodal models the text model."""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Either, Rule, Table, exact, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import TRANSPOSE
from gguf_forge.convert.rows import equal_parts

from .common import DECODER, GATED, MIXTURE, SILU, layer
from .llama import KEYS, LLAMA, NEEDS
from .rotary import LLAMA3

FORWARD = "model.layers.{l}.feed_forward"
#: Experts stand the other way round: inputs below each other, outputs side by side.
EXPERTS: Table[Rule] = Table(
    (
        exact(
            ("blk.{l}.ffn_gate_exps.weight", "blk.{l}.ffn_up_exps.weight"),
            f"{FORWARD}.experts.gate_up_proj",
            verb=TRANSPOSE | equal_parts(2),
        ),
        exact("blk.{l}.ffn_down_exps.weight", f"{FORWARD}.experts.down_proj", verb=TRANSPOSE),
        rule("blk.{l}.ffn_gate_inp", f"{FORWARD}.router"),
        *(rule(f"blk.{{l}}.ffn_{p}_shexp", f"{FORWARD}.shared_expert.{p}_proj") for p in ("gate", "up", "down")),
        *(rule(f"blk.{{l}}.ffn_{p}", f"{FORWARD}.{p}_proj") for p in ("gate", "up", "down")),
    )
)


def _no_window(facts: Facts) -> int | None:
    """Zero where every layer attends to all and turns, as MobileLLM's do; readers know the others' windows."""
    kinds = facts.config.get("layer_types")
    return 0 if kinds and all(kind == "full_attention" for kind in kinds) else None


LLAMA4 = replace(
    LLAMA,
    name="llama4",
    hf=("Llama4ForConditionalGeneration", "Llama4ForCausalLM"),
    hparams=KEYS
    | u32("feed_forward_length", "intermediate_size_mlp", required=True)
    | u32("interleave_moe_layer_step", "interleave_moe_layer_step", required=True)
    | u32("expert_feed_forward_length", "intermediate_size", required=True)
    | u32("attention.sliding_window", value=_no_window),
    tensors=LLAMA3 | DECODER | EXPERTS,
    needs=(*NEEDS, Either((GATED, (*MIXTURE, *layer("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"))))),
    vocab=(vocab.bpe, vocab.tiktoken),
    implied=(*SILU, ("attention_chunk_size", (8192,)), ("floor_scale", (8192,)), ("attn_scale", (0.1,))),
)

ARCHS = (LLAMA4,)
