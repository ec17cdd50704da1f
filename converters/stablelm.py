"""StableLM: Zephyr and Stable Code (3B), StableLM 2 1.6B and 12B, whose queries and keys are normalised by head."""

from __future__ import annotations

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import LAYERS, WEIGHT, Arch, Axis, Table, boolean, f32, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import STACK

from .common import BUFFERS, DECODER, FILE_TYPE, GATED, MULTIMODAL, QKV, SILU, WRAPPERS, affine, layer
from .rotary import turned, unusual_base, width_by_heads

NORM = "model.layers.{l}.self_attn"


def _heads(key: str) -> Axis:
    return Axis(lambda facts: facts.number(key))


def _parallel(facts: Facts) -> bool:
    """Whether both halves of a layer read its input, where the configuration does not say; readers do not ask."""
    return bool(facts.config.get("model_type") != "stablelm")


STABLELM = Arch(
    "stablelm",
    hf=("StableLmForCausalLM", "StableLMEpochForCausalLM", "LlavaStableLMEpochForCausalLM"),
    hparams=Table(
        (
            u32("context_length", "max_position_embeddings", required=True),
            u32("embedding_length", "hidden_size", required=True),
            u32("block_count", "num_hidden_layers", required=True),
            u32("feed_forward_length", "intermediate_size", required=True),
            u32("rope.dimension_count", value=turned(0.25, width_by_heads)),
            u32("attention.head_count", "num_attention_heads", required=True),
            u32("attention.head_count_kv", "num_key_value_heads", required=True),
            boolean("use_parallel_residual", "use_parallel_residual", default=_parallel),
            f32("attention.layer_norm_epsilon", "layer_norm_eps", "norm_eps", required=True),
            f32("rope.freq_base", value=unusual_base),
            FILE_TYPE,
        )
    ),
    tensors=DECODER
    | rule("blk.{l}.attn_q_norm", f"{NORM}.q_layernorm.norms.{{q}}", ends=WEIGHT, verb=STACK)
    | rule("blk.{l}.attn_k_norm", f"{NORM}.k_layernorm.norms.{{k}}", ends=WEIGHT, verb=STACK),
    # StableLM 2 12B feeds forward what it attends to, without a norm of its own.
    needs=(*affine("output_norm"), *layer(*affine("attn_norm"), "attn_output"), "token_embd", "output", *QKV, *GATED),
    # The first files of StableLM 2 1.6B had a vocabulary like Qwen's.
    vocab=(vocab.when(lambda job: job.folder.has("tokenizer.json"), vocab.bpe), vocab.qwen_tiktoken),
    renames=WRAPPERS,
    drop=(*BUFFERS, *MULTIMODAL),
    axes={"l": LAYERS, "q": _heads("num_attention_heads"), "k": _heads("num_key_value_heads")},
    implied=SILU,
)

ARCHS = (STABLELM,)
