"""Hunyuan 4 (Hy4): latent attention with a gate and a sink, hyper-connections, experts stored together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Table, boolean, exact, f32, optional, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.rows import equal_parts
from gguf_forge.errors import ConversionError

from . import mla
from .common import BUFFERS, SILU, TRUNK, WRAPPERS, beyond, layer, main_layers
from .deepseek import KEYS, TENSORS


def _indexers(facts: Facts) -> list[bool]:
    """Which layers find the tokens they read; the others read those of the layer before."""
    kinds, layers = facts.config.get("indexer_types") or [], range(main_layers(facts))
    found = [facts.has(f"model.layers.{number}.self_attn.indexer.wq_b.weight") for number in layers]
    said = [{"full": True, "shared": False}.get(kind) for kind in kinds[: len(layers)]]
    if said != found or not all(said[:1]):
        raise ConversionError(f"config.json: indexer_types {kinds}, but the layers with an indexer are {found}")
    return found


def _groups(key: str) -> Callable[[Facts], Any]:
    """The number of expert groups, unless all are one group, of which llama.cpp has no need to know."""
    keys = ("n_group", "topk_group")
    return lambda facts: None if [facts.config.get(k) for k in keys] == [1, 1] else facts.config.get(key)


def _clamp(facts: Facts) -> list[float] | None:
    """The experts' limit in each layer; transformers' HYV4Config has one where config.json is silent."""
    limit = float(facts.config.get("swiglu_limit", 10.0) or 0.0)
    return [limit] * main_layers(facts) if limit > 0 else None


def _float_head(facts: Facts) -> bool:
    return bool(facts.config.get("enable_lm_head_fp32"))



MIXES = {"attn": "hc_attn_layer", "ffn": "hc_mlp_layer"}
PARTS = ("fn", "base", "scale")

HY_V4 = Arch(
    "hy_v4",
    hf=("HYV4ForCausalLM",),
    hparams=KEYS
    | u32("expert_group_count", value=_groups("n_group"))
    | u32("expert_group_used_count", value=_groups("topk_group"))
    | u32("expert_gating_func", value=lambda facts: 2, again=True)
    | f32("swiglu_clamp_exp", value=_clamp)
    | mla.HYPER_KEYS.without("hyper_connection.sinkhorn_iterations")
    | f32("hyper_connection.magnitude", "hc_magnitude", required=True)
    | mla.INDEXER_KEYS
    | boolean("attention.indexer.types", value=_indexers),
    tensors=TENSORS.without("blk.{l}.attn_q", *layer("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"))
    | rule("output", "lm_head", when=lambda facts: not _float_head(facts))
    | rule("output", "lm_head", variant="float32", type="F32", when=_float_head)
    | exact(
        ("blk.{l}.ffn_gate_exps.weight", "blk.{l}.ffn_up_exps.weight"),
        f"{mla.LAYER}.mlp.experts.gate_up_proj",
        verb=equal_parts(2),
    )
    | exact("blk.{l}.ffn_down_exps.weight", f"{mla.LAYER}.mlp.experts.down_proj")
    | mla.INDEXER
    | exact("blk.{l}.attn_sinks.weight", f"{mla.LAYER}.self_attn.learnable_sink_param")
    | rule("blk.{l}.attn_gate", f"{mla.LAYER}.self_attn.linear_gate")
    | Table(
        tuple(
            exact(f"blk.{{l}}.hc_{out}_{part}.weight", f"{mla.LAYER}.{source}.hc_pre.hc_{part}", type="F32")
            for out, source in MIXES.items()
            for part in PARTS
        )
    )
    | Table(tuple(exact(f"output_hc_{part}.weight", f"model.hc_head.hc_head_{part}", type="F32") for part in PARTS)),
    needs=(
        *TRUNK,
        "output",
        *(f"output_hc_{part}" for part in PARTS),
        *mla.SHORT_QUERIES,
        *mla.LATENT,
        *layer("attn_sinks", "attn_gate", *(f"hc_{half}_{part}" for half in MIXES for part in PARTS)),
        mla.FEEDS,
        optional(*mla.INDEXED),
    ),
    vocab=(vocab.bpe,),
    # What transformers 5 saves has parts of names in another order.
    renames=(
        *WRAPPERS,
        (r"\.hc_pre\.(hc_(?:attn|mlp)_layer)\.", r".\1.hc_pre."),
        (r"^model\.hc_pre\.hc_head\.", "model.hc_head."),
        (r"\.(mlp|shared_experts)\.linear_gate\.", r".\1.gate_proj."),
    ),
    # Layers that predict further tokens are not read yet.
    drop=(*BUFFERS, mla.TIED, r"^model\.mtp_layers\.", beyond(r"^model\.layers\.")),
    implied=SILU,
)

ARCHS = (HY_V4,)
