"""Rows that many families share: the usual keys of a text model, the usual tensors of a decoder.

Tables only. Key order is the order in which the reference writes them.
"""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.convert import wrapped
from gguf_forge.convert.arch import Axis, Drop, Hparam, Rule, Table, array, boolean, f32, rule, string, u32
from gguf_forge.convert.config import block_count, first_of, need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.sentence import pooling_mode
from gguf_forge.convert.sizes import WINDOWS
from gguf_forge.errors import ConversionError
from gguf_forge.format.layout import ValueType

from .rotary import attention_growth, pretraining_context, rope_value, scaling, sections, sliding_theta

HEADS = ("num_attention_heads", "n_head", "n_heads")
HEADS_KV = ("num_key_value_heads", "n_kv_heads")
CONTEXT = (
    "max_position_embeddings",
    "n_ctx",
    "n_positions",
    "max_length",
    "max_sequence_length",
    "model_max_length",
)
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")

_GELUS = ("gelu", "gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_accurate", "gelu_python")
#: The activations that GGUF's readers compute, which no key names. GELU is everywhere its approximation by tanh.
SILU = (("hidden_act", ("silu", "swish")),)
GELU = tuple((key, _GELUS) for key in ("hidden_act", "hidden_activation", "activation_function"))

#: Expert gating functions in GGUF.
GATING = {"softmax": 1, "sigmoid": 2, "sqrtsoftplus": 4}
#: Pooling types in GGUF.
POOLING = {"mean": 1, "cls": 2, "lasttoken": 3}

#: The place of the file's type among the keys; its value is known only when the types are chosen.
FILE_TYPE = u32("general.file_type", value=lambda facts: 0)


def gating(facts: Facts) -> int | None:
    """The gating function of the experts."""
    names = ("score_function", "scoring_func", "score_func", "moe_router_activation", "moe_router_activation_func")
    name = first_of(facts.config, *names, "expert_selection_fn", "router_score_func")
    if name is None:
        return None
    if name not in GATING:
        raise ConversionError(f"config.json: unknown gating function {name!r}; known: {', '.join(GATING)}")
    return GATING[name]


def pooling(facts: Facts) -> int | None:
    """How a sentence-transformers folder says its token vectors are pooled."""
    mode = pooling_mode(facts.directory)
    if mode is not None and mode not in POOLING:
        raise ConversionError(f"{facts.directory}: pooling by {mode!r} has no form in GGUF; {', '.join(POOLING)} have")
    return None if mode is None else POOLING[mode]


#: What the reference writes for any text model.
BASE: Table[Hparam] = Table(
    (
        u32("block_count", value=lambda facts: block_count(facts.config)),
        u32("context_length", *CONTEXT),
        u32("embedding_length", "hidden_size", "n_embd", "dim"),
        u32(
            "feed_forward_length",
            "prefix_dense_intermediate_size",
            "dense_intermediate_size",
            "intermediate_size",
            "n_inner",
            "hidden_dim",
        ),
        u32("attention.head_count", *HEADS),
        u32("attention.head_count_kv", *HEADS_KV),
        boolean("attention.causal", value=lambda facts: False if facts.config.get("is_causal") is False else None),
        string("rope.scaling.type", value=scaling),
        f32("rope.scaling.factor", value=rope_value("factor", only=("linear", "yarn"))),
        u32("rope.scaling.original_context_length", value=pretraining_context),
        f32("rope.scaling.yarn_ext_factor", value=rope_value("extrapolation_factor", only=("yarn",))),
        f32("rope.scaling.yarn_attn_factor", value=rope_value("attention_factor", "attn_factor", only=("yarn",))),
        f32("rope.scaling.yarn_beta_fast", value=rope_value("beta_fast", only=("yarn",))),
        f32("rope.scaling.yarn_beta_slow", value=rope_value("beta_slow", only=("yarn",))),
        f32("rope.scaling.attn_factor", value=attention_growth),
        u32("rope.dimension_sections", value=sections),
        f32("rope.freq_base", value=rope_value("rope_theta")),
        f32("rope.freq_base_swa", value=sliding_theta),
        f32("attention.layer_norm_rms_epsilon", "rms_norm_eps", "norm_eps"),
        f32("attention.layer_norm_epsilon", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
        u32("expert_count", *EXPERTS),
        u32("expert_used_count", "num_experts_per_tok", "num_experts_per_token", "top_k_experts"),
        u32("expert_group_count", "n_group"),
        u32("expert_group_used_count", "topk_group"),
        u32("expert_gating_func", value=gating),
        u32("attention.key_length", "head_dim"),
        u32("attention.value_length", "head_dim"),
        FILE_TYPE,
    )
)

#: Tensors of a decoder with separate projections and a gated MLP.
DECODER: Table[Rule] = Table(
    (
        rule("token_embd", "model.embed_tokens"),
        rule("output_norm", "model.norm"),
        rule("output", "lm_head"),
        rule("blk.{l}.attn_norm", "model.layers.{l}.input_layernorm"),
        rule("blk.{l}.attn_q", "model.layers.{l}.self_attn.q_proj"),
        rule("blk.{l}.attn_k", "model.layers.{l}.self_attn.k_proj"),
        rule("blk.{l}.attn_v", "model.layers.{l}.self_attn.v_proj"),
        rule("blk.{l}.attn_output", "model.layers.{l}.self_attn.o_proj"),
        rule("blk.{l}.ffn_norm", "model.layers.{l}.post_attention_layernorm"),
        rule("blk.{l}.ffn_gate", "model.layers.{l}.mlp.gate_proj"),
        rule("blk.{l}.ffn_up", "model.layers.{l}.mlp.up_proj"),
        rule("blk.{l}.ffn_down", "model.layers.{l}.mlp.down_proj"),
    )
)


def layer(*parts: str) -> tuple[str, ...]:
    """Names of a layer's outputs."""
    return tuple(f"blk.{{l}}.{part}" for part in parts)


def affine(*names: str) -> tuple[str, ...]:
    """Names of outputs with a weight and a bias."""
    return tuple(f"{name}.{part}" for name in names for part in ("weight", "bias"))


#: What every decoder needs, and each of its layers; how it makes queries, keys and values, and how it feeds forward.
TRUNK = ("token_embd", "output_norm", *layer("attn_norm", "attn_output", "ffn_norm"))
QKV = layer("attn_q", "attn_k", "attn_v")
GATED = layer("ffn_gate", "ffn_up", "ffn_down")
MIXTURE = layer("ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")

#: Normalised queries and keys.
QK_NORM: Table[Rule] = Table(
    (
        rule("blk.{l}.attn_q_norm", "model.layers.{l}.self_attn.q_norm"),
        rule("blk.{l}.attn_k_norm", "model.layers.{l}.self_attn.k_norm"),
    )
)
QK_NORMS = layer("attn_q_norm", "attn_k_norm")


def inner_width(up: str, axis: int, *width: str) -> Callable[[Facts], int]:
    """How wide the first layer feeds forward: by the tensor `up`, for which configurations have no one key.

    Without tensors four times the model's width, which is under one of the keys `width`.
    """

    def value(facts: Facts) -> int:
        return facts.headers[up].shape[axis] if facts.has(up) else 4 * facts.number(*width)

    return value


def main_layers(facts: Facts) -> int:
    """The layers of the model itself, without those that predict further tokens."""
    return block_count(facts.config)


def sliding_layers(facts: Facts) -> list[bool]:
    """Which layers have a window, by the kinds of layers that the configuration lists."""
    return [kind == "sliding_attention" for kind in need(facts.config, "layer_types")]


def nextn_layers(*keys: str) -> Callable[[Facts], int]:
    """How many layers after the model's own predict further tokens: the first of these keys, or none."""

    def count(facts: Facts) -> int:
        return next((int(facts.config[key]) for key in keys if facts.config.get(key) is not None), 0)

    return count


def with_nextn(extra: Callable[[Facts], int]) -> Axis:
    """The layers of a model that may predict further tokens: as the options keep them, leave them out, or alone."""

    def span(facts: Facts) -> int | range:
        main = main_layers(facts)
        if facts.options.mtp == "drop":
            return main
        both = main + extra(facts)
        return range(main, both) if facts.options.mtp == "only" else both

    return Axis(span)


def beyond(prefix: str, last: Callable[[Facts], int] = main_layers) -> Drop:
    """Layers from `last(facts)` on are left out; `prefix` is a regular expression that ends where their number is."""
    return Drop(prefix + r"(\d+)\.", lambda match, facts: int(match[1]) >= last(facts))


def nextn_dropped(prefix: str = r"^model\.layers\.") -> Drop:
    """Layers that predict further tokens are left out under --no-mtp."""
    return Drop(
        prefix + r"(\d+)\.", lambda match, facts: facts.options.mtp == "drop" and int(match[1]) >= main_layers(facts)
    )


def main_dropped(prefix: str = r"^model\.layers\.") -> Drop:
    """The model's own layers are left out under --mtp."""
    return Drop(
        prefix + r"(\d+)\.", lambda match, facts: facts.options.mtp == "only" and int(match[1]) < main_layers(facts)
    )


def windows_unless_usual(architecture: str) -> Hparam:
    """Which layers slide, where config.json says so and they are not those that llama.cpp supposes without the key.

    None where none does: llama.cpp aborts at such a list, and supposes nothing without the size of windows.
    """

    def value(facts: Facts) -> list[bool] | None:
        kinds, usual = facts.config.get("layer_types"), WINDOWS[architecture]
        if not kinds or not facts.config.get("sliding_window"):
            return None
        windows = [kind == "sliding_attention" for kind in kinds]
        if not any(windows):
            return None
        full = 0 if usual.first else usual.period - 1
        return None if windows == [n % usual.period != full for n in range(len(kinds))] else windows

    return array("attention.sliding_window_pattern", ValueType.BOOL, value=value)


def tied_head(facts: Facts) -> bool:
    """Whether the configuration says that the embedding serves as the head."""
    return bool(facts.config.get("tie_word_embeddings"))


#: What other modalities bring along, and how wrappers call a text model's tensors.
MULTIMODAL, WRAPPERS = wrapped.MULTIMODAL, wrapped.WRAPPERS
#: Buffers that older releases of transformers stored with the weights.
BUFFERS = (r"\.rotary_emb\.inv_freq$", r"\.attention\.masked_bias$", r"\.attention\.bias$")
