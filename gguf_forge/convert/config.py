"""config.json as the tables of model families read it: completed by what its `model_type` implies.

The reference reads config.json through transformers' configuration classes, which rename keys, derive some from others
and gather the rotary ones. What real checkpoints depend on of that is ten derivations, declared here with the rules'
sources; the model types they apply to, and what published multimodal configurations leave out of their parts, are in
model_types.json (made by tests/convert/make_model_types.py). A `model_type` that is not named there is read as it
stands, as is a key whose value no derivation needs.

Must not know GGUF's keys, tensors, or which model families there are tables for.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from gguf_forge.convert.rope import gather_rope, mirror_rope
from gguf_forge.errors import ConversionError, escaped

#: Names of the number of layers.
LAYERS = ("n_layers", "num_hidden_layers", "n_layer", "num_layers")
#: Other names under which a configuration may hold its text model's part (one deeper in thinker_config); the last that
#: is there counts.
TEXT_PARTS = ("llm_config", "lm_config", "thinker_config", "language_config", "lfm")


@lru_cache(maxsize=1)
def model_types() -> Mapping[str, Any]:
    """Facts of configuration classes; make_model_types.py says which."""
    text = resources.files("gguf_forge.convert").joinpath("model_types.json").read_text(encoding="utf-8")
    return MappingProxyType(json.loads(text))


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
        raise ConversionError(f"config.json has no {' or '.join(names)}")
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


@dataclass(frozen=True)
class Derivation:
    """A rule that makes keys of a configuration from others.

    `apply` changes the configuration of a `model_type` in place; it is called for those that are among `types`.
    `source` says where the rule is written down.
    """

    name: str
    types: Callable[[], Collection[str]]
    apply: Callable[[dict[str, Any], str], None]
    source: str


def _known(part: str) -> Callable[[], Collection[str]]:
    return lambda: model_types()[part]


def _only(types: Collection[str]) -> Callable[[], Collection[str]]:
    return lambda: types


def _whole(config: Mapping[str, Any], *names: str) -> list[int] | None:
    """These keys' values, if all are positive whole numbers."""
    values = [config.get(n) for n in names]
    whole = [v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0]
    return whole if len(whole) == len(values) else None


#: Names that a class knows besides its attribute map.
OLDER_NAMES: Mapping[str, Mapping[str, str]] = {
    "bloom": {"n_embed": "hidden_size"},
    "falcon": {"n_embed": "hidden_size"},
    "lfm2": {"block_ff_dim": "intermediate_size", "tie_embedding": "tie_word_embeddings"},
    "lfm2_moe": {"tie_embedding": "tie_word_embeddings"},
    "nemotron_h": {"mamba_n_groups": "n_groups", "mamba_d_conv": "conv_kernel", "mamba_expand": "expand"},
}


def _rename(config: dict[str, Any], kind: str) -> None:
    """Of two names for a field the later counts, unless it is null."""
    names = {**model_types()["renames"].get(kind, {}), **OLDER_NAMES.get(kind, {})}
    given = dict(config)
    config.clear()
    for key, value in given.items():
        name = names.get(key, key)
        if value is not None or name not in config:
            config[name] = value


def _divide_width(config: dict[str, Any], kind: str) -> None:
    how = model_types()["head_dim"][kind]
    if how != "width":
        if "qk_rope_head_dim" in config and (how == "always rotary" or "head_dim" not in config):
            config["head_dim"] = config["qk_rope_head_dim"]
    elif config.get("head_dim") is None and (sizes := _whole(config, "hidden_size", "num_attention_heads")):
        config["head_dim"] = sizes[0] // sizes[1]


def _count_heads_kv(config: dict[str, Any], kind: str) -> None:
    if kind == "gpt_bigcode":
        config["num_key_value_heads"] = 1 if config.get("multi_query", True) else config.get("n_head")
    elif kind == "falcon":
        # Falcon-7B says no number, and has one head of keys for all; the class says so only in the model's code.
        if config.get("multi_query", True) and not config.get("new_decoder_architecture"):
            config["num_kv_heads"] = 1
        elif config.get("num_kv_heads") is None:
            config["num_kv_heads"] = config.get("num_attention_heads")
    elif config.get("num_key_value_heads") is None or kind == "hy_v4":
        config["num_key_value_heads"] = config.get("num_attention_heads")


@dataclass(frozen=True)
class Every:
    """Of each `key` layers (`default` where config.json has no such key) the last is `last`, the others `rest`."""

    key: str
    default: int
    rest: str = "sliding_attention"
    last: str = "full_attention"

    def __call__(self, config: Mapping[str, Any], layers: int) -> list[str] | None:
        """The kind of each layer; None where the step is not a positive number."""
        step = config.get(self.key, self.default)
        if not isinstance(step, int) or isinstance(step, bool) or step <= 0:
            return None
        return [self.rest if (i + 1) % step else self.last for i in range(layers)]


def _after_first(config: Mapping[str, Any], layers: int) -> list[str]:
    first = config.get("max_window_layers", 28)
    windows = config.get("sliding_window") is not None and isinstance(first, int)
    return ["sliding_attention" if windows and i >= first else "full_attention" for i in range(layers)]


def _listed_full(config: Mapping[str, Any], layers: int) -> list[str]:
    full = config.get("full_attn_idxs")
    return ["full_attention" if full is None or i in full else "conv" for i in range(layers)]


def _after_dense(config: Mapping[str, Any], layers: int) -> list[str] | None:
    dense = config.get("first_k_dense_replace") or 0
    start = Every("prefix_dense_sliding_window_pattern", 1)(config, dense)
    rest = Every("sliding_window_pattern", 4)(config, layers - dense)
    return None if start is None or rest is None else start + rest


def _full_at_last(config: Mapping[str, Any], layers: int) -> list[str] | None:
    found = Every("sliding_window_pattern", 6)(config, layers)
    return [*found[:-1], "full_attention"] if found else found


def _full_from_last(config: Mapping[str, Any], layers: int) -> list[str]:
    del config
    return ["sliding_attention" if (layers - 1 - i) % 4 else "full_attention" for i in range(layers)]


#: How the kinds of layers follow from other keys.
LAYER_TYPES: Mapping[str, Callable[[Mapping[str, Any], int], list[str] | None]] = {
    "afmoe": Every("global_attn_every_n_layers", 4),
    "cohere2": Every("sliding_window_pattern", 4),
    "cohere2_moe": _after_dense,
    "embedding_gemma2_text": _full_at_last,
    "exaone4": Every("sliding_window_pattern", 4),
    "exaone_moe": Every("sliding_window_pattern", 4),
    "gemma2": Every("", 2),
    "gemma3_text": Every("sliding_window_pattern", 6),
    "gemma3n_text": Every("", 5),
    "gemma4_text": _full_at_last,
    "gemma4_unified_text": _full_at_last,
    "gpt_oss": Every("", 2),
    "lfm2": _listed_full,
    "muse_glimmer_assistant": Every("", 1, last="sliding_attention"),
    "muse_glimmer_text": _full_from_last,
    "olmo3": Every("", 4),
    "qwen2": _after_first,
    "qwen2_5_omni_text": _after_first,
    "qwen2_5_vl_text": _after_first,
    "qwen2_vl_text": _after_first,
    "qwen3": _after_first,
    "qwen3_5_moe_text": Every("full_attention_interval", 4, rest="linear_attention"),
    "qwen3_5_text": Every("full_attention_interval", 4, rest="linear_attention"),
    "qwen3_next": Every("full_attention_interval", 4, rest="linear_attention"),
    "qwen4_exp_text": Every("full_attention_interval", 4, rest="linear_attention", last="indexed_attention"),
}


def _list_layers(config: dict[str, Any], kind: str) -> None:
    layers = config.get("num_hidden_layers")
    if config.get("layer_types") is None and isinstance(layers, int):
        found = LAYER_TYPES[kind](config, layers)
        if found is not None:
            config["layer_types"] = found


def _list_mlps(config: dict[str, Any], kind: str) -> None:
    layers = config.get("num_hidden_layers")
    dense = config.get("first_k_dense_replace", 0 if kind == "cohere2_moe" else 1)
    if config.get("mlp_layer_types") is None and isinstance(layers, int) and isinstance(dense, int):
        config["mlp_layer_types"] = ["dense" if i < dense else "sparse" for i in range(layers)]


def _list_indexers(config: dict[str, Any], kind: str) -> None:
    layers, pattern = config.get("num_hidden_layers"), config.get("index_topk_pattern")
    if config.get("indexer_types") is not None or not isinstance(layers, int):
        return
    if kind == "hy_v4":
        step, start = 4, 2
    else:
        step, start = max(config.get("index_topk_freq", 1), 1), config.get("index_skip_topk_offset", 2)
    if isinstance(pattern, str) and kind != "hy_v4":
        config["indexer_types"] = ["full" if letter == "F" else "shared" for letter in pattern]
    else:
        full = [max(i - start + 1, 0) % step == 0 for i in range(layers)]
        config["indexer_types"] = ["full" if each else "shared" for each in full]


def _switch_window(config: dict[str, Any], kind: str) -> None:
    del kind
    if not config.get("use_sliding_window"):
        config["sliding_window"] = None


def _list_widths(config: dict[str, Any], kind: str) -> None:
    del kind
    layers, width = config.get("num_hidden_layers"), config.get("intermediate_size")
    if isinstance(layers, int) and isinstance(width, int):
        config["intermediate_size"] = [width] * layers


def _share_layers(config: dict[str, Any], kind: str) -> None:
    del kind
    text = config.get("text_config")
    if isinstance(text, dict) and not text.get("num_kv_shared_layers"):
        text["num_kv_shared_layers"] = text.get("num_hidden_layers")


def _count_decoder(config: dict[str, Any], kind: str) -> None:
    del kind
    if config.get("num_decoder_layers") is None and "num_layers" in config:
        config["num_decoder_layers"] = config["num_layers"]


def _name_labels(config: dict[str, Any], kind: str) -> None:
    del kind
    labels = config.get("num_labels")
    if config.get("id2label") is None and isinstance(labels, int):
        config["id2label"] = {str(i): f"LABEL_{i}" for i in range(labels)}


def _gather(config: dict[str, Any], kind: str) -> None:
    found = model_types()
    gather_rope(config, kind, found["rope"][kind], found["turned"].get(kind))


#: Models with a key that switches their window on.
WINDOWED = (
    "qwen2",
    "qwen2_5_omni_text",
    "qwen2_5_vl_text",
    "qwen2_moe",
    "qwen2_vl_text",
    "qwen3",
    "qwen3_moe",
)
#: Models that may classify.
CLASSIFIERS = ("bert", "camembert", "distilbert", "eurobert", "modernbert", "roberta", "xlm-roberta")
_MODELING = "transformers, models/*/configuration_*.py"
#: In the order in which they apply: later ones need what earlier ones made.
DERIVATIONS: tuple[Derivation, ...] = (
    Derivation("renames", lambda: {*model_types()["renames"], *OLDER_NAMES}, _rename, f"{_MODELING}, attribute_map"),
    Derivation("size of a head", _known("head_dim"), _divide_width, f"{_MODELING}, __post_init__"),
    Derivation(
        "key-value heads",
        lambda: {*model_types()["heads_kv"], "falcon", "gpt_bigcode", "hy_v4"},
        _count_heads_kv,
        f"{_MODELING}, __post_init__",
    ),
    Derivation(
        "sliding window",
        _only(WINDOWED),
        _switch_window,
        f"{_MODELING}, __post_init__",
    ),
    Derivation("kinds of layers", _only(LAYER_TYPES), _list_layers, f"{_MODELING}, layer_types"),
    Derivation(
        "dense and sparse layers",
        _only(("cohere2_moe", "hy_v4", "laguna")),
        _list_mlps,
        f"{_MODELING}, mlp_layer_types",
    ),
    Derivation(
        "layers with an indexer",
        _only(("glm5_next_text", "glm_moe_dsa", "hy_v4")),
        _list_indexers,
        f"{_MODELING}, indexer_types",
    ),
    Derivation("widths of layers", _only(("gemma3n_text",)), _list_widths, f"{_MODELING}, __post_init__"),
    Derivation(
        "layers without keys of their own",
        _only(("gemma4_assistant", "gemma4_unified_assistant")),
        _share_layers,
        f"{_MODELING}, __post_init__",
    ),
    Derivation("layers of the decoder", _only(("mt5", "t5", "umt5")), _count_decoder, f"{_MODELING}, __post_init__"),
    Derivation("unnamed classes", _only(CLASSIFIERS), _name_labels, "transformers, configuration_utils.py, id2label"),
    Derivation("rotary parameters", _known("rope"), _gather, "transformers, modeling_rope_utils.py"),
)


def _derived(config: dict[str, Any], kind: str) -> dict[str, Any]:
    for each in DERIVATIONS:
        types = each.types()
        if types is None or kind in types:
            each.apply(config, kind)
    return config


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
    for each in DERIVATIONS:
        types = each.types()
        if kind in types:
            each.apply(config, kind)
    return config


def _object(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a configuration. ConversionError when it is not an object."""
    part = config.get(name)
    if not isinstance(part, Mapping):
        raise ConversionError(f"config.json: {name} must be an object, got {shown(part)}")
    return part


def resolve(raw: Mapping[str, Any]) -> dict[str, Any]:
    """config.json, completed and flat: of a model in parts, the text model's keys stand at the root, too.

    The parts stay where they are, completed. `rope_parameters` is always there. Gives a new configuration.
    ConversionError where a part, or the rotary parameters, are not objects.
    """
    config = _completed(copy.deepcopy(dict(raw)))
    for name in TEXT_PARTS:
        if name in config:
            part = _object(config, name)
            config["text_config"] = _object(part, "text_config") if name == "thinker_config" else part
    if config.get("text_config") is not None:
        config = {**config, **_object(config, "text_config")}
    mirror_rope(config)
    return config
