"""Llama and what shares its class: Llama 1 to 3.2, CodeLlama, DeepSeek-Coder, Yi, Mistral, Mistral-Nemo, Mixtral.

The text models of Pixtral, SmolVLM, Voxtral, GLM-ASR and others that are built on it. And those that differ from it in
a part: AFM (Arcee), Apertus, SmolLM3, Llama-Embed-Nemotron, Nanbeige, which runs through its layers several times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Either, Rule, Table, boolean, f32, rule, u32
from gguf_forge.convert.config import block_count, text_part
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import STACK
from gguf_forge.convert.rows import interleave_halves, number_of

from .common import (
    BASE,
    BUFFERS,
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
    layer,
    pooling,
)
from .rotary import LLAMA3, head_dim, longrope

QUERY_HEADS = ("n_heads", "num_attention_heads")
KEY_HEADS = ("n_kv_heads", "num_key_value_heads", *QUERY_HEADS)

KEYS = BASE | u32("vocab_size", "vocab_size", required=True) | u32("rope.dimension_count", value=head_dim)
#: Queries and keys, whose halves of a head turn together: llama.cpp turns neighbours.
TURNED: Table[Rule] = Table(
    (
        rule("blk.{l}.attn_q", "model.layers.{l}.self_attn.q_proj", verb=interleave_halves(number_of(*QUERY_HEADS))),
        rule("blk.{l}.attn_k", "model.layers.{l}.self_attn.k_proj", verb=interleave_halves(number_of(*KEY_HEADS))),
    )
)
DENSE: Table[Rule] = LLAMA3 | DECODER | TURNED
#: With LongRoPE's factors, which few of llama.cpp's loaders know.
LONG: Table[Rule] = longrope(head_dim, lenient=True) | DENSE
#: Mixtral's experts, also under the names that transformers 5 and MLX give them, as tools that quantize save them.
SPARSE: Table[Rule] = Table(
    (
        rule("blk.{l}.ffn_gate_inp", ("model.layers.{l}.block_sparse_moe.gate", "model.layers.{l}.mlp.gate")),
        *(
            rule(
                f"blk.{{l}}.ffn_{out}_exps",
                (
                    f"model.layers.{{l}}.block_sparse_moe.experts.{{e}}.{part}",
                    f"model.layers.{{l}}.mlp.experts.{{e}}.{out}_proj",
                    f"model.layers.{{l}}.block_sparse_moe.experts.{{e}}.{out}_proj",
                ),
                ends=WEIGHT,
                verb=STACK,
                group="experts",
            )
            for out, part in (("gate", "w1"), ("down", "w2"), ("up", "w3"))
        ),
    )
)
NEEDS = (*TRUNK, *QKV)


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


def _is_glm_asr(job: vocab.VocabJob) -> bool:
    """Whether the folder is GLM-ASR's, whose text model is a Llama by its own name and has GLM's vocabulary."""
    named = (job.folder.object("config.json") or {}).get("architectures")
    return isinstance(named, list) and named[:1] == ["GlmasrModel"]


_END, _USER = "<|endoftext|>", "<|user|>"
LLAMA_VOCAB = (
    vocab.when(_is_glm_asr, vocab.bpe_with(fill={"eos": _END, "eot": _USER, "unk": _END, "bos": _END})),
    vocab.tekken_only,
    vocab.together(vocab.config_space_prefix, vocab.hybrid_dna),
    vocab.together(vocab.config_space_prefix, vocab.spm, vocab.bpe, vocab.tiktoken, codellama_infill, granite_bos),
)

LLAMA = Arch(
    "llama",
    hf=(
        "LlamaForCausalLM",
        "LLaMAForCausalLM",
        "LlamaModel",
        "MistralForCausalLM",
        "MixtralForCausalLM",
        "IQuestCoderForCausalLM",
        "VLlama3ForCausalLM",
    ),
    hparams=KEYS,
    tensors=LONG | SPARSE,
    needs=(*NEEDS, Either((GATED, MIXTURE))),
    vocab=LLAMA_VOCAB,
    renames=((r"text_model\.", ""), *WRAPPERS),
    drop=(*BUFFERS, *MULTIMODAL),
    implied=SILU,
)
#: Models of several parts, of which the text model says no class of its own.
TEXT_PART = replace(
    LLAMA,
    hf=(
        "LlavaForConditionalGeneration",
        "VoxtralForConditionalGeneration",
        "Idefics3ForConditionalGeneration",
        "SmolVLMForConditionalGeneration",
    ),
    tensors=LONG,
    needs=(*NEEDS, *GATED),
    when=lambda config: (text_part(config) or {}).get("model_type", "llama") in ("llama", "mistral", "voxtral_text"),
)
LLAMA_EMBED = replace(
    LLAMA,
    name="llama-embed",
    hf=("LlamaBidirectionalModel",),
    tensors=DENSE.without("output"),
    needs=(*NEEDS, *GATED),
)
SMOLLM3 = replace(
    LLAMA,
    name="smollm3",
    hf=("SmolLM3ForCausalLM",),
    tensors=DENSE,
    needs=(*NEEDS, *GATED),
    implied=(*SILU, ("no_rope_layer_interval", (4,)), ("use_sliding_window", (False,))),
)
NANBEIGE = replace(
    SMOLLM3,
    name="nanbeige",
    hf=("NanbeigeForCausalLM",),
    hparams=KEYS
    | u32("num_loops", value=lambda facts: max(facts.config.get("num_loops") or 1, 1))
    | boolean("skip_loop_final_norm", value=lambda facts: bool(facts.config.get("skip_loop_final_norm"))),
    implied=SILU,
)
ARCEE = replace(
    SMOLLM3,
    name="arcee",
    hf=("ArceeForCausalLM",),
    hparams=KEYS | u32("pooling_type", value=pooling),
    tensors=DENSE.without("blk.{l}.ffn_gate"),
    needs=(*NEEDS, *layer("ffn_up", "ffn_down")),
    implied=(("hidden_act", ("relu2",)),),
)

ACTIVATION = "model.layers.{l}.mlp.act_fn"


def _of_layers(part: str) -> Callable[[Facts], list[float]]:
    """A number that each layer's activation has learned."""

    def values(facts: Facts) -> list[float]:
        names = (f"{ACTIVATION}.{part}".replace("{l}", str(i)) for i in range(block_count(facts.config)))
        return [facts.look(name).item() for name in names]

    return values


XIELU = ("alpha_n", "alpha_p", "beta", "eps")
APERTUS = replace(
    SMOLLM3,
    name="apertus",
    hf=("ApertusForCausalLM",),
    hparams=KEYS | Table(tuple(f32(f"xielu.{part}", value=_of_layers(part), early=True) for part in XIELU)),
    tensors=(longrope(head_dim, lenient=True) | LLAMA3 | DECODER | QK_NORM).without("blk.{l}.ffn_gate")
    | rule("blk.{l}.attn_norm", "model.layers.{l}.attention_layernorm")
    | rule("blk.{l}.ffn_norm", "model.layers.{l}.feedforward_layernorm"),
    needs=(*NEEDS, "output", *QK_NORMS, *layer("ffn_up", "ffn_down")),
    looks=tuple(f"{ACTIVATION}.{part}" for part in XIELU),
    implied=(("hidden_act", ("xielu",)),),
)

ARCHS = (LLAMA, TEXT_PART, LLAMA_EMBED, SMOLLM3, NANBEIGE, ARCEE, APERTUS)
