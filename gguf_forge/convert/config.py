"""config.json as the tables of model families read it: completed by what its `model_type` implies, and flat.

The reference reads config.json through transformers' configuration classes. What real checkpoints depend on of that is
a dozen derivations (`derivations`), and of models in parts the defaults that their published configurations leave out
(model_types.json). A `model_type` that is not named there is read as it stands. Must not know GGUF's keys, tensors, or
which model families there are tables for.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from gguf_forge.convert.derivations import derive, model_types
from gguf_forge.convert.params import is_params, renamed
from gguf_forge.convert.rope import mirror_rope
from gguf_forge.errors import ConversionError, escaped

#: Names of the number of layers.
LAYERS = ("n_layers", "num_hidden_layers", "n_layer", "num_layers")
#: What a draft model's configuration says of its layers; it counts more than what stands beside it.
DRAFT_PART = "transformer_layer_config"
#: Other names under which a configuration may hold its text model's part (one deeper in thinker_config); the last that
#: is there counts.
TEXT_PARTS = ("talker_config", "llm_config", "lm_config", "thinker_config", "language_config", "lfm")


def first_of(config: Mapping[str, Any], *names: str, null: bool = True) -> Any:
    """The value of the first of these keys that is there, None when none is.

    The rule for null: a key that is there counts, also with the value null, which then hides those after it - the
    reference looks keys up so. With `null=False` a null counts as if its key were not there.
    """
    return next((config[n] for n in names if n in config and (null or config[n] is not None)), None)


def need(config: Mapping[str, Any], *names: str) -> Any:
    """The value of the first of these keys that is there and not null. ConversionError when none is."""
    value = first_of(config, *names, null=False)
    if value is None:
        null = next((name for name in names if name in config), None)
        said = f" has no {' or '.join(names)}" if null is None else f": {null} is null"
        raise ConversionError(f"config.json{said}")
    return value


def count(config: Mapping[str, Any], *names: str) -> int:
    """As `need`, of a positive whole number. ConversionError naming the key when it is anything else."""
    value = need(config, *names)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        name = next(n for n in names if config.get(n) is not None)
        raise ConversionError(f"config.json: {name} must be a positive number, got {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value as config.json has it, cut to a line."""
    return escaped(json.dumps(value), 60)


def block_count(config: Mapping[str, Any]) -> int:
    """The number of layers. ConversionError when the configuration does not say."""
    value = first_of(config, *LAYERS)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConversionError(f"config.json: num_hidden_layers must be a number, got {shown(value)}")
    return value


def _filled(given: Mapping[str, Any], default: str) -> dict[str, Any]:
    """A part of a model over the defaults of its model type, or of the one that such a part has by default."""
    found, kind = model_types(), str(given.get("model_type"))
    if not any(kind in found[part] for part in ("defaults", "head_dim", "heads_kv", "renames", "rope")):
        kind = default
    said = {found["renames"].get(kind, {}).get(key, key) for key in given}
    config = {key: value for key, value in found["defaults"].get(kind, {}).items() if key not in said}
    return {**config, **given, "model_type": kind}


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration, and the parts in it, with what follows from their model types. May change what is in it."""
    kind = str(config.get("model_type"))
    parts: Mapping[str, str] = model_types()["parts"].get(kind, {})
    if "text_config" in parts and config.get("text_config") is None:
        # Saved flat: the text model's keys stand beside the other parts.
        config["text_config"] = {k: v for k, v in config.items() if k not in parts and k != "model_type"}
    for name, default in parts.items():
        if config.get(name) is not None:
            config[name] = _completed(_filled(_object(config, name), default))
    derive(config, kind)
    return config


def _object(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a configuration. ConversionError when it is not an object."""
    part = config.get(name)
    if not isinstance(part, Mapping):
        raise ConversionError(f"config.json: {name} must be an object, got {shown(part)}")
    return part


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The text model's part of a model in parts, under whatever name; None when there are none.

    ConversionError where it is not an object.
    """
    found = _object(config, "text_config") if config.get("text_config") is not None else None
    for name in TEXT_PARTS:
        if name in config:
            part = _object(config, name)
            found = _object(part, "text_config") if name == "thinker_config" else part
    return found


def resolve(raw: Mapping[str, Any]) -> dict[str, Any]:
    """config.json, completed and flat: of a model in parts, the text model's keys stand at the root, too.

    Mistral's params.json counts as one (see `params`). The parts stay where they are, completed. `rope_parameters` is
    always there. Gives a new configuration. ConversionError where a part, or the rotary parameters, are not objects.
    """
    config = _completed(copy.deepcopy(renamed(raw) if is_params(raw) else dict(raw)))
    text = text_part(config)
    if text is not None:
        config = {**config, "text_config": text, **text}
    if DRAFT_PART in config:
        config = {**config, **_object(config, DRAFT_PART)}
    mirror_rope(config)
    return config
