"""What models with latent attention have in common: rows of its keys and tensors, of DeepSeek's experts, of what finds
the tokens to read, of hyper-connections, and of the layers that predict further tokens.

Latent attention (MLA) makes keys and values of all heads from one small vector a token. GGUF holds the matrix that
does so in two parts, the keys' one transposed, so that a reader may apply it to the queries instead: to such a reader
the model has one key-value head, as wide as that vector. Tables only; must not know single families.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from typing import Any

from gguf_forge.convert.arch import (
    EXPERTS,
    WEIGHT,
    Axis,
    Drop,
    Either,
    Hparam,
    Rule,
    Table,
    boolean,
    exact,
    f32,
    optional,
    rule,
    u32,
)
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import COPY, STACK, TRANSPOSE, Each, Rows, Verb
from gguf_forge.convert.rows import grouped, number_of
from gguf_forge.convert.view import Numbers
from gguf_forge.errors import ConversionError

from .common import GATED, MIXTURE, layer, main_layers, nextn_layers, tied_head, with_nextn

LAYER = "model.layers.{l}"
NEXTN = "num_nextn_predict_layers"

Count = Callable[[Facts], int]


def key_and_value(heads: Count, key: Count, value: Count) -> Verb:
    """kv_b_proj, (heads x (key + value), rank), as keys (heads, rank, key) and values (heads, value, rank)."""

    def take(rows: Numbers, facts: Facts) -> tuple[Numbers, ...]:
        by_head = grouped(rows, heads(facts))
        keys, values = key(facts), value(facts)
        if keys + values != by_head.shape[-1]:
            raise ConversionError(f"heads of {by_head.shape[-1]} rows are not keys of {keys} and values of {values}")
        return by_head[..., :keys], by_head[..., keys:]

    return Rows(take) | Each(TRANSPOSE, COPY)


def total(*keys: str) -> Count:
    """The sum of these configuration keys."""
    return lambda facts: sum(facts.number(key) for key in keys)


#: By head, as the configurations of all these models give it.
KV_B = key_and_value(number_of("num_attention_heads"), number_of("qk_nope_head_dim"), number_of("v_head_dim"))


def latent(attention: str = f"{LAYER}.self_attn", kv_b: Verb | None = KV_B, end: str = "o_proj") -> Table[Rule]:
    """The tensors of latent attention, whose queries may come from a small vector, too.

    `kv_b` takes keys and values apart; without it they stay together. `end` is what the output projection is called.
    """
    together = rule("blk.{l}.attn_kv_b", f"{attention}.kv_b_proj")
    return Table(
        (
            rule("blk.{l}.attn_q", f"{attention}.q_proj"),
            rule("blk.{l}.attn_q_a", f"{attention}.q_a_proj"),
            rule("blk.{l}.attn_q_a_norm", f"{attention}.q_a_layernorm"),
            rule("blk.{l}.attn_q_b", f"{attention}.q_b_proj"),
            rule("blk.{l}.attn_kv_a_mqa", f"{attention}.kv_a_proj_with_mqa"),
            rule("blk.{l}.attn_kv_a_norm", f"{attention}.kv_a_layernorm"),
            together
            if kv_b is None
            else replace(together, out=("blk.{l}.attn_k_b", "blk.{l}.attn_v_b"), ends=WEIGHT, verb=kv_b),
            rule("blk.{l}.attn_output", f"{attention}.{end}"),
        )
    )


SHORT_QUERIES = layer("attn_q_a", "attn_q_a_norm", "attn_q_b")
QUERIES = Either((layer("attn_q"), SHORT_QUERIES))
LATENT = layer("attn_kv_a_mqa", "attn_kv_a_norm", "attn_k_b", "attn_v_b")

#: A dense layer, as most of these models have some before those of experts.
DENSE: Table[Rule] = Table(
    tuple(rule(f"blk.{{l}}.ffn_{part}", f"{LAYER}.mlp.{part}_proj") for part in ("gate", "up", "down"))
)


def experts(block: str = f"{LAYER}.mlp", **names: str) -> Table[Rule]:
    """Experts stored one by one; `names` are those of their parts where they are not down_proj, gate_proj, up_proj."""
    parts = names or {"down": "down_proj", "gate": "gate_proj", "up": "up_proj"}
    rows = [(f"blk.{{l}}.ffn_{part}_exps", f"{block}.experts.{{e}}.{name}") for part, name in parts.items()]
    return Table(tuple(rule(out, source, ends=WEIGHT, verb=STACK, group="experts") for out, source in rows))


def shared_experts(block: str = f"{LAYER}.mlp.shared_experts") -> Table[Rule]:
    """The experts that every token passes, as one."""
    return Table(tuple(rule(f"blk.{{l}}.ffn_{part}_shexp", f"{block}.{part}_proj") for part in ("gate", "up", "down")))


ROUTER = rule("blk.{l}.ffn_gate_inp", f"{LAYER}.mlp.gate")
ROUTER_BIAS = exact("blk.{l}.exp_probs_b.bias", f"{LAYER}.mlp.gate.e_score_correction.bias")
MOE: Table[Rule] = DENSE | experts() | shared_experts() | ROUTER
SHARED = layer("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")
#: How a layer feeds forward: all at once, or through experts, of which some serve every token.
FEEDS = Either((GATED, (*MIXTURE, *SHARED)))


def leading_dense(facts: Facts) -> int:
    """How many layers come before the first that has experts: all of them in a model without any.

    Newer configurations list the kinds of layers; what else they say of it is left over. ConversionError for dense
    layers among the others, which GGUF has no way to tell.
    """
    kinds = facts.config.get("mlp_layer_types")
    if kinds is not None:
        first = len(list(takewhile(lambda kind: kind == "dense", kinds)))
        if "dense" in kinds[first:]:
            raise ConversionError(f"config.json: mlp_layer_types {kinds} has dense layers after others")
        return first
    if facts.config.get("first_k_dense_replace") is not None:
        return facts.number("first_k_dense_replace")
    return main_layers(facts) if facts.config.get("n_routed_experts") is None else 0


def latent_keys(*, turned: bool = False, value: bool = True) -> Table[Hparam]:
    """The sizes of latent attention as a reader sees it: one key-value head for all, and the heads it stands for.

    `turned`: with how much of a key turns with its position; `value`: with the length of the one head's value.
    """
    first = [u32("attention.q_lora_rank", "q_lora_rank"), u32("attention.kv_lora_rank", "kv_lora_rank", default=512)]
    key = u32("attention.key_length", value=total("kv_lora_rank", "qk_rope_head_dim"), again=True)
    last = [
        u32("attention.key_length_mla", value=total("qk_nope_head_dim", "qk_rope_head_dim")),
        u32("attention.value_length_mla", "v_head_dim", required=True),
    ]
    rope = [u32("rope.dimension_count", "qk_rope_head_dim", required=True)] if turned else []
    one = [u32("attention.value_length", value=number_of("kv_lora_rank"), again=True)] if value else []
    return Table((*first, *rope, key, *one, *last))


ONE_HEAD_KV = u32("attention.head_count_kv", value=lambda facts: 1)

#: DeepSeek's experts, and how many dense layers come before them.
LEADING_DENSE = u32("leading_dense_block_count", value=leading_dense)
EXPERT_KEYS: Table[Hparam] = Table(
    (
        u32("expert_feed_forward_length", "moe_intermediate_size", "intermediate_size", required=True),
        u32("expert_count", "n_routed_experts", again=True),
        u32("expert_shared_count", "n_shared_experts", default=0),
        f32("expert_weights_scale", "routed_scaling_factor"),
        boolean("expert_weights_norm", value=lambda facts: facts.config.get("norm_topk_prob") or None),
    )
)

#: Of models with few queries that read few tokens each: what finds these tokens.
INDEXER_KEYS: Table[Hparam] = Table(
    (
        u32("attention.indexer.head_count", "index_n_heads", required=True),
        u32("attention.indexer.key_length", "index_head_dim", required=True),
        u32("attention.indexer.top_k", "index_topk", required=True),
    )
)
INDEXER: Table[Rule] = Table(
    (
        rule("blk.{l}.indexer.k_norm", f"{LAYER}.self_attn.indexer.k_norm"),
        rule("blk.{l}.indexer.proj", f"{LAYER}.self_attn.indexer.weights_proj"),
        rule("blk.{l}.indexer.attn_k", f"{LAYER}.self_attn.indexer.wk"),
        rule("blk.{l}.indexer.attn_q_b", f"{LAYER}.self_attn.indexer.wq_b"),
    )
)
INDEXED = layer("indexer.k_norm.weight", "indexer.k_norm.bias", "indexer.proj", "indexer.attn_k", "indexer.attn_q_b")

#: Hyper-connections, which mix several streams of a token's state before each half of a layer: names of its tensors.
HYPER = [f"hc_{half}_{part}" for half in ("attn", "ffn") for part in ("fn", "base", "scale")]
HYPER_KEYS: Table[Hparam] = Table(
    (
        u32("hyper_connection.count", "hc_mult", required=True),
        u32("hyper_connection.sinkhorn_iterations", "hc_sinkhorn_iters", required=True),
        f32("hyper_connection.epsilon", "hc_eps", required=True),
    )
)

#: What layers that predict further tokens have beside an ordinary layer's tensors.
FURTHER: Table[Rule] = Table(
    (
        rule("blk.{l}.nextn.eh_proj", f"{LAYER}.eh_proj"),
        rule("blk.{l}.nextn.embed_tokens", f"{LAYER}.embed_tokens"),
        rule("blk.{l}.nextn.enorm", f"{LAYER}.enorm"),
        rule("blk.{l}.nextn.hnorm", f"{LAYER}.hnorm"),
        rule("blk.{l}.nextn.shared_head_head", f"{LAYER}.shared_head.head"),
        rule("blk.{l}.nextn.shared_head_norm", f"{LAYER}.shared_head.norm"),
    )
)
#: Some layers have them, the model's own do not.
FURTHER_OR_OWN = optional(*layer("nextn.eh_proj", "nextn.enorm", "nextn.hnorm"))


def _span(facts: Facts) -> int | range:
    """A checkpoint may lack layers that its configuration speaks of: readers do without them."""
    lacks = not facts.has(f"model.layers.{main_layers(facts)}.eh_proj.weight")
    if lacks and facts.options.mtp == "keep":
        return main_layers(facts)
    return with_nextn(nextn_layers(NEXTN)).span(facts)


#: Layers that predict further tokens are kept, left out, or alone.
FURTHER_AXES = {"l": Axis(_span), "e": EXPERTS}


def kept_further(facts: Facts) -> Any:
    """How many such layers the file has; None where the options leave them out, or the configuration is silent."""
    return None if facts.options.mtp == "drop" else facts.config.get(NEXTN)


def all_layers(facts: Facts) -> int:
    """The model's own layers and those that predict further tokens, as far as the options keep them."""
    return main_layers(facts) + (0 if facts.options.mtp == "drop" else nextn_layers(NEXTN)(facts))


KEPT_FURTHER = u32("nextn_predict_layers", value=kept_further)
BLOCKS = u32("block_count", value=all_layers)
#: The head is left out where the embedding serves as one.
TIED = Drop(r"^(model\.)?lm_head\.weight$", lambda _match, facts: tied_head(facts))
