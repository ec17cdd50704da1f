"""Models as real ones differ: a checkpoint of the zoo whose tokenizer is kept, a class of transformers, other settings.

Data only. `None` as a setting's value removes it (null is `NULL`). Each is small, and named after what it is there for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NULL = "null"


@dataclass(frozen=True)
class Variant:
    """A checkpoint of the zoo, changed: its `architectures` (if another) and settings; dots lead into objects."""

    base: str
    architecture: str | None
    settings: dict[str, Any]


SMALL = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
}
_LLAMA, _QWEN2, _QWEN3_MOE = "Lora-Base-Llama", "Lora-Base-Qwen2", "Lora-Base-Qwen3-MoE"
_GEMMA2, _GEMMA3, _T5 = "gemma-2-2b-it", "gemma-3-1b-it", "t5-small"
_ALTERNATELY = ["full_attention", "sliding_attention"] * 2
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
_LONG = {"type": "longrope", "original_max_position_embeddings": 16}
_LONG |= {"short_factor": [1.0] * 8, "long_factor": [1.0 + 0.3 * i for i in range(8)]}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LATENT = {
    **SMALL,
    "num_key_value_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 32,
    "qk_nope_head_dim": 16, "qk_rope_head_dim": 64, "v_head_dim": 16,
}
_V3 = {
    **_LATENT,
    "model_type": "deepseek_v3", "qk_rope_head_dim": 8, "moe_intermediate_size": 24, "n_routed_experts": 8,
    "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1,
    "routed_scaling_factor": 2.5, "vocab_size": 32256, "text_config": None, "vision_config": None,
}
_INDEXED = {**_LATENT, "index_n_heads": 32, "index_head_dim": 128, "index_topk": 8}
_WINDOWED = {**SMALL, "num_hidden_layers": 4, "head_dim": 16, "sliding_window": 8, "layer_types": _ALTERNATELY}
_FOUR = {**SMALL, "num_hidden_layers": 4}


def _llama(**settings: Any) -> Variant:
    return Variant(_LLAMA, "LlamaForCausalLM", {**SMALL, **settings})


VARIANTS: dict[str, Variant] = {
    "llama-one-head-of-keys": _llama(num_key_value_heads=1),
    "llama-wide-heads": _llama(head_dim=32),
    "llama-tied": _llama(tie_word_embeddings=True),
    "llama-biases": _llama(attention_bias=True, mlp_bias=True),
    "llama-linear": _llama(rope_scaling={"type": "linear", "factor": 4.0}),
    "llama-llama3": _llama(rope_scaling={**_LLAMA3, "original_max_position_embeddings": 64}),
    "llama-yarn": _llama(rope_scaling=_YARN),
    "llama-yarn-attention-factor": _llama(rope_scaling={**_YARN, "attention_factor": 1.0}),
    "llama-yarn-mscale": _llama(rope_scaling={**_YARN, "mscale": 1.0, "mscale_all_dim": 0.8}),
    "llama-longrope": _llama(rope_scaling=_LONG, max_position_embeddings=64),
    "mixtral": Variant("Mixtral-8x7B-Instruct-v0.1", None, {**SMALL, "num_local_experts": 6}),
    "qwen2-tied": Variant(_QWEN2, None, {**SMALL, "tie_word_embeddings": True}),
    "qwen3-moe": Variant(_QWEN3_MOE, None, {**SMALL, "head_dim": 32, "norm_topk_prob": True, "num_experts": 6}),
    "gpt-oss": Variant(
        _QWEN3_MOE,
        "GptOssForCausalLM",
        {
            **_FOUR,
            "model_type": "gpt_oss", "head_dim": 32, "attention_bias": True, "num_local_experts": 4,
            "rope_scaling": {**_YARN, "truncate": True}, "layer_types": _ALTERNATELY, "sliding_window": 8,
        },
    ),
    "qwen3-next": Variant(
        _QWEN3_MOE,
        "Qwen3NextForCausalLM",
        {
            **_FOUR,
            "model_type": "qwen3_next", "head_dim": 32, "partial_rotary_factor": 0.25, "num_experts": 6,
            "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
            "linear_value_head_dim": 16, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40,
        },
    ),
    "gemma-2-other-windows": Variant(_GEMMA2, None, {**_WINDOWED, "query_pre_attn_scalar": 16}),
    "gemma-3-other-windows": Variant(_GEMMA3, None, {**_WINDOWED, "query_pre_attn_scalar": 16}),
    "command-r7b-other-windows": Variant("c4ai-command-r7b-12-2024", None, {**_WINDOWED, "logit_scale": 0.25}),
    "command-r-plus": Variant(
        "c4ai-command-r-v01", None, {**SMALL, "num_hidden_layers": 64, "use_qk_norm": True, "logit_scale": 0.25}
    ),
    "phi-3-longrope-in-part": Variant(
        "Phi-3-mini-128k-instruct",
        None,
        {
            **SMALL, "sliding_window": NULL, "partial_rotary_factor": 0.75, "tie_word_embeddings": True,
            "original_max_position_embeddings": 16, "max_position_embeddings": 128,
            "rope_scaling": {key: value[:6] if isinstance(value, list) else value for key, value in _LONG.items()},
        },
    ),
    "phi-2-own-widths": Variant("phi-2", None, {**SMALL, "partial_rotary_factor": 0.5}),
    "gpt2-n-inner": Variant("gpt2-small", None, {"n_inner": 80}),
    "olmo-3": Variant(
        "OLMo-2-1124-7B-Instruct",
        "Olmo3ForCausalLM",
        {**_FOUR, "model_type": "olmo3", "sliding_window": 8, "rope_theta": 500000.0, "rope_scaling": _YARN},
    ),
    "stablelm-in-sequence": Variant(
        "stablelm-2-12b-chat",
        None,
        {**SMALL, "use_qkv_bias": True, "qk_layernorm": False, "use_parallel_residual": False},
    ),
    "smollm3": Variant(
        _QWEN2,
        "SmolLM3ForCausalLM",
        {**_FOUR, "model_type": "smollm3", "use_sliding_window": False, "pad_token_id": 0, "attention_bias": False},
    ),
    "deepseek-v3-unsaid-scoring": Variant("Kimi-VL-A3B-Instruct", "DeepseekV3ForCausalLM", _V3),
    "deepseek-v3-yarn": Variant(
        "Kimi-VL-A3B-Instruct",
        "DeepseekV3ForCausalLM",
        {**_V3, "rope_scaling": {**_YARN, "mscale": 1.0, "mscale_all_dim": 1.0}},
    ),
    "deepseek-v3.2-indexed": Variant("DeepSeek-V3.2", None, _INDEXED),
    "glm-5-indexed": Variant(
        "GLM-5",
        None,
        {**_INDEXED, "indexer_types": None, "mlp_layer_types": None, "layer_types": None, "first_k_dense_replace": 1},
    ),
    "granite-4-hybrid": Variant("granite-4.0-h-tiny", None, {}),
    "granite-4-hybrid-turning": Variant("granite-4.0-h-tiny", None, {"position_embedding_type": "rope"}),
    "granite-4-micro": Variant("granite-4.0-micro", None, {}),
    "lfm2": Variant("LFM2-8B-A1B", "Lfm2ForCausalLM", {"model_type": "lfm2", "block_ff_dim": 96}),
    "t5-1.0": Variant(_T5, None, {}),
    "t5-shallower-decoder": Variant(_T5, None, {"num_decoder_layers": 1}),
}
