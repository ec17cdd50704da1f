"""A text model within a model in parts: how its tensors are called there, and what belongs to the other parts.

Knows the names that wrappers of any family use; must not know single families.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gguf_forge.convert.arch import Arch, Replacement
from gguf_forge.convert.config import text_part

#: Tensors of the parts that see, hear and speak, and of what leads from them to the text model: each family of the
#: reference's text models leaves them out by these parts of names.
MULTIMODAL = (
    r"^(mlp|vit\.|vpm\.|siglip2\.|conformer\.|merger\.|resampler\.|sound_encoder\.|sound_projection\.|speech_embeddings\.)",
    r"(visual|vision|audio|talker|token2wav|code2wav|projector|patch_merger|patch_merge_mlp)\.",
    r"(vision|audio)_|pre_mm_projector_norm|image_newline|view_seperator|patch_embed|model\.connector\.",
)
#: Names of multimodal wrappers and of base models without their head, brought to the form of a causal model.
WRAPPERS: tuple[tuple[str, Replacement], ...] = (
    (r"language_model\.", ""),
    (r"e_score_correction_bias$", "e_score_correction.bias"),
    (r"^(layers\.|embed_tokens\.|norm\.)", r"model.\1"),
)


def unwrapped(arch: Arch, config: Mapping[str, Any]) -> Arch:
    """The architecture of a configuration's text model, which leaves the other parts of a wrapper out.

    Of a wrapper that the architecture serves by name, its own rules say what is left out.
    """
    named = config.get("architectures") or ()
    if text_part(config) is None or any(name in arch.hf for name in named):
        return arch
    drop = (*arch.drop, *(pattern for pattern in MULTIMODAL if pattern not in arch.drop))
    renames = arch.renames if WRAPPERS[0] in arch.renames else (WRAPPERS[0], *arch.renames)
    return replace(arch, drop=drop, renames=renames)
