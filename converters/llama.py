"""Llama and what shares its class: Llama 1 to 3.2, CodeLlama, DeepSeek-Coder, Yi, Mistral, Mistral-Nemo, Mixtral."""

from __future__ import annotations

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Either, Rule, Table, rule, u32
from gguf_forge.convert.ops import STACK
from gguf_forge.convert.rows import heads_of, interleave_halves

from .common import BASE, BUFFERS, DECODER, GATED, MIXTURE, QKV, SILU, TRUNK, WRAPPERS
from .rotary import LLAMA3, head_dim


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
    LLAMA3
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
