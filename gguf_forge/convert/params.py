"""Mistral's own configuration, params.json, under the names that config.json has for the same things.

What is under other names stays beside them. Must not know GGUF's keys, tensors, or families.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The class by which families know such a configuration.
NATIVE_CLASS = "MistralNative"
#: The context where params.json says none: what Mistral's loader in vLLM assumes.
CONTEXT = 128_000

_NAMES = {
    "dim": "hidden_size",
    "hidden_dim": "intermediate_size",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "n_layers": "num_hidden_layers",
    "norm_eps": "rms_norm_eps",
    "tied_embeddings": "tie_word_embeddings",
}
_MOE_NAMES = {
    "expert_hidden_dim": "moe_intermediate_size",
    "first_k_dense_replace": "first_k_dense_replace",
    "num_expert_groups": "n_group",
    "num_expert_groups_per_tok": "topk_group",
    "num_experts": "n_routed_experts",
    "num_experts_per_tok": "num_experts_per_tok",
    "num_shared_experts": "n_shared_experts",
    "routed_scale": "routed_scaling_factor",
}
#: How Mistral's experts are chosen, which params.json leaves unsaid.
_ROUTING = {"norm_topk_prob": True, "scoring_func": "softmax"}


def is_params(raw: Mapping[str, Any]) -> bool:
    """Whether a configuration is Mistral's own."""
    return not raw.keys() & {"architectures", "model_type"} and {"dim", "n_layers", "n_heads"} <= raw.keys()


def renamed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Mistral's configuration with the names of config.json for what it says."""
    context = next((raw[key] for key in ("max_position_embeddings", "max_seq_len") if key in raw), CONTEXT)
    config = {**raw, "architectures": [NATIVE_CLASS], "max_position_embeddings": context}
    config.update({new: raw[old] for old, new in _NAMES.items() if old in raw})
    experts = raw.get("moe")
    if isinstance(experts, Mapping):
        config.update({new: experts[old] for old, new in _MOE_NAMES.items() if old in experts})
        config.update(_ROUTING)
    return config
