"""config.json as the reference sees it, and its rows as GGUF metadata.

The reference does not read config.json but what its configuration classes make of it: missing keys are filled in,
old names renamed, rotary parameters gathered in one place. This module does the same from tables (ConfigClass).
It must not know which families exist, nor touch tensors.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gguf_forge.convert.facts import Facts
from gguf_forge.errors import ConversionError, escaped
from gguf_forge.format.layout import ValueType
from gguf_forge.format.values import Value

if TYPE_CHECKING:
    from gguf_forge.convert.arch import Arch, ConfigClass, Hparam

#: What a scaling of this type cannot do without.
ROPE_NEEDS: Mapping[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
#: Scalings that need to know the context of pretraining.
ROPE_FROM_PRETRAINING = ("llama3", "yarn", "longrope")

#: Other names under which a configuration may carry its text model's part.
TEXT_PARTS = ("llm_config", "lm_config", "language_config")

THETA = ("global_rope_theta", "rope_global_theta", "rope_theta_global", "rope_theta", "rotary_emb_base")
THETA_SLIDING = (
    "local_rope_theta",
    "rope_local_theta",
    "rope_theta_local",
    "swa_rope_theta",
    "rope_local_base_freq",
)
PARTIAL = ("partial_rotary_factor", "rope_pct", "rope_percent")
LAYERS = ("n_layers", "num_hidden_layers", "n_layer", "num_layers")


def first(config: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The value of the first of these keys that is present (even if null); None when none is."""
    return next((config[n] for n in names if n in config), None)


def _shown(value: Any) -> str:
    """A value as config.json has it, cut to a line."""
    return escaped(json.dumps(value), 60)


def rope_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary parameters of the layers with full attention."""
    rope: dict[str, Any] = config["rope_parameters"]
    full: dict[str, Any] = rope.get("full_attention") or rope
    return full


def block_count(config: Mapping[str, Any]) -> int:
    """The number of layers. ConversionError when the configuration does not say."""
    count = first(config, LAYERS)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ConversionError(f"config.json: num_hidden_layers must be a number, got {_shown(count)}")
    return count


def gather_rope(config: dict[str, Any], kind: ConfigClass) -> None:
    """Old rotary keys (rope_theta, rope_scaling, partial_rotary_factor) moved into rope_parameters."""
    rope = config.pop("rope_scaling", None) or config.get("rope_parameters") or {}
    theta = config.pop("rope_theta", kind.theta)
    partial = config.pop("partial_rotary_factor", None)
    layer_types = config.get("layer_types") or ()
    nested = [rope[k] for k in rope if k in layer_types and isinstance(rope[k], dict)]
    for part in nested or [rope]:
        part.setdefault("rope_theta", theta)
        if partial is not None:
            part.setdefault("partial_rotary_factor", partial)
        part.setdefault("rope_type", part.get("type", "default"))
        if part["rope_type"] in ROPE_FROM_PRETRAINING:
            part.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
    config["rope_parameters"] = rope


def refuse_rope(config: Mapping[str, Any]) -> str | None:
    """Why a configuration class would reject these rotary parameters; None when it would not."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(rope, Mapping):
        return "rope_scaling is not an object"
    kind = rope.get("rope_type", rope.get("type", "default"))
    size = config.get("head_dim")
    if isinstance(size, int) and size > 4 and size % 2 and rope.get("partial_rotary_factor", 1.0) == 1.0:
        return f"head_dim {size} is odd"
    missing = [k for k in ROPE_NEEDS.get(str(kind), ()) if rope.get(k) is None]
    return f"rope_scaling of type {kind!r} lacks {', '.join(missing)}" if missing else None


def refuse_heads(config: Mapping[str, Any]) -> str | None:
    """As `refuse_rope`, and for heads that do not divide the width."""
    width, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if isinstance(width, int) and isinstance(heads, int) and (heads <= 0 or width % heads):
        return f"hidden_size {width} is not a multiple of {heads} heads"
    return refuse_rope(config)


def _mistyped(raw: Mapping[str, Any], kind: ConfigClass) -> bool:
    """Whether a field with a plain default has a value of another type, which a configuration class would refuse."""
    for key, default in kind.defaults.items():
        value = raw.get(key, default)
        wrong = type(value) is not type(default) and not (value is None and key in kind.nullable)
        if isinstance(default, (int, float)) and wrong:
            return True
    return False


def _renamed(raw: Mapping[str, Any], kind: ConfigClass) -> dict[str, Any]:
    """The configuration under the class's own names; of two names for one field the later counts, if not null."""
    found: dict[str, Any] = {}
    for key, value in raw.items():
        name = kind.renames.get(key, key)
        if value is not None or name not in found:
            found[name] = value
    return found


def _refused(raw: Mapping[str, Any], kind: ConfigClass, classes: Mapping[str, ConfigClass]) -> bool:
    renamed = _renamed(raw, kind)
    if kind.text is not None and _refused(raw.get("text_config") or {}, classes[kind.text], classes):
        return True
    # Layer types for another number of layers are refused, too.
    layers, kinds = renamed.get("num_hidden_layers"), renamed.get("layer_types")
    if isinstance(kinds, list) and layers is not None and len(kinds) != layers:
        return True
    return _mistyped(renamed, kind) or (kind.refuses is not None and kind.refuses(renamed) is not None)


def _filled(raw: Mapping[str, Any], kind: ConfigClass, classes: Mapping[str, ConfigClass]) -> dict[str, Any]:
    config = copy.deepcopy(_renamed(raw, kind))
    for key, default in kind.defaults.items():
        if callable(default):
            if config.get(key) is None:
                config[key] = default(config)
        else:
            config.setdefault(key, copy.deepcopy(default))
    if kind.rope is not None:
        kind.rope(config, kind)
    if kind.text is not None:
        part = config.get("text_config") or {}
        config["text_config"] = _filled({**part, "model_type": kind.text}, classes[kind.text], classes)
    return config


def refused(raw: Mapping[str, Any], classes: Mapping[str, ConfigClass]) -> bool:
    """Whether the configuration has a class that would not take it, so that nothing is filled in for it."""
    kind = classes.get(str(raw.get("model_type")))
    return kind is not None and _refused(raw, kind, classes)


def resolve(raw: Mapping[str, Any], classes: Mapping[str, ConfigClass]) -> dict[str, Any]:
    """What the reference would hold after reading this config.json: a new, flat configuration.

    `classes` maps model_type to its configuration class. Unknown types, and configurations their class would refuse,
    are taken as they stand. The text part is merged into the root, and `rope_parameters` is always there.
    """
    kind = None if refused(raw, classes) else classes.get(str(raw.get("model_type")))
    config = copy.deepcopy(dict(raw)) if kind is None else _filled(raw, kind, classes)
    for name in TEXT_PARTS:
        if isinstance(config.get(name), dict):
            config["text_config"] = config[name]
    text = config.get("text_config")
    if isinstance(text, dict):
        config = {**config, **text}
    _mirror_rope(config)
    return config


def _mirror_rope(config: dict[str, Any]) -> None:
    rope = config.get("rope_parameters", config.get("rope_scaling")) or {}
    if not isinstance(rope, dict):
        raise ConversionError(f"config.json: rope_parameters must be an object, got {rope!r}")
    config["rope_parameters"] = rope
    if "full_attention" in rope or "sliding_attention" in rope:
        return
    if (local := first(config, THETA_SLIDING)) is not None:
        rope["sliding_attention"] = {"rope_theta": local}
    mirrored = {
        "rope_theta": first(config, THETA),
        "rope_type": rope.get("type"),
        "partial_rotary_factor": first(config, PARTIAL),
        "original_max_position_embeddings": config.get("original_max_position_embeddings"),
    }
    for key, value in mirrored.items():
        if value is not None:
            rope.setdefault(key, value)


def _number(row: Hparam, value: Any, names: str) -> Any:
    if row.type is ValueType.BOOL:
        if isinstance(value, bool):
            return value
    elif row.type is ValueType.STRING:
        if isinstance(value, str):
            return value
    elif row.type is ValueType.FLOAT32:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif row.type is ValueType.UINT32:
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if whole and not isinstance(value, bool) and 0 <= value < 2**32:
            return int(value)
    elif row.type is ValueType.INT32:
        if isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31:
            return value
    else:
        return value
    raise ConversionError(f"config.json: {names} must be a {row.type.name} for {row.key}, got {_shown(value)}")


def _value(row: Hparam, facts: Facts) -> Any:
    value = row.value(facts) if row.value is not None else first(facts.config, row.names)
    if value is None:
        value = row.default(facts) if callable(row.default) else row.default
    if value is None and row.required:
        raise ConversionError(f"config.json has no {' or '.join(row.names) or row.key}")
    return value


def metadata_of(arch: Arch, facts: Facts) -> tuple[dict[str, Value], dict[str, Value]]:
    """The metadata an architecture's rows state, in their order: the early ones, and the others.

    Raises ConversionError naming the key on a wrong value.
    """
    early: dict[str, Value] = {}
    others: dict[str, Value] = {}
    for row in arch.hparams:
        value = _value(row, facts)
        if value is None:
            continue
        found = early if row.early else others
        key = row.key if row.key.startswith(row.absolute) else f"{arch.name}.{row.key}"
        names = " or ".join(row.names) or row.key
        if isinstance(value, Sequence) and not isinstance(value, str) and row.type is not ValueType.ARRAY:
            items = [_number(row, v, names) for v in value]
            # One number a layer; lists of whole numbers are signed.
            element = ValueType.INT32 if row.type is ValueType.UINT32 else row.type
            found[key] = Value(ValueType.ARRAY, items, element)
        else:
            found[key] = Value(row.type, _number(row, value, names), row.element)
    return early, others


def misfits(config: Mapping[str, Any], rows: Iterable[Hparam]) -> list[str]:
    """What a configuration has under the rows' names that their metadata cannot hold; a null may be meant, or not."""
    text = config.get("text_config")
    both = {**config, **text} if isinstance(text, Mapping) else config
    found: dict[str, None] = {}
    for row in rows:
        for name in row.names:
            value = both.get(name)
            if name in both and not _fits(row, value):
                found[f"{name} is {_shown(value)}"] = None
    return list(found)


def _fits(row: Hparam, value: Any) -> bool:
    try:
        for each in value if isinstance(value, list) else [value]:
            _number(row, each, row.key)
    except ConversionError:
        return False
    return True


def remarks(config: Mapping[str, Any], metadata: Mapping[str, Value], arch: str) -> list[str]:
    """What the configuration says that the metadata cannot, and that changes how the model runs."""
    found = []
    kind = rope_of(config).get("rope_type")
    if kind not in (None, "default", "llama3") and f"{arch}.rope.scaling.type" not in metadata:
        scaled = [k for k in metadata if k.startswith(f"{arch}.rope.scaling.")]
        if not scaled:
            found.append(f"config.json: rotary scaling of type {kind!r} has no form in GGUF and is left out")
    window = config.get("sliding_window")
    if window and config.get("use_sliding_window") is not False and f"{arch}.attention.sliding_window" not in metadata:
        found.append(f"config.json: sliding_window {window} has no key for {arch}; every layer will see all tokens")
    return found
