"""K2 Horizon: a norm of its own for each head, a gate on what heads say, norms by groups; in its larger models experts,
of which the layers of a mixture have a second kind, that make values.
"""

from __future__ import annotations

from itertools import takewhile

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import (
    EXPERTS,
    LAYERS,
    WEIGHT,
    Arch,
    Axis,
    Either,
    boolean,
    exact,
    f32,
    optional,
    rule,
    u32,
)
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import STACK
from gguf_forge.errors import ConversionError

from .common import BASE, BUFFERS, DECODER, GATED, MIXTURE, QK_NORM, SILU, TRUNK, WRAPPERS, layer, main_layers
from .mla import LAYER, SHARED, experts, shared_experts


def _mixture(facts: Facts) -> bool:
    return bool(facts.config.get("num_experts"))


def _leading_dense(facts: Facts) -> int | None:
    """How many layers come before those of experts: as stated, or as many of the dense layers as stand first.

    ConversionError where a layer after them is dense, too, which GGUF has no way to tell.
    """
    if not _mixture(facts):
        return None
    dense, layers = facts.config.get("mlp_only_layers") or (), main_layers(facts)
    stated = facts.config.get("num_dense_layers")
    first = len([*takewhile(lambda n: n in dense, range(layers))]) if stated is None else int(stated)
    late = next((n for n in range(first, layers) if facts.has(f"model.layers.{n}.mlp.gate_proj.weight")), None)
    if late is not None:
        raise ConversionError(f"config.json: layers from {first} on have experts, but layer {late} has none")
    return first


def _shared_width(facts: Facts) -> int | None:
    shared = facts.config.get("num_shared_experts") or 0
    return facts.number("moe_intermediate_size") * shared if _mixture(facts) and shared else None


def _value_experts(facts: Facts) -> int:
    return facts.number("mova_num_experts") if facts.config.get("mova_num_experts_per_tok") else 0


VALUES = layer("attn_v_gate", "attn_v_exps")
K2_HORIZON = Arch(
    "k2-horizon",
    hf=("K2HorizonForCausalLM",),
    hparams=BASE
    | u32("attention.group_norm_groups", "layernorm_num_groups", default=1)
    | u32("rope.dimension_count", "rope_head_dim")
    | u32("expert_feed_forward_length", value=lambda f: f.number("moe_intermediate_size") if _mixture(f) else None)
    | u32("leading_dense_block_count", value=_leading_dense)
    | u32("moe_every_n_layers", value=lambda f: (f.config.get("decoder_sparse_step") or 1) if _mixture(f) else None)
    | u32("expert_shared_count", value=lambda f: (f.config.get("num_shared_experts") or 0) if _mixture(f) else None)
    | boolean("expert_weights_norm", value=lambda f: bool(f.config.get("norm_topk_prob")) if _mixture(f) else None)
    | u32("expert_shared_feed_forward_length", value=_shared_width)
    | f32("expert_weights_scale", value=lambda f: f.config.get("router_scaling_factor") if _mixture(f) else None)
    | u32("attention.value_expert_count", value=lambda f: _value_experts(f) or None)
    | u32("attention.value_expert_used_count", "mova_num_experts_per_tok"),
    tensors=DECODER
    | QK_NORM
    | rule("blk.{l}.attn_gate", f"{LAYER}.self_attn.attn_gate_proj")
    | rule("blk.{l}.attn_v_gate", f"{LAYER}.self_attn.v_router")
    | rule("blk.{l}.attn_v_exps", f"{LAYER}.self_attn.v_experts.{{v}}", ends=WEIGHT, verb=STACK)
    | rule("blk.{l}.ffn_gate_inp", f"{LAYER}.mlp.gate", ends=WEIGHT)
    # It decides which experts are asked, not what each of them counts.
    | exact("blk.{l}.exp_probs_b.bias", f"{LAYER}.mlp.gate.bias")
    | experts()
    | shared_experts(),
    needs=(
        *TRUNK,
        *layer("attn_q", "attn_k"),
        Either((GATED, (*MIXTURE, *SHARED), MIXTURE)),
        Either((layer("attn_v"), VALUES)),
        optional(*layer("attn_gate")),
    ),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=BUFFERS,
    axes={"l": LAYERS, "e": EXPERTS, "v": Axis(_value_experts)},
    implied=(*SILU, ("attention_gate_func", ("softplus",)), ("decoder_sparse_step", (1,))),
)

ARCHS = (K2_HORIZON,)
