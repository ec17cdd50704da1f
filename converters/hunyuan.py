"""Hunyuan: dense models, the A13B mixture of experts, the text models of Hunyuan-VL and HunyuanOCR; and Hy3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import EXPERTS, Arch, Either, Hparam, Rule, Table, boolean, exact, f32, rule, string, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.errors import ConversionError

from .common import (
    BASE,
    BUFFERS,
    CONTEXT,
    DECODER,
    GATED,
    MIXTURE,
    MULTIMODAL,
    QK_NORM,
    QK_NORMS,
    QKV,
    SILU,
    TRUNK,
    WRAPPERS,
    main_dropped,
    nextn_dropped,
    nextn_layers,
    with_nextn,
)
from .mla import BLOCKS, FURTHER, FURTHER_OR_OWN, LAYER, NEXTN, SHARED, TIED, experts, shared_experts
from .rotary import head_dim, rope_value, stretched_base

#: The context that a rotary base stretched by alpha is good for; configurations say less.
LONG = 256 << 10


def _is_stretched(facts: Facts) -> bool:
    """Whether the rotary base is stretched by alpha, on one axis."""
    rope = facts.config["rope_parameters"]
    return rope.get("rope_type") == "dynamic" and "mrope_section" not in rope


def _if_stretched(value: Any) -> Callable[[Facts], Any]:
    return lambda facts: value if _is_stretched(facts) else None


def _base(alpha: float) -> Callable[[Facts], Any]:
    stretched, plain = stretched_base(alpha, head_dim), rope_value("rope_theta")
    return lambda facts: (stretched if _is_stretched(facts) else plain)(facts)


def _context(facts: Facts) -> Any:
    said = next((facts.config[key] for key in CONTEXT if key in facts.config), None)
    return LONG if _is_stretched(facts) and said in (32 << 10, LONG) else said


def stretched(alpha: float) -> Table[Hparam]:
    """Rows of a model whose rotary base may be stretched, by this alpha if the configuration names none."""
    return Table(
        (
            u32("context_length", value=_context),
            f32("rope.freq_base", value=_base(alpha)),
            string("rope.scaling.type", value=_if_stretched("none"), again=True),
            f32("rope.scaling.factor", value=_if_stretched(1), again=True),
            u32("rope.scaling.original_context_length", value=_if_stretched(LONG), again=True),
        )
    )


NORMED: Table[Rule] = DECODER | Table(
    tuple(
        rule(f"blk.{{l}}.attn_{letter}_norm", f"{LAYER}.self_attn.{name}_layernorm")
        for letter, name in (("q", "query"), ("k", "key"))
    )
)


@vocab.step
def ends(job: vocab.VocabJob) -> vocab.Changes:
    """The token that ends a text, and the one that ends a turn, which the model's files name wrongly."""
    keys: dict[str, Any] = {}
    if (end := job.config.get("eod_token_id")) is not None:
        keys |= vocab.ids(eos=end)(job) or {}
    eos = (job.folder.object("generation_config.json") or {}).get("eos_token_id")
    if isinstance(eos, list) and len(eos) > 1:
        keys |= vocab.ids(eot=eos[0])(job) or {}
    return keys


@vocab.step
def bos_of_7b(job: vocab.VocabJob) -> vocab.Changes | None:
    """The token that begins a text, where the 7B model's files name another."""
    return vocab.ids(bos=127958)(job) if job.config.get("hidden_size") == 4096 else None


def _says_no_pad(job: vocab.VocabJob) -> bool:
    """Some variants say pad_token_id -1: then no padding token is written, though the tokenizer names one."""
    return int(job.config.get("pad_token_id") or 0) < 0


DENSE = Arch(
    "hunyuan-dense",
    hf=("HunYuanDenseV1ForCausalLM",),
    # Some variants say that they have one expert, and have none.
    hparams=BASE.without("expert_count") | stretched(50),
    tensors=NORMED,
    needs=(*TRUNK, *QKV, *QK_NORMS, *GATED),
    vocab=(
        vocab.when(_says_no_pad, vocab.bpe_with(roles=("bos", "eos", "unk", "sep", "cls", "mask"))),
        vocab.when(lambda job: job.folder.has("tokenizer.json"), vocab.bpe),
        vocab.together(vocab.tiktoken, bos_of_7b),
        ends,
    ),
    renames=WRAPPERS,
    drop=(*BUFFERS, *MULTIMODAL, TIED),
    implied=(*SILU, ("use_cla", (False,)), ("use_qk_norm", (True,))),
)


def _of_axes(*names: str, default: Any = None) -> Callable[[Facts], Any]:
    """A value of the rotary parameters, or else of the configuration, where positions have several axes."""

    def value(facts: Facts) -> Any:
        rope = facts.config["rope_parameters"]
        if rope.get("rope_type") not in ("dynamic", "xdrope") or _is_stretched(facts):
            return None
        return next((part[n] for part in (rope, facts.config) for n in names if part.get(n) is not None), default)

    return value


#: Positions on several axes: readers stretch the base themselves.
VL = replace(
    DENSE,
    name="hunyuan_vl",
    hf=("HunYuanVLForConditionalGeneration",),
    hparams=DENSE.hparams
    | string("rope.scaling.type", value=lambda facts: "none" if _of_axes("alpha")(facts) else None, again=True)
    | f32("rope.scaling.factor", value=_of_axes("factor", default=1), again=True)
    | f32("rope.scaling.alpha", value=_of_axes("alpha"))
    | u32("rope.scaling.original_context_length", value=_of_axes("max_position_embeddings"), again=True),
)


def _alike(key: str) -> Callable[[Facts], int]:
    """What a list has for every layer alike. ConversionError where layers differ, for which readers have no form."""

    def value(facts: Facts) -> int:
        found = facts.config.get(key)
        numbers = found if isinstance(found, list) else [found]
        if not numbers or any(number != numbers[0] for number in numbers) or not isinstance(numbers[0], int):
            raise ConversionError(f"config.json: {key} must be one number for all layers, got {found!r:.60}")
        return numbers[0]

    return value


MOE = replace(
    DENSE,
    name="hunyuan-moe",
    hf=("HunYuanMoEV1ForCausalLM",),
    hparams=BASE
    | u32("expert_shared_feed_forward_length", "intermediate_size", required=True)
    | u32("expert_feed_forward_length", value=_alike("moe_intermediate_size"))
    | u32("expert_used_count", value=_alike("moe_topk"), again=True)
    | u32("expert_shared_count", value=_alike("num_shared_expert"))
    | stretched(1000),
    tensors=NORMED.without(*GATED)
    | rule("blk.{l}.ffn_gate_inp", f"{LAYER}.mlp.gate.wg")
    | experts()
    | shared_experts(f"{LAYER}.mlp.shared_mlp"),
    needs=(*TRUNK, *QKV, *QK_NORMS, *MIXTURE, *SHARED),
    vocab=(vocab.together(vocab.tiktoken, vocab.ids(bos=127959)), vocab.bpe),
)


def _kept(facts: Facts) -> int | None:
    return None if facts.options.mtp == "drop" else nextn_layers(NEXTN)(facts) or None


#: Hy3; a layer that predicts further tokens may come after its own.
HY_V3 = Arch(
    "hy_v3",
    hf=("HYV3ForCausalLM",),
    hparams=BASE
    | BLOCKS
    | u32("expert_feed_forward_length", "moe_intermediate_size", required=True)
    | u32(
        "expert_shared_feed_forward_length",
        value=lambda facts: facts.number("moe_intermediate_size") * facts.config.get("num_shared_experts", 1),
    )
    | boolean("expert_weights_norm", "route_norm", default=True)
    | f32("expert_weights_scale", "router_scaling_factor", default=1.0)
    | u32("expert_gating_func", value=lambda facts: 2, again=True)
    | u32("nextn_predict_layers", value=_kept),
    tensors=DECODER
    | QK_NORM
    | experts()
    | shared_experts(f"{LAYER}.mlp.shared_mlp")
    | rule("blk.{l}.ffn_gate_inp", f"{LAYER}.mlp.router.gate")
    | exact("blk.{l}.exp_probs_b", f"{LAYER}.mlp.expert_bias")
    | FURTHER.without("blk.{l}.nextn.embed_tokens", "blk.{l}.nextn.shared_head_head"),
    needs=(*TRUNK, *QKV, *QK_NORMS, Either((GATED, (*MIXTURE, *SHARED))), FURTHER_OR_OWN),
    vocab=(vocab.bpe,),
    renames=(*WRAPPERS, (r"\.final_layernorm\.", ".shared_head.norm.")),
    drop=(*BUFFERS, *MULTIMODAL, nextn_dropped(), main_dropped()),
    axes={"l": with_nextn(nextn_layers(NEXTN)), "e": EXPERTS},
    implied=SILU,
    mtp=True,
)

ARCHS = (DENSE, VL, MOE, HY_V3)
