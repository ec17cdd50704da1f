"""Large mixtures of experts of the first years: DBRX, Grok 1 and 2, Arctic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Either, Hparam, Rule, Table, exact, f32, optional, rule, string, u32
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import TRANSPOSE, Reshape
from gguf_forge.convert.rows import interleave_halves, number_of

from .common import (
    BASE,
    BUFFERS,
    DECODER,
    FILE_TYPE,
    GATED,
    MIXTURE,
    QKV,
    SILU,
    TRUNK,
    WRAPPERS,
    layer,
)
from .mla import LAYER, experts
from .rotary import head_dim


def _part(part: str, key: str) -> Callable[[Facts], Any]:
    """A key of one of DBRX's parts."""
    return lambda facts: need(need(facts.config, part), key)


def _by_expert(shape: Sequence[int], facts: Facts) -> Sequence[int]:
    """DBRX's experts, stored one below the other: (experts x width, model) as (experts, width, model)."""
    count = _part("ffn_config", "moe_num_experts")(facts)
    return count, shape[0] // count, shape[1]


BLOCK = "transformer.blocks.{l}"
DBRX = Arch(
    "dbrx",
    hf=("DbrxForCausalLM",),
    hparams=Table(
        (
            *(row for row in BASE.rows if row.key == "block_count"),
            u32("context_length", "max_seq_len", required=True),
            u32("embedding_length", "d_model", required=True),
            u32("feed_forward_length", value=_part("ffn_config", "ffn_hidden_size")),
            u32("attention.head_count", "n_heads", required=True),
            u32("attention.head_count_kv", value=_part("attn_config", "kv_n_heads")),
            f32("rope.freq_base", value=_part("attn_config", "rope_theta")),
            f32("attention.clamp_kqv", value=_part("attn_config", "clip_qkv")),
            u32("expert_count", value=_part("ffn_config", "moe_num_experts")),
            u32("expert_used_count", value=_part("ffn_config", "moe_top_k")),
            # PyTorch's default, which config.json does not have.
            f32("attention.layer_norm_epsilon", value=lambda facts: 1e-5),
            FILE_TYPE,
        )
    ),
    tensors=Table(
        (
            rule("token_embd", "transformer.wte"),
            rule("output_norm", "transformer.norm_f"),
            rule("output", "lm_head"),
            rule("blk.{l}.attn_norm", f"{BLOCK}.norm_attn_norm.norm_1"),
            rule("blk.{l}.attn_output_norm", f"{BLOCK}.norm_attn_norm.norm_2"),
            rule("blk.{l}.attn_qkv", f"{BLOCK}.norm_attn_norm.attn.Wqkv"),
            rule("blk.{l}.attn_output", f"{BLOCK}.norm_attn_norm.attn.out_proj"),
            rule("blk.{l}.ffn_gate_inp", f"{BLOCK}.ffn.router.layer", type=True),
            exact("blk.{l}.ffn_gate_exps.weight", f"{BLOCK}.ffn.experts.mlp.w1", verb=Reshape(_by_expert)),
            exact("blk.{l}.ffn_down_exps.weight", f"{BLOCK}.ffn.experts.mlp.w2", verb=Reshape(_by_expert) | TRANSPOSE),
            exact("blk.{l}.ffn_up_exps.weight", f"{BLOCK}.ffn.experts.mlp.v1", verb=Reshape(_by_expert)),
        )
    ),
    needs=(
        *("token_embd", "output_norm", "output"),
        *layer("attn_norm", "attn_output_norm", "attn_qkv", "attn_output"),
        *MIXTURE,
    ),
    vocab=(vocab.bpe,),
    drop=BUFFERS,
)


def _yarn(key: str) -> Callable[[Facts], Any]:
    """A key of Grok 2's scaling, whose type is called original by mistake."""

    def value(facts: Facts) -> Any:
        return need(facts.config, key) if facts.config.get("rope_type") in ("yarn", "original") else None

    return value


#: Grok 2's scaling by YaRN, whose keys stand at the root of config.json.
YARN: Table[Hparam] = Table(
    (
        string("rope.scaling.type", value=lambda f: _yarn("rope_type")(f) and "yarn", again=True),
        *(
            row(f"rope.scaling.{key}", value=_yarn(name), again=True)
            for row, key, name in (
                (f32, "factor", "scaling_factor"),
                (u32, "original_context_length", "original_max_position_embeddings"),
                (f32, "yarn_ext_factor", "extrapolation_factor"),
                (f32, "yarn_attn_factor", "attn_factor"),
                (f32, "yarn_beta_fast", "beta_fast"),
                (f32, "yarn_beta_slow", "beta_slow"),
            )
        ),
    )
)
#: Names of Grok 1, and of Grok 2.
_GROK = {
    "token_embd": ("transformer.in_out_embed", "model.embed_tokens"),
    "output_norm": ("transformer.rms_norm", "model.norm"),
    "blk.{l}.attn_q": ("multi_head_attention.query", "self_attn.q_proj"),
    "blk.{l}.attn_k": ("multi_head_attention.key", "self_attn.k_proj"),
    "blk.{l}.attn_v": ("multi_head_attention.value", "self_attn.v_proj"),
    "blk.{l}.attn_output": ("multi_head_attention.linear", "self_attn.o_proj"),
    "blk.{l}.attn_norm": ("rms_norm", "pre_attn_norm"),
    "blk.{l}.attn_output_norm": ("rms_norm_1", "post_attn_norm"),
    "blk.{l}.ffn_norm": ("rms_norm_2", "pre_moe_norm"),
    "blk.{l}.ffn_gate_inp": ("router", "block_sparse_moe.gate"),
}


def _grok(out: str, first: str, second: str) -> Rule:
    if not out.startswith("blk."):
        return rule(out, (first, second), ends=WEIGHT)
    return rule(out, (f"transformer.decoder_layer.{{l}}.{first}", f"{LAYER}.{second}"), ends=WEIGHT)


GROK = Arch(
    "grok",
    hf=("GrokForCausalLM", "Grok1ForCausalLM"),
    hparams=BASE
    | f32("attn_logit_softcapping", "attn_logit_softcapping", default=30.0)
    | f32("router_logit_softcapping", "router_logit_softcapping", default=30.0)
    | f32("final_logit_softcapping", value=lambda facts: facts.config.get("final_logit_softcapping") or None)
    | u32("expert_feed_forward_length", "moe_intermediate_size")
    | YARN
    | u32("attention.temperature_length", value=lambda facts: facts.config.get("attn_temperature_len") or None)
    | f32("attention.output_scale", value=lambda f: f.config.get("attn_output_multiplier", head_dim(f) ** -0.5))
    | f32("embedding_scale", "embedding_multiplier_scale", required=True)
    | f32("logit_scale", "output_multiplier_scale", required=True),
    tensors=DECODER
    | Table(tuple(_grok(out, *names) for out, names in _GROK.items()))
    | rule("blk.{l}.layer_output_norm", "transformer.decoder_layer.{l}.rms_norm_3", ends=WEIGHT)
    | rule("blk.{l}.post_ffw_norm", f"{LAYER}.post_moe_norm", ends=WEIGHT)
    | experts(f"{LAYER}.block_sparse_moe", gate="w1", down="w2", up="w3"),
    needs=(
        *TRUNK,
        *QKV,
        *layer("attn_output_norm"),
        *MIXTURE,
        Either((layer("layer_output_norm"), layer("post_ffw_norm"))),
        optional(*GATED),
    ),
    vocab=(vocab.spm, vocab.bpe),
    renames=(
        *WRAPPERS,
        *(
            (
                rf"^transformer\.decoder_layer\.(\d+)\.moe\.(\d+)\.{old}\.",
                rf"model.layers.\1.block_sparse_moe.experts.\2.{new}.",
            )
            for old, new in (("linear", "w1"), ("linear_1", "w2"), ("linear_v", "w3"))
        ),
    ),
    drop=BUFFERS,
)


@vocab.loader
def arctic_pieces(job: vocab.VocabJob) -> vocab.Keys | None:
    """Arctic redefines two pieces of its file in tokenizer_config.json, which alone counts."""
    tokens = vocab.read_pieces(job)
    if tokens is None:
        return None
    for number_, entry in (vocab.config_entries(job.folder) or {}).items():
        text = vocab.text_of(entry) or ""
        if number_ >= len(tokens.tokens):
            continue
        if not vocab.is_special(entry):
            tokens.put(number_, text, vocab.TokenType.USER_DEFINED, -10000.0)
        else:
            unknown = text == job.settings.get("unk_token")
            tokens.put(number_, text, vocab.TokenType.UNKNOWN if unknown else vocab.TokenType.CONTROL, 0.0)
    return vocab.finish(job, tokens)


_HEADS, _HEADS_KV = number_of("num_attention_heads"), number_of("num_key_value_heads", "num_attention_heads")
#: Beside its experts each layer of Arctic has a dense part, with a norm of its own.
RESIDUAL = {"ffn_norm": "residual_layernorm", "ffn_norm_exps": "post_attention_layernorm"} | {
    f"ffn_{part}": f"residual_mlp.{name}" for part, name in (("gate", "w1"), ("down", "w2"), ("up", "w3"))
}
ARCTIC = Arch(
    "arctic",
    hf=("ArcticForCausalLM",),
    hparams=BASE
    | u32("vocab_size", "vocab_size", required=True)
    | u32("rope.dimension_count", value=lambda f: f.number("hidden_size") // f.number("num_attention_heads")),
    tensors=DECODER
    | rule("blk.{l}.attn_q", f"{LAYER}.self_attn.q_proj", verb=interleave_halves(_HEADS))
    | rule("blk.{l}.attn_k", f"{LAYER}.self_attn.k_proj", verb=interleave_halves(_HEADS_KV))
    | Table(tuple(rule(f"blk.{{l}}.{out}", f"{LAYER}.{name}") for out, name in RESIDUAL.items()))
    | rule("blk.{l}.ffn_gate_inp", f"{LAYER}.block_sparse_moe.gate")
    | experts(f"{LAYER}.block_sparse_moe", gate="w1", down="w2", up="w3"),
    needs=(*TRUNK, *QKV, *GATED, *MIXTURE, *layer("ffn_norm_exps")),
    vocab=(arctic_pieces,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=SILU,
)

ARCHS = (DBRX, GROK, ARCTIC)
