"""iFLYTEK's Spark X2.5."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, array, rule, u32
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts
from gguf_forge.errors import ConversionError
from gguf_forge.format.layout import ValueType

from .common import BASE, BUFFERS, DECODER, GATED, GELU, QKV, TRUNK, WRAPPERS, layer, main_layers

KINDS = ("full_attention", "sliding_attention")


def _sliding(facts: Facts) -> list[bool]:
    """Which layers see a window only."""
    kinds = need(facts.config, "layer_types")
    if len(kinds) != main_layers(facts) or set(kinds) - set(KINDS):
        raise ConversionError(f"config.json: layer_types must be {main_layers(facts)} of {' or '.join(KINDS)}")
    return [kind == "sliding_attention" for kind in kinds]


def _turned(kind: str) -> Callable[[Facts], int]:
    """How many elements of a head turn in layers of one kind."""

    def value(facts: Facts) -> int:
        part = need(need(facts.config["rope_parameters"], kind), "partial_rotary_factor")
        return int(facts.number("head_dim") * part)

    return value


SPARK = Arch(
    "spark2_5",
    hf=("Spark2_5ForCausalLM",),
    hparams=BASE
    | u32("vocab_size", "vocab_size", required=True)
    | u32("attention.sliding_window", "sliding_window", required=True)
    | array("attention.sliding_window_pattern", ValueType.BOOL, value=_sliding)
    | u32("rope.dimension_count", value=_turned("full_attention"))
    | u32("rope.dimension_count_swa", value=_turned("sliding_attention")),
    tensors=DECODER.without(*QKV)
    | rule("blk.{l}.attn_qkv", "model.layers.{l}.self_attn.q_k_v_proj")
    | rule("blk.{l}.attn_gate", "model.layers.{l}.self_attn.g_proj"),
    needs=(*TRUNK, *layer("attn_qkv", "attn_gate"), *GATED),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=(*GELU, ("gate_attn_act_mode", ("sigmoid",)), ("headwise_attn_output_gate", (True,))),
)

ARCHS = (SPARK,)
