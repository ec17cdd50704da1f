"""Which weights llama.cpp multiplies by a scale of the whole tensor: `blk.0.ffn_up.scale` beside `blk.0.ffn_up.weight`.

It loads such a tensor for every architecture (llama-model.cpp, the pass over `.scale`); a graph that does not ask for
it computes without. Which do was read in src/models of llama.cpp, as the package xllamacpp 2026.10.11549 has it: which
weights are always given along with their scales (tests/runtime/read_scales.py). Of 101 architectures it was found by
running, too: a weight made small beside a scale that undoes it must leave the logits as they are, and small alone must
not (tests/runtime/find_scales.py). Where the two differ, running counts: nanbeige's layers, run again, lose theirs.
Data only, and the question asked of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.weight")
ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output")
DENSE = ("ffn_gate", "ffn_up", "ffn_down")
EXPERTS = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
SHARED = ("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")
UNGATED = ("ffn_up_exps", "ffn_down_exps", "ffn_up_shexp", "ffn_down_shexp")
STATES = ("ssm_in", "ssm_out")
LINEAR = ("attn_gate", "ssm_alpha", "ssm_beta", "ssm_out")
#: Where only attention applies them.
_ATTENTION_ALONE = """
afmoe apertus arcee arctic baichuan bailingmoe bailingmoe2 bert bloom chatglm codeshell command-r dbrx deepseek
deepseek2-ocr dots1 dream ernie4_5 ernie4_5-moe eurobert exaone exaone-moe exaone4 falcon falcon-h1 gemma
gemma-embedding gemma2 gemma3 glm4 glm4moe gpt-oss gpt2 gptneox granite granite_swa granitemoe grok grovemoe
hunyuan-dense hunyuan-moe hunyuan_vl internlm2 jais jais2 jina-bert-v2 jina-bert-v3 laguna lfm2 lfm2moe llada
llada-moe llama4 maincoder maple minicpm minimax-m2 minimax-m3 modern-bert mpt muse-glimmer nemotron neo-bert
nomic-bert nomic-bert-moe olmo olmo2 olmoe orion paddleocr pangu-embedded phi2 phi3 phimoe plamo pockettts qwen qwen2
qwen2moe qwen2vl qwen3tts qwen3vl qwen3vlmoe refact rnd1 seed_oss smallthinker smollm3 spark2_5 stablelm starcoder
starcoder2 step35 t5 t5encoder xverse
"""
#: By architecture, the weights whose scale is applied. One that is not listed applies none, or not everywhere.
APPLIED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_ATTENTION_ALONE.split(), ATTENTION),
    **dict.fromkeys(("bitnet", "cohere2", "qwen3"), (*ATTENTION, *DENSE)),
    "clef": (*ATTENTION, *LINEAR, "ffn_gate"),
    **dict.fromkeys(("cohere2moe", "hy_v3"), (*ATTENTION, *DENSE, *EXPERTS, *SHARED)),
    "deci": ("attn_k", "attn_q", "attn_qkv", "attn_v"),
    **dict.fromkeys(("deepseek2", "mistral4"), ("attn_k", "attn_output", "attn_qkv", "attn_v")),
    **dict.fromkeys(("deepseek32", "dots3note", "glm-dsa"), (*DENSE, *EXPERTS, *SHARED, "attn_output")),
    **dict.fromkeys(("dflash", "gemma-embedding2"), (*DENSE, "attn_k", "attn_output", "attn_q", "attn_v")),
    "gemma3n": ("attn_k", "attn_output", "attn_v"),
    **dict.fromkeys(("gemma4", "llama", "llama-embed", "mistral3"), (*ATTENTION, *DENSE, *EXPERTS)),
    **dict.fromkeys(("granitehybrid", "jamba"), (*ATTENTION, *STATES)),
    "k2-horizon": ("attn_gate", "attn_k", "attn_output", "attn_q", "attn_v"),
    **dict.fromkeys(("mamba", "mamba2"), STATES),
    **dict.fromkeys(("mellum", "qwen3moe"), (*ATTENTION, *EXPERTS)),
    **dict.fromkeys(("mimo2", "minicpm3", "openelm", "plamo2", "plamo3", "plm"), ("attn_output",)),
    "minimax-01": ("attn_k", "attn_q", "attn_v"),
    "nemotron_h": (*ATTENTION, *STATES, *UNGATED, "ffn_up", "ffn_down"),
    "nemotron_h_moe": (*ATTENTION, *STATES, *UNGATED),
    "qwen35": (*ATTENTION, *DENSE, *LINEAR),
    **dict.fromkeys(("qwen35moe", "qwen4exp"), (*ATTENTION, *EXPERTS, *SHARED, *LINEAR)),
    "qwen3next": (*EXPERTS, *SHARED, "attn_k", "attn_output", "attn_q", "attn_v"),
    "talkie": (*ATTENTION, "ffn_down"),
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


def scale_name(name: str) -> str:
    """The scale's tensor beside a weight's."""
    return f"{name.removesuffix('.weight')}.scale"
