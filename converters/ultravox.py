"""Ultravox, which hears: an encoder of sound and what brings it to a text model, which another repository has."""

from __future__ import annotations

from gguf_forge.convert.arch import Elsewhere

ELSEWHERE = (
    Elsewhere(
        "UltravoxModel",
        held="an audio encoder and its projector",
        text=r"^(language_model|model|lm_head)\.",
        named_by=(("text_model_id",), ("text_config", "_name_or_path")),
    ),
)
