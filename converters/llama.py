"""Llama and what shares its class: Llama 1 to 3.2, CodeLlama, DeepSeek-Coder, Yi, Mistral, Mistral-Nemo, Mixtral."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Either, Rule, Table, exact, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import STACK, Computed
from gguf_forge.convert.rope import rope_of
from gguf_forge.convert.rows import heads_of, interleave_halves

from .common import BASE, BUFFERS, DECODER, GATED, MIXTURE, QKV, SILU, TRUNK, WRAPPERS


def head_dim(facts: Facts) -> Any:
    """Elements of a head: as declared, or the width divided by the heads."""
    declared = facts.config.get("head_dim")
    if declared is not None:
        return declared
    return facts.config["hidden_size"] // facts.config["num_attention_heads"]


def rope_factors(facts: Facts) -> npt.NDArray[np.float32] | None:
    """What Llama 3.1 divides its rotary frequencies by: 1 where waves are short, `factor` where they are long, and
    between the two a smooth passage. All in float32, as the reference calculates. None for other scalings.
    """
    rope = rope_of(facts.config)
    if str(rope.get("rope_type") or "").lower() != "llama3":
        return None
    one = np.float32(1)
    size = head_dim(facts)
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    powers = np.power(np.float64(rope.get("rope_theta", 10000.0)), exponents.astype(np.float64)).astype(np.float32)
    factor = np.float32(rope.get("factor", 8.0))
    low, high = float(rope.get("low_freq_factor", 1.0)), float(rope.get("high_freq_factor", 4.0))
    context = float(rope.get("original_max_position_embeddings", 8192))
    # A number over a tensor is the number times the reciprocal there, which rounds twice.
    waves = (one / (one / powers)) * np.float32(2 * math.pi)
    smooth = ((one / waves) * np.float32(context) - np.float32(low)) / np.float32(high - low)
    between = one / ((one - smooth) / factor + smooth)
    return np.where(waves < context / high, one, np.where(waves > context / low, factor, between)).astype(np.float32)


def _stacked(out: str, part: str) -> Rule:
    return rule(
        f"blk.{{l}}.{out}",
        f"model.layers.{{l}}.block_sparse_moe.experts.{{e}}.{part}",
        ends=WEIGHT,
        verb=STACK,
        group="experts",
    )


QUERY_HEADS = ("n_heads", "num_attention_heads")
KEY_HEADS = ("n_kv_heads", "num_key_value_heads", *QUERY_HEADS)

TENSORS: Table[Rule] = (
    Table((exact("rope_freqs.weight", verb=Computed(rope_factors)),))
    | DECODER
    | rule("blk.{l}.attn_q", "model.layers.{l}.self_attn.q_proj", verb=interleave_halves(heads_of(*QUERY_HEADS)))
    | rule("blk.{l}.attn_k", "model.layers.{l}.self_attn.k_proj", verb=interleave_halves(heads_of(*KEY_HEADS)))
    | rule("blk.{l}.ffn_gate_inp", "model.layers.{l}.block_sparse_moe.gate")
    | _stacked("ffn_gate_exps", "w1")
    | _stacked("ffn_down_exps", "w2")
    | _stacked("ffn_up_exps", "w3")
)


@vocab.step
def codellama_infill(job: vocab.VocabJob) -> vocab.Changes | None:
    """CodeLlama's end-of-infill token. Its companions (prefix, suffix, middle) have no key any more."""
    if job.config.get("vocab_size", 32000) != 32016:
        return None
    return vocab.special_again(("prefix", "suffix", "middle", "eot"), {"eot": 32010})(job)


@vocab.step
def granite_bos(job: vocab.VocabJob) -> vocab.Changes | None:
    """Granite's small models share Llama's architecture and want no BOS."""
    return vocab.adds(bos=False)(job) if job.config.get("vocab_size", 32000) == 49152 else None


LLAMA = Arch(
    "llama",
    hf=("LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel", "MistralForCausalLM", "MixtralForCausalLM"),
    hparams=BASE | u32("vocab_size", "vocab_size", required=True) | u32("rope.dimension_count", value=head_dim),
    tensors=TENSORS,
    needs=(*TRUNK, *QKV, Either((GATED, MIXTURE))),
    vocab=(
        vocab.config_space_prefix,
        vocab.spm,
        vocab.bpe,
        codellama_infill,
        granite_bos,
    ),
    renames=((r"text_model\.", ""), *WRAPPERS),
    drop=BUFFERS,
    implied=SILU,
)

ARCHS = (LLAMA,)
