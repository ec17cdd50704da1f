"""What follows from other keys of a configuration by its model type: each rule with the types it applies to.

The rules are those of transformers' configuration classes, as far as real checkpoints depend on them; where a class
only fills in a constant, nothing is done here. Types and numbers that can be read off the classes are in
model_types.json (made by tests/convert/make_model_types.py). A value of the wrong kind derives nothing: what it breaks
is found, and named, where it is used. Must not know parts of models, GGUF's keys or tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from gguf_forge.convert.rope import gather_rope

#: More layers, or classes of a classifier, than these are not listed one by one: no model has them.
MAX_LAYERS, MAX_LABELS = 4096, 1 << 16


@lru_cache(maxsize=1)
def model_types() -> Mapping[str, Any]:
    """Facts of configuration classes; make_model_types.py says which."""
    text = resources.files("gguf_forge.convert").joinpath("model_types.json").read_text(encoding="utf-8")
    return MappingProxyType(json.loads(text))


def whole(config: Mapping[str, Any], name: str, default: int | None = None, most: int = 1 << 32) -> int | None:
    """A whole number from 0 to `most`, or the default where the key is missing; None for anything else."""
    value = config.get(name, default)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else None


def _layers(config: Mapping[str, Any]) -> int | None:
    return whole(config, "num_hidden_layers", most=MAX_LAYERS)


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


def _size_head(config: dict[str, Any], kind: str) -> None:
    how = model_types()["head_dim"][kind]
    rotary, rest = whole(config, "qk_rope_head_dim"), whole(config, "qk_nope_head_dim")
    width, heads = whole(config, "hidden_size"), whole(config, "num_attention_heads")
    if how == "latent" and rotary is not None and rest is not None:
        config["head_dim"] = rest + rotary
    elif rotary is not None and (how == "always rotary" or (how == "rotary" and "head_dim" not in config)):
        config["head_dim"] = rotary
    elif how == "width" and config.get("head_dim") is None and width and heads:
        config["head_dim"] = width // heads


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
        step = whole(config, self.key, self.default)
        return [self.rest if (i + 1) % step else self.last for i in range(layers)] if step else None


def _after_first(config: Mapping[str, Any], layers: int) -> list[str] | None:
    first = whole(config, "max_window_layers", 28)
    if first is None or config.get("sliding_window") is None:
        first = layers
    return ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]


def _listed_full(config: Mapping[str, Any], layers: int) -> list[str] | None:
    full = config.get("full_attn_idxs")
    listed = range(layers) if full is None else full
    if not isinstance(listed, (list, range)):
        return None
    return ["full_attention" if i in listed else "conv" for i in range(layers)]


def _after_dense(config: Mapping[str, Any], layers: int) -> list[str] | None:
    dense = whole(config, "first_k_dense_replace", 0, layers)
    if dense is None:
        return None
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
    layers = _layers(config)
    if config.get("layer_types") is None and layers is not None:
        found = LAYER_TYPES[kind](config, layers)
        if found is not None:
            config["layer_types"] = found


def _list_mlps(config: dict[str, Any], kind: str) -> None:
    layers, dense = _layers(config), whole(config, "first_k_dense_replace", 0 if kind == "cohere2_moe" else 1)
    if config.get("mlp_layer_types") is None and layers is not None and dense is not None:
        config["mlp_layer_types"] = ["dense" if i < dense else "sparse" for i in range(layers)]


def _list_indexers(config: dict[str, Any], kind: str) -> None:
    layers, pattern = _layers(config), config.get("index_topk_pattern")
    step, start = whole(config, "index_topk_freq", 1), whole(config, "index_skip_topk_offset", 2)
    if kind == "hy_v4":
        pattern, step, start = None, 4, 2
    if config.get("indexer_types") is not None:
        return
    if isinstance(pattern, str):
        config["indexer_types"] = ["full" if letter == "F" else "shared" for letter in pattern]
    elif layers is not None and step is not None and start is not None:
        full = [max(i - start + 1, 0) % max(step, 1) == 0 for i in range(layers)]
        config["indexer_types"] = ["full" if each else "shared" for each in full]


def _switch_window(config: dict[str, Any], kind: str) -> None:
    del kind
    if not config.get("use_sliding_window"):
        config["sliding_window"] = None


def _list_widths(config: dict[str, Any], kind: str) -> None:
    del kind
    layers, width = _layers(config), whole(config, "intermediate_size")
    if layers is not None and width is not None:
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
    labels = whole(config, "num_labels", most=MAX_LABELS)
    if config.get("id2label") is None and labels is not None:
        config["id2label"] = {str(i): f"LABEL_{i}" for i in range(labels)}


def _gather(config: dict[str, Any], kind: str) -> None:
    found = model_types()
    gather_rope(config, kind, found["rope"][kind], found["turned"].get(kind))


#: Models with a key that switches their window on.
WINDOWED = ("qwen2", "qwen2_5_omni_text", "qwen2_5_vl_text", "qwen2_moe", "qwen2_vl_text", "qwen3", "qwen3_moe")
#: Models whose first layers are dense, the others mixtures of experts.
DENSE_FIRST = ("cohere2_moe", "hy_v4", "laguna")
#: Models that may classify.
CLASSIFIERS = ("bert", "camembert", "distilbert", "eurobert", "modernbert", "roberta", "xlm-roberta")
_MODELING = "transformers, models/*/configuration_*.py"
#: In the order in which they apply: later ones need what earlier ones made.
DERIVATIONS: tuple[Derivation, ...] = (
    Derivation("renames", lambda: {*model_types()["renames"], *OLDER_NAMES}, _rename, f"{_MODELING}, attribute_map"),
    Derivation("size of a head", _known("head_dim"), _size_head, f"{_MODELING}, __post_init__"),
    Derivation(
        "key-value heads",
        lambda: {*model_types()["heads_kv"], "falcon", "gpt_bigcode", "hy_v4"},
        _count_heads_kv,
        f"{_MODELING}, __post_init__",
    ),
    Derivation("sliding window", _only(WINDOWED), _switch_window, f"{_MODELING}, __post_init__"),
    Derivation("kinds of layers", _only(LAYER_TYPES), _list_layers, f"{_MODELING}, layer_types"),
    Derivation(
        "dense and sparse layers",
        _only(DENSE_FIRST),
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


def derive(config: dict[str, Any], kind: str) -> None:
    """Adds to a configuration of this model type, in place, what follows from what it says."""
    for each in DERIVATIONS:
        if kind in each.types():
            each.apply(config, kind)
