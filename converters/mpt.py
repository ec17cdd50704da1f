"""MPT, and SEA-LION, which shares its class: attention falls with distance, and no biases as a rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Table, f32, rule, u32
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts
from gguf_forge.errors import ConversionError

from .common import layer

BLOCK = "transformer.blocks.{l}"


def _attention(facts: Facts) -> Mapping[str, Any]:
    found = need(facts.config, "attn_config")
    if not isinstance(found, Mapping):
        raise ConversionError(f"config.json: attn_config must be an object, got {found!r:.60}")
    return found


def _falls(facts: Facts) -> float:
    """How steeply attention falls with distance: not at all where positions have an embedding."""
    attention = _attention(facts)
    return float(attention.get("alibi_bias_max", 8)) if attention.get("alibi") else 0.0


def _widened(facts: Facts) -> int:
    return int((facts.config.get("expansion_ratio") or 4) * facts.number("d_model"))


MPT = Arch(
    "mpt",
    hf=("MPTForCausalLM", "MptForCausalLM"),
    hparams=Table(
        (
            u32("context_length", "max_seq_len", required=True),
            u32("embedding_length", "d_model", required=True),
            u32("block_count", "n_layers", required=True),
            u32("feed_forward_length", value=_widened),
            u32("attention.head_count", "n_heads", required=True),
            u32("attention.head_count_kv", value=lambda facts: _attention(facts).get("kv_n_heads") or None),
            f32("attention.layer_norm_epsilon", value=lambda facts: 1e-5),
            f32("attention.clamp_kqv", value=lambda facts: _attention(facts).get("clip_qkv")),
            f32("attention.max_alibi_bias", value=_falls),
        )
    ),
    tensors=Table(
        (
            rule("token_embd", "transformer.wte"),
            rule("position_embd", "transformer.wpe"),
            rule("output_norm", "transformer.norm_f"),
            rule("output", "lm_head"),
            rule("blk.{l}.attn_norm", f"{BLOCK}.norm_1"),
            rule("blk.{l}.attn_qkv", f"{BLOCK}.attn.Wqkv"),
            rule("blk.{l}.attn_output", f"{BLOCK}.attn.out_proj"),
            rule("blk.{l}.attn_q_norm", f"{BLOCK}.attn.q_ln"),
            rule("blk.{l}.attn_k_norm", f"{BLOCK}.attn.k_ln"),
            rule("blk.{l}.ffn_norm", f"{BLOCK}.norm_2"),
            rule("blk.{l}.ffn_up", f"{BLOCK}.ffn.up_proj"),
            rule("blk.{l}.ffn_down", f"{BLOCK}.ffn.down_proj"),
        )
    ),
    needs=(
        *("token_embd", "output_norm"),
        *layer("attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down"),
    ),
    # SEA-LION has a SentencePiece vocabulary.
    vocab=(vocab.bpe, vocab.together(vocab.spm, vocab.adds(bos=False), vocab.ids(pad=3, eos=1, unk=0))),
    implied=(("logit_scale", (None,)),),
)

ARCHS = (MPT,)
