"""HRM-Text: two stacks of layers that take turns, each run many times over."""

from __future__ import annotations

import re

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Axis, Hparam, Rule, Table, boolean, exact, f32, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.rows import equal_parts

from .common import BASE, BUFFERS, DECODER, GATED, QKV, SILU, layer
from .rotary import head_dim

STACKS = "LH"


def _stack(facts: Facts) -> int:
    """The layers of one stack."""
    return facts.number("num_layers_per_stack", "num_hidden_layers")


def _runs(facts: Facts) -> int:
    """How often a layer is run, which readers count as layers."""
    return _stack(facts) * facts.number("H_cycles") * (facts.number("L_cycles") + 1)


def _numbered(match: re.Match[str], facts: Facts) -> str:
    """One stack after the other: the lower first."""
    return f"model.layers.{STACKS.index(match[1]) * _stack(facts) + int(match[2])}."


KEYS: Table[Hparam] = (
    BASE
    | u32("block_count", value=_runs)
    | u32("rope.dimension_count", value=head_dim)
    | f32("embedding_scale", "embedding_scale", required=True)
    | u32("hrm.layers_per_stack", value=_stack)
    | u32("hrm.h_cycles", "H_cycles", required=True)
    | u32("hrm.l_cycles", "L_cycles", required=True)
    | boolean("hrm.prefix_lm", "prefix_lm", default=False)
)
ROWS: Table[Rule] = Table(
    (
        rule(
            tuple(f"blk.{{l}}.attn_{part}" for part in ("gate", "q", "k", "v")),
            "model.layers.{l}.attn.gqkv_proj",
            ends=WEIGHT,
            verb=equal_parts(4),
        ),
        rule("blk.{l}.attn_output", "model.layers.{l}.attn.o_proj"),
        rule(GATED[:2], "model.layers.{l}.mlp.gate_up_proj", ends=WEIGHT, verb=equal_parts(2)),
        rule("blk.{l}.ffn_down", "model.layers.{l}.mlp.down_proj"),
        exact("hrm.z_l_init", "model.z_L_init"),
    )
)

HRM_TEXT = Arch(
    "hrm_text",
    hf=("HrmTextForCausalLM",),
    hparams=KEYS,
    tensors=Table(tuple(row for row in DECODER if row.out[0] in ("token_embd", "output"))) | ROWS,
    needs=("token_embd", "hrm.z_l_init", *QKV, *GATED, *layer("attn_gate", "attn_output")),
    vocab=(vocab.bpe,),
    renames=((r"^model\.([LH])_module\.layers\.(\d+)\.", _numbered),),
    drop=BUFFERS,
    axes={"l": Axis(lambda facts: 2 * _stack(facts))},
    implied=SILU,
)

ARCHS = (HRM_TEXT,)
