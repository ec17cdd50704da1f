"""Biases that llama.cpp's loaders leave unread: a file with a tensor that nobody reads is refused.

Knows names of outputs and of architectures. Must not know families: what a checkpoint may have is in their tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gguf_forge.errors import ConversionError

_GATED = """deci falcon-h1 granite granite_swa granitehybrid granitemoe jais llada llama llama-embed minicpm
mistral3 refact"""
_FORWARD = f"""{_GATED} bert bloom codeshell gpt2 gptneox jais2 jina-bert-v2 jina-bert-v3 lfm2 modern-bert mpt nemotron
nemotron_h nemotron_h_moe nomic-bert nomic-bert-moe phi2 starcoder starcoder2"""
#: The architectures that read the bias of a layer's tensor (llama.cpp as in xllamacpp 2026.10.11549, src/models/*.cpp).
READ = {
    "attn_output": frozenset(
        f"{_FORWARD} apertus ernie4_5 ernie4_5-moe gpt-oss paddleocr pangu-embedded phimoe".split()
    ),
    "ffn_gate": frozenset(_GATED.split()),
    "ffn_up": frozenset(_FORWARD.split()),
    "ffn_down": frozenset(_FORWARD.split()),
}
_BIAS = re.compile(r"blk\.\d+\.(\w+)\.bias")


def require_read(names: Iterable[str], arch: str) -> None:
    """ConversionError for the first of these outputs that is a bias for which llama.cpp's `arch` has no place."""
    for name in names:
        match = _BIAS.fullmatch(name)
        if match and arch not in READ.get(match[1], (arch,)):
            raise ConversionError(f"{name}: llama.cpp's {arch} has no place for this bias and would not load the file")
