"""ERNIE 4.5, dense and mixtures of experts, and the text model of PaddleOCR-VL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Either, Rule, Table, exact, optional, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.rows import equal_parts, parts_of

from .common import BASE, BUFFERS, DECODER, GATED, MIXTURE, MULTIMODAL, QKV, SILU, TRUNK, WRAPPERS
from .mla import LAYER, ROUTER, SHARED, experts, shared_experts
from .rotary import head_dim


def _heights(facts: Facts) -> Sequence[int]:
    heads, keys = facts.number("num_attention_heads"), facts.number("num_key_value_heads")
    return [count * int(head_dim(facts)) for count in (heads, keys, keys)]


#: Paddle's own layout has queries, keys and values in one matrix, gate and up in another.
FUSED: Table[Rule] = Table(
    (
        rule(QKV, f"{LAYER}.self_attn.qkv_proj", verb=parts_of(_heights)),
        rule(GATED[:2], f"{LAYER}.mlp.up_gate_proj", verb=equal_parts(2)),
    )
)

ERNIE = Arch(
    "ernie4_5",
    hf=("Ernie4_5_ForCausalLM", "Ernie4_5ForCausalLM"),
    hparams=BASE,
    tensors=DECODER | FUSED,
    needs=(*TRUNK, *QKV, *GATED),
    vocab=(vocab.spm, vocab.bpe, vocab.config_space_prefix),
    renames=((r"ernie\.", "model."), *WRAPPERS),
    drop=BUFFERS,
    implied=SILU,
)
PADDLE_OCR = replace(
    ERNIE,
    name="paddleocr",
    hf=("PaddleOCRVLForConditionalGeneration",),
    tensors=DECODER,
    drop=(*BUFFERS, *MULTIMODAL),
)


def _shared(facts: Facts) -> int | None:
    """The width of the experts that serve every token, together."""
    count = facts.config.get("moe_num_shared_experts") or 0
    return facts.number("moe_intermediate_size") * count or None


ERNIE_MOE = replace(
    ERNIE,
    name="ernie4_5-moe",
    hf=("Ernie4_5_MoeForCausalLM",),
    hparams=BASE
    | u32("expert_count", "moe_num_experts", required=True, again=True)
    | u32("expert_used_count", "moe_k", required=True, again=True)
    | u32("interleave_moe_layer_step", "moe_layer_interval", required=True)
    | u32("leading_dense_block_count", "moe_layer_start_index", required=True)
    | u32("expert_feed_forward_length", "moe_intermediate_size")
    | u32("expert_shared_count", "moe_num_shared_experts")
    | u32("expert_shared_feed_forward_length", value=_shared),
    tensors=DECODER
    | experts(gate="gate_proj", up="up_proj", down="down_proj")
    | shared_experts()
    | ROUTER
    | exact("blk.{l}.exp_probs_b.bias", f"{LAYER}.mlp.moe_statics.e_score_correction.bias"),
    needs=(*TRUNK, *QKV, Either((GATED, MIXTURE)), optional(*SHARED)),
    # What would predict further tokens has no form in GGUF.
    drop=(*BUFFERS, r"^model\.mtp_(block|emb_norm|hidden_norm|linear_proj)\."),
)

ARCHS = (ERNIE, PADDLE_OCR, ERNIE_MOE)
