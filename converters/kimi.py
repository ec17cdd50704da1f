"""Kimi Linear and Kimi K3: layers of delta attention between those of latent attention. K3's experts work in a narrower
space, and stay the 4-bit floats they are stored as.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Either, Table, boolean, exact, f32, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import NEG_EXP, STACK, Whole
from gguf_forge.convert.packed import PACK_MXFP4
from gguf_forge.format import values

from . import mla
from .common import BASE, BUFFERS, DECODER, GATED, GATING, MIXTURE, MULTIMODAL, SILU, TRUNK, WRAPPERS, gating, layer
from .kda import DELTA, FORGET, FORGETS, GATE, GATES, KDA_KEYS, delta, full_attention

MOE = f"{mla.LAYER}.block_sparse_moe"
EXPERT_PARTS = {"gate": "w1", "down": "w2", "up": "w3"}
_MOE_KEYS = Table(
    (
        u32("expert_feed_forward_length", "moe_intermediate_size", required=True),
        u32("expert_shared_count", "num_shared_experts", required=True),
        mla.LEADING_DENSE,
        f32("expert_weights_scale", "routed_scaling_factor", required=True),
    )
)

KIMI_LINEAR = Arch(
    "kimi-linear",
    hf=("KimiLinearForCausalLM", "KimiLinearModel"),
    hparams=BASE
    # What transformers 5 saves does not name the function.
    | u32("expert_gating_func", value=lambda facts: gating(facts) or GATING["sigmoid"])
    | u32("attention.head_count_kv", value=full_attention)
    | u32("vocab_size", "vocab_size", required=True)
    | KDA_KEYS.without("kda.gate_lower_bound")
    | mla.latent_keys(turned=True, value=False)
    | _MOE_KEYS,
    tensors=DECODER
    | mla.latent().without(*mla.SHORT_QUERIES)
    | delta(decay=NEG_EXP)
    | FORGET
    | GATE
    | mla.DENSE
    | mla.experts(MOE, **EXPERT_PARTS)
    | mla.shared_experts(f"{MOE}.shared_experts")
    | rule("blk.{l}.ffn_gate_inp", f"{MOE}.gate")
    | exact("blk.{l}.exp_probs_b.bias", f"{MOE}.gate.e_score_correction.bias"),
    needs=(
        *TRUNK,
        "output",
        *layer("attn_q"),
        Either(((*DELTA, *FORGETS, *GATES), mla.LATENT)),
        Either((GATED, (*MIXTURE, *layer("exp_probs_b.bias")))),
    ),
    vocab=(vocab.bpe, vocab.together(vocab.tiktoken, vocab.ids(eos="[EOS]"))),
    # transformers 5 saves dense layers under the name of those with experts.
    renames=(*WRAPPERS, (r"\.block_sparse_moe\.((gate|up|down)_proj\.)", r".mlp.\1")),
    drop=BUFFERS,
    implied=SILU,
)

RESIDUALS = {
    "blk.{l}.attn_res_score": f"{mla.LAYER}.self_attention_res",
    "blk.{l}.ffn_res_score": f"{mla.LAYER}.mlp_res",
    "output_res_score": "model.output_attn_res",
}
#: A norm's weight and the projection behind it are used as their product alone.
PRODUCT = Whole(
    lambda arrays, _: arrays[0].reshape(-1) * arrays[1].reshape(-1), shape=lambda shapes, _: (prod(shapes[0]),)
)


def _is_full(facts: Facts) -> bool:
    return facts.layer is not None and bool(full_attention(facts)[facts.layer])


def _file_type(facts: Facts) -> int:
    """MXFP4_MOE where mla.experts are packed, under every outtype; otherwise the outtype's."""
    return 38 if any(name.endswith("w1.weight_packed") for name in facts.headers) else 0


@vocab.step
def k3_end(job: vocab.VocabJob) -> vocab.Changes:
    """The token that ends a turn, which config.json names; and a template, which comes with no checkpoint."""
    end = job.config.get("eos_token_id")
    keys = dict(vocab.ids(eos=end)(job) or {}) if isinstance(end, int) else {}
    if not any(key.startswith("tokenizer.chat_template") for key in job.keys):
        keys["tokenizer.chat_template"] = values.string(vocab.shipped("kimi-k3.jinja"))
    return keys


KIMI_K3 = replace(
    KIMI_LINEAR,
    name="kimi-k3",
    # Its text model names the class of Kimi Linear.
    hf=("KimiK3ForConditionalGeneration", "KimiLinearForCausalLM"),
    whole=("KimiK3ForConditionalGeneration",),
    when=lambda config: (config.get("architectures") or [""])[0] == "KimiK3ForConditionalGeneration",
    hparams=BASE
    | u32("general.file_type", value=_file_type)
    | u32("vocab_size", "vocab_size", required=True)
    | u32("attention.head_count_kv", value=full_attention)
    | KDA_KEYS
    | mla.latent_keys(turned=True)
    | _MOE_KEYS
    | boolean("expert_weights_norm", "moe_renormalize", required=True)
    | u32("expert_gating_func", value=lambda facts: 2, again=True)
    | u32("expert_latent_length", "routed_expert_hidden_size")
    | f32("activation.situ_beta", "activation_situ_beta", required=True)
    | f32("activation.situ_linear_beta", "activation_situ_linear_beta", required=True)
    | u32("attn_res.block_size", "attn_res_block_size", required=True),
    tensors=KIMI_LINEAR.tensors.without(*GATES)
    | mla.latent()
    | delta()
    | rule("blk.{l}.ssm_g", f"{mla.LAYER}.self_attn.g_proj", when=lambda facts: not _is_full(facts))
    | rule("blk.{l}.attn_gate", f"{mla.LAYER}.self_attn.g_proj", when=_is_full)
    | Table(
        tuple(
            exact(f"{out}.weight", f"{source}_norm.weight", f"{source}_proj.weight", verb=PRODUCT)
            for out, source in RESIDUALS.items()
        )
    )
    | Table(
        tuple(rule(f"blk.{{l}}.ffn_routed_{p}", f"{MOE}.routed_expert_{p}_proj") for p in ("down", "up"))
    )
    | rule("blk.{l}.ffn_routed_norm", f"{MOE}.routed_expert_norm")
    | Table(
        tuple(
            exact(
                f"blk.{{l}}.ffn_{part}_exps.weight",
                f"{MOE}.experts.{{e}}.{name}.weight_packed",
                f"{MOE}.experts.{{e}}.{name}.weight_scale",
                verb=PACK_MXFP4 | STACK,
                variant="packed",
                first=1,
            )
            for part, name in EXPERT_PARTS.items()
        )
    ),
    needs=(
        *TRUNK,
        "output",
        "output_res_score",
        *layer("attn_res_score", "ffn_res_score"),
        mla.QUERIES,
        Either(((*DELTA, *FORGETS, *layer("ssm_g")), mla.LATENT)),
        Either((GATED, (*MIXTURE, *layer("exp_probs_b.bias")))),
    ),
    vocab=(*KIMI_LINEAR.vocab, k3_end),
    drop=(*BUFFERS, *MULTIMODAL),
    implied=(("hidden_act", ("situ",)), ("mla_use_nope", (True,)), ("moe_router_activation_func", ("sigmoid",))),
)

ARCHS = (KIMI_LINEAR, KIMI_K3)
