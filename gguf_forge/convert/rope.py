"""The rotary parameters of a configuration, wherever it has them, gathered under `rope_parameters`.

Published configurations hold them under their own keys (rope_theta, rope_scaling, partial_rotary_factor and others),
in `rope_parameters`, or there once for each kind of layer. Knows these forms; must not know where a file says which
model it is, nor GGUF's keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gguf_forge.errors import ConversionError, escaped

#: The base, of full attention or of all, and of sliding windows; the turned part of a head.
THETA = ("global_rope_theta", "rope_global_theta", "rope_theta_global", "rope_theta", "rotary_emb_base")
THETA_SLIDING = ("local_rope_theta", "rope_local_theta", "rope_theta_local", "swa_rope_theta", "rope_local_base_freq")
PARTIAL = ("partial_rotary_factor", "rope_pct", "rope_percent")

#: Keys that are gathered: the base (of full attention, or of all), the base of sliding windows, the turned part of a
#: head. Afterwards `rope_parameters` says what they said.
_KEYS = ("rope_theta", "rope_local_base_freq", "partial_rotary_factor")
#: Models that call them otherwise.
_OWN_KEYS: Mapping[str, tuple[str, str, str]] = {
    "gpt_neox": ("rotary_emb_base", "", "rotary_pct"),
    "modernbert": ("global_rope_theta", "local_rope_theta", ""),
}
#: Scalings that need to know the context of pretraining.
FROM_PRETRAINING = ("llama3", "yarn", "longrope")
#: Models whose own key for that context counts before the one among the rotary parameters.
SAYS_BEFORE = ("phi3",)
#: Older names of kinds of scaling, by model type.
OLDER_KINDS: Mapping[str, Mapping[str, str]] = {
    "hunyuan_vl_text": {"xdrope": "dynamic"},
    "phi3": {"su": "longrope", "yarn": "longrope"},
    "qwen2_5_vl_text": {"mrope": "default"},
    "qwen2_vl_text": {"mrope": "default"},
}


def rope_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary parameters of the layers with full attention, or of all, of a resolved configuration."""
    rope: dict[str, Any] = config["rope_parameters"]
    full: dict[str, Any] = rope.get("full_attention") or rope
    return full


def sliding_rope_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary parameters that only layers with a sliding window have; empty where there are none."""
    sliding: dict[str, Any] = config["rope_parameters"].get("sliding_attention") or {}
    return sliding


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConversionError(f"config.json: {name} must be an object, got {escaped(repr(value), 60)}")
    return value


def gather_rope(config: dict[str, Any], kind: str, base: float | list[float], turned: float | None) -> None:
    """Moves the rotary parameters of a `kind` of model into `rope_parameters`, with what they leave unsaid.

    `base` counts where there is none in config.json; a pair is that of full attention and that of sliding windows,
    which are gathered apart. `turned` is the part of a head that is turned where config.json does not say.
    ConversionError where the parameters are not an object.
    """
    scaling, given = config.pop("rope_scaling", None), config.get("rope_parameters")
    whole, window, part = _OWN_KEYS.get(kind, _KEYS)
    if isinstance(base, list):
        thetas = [config.pop(name, default) for name, default in zip((whole, window), base, strict=True)]
        config["rope_parameters"] = _in_two(config, scaling, given, thetas)
        return
    rope = _object(scaling or given or {}, "rope_scaling" if scaling else "rope_parameters")
    if kind in SAYS_BEFORE and "original_max_position_embeddings" in config:
        rope["original_max_position_embeddings"] = config["original_max_position_embeddings"]
    theta, turned = config.pop(whole, base), config.pop(part, turned)
    size = config.get("head_dim")
    if turned is None and kind == "minimax_m2" and isinstance(config.get("rotary_dim"), int) and isinstance(size, int):
        turned = config["rotary_dim"] / size if size else None
    for each in [v for v in rope.values() if isinstance(v, dict)] or [rope]:
        each.setdefault("rope_theta", theta)
        if turned is not None:
            each.setdefault("partial_rotary_factor", turned)
        _name_kind(each, config, OLDER_KINDS.get(kind, {}))
    config["rope_parameters"] = rope


def _name_kind(rope: dict[str, Any], config: Mapping[str, Any], older: Mapping[str, str]) -> None:
    rope.setdefault("rope_type", rope.get("type", "default"))
    if rope["rope_type"] in FROM_PRETRAINING:
        rope.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
    if "xdrope_section" in rope:
        rope.setdefault("mrope_section", rope["xdrope_section"])
    rope["rope_type"] = older.get(str(rope["rope_type"]), rope["rope_type"])


def _in_two(config: Mapping[str, Any], scaling: Any, given: Any, thetas: list[float]) -> dict[str, Any]:
    """One set of rotary parameters for full attention, one for sliding windows."""
    rope = dict(_object(given or {}, "rope_parameters"))
    full = dict(_object(rope.get("full_attention") or {}, "rope_parameters.full_attention"))
    sliding = dict(_object(rope.get("sliding_attention") or {}, "rope_parameters.sliding_attention"))
    full.update(_object(scaling or {}, "rope_scaling"))
    for each, theta in zip((full, sliding), thetas, strict=True):
        each.setdefault("rope_theta", theta)
        _name_kind(each, config, {})
    return {**rope, "full_attention": full, "sliding_attention": sliding}


def mirror_rope(config: dict[str, Any]) -> None:
    """Makes sure of `rope_parameters`, with what only other keys say of them, in any configuration.

    What is gathered, or is there for each kind of layer, says all itself. ConversionError where it is not an object.
    """
    name = "rope_parameters" if "rope_parameters" in config else "rope_scaling"
    rope = _object(config.get(name) or {}, name)
    config["rope_parameters"] = rope
    if "full_attention" in rope or "sliding_attention" in rope:
        return

    def named(names: tuple[str, ...]) -> Any:
        return next((config[n] for n in names if n in config), None)

    if (local := named(THETA_SLIDING)) is not None:
        rope["sliding_attention"] = {"rope_theta": local}
    mirrored = {
        "rope_theta": named(THETA),
        "rope_type": rope.get("type"),
        "partial_rotary_factor": named(PARTIAL),
        "original_max_position_embeddings": config.get("original_max_position_embeddings"),
    }
    for key, value in mirrored.items():
        if value is not None:
            rope.setdefault(key, value)
