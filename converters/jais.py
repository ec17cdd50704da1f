"""Jais, a GPT-2 with gates whose attention falls with distance, and Jais 2."""

from __future__ import annotations

import math
from collections.abc import Callable

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Table, f32, rule, u32
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import TRANSPOSE, scale

from .common import BASE, BUFFERS, DECODER, FILE_TYPE, QKV, WRAPPERS, affine, layer
from .gpt2 import LINEAR, NORMS
from .rotary import head_dim

SLOPES = "relative_pe.slopes"
FORWARD = (*LINEAR, ("ffn_gate", "mlp.c_fc2"))


def _fall(facts: Facts) -> float:
    """How steeply attention falls with distance: what the first head's slope was made of."""
    if not facts.has(SLOPES):
        return 8.0
    heads = 2 ** math.floor(math.log2(facts.number("n_head")))
    return float(-round(math.log2(float(facts.look(SLOPES).reshape(-1)[0])) * heads))


def _factor(*keys: str, times: str = "") -> Callable[[Facts], float]:
    """What the first of these keys says; the first is the newer name, which counts together with `times`."""

    def value(facts: Facts) -> float:
        newer = times if times and keys[0] in facts.config else None
        return float(need(facts.config, *keys)) * (float(need(facts.config, newer)) if newer else 1.0)

    return value


JAIS = Arch(
    "jais",
    hf=("JAISLMHeadModel",),
    hparams=Table(
        (
            f32("attention.max_alibi_bias", value=_fall, early=True),
            u32("block_count", "n_layer", required=True),
            u32("context_length", "n_positions", required=True),
            u32("embedding_length", "n_embd", required=True),
            u32("feed_forward_length", "n_inner", required=True),
            u32("attention.head_count", "n_head", required=True),
            f32("attention.layer_norm_epsilon", "layer_norm_epsilon", required=True),
            FILE_TYPE,
        )
    ),
    tensors=Table(
        (
            rule("token_embd", "wte", verb=scale(_factor("mup_embeddings_scale", "embeddings_scale"))),
            rule("output_norm", "ln_f"),
            # llama.cpp wants a head, which is the embedding where the checkpoint has none, with a factor of its own.
            rule(
                "output",
                ("lm_head", "wte"),
                verb=scale(_factor("mup_output_alpha", "width_scale", times="mup_width_scale")),
            ),
            rule("blk.{l}.attn_norm", "h.{l}.ln_1"),
            rule("blk.{l}.ffn_norm", "h.{l}.ln_2"),
            *(rule(f"blk.{{l}}.{out}", f"h.{{l}}.{source}", verb=TRANSPOSE) for out, source in FORWARD),
        )
    ),
    needs=("token_embd", "output", *affine("output_norm"), *layer(*affine(*NORMS, *(out for out, _ in FORWARD)))),
    vocab=(vocab.bpe,),
    renames=((r"^transformer\.", ""),),
    drop=(r"\.attn\.bias$", r"\.attn\.masked_bias$"),
    looks=(SLOPES,),
    implied=(("activation_function", ("swiglu",)), ("position_embedding_type", ("alibi",))),
)

JAIS2 = Arch(
    "jais2",
    hf=("Jais2ForCausalLM",),
    hparams=BASE | u32("rope.dimension_count", value=head_dim),
    tensors=DECODER.without("blk.{l}.ffn_gate"),
    needs=("token_embd", *affine("output_norm"), *layer(*affine(*NORMS, "attn_output", "ffn_up", "ffn_down")), *QKV),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=(("hidden_act", ("relu2",)),),
)

ARCHS = (JAIS, JAIS2)
