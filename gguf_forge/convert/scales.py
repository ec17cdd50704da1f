"""Which weights llama.cpp multiplies by a scale of the whole tensor: `blk.0.ffn_up.scale` beside `blk.0.ffn_up.weight`.

It loads such a tensor for every architecture (llama-model.cpp, the pass over `.scale`); a graph that does not ask for
it computes without. Which do was found by running each: a weight halved beside a scale of two must leave the logits as
they are, and halved alone must not (tests/runtime/find_scales.py). Data only, and the question asked of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_NAME = re.compile(r"blk\.\d+\.(\w+)\.weight")
ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_output")
FORWARD = ("ffn_gate", "ffn_down", "ffn_up", "ffn_gate_exps", "ffn_down_exps", "ffn_up_exps")
APPLIED: Mapping[str, tuple[str, ...]] = {"llama": (*ATTENTION, *FORWARD)}


def has_scale(arch: str, name: str, outputs: Collection[str]) -> bool:
    """Whether llama.cpp multiplies what an architecture's weight of this name gives by a scale beside it.

    Of feed-forward layers it multiplies the bias too, so that there may be none among the outputs.
    """
    match = _NAME.fullmatch(name)
    if match is None or match[1] not in APPLIED.get(arch, ()):
        return False
    return not match[1].startswith("ffn") or f"{name.removesuffix('.weight')}.bias" not in outputs
