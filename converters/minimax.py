"""MiniMax: Text-01 and M1, most of whose layers attend linearly; M2; M3, whose queries read picked blocks of tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Either, Rule, Table, array, boolean, exact, f32, rule, u32
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import add
from gguf_forge.convert.origin import source_view
from gguf_forge.convert.view import widen
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.errors import ConversionError
from gguf_forge.format import values
from gguf_forge.format.layout import ValueType
from gguf_forge.source.checkpoint import open_checkpoint

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
    TRUNK,
    WRAPPERS,
    layer,
)
from .mla import DENSE, LAYER, SHARED, experts, shared_experts
from .rotary import turned

EMBEDDING = "model.embed_tokens.weight"
MOE = f"{LAYER}.block_sparse_moe"
#: Published configurations give the part of a head that turns as a number of elements, transformers 5 as a share.
TURNED = u32("rope.dimension_count", value=lambda facts: facts.config.get("rotary_dim") or turned()(facts))
SPARSE: Table[Rule] = (
    DECODER.without(*GATED)
    | rule("blk.{l}.ffn_gate_inp", f"{MOE}.gate")
    | experts(MOE, gate="w1", down="w2", up="w3")
)
#: What the layers of Text-01 that attend linearly have: all heads' queries, keys and values in one, a norm and a gate.
LINEAR = {"attn_qkv": "qkv_proj", "attn_norm_2": "norm", "attn_gate": "output_gate", "attn_output": "out_proj"}
#: llama.cpp takes every eighth layer of Text-01 for one of full attention, unless a key says otherwise.
USUAL_INTERVAL = 8


def _residual_scale(facts: Facts) -> float:
    """What the residual stream is multiplied by: one number for its three kinds of paths; their own must be 1."""
    kinds = ("full_attention", "linear_attention", "mlp")
    scales = [float(need(facts.config, f"layernorm_{kind}_alpha")) for kind in kinds]
    factors = [float(need(facts.config, f"layernorm_{kind}_beta")) for kind in kinds]
    if len(set(scales)) != 1 or set(factors) != {1.0}:
        raise ConversionError(
            f"config.json: layernorm_*_alpha {scales} must be one number, and layernorm_*_beta {factors} must be 1"
        )
    return scales[0]


def _interval(facts: Facts) -> int | None:
    """Of how many layers the last has full attention, where that is not what llama.cpp supposes."""
    kinds = [int(kind) for kind in need(facts.config, "attn_type_list")]
    interval = kinds.index(1) + 1 if 1 in kinds else len(kinds) + 1
    if any(kind != int((number + 1) % interval == 0) for number, kind in enumerate(kinds)):
        raise ConversionError(f"config.json: attn_type_list {kinds} does not attend fully at equal intervals")
    return None if interval == USUAL_INTERVAL else interval


def unheard(facts: Facts) -> list[int] | None:
    """Tokens whose embedding is all zeros, which readers must not choose: rows beyond the tokenizer's own vocabulary.

    Read from the weights, unless only headers are at hand: rows beyond are few.
    """
    known = ((Folder(facts.directory).object("tokenizer.json") or {}).get("model") or {}).get("vocab")
    if not known or not any(facts.directory.glob("*.safetensors")):
        return None
    with open_checkpoint(facts.directory) as checkpoint:
        view = source_view(checkpoint.tensors[EMBEDDING])
        first = min(len(known), view.count)
        rows = widen(view.rows(first, view.count), view.type)
    return [first + int(number) for number in np.flatnonzero((rows == 0).all(axis=1))] or None


@vocab.step
def m1_template(job: vocab.VocabJob) -> vocab.Changes:
    """The template of a file of its own, or else M1's."""
    return vocab.template_of_file(job) or {"tokenizer.chat_template": values.string(vocab.shipped("minimax-m1.jinja"))}


MINIMAX01 = Arch(
    "minimax-01",
    hf=("MiniMaxText01ForCausalLM", "MiniMaxM1ForCausalLM"),
    hparams=BASE
    | array("tokenizer.ggml.suppress_tokens", ValueType.INT32, value=unheard)
    | f32("residual_scale", value=_residual_scale)
    | TURNED
    | u32("full_attention_interval", value=_interval),
    tensors=SPARSE
    | Table(
        tuple(
            rule(f"blk.{{l}}.{out}", f"{LAYER}.self_attn.{name}", ends=WEIGHT, variant="linear")
            for out, name in LINEAR.items()
        )
    ),
    needs=(*TRUNK, *MIXTURE, Either((QKV, layer("attn_qkv", "attn_norm_2", "attn_gate")))),
    vocab=(vocab.bpe, m1_template),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=(*SILU, ("postnorm", (True,)), ("shared_intermediate_size", (0,))),
)
MINIMAX_M2 = Arch(
    "minimax-m2",
    hf=("MiniMaxM2ForCausalLM",),
    hparams=BASE | u32("expert_feed_forward_length", "intermediate_size", required=True) | TURNED,
    tensors=SPARSE | QK_NORM | exact("blk.{l}.exp_probs_b.bias", f"{MOE}.e_score_correction.bias"),
    needs=(*TRUNK, "output", *QKV, *QK_NORMS, *MIXTURE, *layer("exp_probs_b.bias")),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=(*SILU, ("qk_norm_type", ("per_layer",)), ("shared_intermediate_size", (0,))),
)


def _indexer(part: str, key: str) -> Callable[[Facts], Any]:
    """What config.json says of the search for blocks: in an object of its own, or (as transformers saves it) apart."""
    return lambda facts: need({**facts.config, **(facts.config.get("sparse_attention_config") or {})}, part, key)


def _leading_dense(facts: Facts) -> int:
    if facts.config.get("moe_layer_freq") is None:
        return len(list(takewhile(lambda kind: kind == "dense", need(facts.config, "mlp_layer_types"))))
    return len(list(takewhile(lambda sparse: not sparse, facts.config["moe_layer_freq"])))


def _index_row(part: str, **kwargs: Any) -> Rule:
    kind, name = part.split("_")
    source = f"{LAYER}.self_attn.index_{kind}_{name}"
    return rule(f"blk.{{l}}.indexer.{part}", source, ends=WEIGHT, type="F32", **kwargs)


INDEX = layer("indexer.q_proj", "indexer.k_proj", "indexer.q_norm", "indexer.k_norm")
#: Its norms multiply by one more than their weight.
ONE_MORE = ("output_norm", "blk.{l}.attn_norm", "blk.{l}.ffn_norm", "blk.{l}.attn_q_norm", "blk.{l}.attn_k_norm")

MINIMAX_M3 = Arch(
    "minimax-m3",
    hf=("MiniMaxM3SparseForCausalLM", "MiniMaxM3SparseForConditionalGeneration"),
    hparams=MINIMAX_M2.hparams
    | u32("expert_shared_count", "n_shared_experts", required=True)
    | f32("expert_weights_scale", "routed_scaling_factor", required=True)
    | boolean("expert_weights_norm", value=lambda facts: True)
    | u32("attention.indexer.head_count", value=_indexer("sparse_num_index_heads", "index_n_heads"))
    | u32("attention.indexer.key_length", value=_indexer("sparse_index_dim", "index_head_dim"))
    | u32("attention.indexer.top_k", value=_indexer("sparse_topk_blocks", "index_topk_blocks"))
    | u32("attention.indexer.block_size", value=_indexer("sparse_block_size", "index_block_size"))
    | u32("attention.indexer.local_blocks", value=_indexer("sparse_local_block", "index_local_blocks"))
    | u32("leading_dense_block_count", value=_leading_dense),
    tensors=Table(
        tuple(replace(row, verb=add(1.0)) if row.row in ONE_MORE else row for row in MINIMAX_M2.tensors.rows)
    )
    | DENSE
    | shared_experts(f"{MOE}.shared_experts")
    | Table((_index_row("q_proj"), _index_row("k_proj")))
    | Table((_index_row("q_norm", verb=add(1.0)), _index_row("k_norm", verb=add(1.0)))),
    needs=(
        *TRUNK,
        "output",
        *QKV,
        *QK_NORMS,
        Either((GATED, (*MIXTURE, *SHARED, *INDEX, *layer("exp_probs_b.bias")))),
    ),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=(*BUFFERS, *MULTIMODAL),
    implied=(
        ("hidden_act", ("silu", "swigluoai")),
        ("qk_norm_type", ("per_head",)),
        ("swiglu_alpha", (1.702,)),
        ("swiglu_limit", (7.0,)),
    ),
)

ARCHS = (MINIMAX01, MINIMAX_M2, MINIMAX_M3)
