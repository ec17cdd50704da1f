"""What a configuration says of how its model computes, and the converted file cannot: what it would mislead by.

Knows GGUF's keys and tensor names. Must not know families, files, or values of weights. What is left unsaid is a note,
not an error: the file is what the checkpoint says. (What no reader would load is an error: see `shapes`.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gguf_forge.convert.arch import Arch
from gguf_forge.convert.rope import rope_of
from gguf_forge.convert.view import View
from gguf_forge.format.values import Value

_HEADED = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def unsaid(config: Mapping[str, Any], views: Sequence[View], metadata: Mapping[str, Value], arch: Arch) -> list[str]:
    """What the configuration says of how the model computes, and neither tensors nor metadata can."""
    found = []
    for key, meant in arch.implied:
        value = config.get(key)
        if value is not None and value not in meant:
            found.append(f"config.json: {key} is {value!r}; {arch.name} in GGUF means {meant[0]!r}")
    headed = str((config.get("architectures") or [""])[0]).endswith(_HEADED) and not arch.draft
    names = {v.name for v in views}
    if headed and config.get("tie_word_embeddings") is False and not names & {"output.weight", "cls.output.weight"}:
        found.append("config.json: tie_word_embeddings is false, but there is no lm_head; the embedding serves instead")
    if headed and "cls.output.weight" in names:
        found.append("a reranker, by its name or model card: its answers' rows of the output are cls.output.weight")
    further = metadata.get(f"{arch.name}.nextn_predict_layers")
    if further is not None and further.value and not any("nextn." in name for name in names):
        found.append(f"the metadata speaks of layers that predict further tokens ({further.value}), but there are none")
    rope = rope_of(config)
    # Of "proportional" ones a tensor says which pairs turn.
    part = None if rope.get("rope_type") == "proportional" else rope.get("partial_rotary_factor")
    if isinstance(part, (int, float)) and part not in (0, 1) and not _is_partial(metadata, arch.name, part):
        found.append(f"config.json: partial_rotary_factor {part} has no key for {arch.name}; whole heads will turn")
    return found


def _is_partial(metadata: Mapping[str, Value], arch: str, part: float) -> bool:
    turned, size = (metadata.get(f"{arch}.{k}") for k in ("rope.dimension_count", "attention.key_length"))
    if turned is None:
        return False
    width, heads = (metadata[f"{arch}.{k}"].value for k in ("embedding_length", "attention.head_count"))
    whole = size.value if size is not None else width // heads
    return bool(turned.value == int(whole * part))


__all__ = ["unsaid"]
