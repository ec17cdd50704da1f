"""Qwen3-Next, Qwen3.5 and 3.6, dense and mixtures of experts: most layers keep a state instead of attending.

Many a finetuned Qwen3.5 lacks the layers that predict further tokens, of which its configuration speaks. As in the
reference the metadata follows the configuration, where it says anything; readers do without what is not there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import EXPERTS as EXPERT_AXIS
from gguf_forge.convert.arch import (
    LAYERS,
    Arch,
    Axis,
    Either,
    Hparam,
    Rule,
    Table,
    array,
    exact,
    optional,
    rule,
    u32,
)
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import COPY, NEG_EXP, SQUEEZE, Columns, Rows, Verb, add
from gguf_forge.convert.rows import grouped
from gguf_forge.convert.view import Numbers
from gguf_forge.errors import ConversionError
from gguf_forge.format.layout import ValueType

from .common import (
    BASE,
    BUFFERS,
    DECODER,
    GATED,
    MIXTURE,
    MULTIMODAL,
    QK_NORM,
    QK_NORMS,
    QKV,
    SILU,
    WRAPPERS,
    layer,
    main_dropped,
    main_layers,
    nextn_dropped,
)
from .openjev import DECISION, is_openjev, prompt
from .qwen import EXPERTS, MOE_KEYS, POOLING, SHARED, SHARED_EXPERT, sections
from .rotary import turned

SHIFTED = add(1.0)
#: What any layer begins with: a norm, or in Qwen4 the norm of its streams.
FIRST = ("input_layernorm", "attn_hyper_connection.hc_norm")


def shifted(table: Table[Rule]) -> Table[Rule]:
    """The table with one added to the weights of norms, which these models store less one."""
    return Table(tuple(replace(row, verb=SHIFTED) if row.out[0].endswith("norm") else row for row in table))


def held(facts: Facts) -> int:
    """How many layers after the model's own the checkpoint has. ConversionError if there are none to be kept alone."""
    main = last = main_layers(facts)
    while any(facts.has(f"model.layers.{last}.{first}.weight") for first in FIRST):
        last += 1
    if last == main and facts.options.mtp == "only":
        raise ConversionError("the checkpoint has no layers that predict further tokens (mtp.layers.0)")
    return last - main


def nextn(facts: Facts) -> int:
    """How many layers that predict further tokens the metadata speaks of."""
    inner = facts.config.get("architectures") == ["Qwen3_5TextModel"]
    if facts.options.mtp == "drop" or inner or is_openjev(facts):
        return 0
    return facts.config.get("mtp_num_hidden_layers") or held(facts)


def _layers(facts: Facts) -> range:
    main = main_layers(facts)
    return range(main if facts.options.mtp == "only" else 0, main + held(facts))


AXES = {"l": Axis(_layers), "e": EXPERT_AXIS}

_AFTER = {"fc": "eh_proj", "norm": "shared_head.norm", "pre_fc_norm_embedding": "enorm", "pre_fc_norm_hidden": "hnorm"}
#: Layers that predict further tokens get the numbers after the model's own; what is theirs together, the first of them.
RENAMES = (
    *WRAPPERS,
    (r"^(?:model\.)?mtp\.layers\.(\d+)\.", lambda m, facts: f"model.layers.{main_layers(facts) + int(m[1])}."),
    (
        rf"^(?:model\.)?mtp\.({'|'.join(_AFTER)})\.",
        lambda m, facts: f"model.layers.{main_layers(facts)}.{_AFTER[m[1]]}.",
    ),
)
DROP = (*BUFFERS, *MULTIMODAL, nextn_dropped(), main_dropped())


def key_rows(facts: Facts) -> int:
    """The rows of a state's queries and keys together."""
    return 2 * facts.number("linear_num_key_heads") * facts.number("linear_key_head_dim")


def in_turns(numbers: Numbers, facts: Facts, start: int = 0) -> Numbers:
    """From number `start` on, the heads of a state's values, stored key head by key head, in turns of key heads.

    (key head, value head of it, size) -> (value head of it, key head, size): GGML repeats keys as a whole, and so
    each value head meets its own key.
    """
    keys, values = facts.number("linear_num_key_heads"), facts.number("linear_num_value_heads")
    if keys <= 0 or values % keys:
        raise ConversionError(f"{values} heads of values cannot be shared out to {keys} heads of keys")
    numbers = numbers.reshape(-1)
    by_head = grouped(numbers[start:], values).reshape(keys, values // keys, -1)
    return np.concatenate([numbers[:start], by_head.swapaxes(0, 1).reshape(-1)])


TURNS = Rows(in_turns)
TURNS_AFTER_KEYS = Rows(lambda rows, facts: in_turns(rows, facts, key_rows(facts)))


def _by_kind(rows: Numbers, facts: Facts) -> tuple[Numbers, Numbers]:
    """Of a matrix with all of a key head's rows together, the queries, keys and values of all heads, and the gates."""
    size = facts.number("linear_key_head_dim")
    by_head = grouped(rows, facts.number("linear_num_key_heads"), 2)
    edges = [size, 2 * size, size + by_head.shape[1] // 2]
    if edges[2] < edges[1]:
        raise ConversionError(f"heads of {by_head.shape[1]} rows have no room for a query and a key of {size}")
    query, key, value, gate = (part.reshape(-1) for part in np.split(by_head, edges, axis=1))
    return np.concatenate([query, key, value]), gate


def _inner(facts: Facts) -> int:
    return facts.number("linear_value_head_dim") * facts.number("linear_num_value_heads")


def _recurrent(facts: Facts) -> list[bool] | None:
    """Which layers keep a state."""
    kinds = facts.config.get("layer_types")
    if kinds is not None and len(kinds) != main_layers(facts):
        raise ConversionError(f"config.json: {len(kinds)} layer_types for {main_layers(facts)} layers")
    return None if kinds is None else [kind == "linear_attention" for kind in kinds] + [False] * nextn(facts)


BLOCKS = u32("block_count", value=lambda facts: main_layers(facts) + nextn(facts))
STATE_KEYS: Table[Hparam] = Table(
    (
        u32("nextn_predict_layers", value=lambda facts: nextn(facts) or None),
        u32("ssm.conv_kernel", "linear_conv_kernel_dim", required=True),
        u32("ssm.state_size", "linear_key_head_dim", required=True),
        u32("ssm.group_count", "linear_num_key_heads", required=True),
        u32("ssm.time_step_rank", "linear_num_value_heads", required=True),
        u32("ssm.inner_size", value=_inner),
        array("attention.recurrent_layers", ValueType.BOOL, value=_recurrent),
        u32("full_attention_interval", "full_attention_interval", default=4),
        u32("rope.dimension_count", value=turned(0.25)),
    )
)
SECTIONS = sections(11, 11, 10)


def parts(verb: Verb = COPY, /, **names: str) -> Table[Rule]:
    """A row for each of a layer's parts, by its name in GGUF."""
    return Table(tuple(rule(f"blk.{{l}}.{o}", f"model.layers.{{l}}.{s}", verb=verb) for o, s in names.items()))


#: What all have, whatever they do between the norms.
OWN_ROWS: Table[Rule] = shifted(
    DECODER.without("blk.{l}.ffn_norm", *GATED) | QK_NORM | parts(post_attention_norm="post_attention_layernorm")
)
TRUNK_ROWS: Table[Rule] = OWN_ROWS | shifted(
    Table(tuple(rule(f"blk.{{l}}.nextn.{n}", f"model.layers.{{l}}.{n}") for n in ("eh_proj", "enorm", "hnorm")))
    | rule("blk.{l}.nextn.shared_head_norm", "model.layers.{l}.shared_head.norm")
)
STATE: Table[Rule] = parts(ssm_norm="linear_attn.norm") | Table(
    (
        rule("blk.{l}.ssm_conv1d", "model.layers.{l}.linear_attn.conv1d", verb=SQUEEZE),
        exact("blk.{l}.ssm_a", "model.layers.{l}.linear_attn.A_log", verb=NEG_EXP),
        exact("blk.{l}.ssm_dt.bias", "model.layers.{l}.linear_attn.dt_bias"),
        rule("blk.{l}.ssm_out", "model.layers.{l}.linear_attn.out_proj"),
    )
)
#: The older model's projections in, with a key head's rows together.
TOGETHER: Table[Rule] = STATE | Table(
    (
        exact(
            ("blk.{l}.attn_qkv.weight", "blk.{l}.attn_gate.weight"),
            "model.layers.{l}.linear_attn.in_proj_qkvz.weight",
            verb=Rows(_by_kind),
        ),
        rule("blk.{l}.ssm_ba", "model.layers.{l}.linear_attn.in_proj_ba"),
    )
)
#: The newer models' projections in and out, one for each purpose, and their values' heads in turns.
APART: Table[Rule] = (
    STATE
    | rule("blk.{l}.attn_qkv", "model.layers.{l}.linear_attn.in_proj_qkv", verb=TURNS_AFTER_KEYS)
    | parts(
        TURNS, attn_gate="linear_attn.in_proj_z", ssm_alpha="linear_attn.in_proj_a", ssm_beta="linear_attn.in_proj_b"
    )
    | rule("blk.{l}.ssm_conv1d", "model.layers.{l}.linear_attn.conv1d", verb=SQUEEZE | TURNS_AFTER_KEYS)
    | exact("blk.{l}.ssm_a", "model.layers.{l}.linear_attn.A_log", verb=TURNS | NEG_EXP)
    | exact("blk.{l}.ssm_dt.bias", "model.layers.{l}.linear_attn.dt_bias", verb=TURNS)
    | rule("blk.{l}.ssm_out", "model.layers.{l}.linear_attn.out_proj", verb=Columns(in_turns))
)
DENSE: Table[Rule] = Table(tuple(row for row in DECODER if row.out[0] in GATED))
EXPERT: Table[Rule] = parts(ffn_gate_inp="mlp.gate") | EXPERTS | SHARED_EXPERT


#: What a layer that attends needs, and one that keeps a state, of either kind.
ATTENDS = (*QKV, *QK_NORMS, *layer("attn_output"))
KEEPS = layer("attn_qkv", "attn_gate", "ssm_conv1d", "ssm_a", "ssm_dt.bias", "ssm_norm", "ssm_out")
KEEPS_APART = (*KEEPS, *layer("ssm_alpha", "ssm_beta"))
#: What the first layer that predicts a further token needs beside all that.
AHEAD = layer("nextn.eh_proj", "nextn.enorm", "nextn.hnorm")
NEEDS: tuple[str | Either, ...] = (
    *("token_embd", "output_norm"),
    *layer("attn_norm", "post_attention_norm"),
    optional(*AHEAD),
)

QWEN3_NEXT = Arch(
    "qwen3next",
    hf=("Qwen3NextForCausalLM",),
    hparams=MOE_KEYS | BLOCKS | STATE_KEYS,
    tensors=TRUNK_ROWS | TOGETHER | EXPERT,
    needs=(*NEEDS, Either((ATTENDS, (*KEEPS, *layer("ssm_ba")))), *MIXTURE, *SHARED),
    vocab=(vocab.bpe,),
    renames=RENAMES,
    drop=DROP,
    axes=AXES,
    implied=(*SILU, ("norm_topk_prob", (True,))),
    mtp=True,
)
QWEN35 = Arch(
    "qwen35",
    hf=("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM", "Qwen3_5TextModel", "OpenJevModel"),
    hparams=BASE | BLOCKS | STATE_KEYS | SECTIONS | POOLING | DECISION,
    tensors=TRUNK_ROWS | APART | DENSE,
    needs=(*NEEDS, Either((ATTENDS, KEEPS_APART)), *GATED),
    vocab=(vocab.bpe, prompt),
    renames=RENAMES,
    drop=DROP,
    axes=AXES,
    implied=SILU,
    mtp=True,
)
#: The dense model without layers that predict further tokens: what others have built a head on.
QWEN35_ALONE = replace(
    QWEN35,
    tensors=OWN_ROWS | APART | DENSE,
    needs=(*NEEDS[:-1], Either((ATTENDS, KEEPS_APART)), *GATED),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=(*BUFFERS, *MULTIMODAL, r"^(?:model\.)?mtp\."),
    axes={"l": LAYERS},
    mtp=False,
)
QWEN35_MOE = Arch(
    "qwen35moe",
    hf=("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"),
    hparams=MOE_KEYS | BLOCKS | STATE_KEYS | SECTIONS,
    tensors=TRUNK_ROWS | APART | EXPERT,
    needs=(*NEEDS, Either((ATTENDS, KEEPS_APART)), *MIXTURE, *SHARED),
    vocab=(vocab.bpe,),
    renames=RENAMES,
    drop=DROP,
    axes=AXES,
    implied=SILU,
    mtp=True,
)

ARCHS = (QWEN3_NEXT, QWEN35, QWEN35_MOE)
