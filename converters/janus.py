"""The text models of Janus-Pro and of Sarashina2-Vision, which are Llamas."""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.convert.arch import Rule, Table

from .common import DECODER, GATED, MULTIMODAL, QKV, TRUNK
from .llama import LLAMA

#: Of Llama's rows those that every dense one has.
DENSE: Table[Rule] = Table(tuple(row for row in LLAMA.tensors if row.out[0] in {known.out[0] for known in DECODER}))

JANUS = replace(
    LLAMA,
    hf=("JanusForConditionalGeneration",),
    tensors=DENSE,
    needs=(*TRUNK, *QKV, *GATED),
    drop=(*LLAMA.drop, r"^model\.(vision_model|aligner|vqmodel|generation_(embeddings|aligner|head))\."),
)
SARASHINA = replace(
    JANUS,
    hf=("Sarashina2VisionForCausalLM",),
    whole=("Sarashina2VisionForCausalLM",),
    renames=((r"^llm\.", ""), *LLAMA.renames),
    drop=(*LLAMA.drop, *MULTIMODAL, r"^norm\."),
)

ARCHS = (JANUS, SARASHINA)
