"""Which weights llama.cpp multiplies by a scale of the whole tensor: `blk.0.ffn_up.scale` beside `blk.0.ffn_up.weight`.

It loads such a tensor for every architecture (llama-model.cpp, the pass over `.scale`); a graph that does not ask for
it computes without. Which do was found by running each: a weight halved beside a scale of two must leave the logits as
they are, and halved alone must not (tests/runtime/find_scales.py). Data only, and the question asked of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.weight")
ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_output")
FUSED = ("attn_qkv", "attn_output")
DENSE = ("ffn_gate", "ffn_up", "ffn_down")
EXPERTS = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
SHARED = ("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")
STATES = ("ssm_in", "ssm_out")
#: Where only attention applies them.
_ATTENTION_ALONE = """
baichuan bailingmoe command-r deci dream ernie4_5-moe exaone exaone-moe gemma3 glm4 glm4moe granitemoe grovemoe
hunyuan-dense hunyuan-moe hunyuan_vl laguna lfm2 lfm2moe llada llada-moe olmo2 olmoe phimoe qwen2 qwen3vl qwen3vlmoe
seed_oss
"""
#: By architecture, the weights whose scale is applied. One that is not listed was not tried, or applies none.
APPLIED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_ATTENTION_ALONE.split(), ATTENTION),
    **dict.fromkeys(("codeshell", "phi3"), FUSED),
    **dict.fromkeys(("granitehybrid", "jamba"), (*ATTENTION, *STATES)),
    **dict.fromkeys(("cohere2", "mistral3", "qwen3"), (*ATTENTION, *DENSE)),
    "hy_v3": (*ATTENTION, *DENSE, *EXPERTS, *SHARED),
    "llama": (*ATTENTION, *DENSE, *EXPERTS),
    "nemotron_h": (*ATTENTION, *STATES, "ffn_up", "ffn_down"),
    "nemotron_h_moe": STATES,
    "qwen35": ("attn_qkv", "attn_gate", "ssm_alpha", "ssm_beta", "ssm_out"),
    "qwen3moe": (*ATTENTION, *EXPERTS),
}


def has_scale(arch: str, name: str, outputs: Collection[str], layers: int) -> bool:
    """Whether llama.cpp multiplies what an architecture's weight of this name gives by a scale beside it.

    `layers` are the model's own: in those that predict further tokens it looks for none. Of feed-forward layers it
    multiplies the bias too, so that there may be none among the outputs.
    """
    match = _NAME.fullmatch(name)
    if match is None or match[2] not in APPLIED.get(arch, ()) or int(match[1]) >= layers:
        return False
    return not match[2].startswith("ffn") or f"{name.removesuffix('.weight')}.bias" not in outputs
