"""MiMo-V2: windows in most layers, whose attention may rest on a sink, and three layers that predict further tokens;
and MiMo, a Qwen 2 but for such layers, of which its architecture in GGUF has none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import EXPERTS, WEIGHT, Arch, Either, exact, f32, rule, u32
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Verb, Views
from gguf_forge.convert.view import F32, Array, RowNumbers, View, changed, gathered
from gguf_forge.errors import ConversionError

from .common import (
    BASE,
    BUFFERS,
    DECODER,
    GATED,
    MIXTURE,
    MULTIMODAL,
    QKV,
    SILU,
    TRUNK,
    WRAPPERS,
    layer,
    main_dropped,
    main_layers,
    nextn_dropped,
    with_nextn,
)
from .mla import LAYER, ROUTER, ROUTER_BIAS, experts
from .qwen import QWEN2
from .rotary import turned

#: Layers of published models that predict further tokens, which config.json does not say.
PUBLISHED = 3


def _stored(facts: Facts) -> int:
    """How many layers that predict further tokens the checkpoint has."""
    found = (re.match(r"model\.layers\.(\d+)\.", name) for name in facts.headers)
    numbers = [int(match[1]) for match in found if match]
    return max([0, *(number + 1 - main_layers(facts) for number in numbers)])


def _further(facts: Facts) -> int:
    """How many of them a file speaks of: readers do without those that it lacks."""
    return 0 if facts.options.mtp == "drop" else max(PUBLISHED, _stored(facts))


def _converted(facts: Facts) -> int:
    """How many of them are converted: those there are, and some there must be where they alone are wanted."""
    return _stored(facts) or (PUBLISHED if facts.options.mtp == "only" else 0)


def _windows(facts: Facts) -> list[int]:
    """1 for each layer with a window, as those have that predict further tokens; 0 for others."""
    pattern = facts.config.get("hybrid_layer_pattern")
    if pattern is None:
        pattern = [int(kind == "sliding_attention") for kind in need(facts.config, "layer_types")]
    if len(pattern) != main_layers(facts):
        raise ConversionError(f"config.json: hybrid_layer_pattern names {len(pattern)} of {main_layers(facts)} layers")
    return [*map(int, pattern), *[1] * _further(facts)]


def _heads_kv(facts: Facts) -> list[int]:
    sliding, full = facts.number("swa_num_key_value_heads"), facts.number("num_key_value_heads")
    return [sliding if window else full for window in _windows(facts)]


def _renumbered(match: re.Match[str], facts: Facts) -> str:
    return f"model.layers.{main_layers(facts) + int(match[1])}."


def _alike(facts: Facts) -> Any:
    """The size of keys, once it is sure that layers with windows have the same sizes as the others."""
    for key in ("head_dim", "num_attention_heads", "v_head_dim"):
        if facts.config.get(f"swa_{key}", facts.config.get(key)) != facts.config.get(key):
            raise ConversionError(f"config.json: swa_{key} must be {key}, {facts.config.get(key)}")
    return facts.number("head_dim")


#: Rows and columns that share a scale.
TILE = 128
QKV_PROJ = f"{LAYER}.self_attn.qkv_proj.weight"
SCALE = f"{QKV_PROJ}_scale_inv"


@dataclass(frozen=True)
class Sharded(Verb):
    """Queries, keys and values of 8-bit floats as machines of a cluster held them: a part of each, machine by machine.

    Each machine's scales are of tiles that begin with its rows, so the last of them may be cut. Only the number of
    scales tells how many machines there were: eight, four, or one (MiMo-V2.5-Pro, MiMo-V2.5, others).
    """

    def views(self, sources: Views, facts: Facts) -> list[View]:
        """The three, one below the other, times their scales."""
        weight, scale = sources
        kv = _heads_kv(facts)[facts.layer or 0]
        heights = [facts.number("num_attention_heads") * facts.number("head_dim"), kv * facts.number("head_dim")]
        heights.append(kv * facts.number("v_head_dim"))
        total, tiles = sum(heights), scale.shape[0]
        parts = next((n for n in (8, 4, 1) if total % n == 0 and tiles == n * -(-total // n // TILE)), None)
        if weight.shape[0] != total or parts is None or any(height % parts for height in heights):
            shapes = f"{weight.name} {list(weight.shape)} with {list(scale.shape)} scales"
            raise ConversionError(f"{shapes}: no queries, keys and values of {' + '.join(map(str, heights))} rows")
        each, order = total // parts, np.arange(total).reshape(parts, -1)
        edges = np.cumsum([height // parts for height in heights])[:-1]
        wanted = np.concatenate([part.reshape(-1) for part in np.split(order, edges, axis=1)])

        def rows(start: int, stop: int) -> Array:
            numbers = np.arange(start, stop)
            tile = numbers // each * (tiles // parts) + numbers % each // TILE
            by_row = scale.rows(int(tile[0]), int(tile[-1]) + 1)[tile - tile[0]]
            scales: Array = np.repeat(by_row, TILE, axis=1)[:, : weight.width]
            return np.multiply(weight.rows(start, stop), scales)

        return [gathered(changed(weight, type=F32, rows=rows), weight.shape, RowNumbers(lambda: wanted))]


def _has_scale(facts: Facts) -> bool:
    return facts.has(SCALE)


MIMO2 = Arch(
    "mimo2",
    hf=("MiMoV2FlashForCausalLM", "MiMoV2ForCausalLM"),
    hparams=BASE
    | u32("block_count", value=lambda facts: main_layers(facts) + _further(facts))
    | u32("attention.head_count_kv", value=_heads_kv)
    | u32("attention.key_length", value=_alike)
    | u32("attention.sliding_window", "sliding_window", required=True)
    | u32("attention.sliding_window_pattern", value=_windows)
    | u32("attention.value_length", "v_head_dim", required=True)
    | u32("expert_feed_forward_length", "moe_intermediate_size", required=True)
    | u32("rope.dimension_count", value=turned())
    | f32("attention.layer_norm_rms_epsilon", "layernorm_epsilon", "rms_norm_eps", default=1e-5, again=True)
    | f32("attention.value_scale", "attention_value_scale")
    | u32("nextn_predict_layers", value=lambda facts: _further(facts) or None),
    tensors=DECODER
    | exact("blk.{l}.attn_qkv.weight", QKV_PROJ, when=lambda facts: not _has_scale(facts))
    | exact("blk.{l}.attn_qkv.weight", QKV_PROJ, SCALE, verb=Sharded(), variant="8-bit", when=_has_scale)
    | rule("blk.{l}.attn_sinks", f"{LAYER}.self_attn.attention_sink_bias", ends=WEIGHT)
    | experts(gate="gate_proj", up="up_proj", down="down_proj")
    | ROUTER
    | ROUTER_BIAS
    | rule("blk.{l}.nextn.eh_proj", f"{LAYER}.eh_proj")
    | rule("blk.{l}.nextn.enorm", f"{LAYER}.enorm")
    | rule("blk.{l}.nextn.hnorm", f"{LAYER}.hnorm")
    | rule("blk.{l}.layer_output_norm", f"{LAYER}.final_layernorm"),
    needs=(
        *TRUNK,
        "output",
        Either((QKV, layer("attn_qkv"))),
        Either((GATED, MIXTURE)),
        Either((layer("nextn.eh_proj", "nextn.enorm", "nextn.hnorm", "layer_output_norm"), ())),
        Either((layer("attn_sinks"), ())),
    ),
    vocab=(vocab.bpe,),
    renames=(
        *WRAPPERS,
        (r"^model\.mtp\.layers\.(\d+)\.", _renumbered),
        (r"\.pre_mlp_layernorm\.", ".post_attention_layernorm."),
        (r"\.attention_sink_bias$", ".attention_sink_bias.weight"),
    ),
    drop=(*BUFFERS, *MULTIMODAL, nextn_dropped(), main_dropped()),
    axes={"l": with_nextn(_converted), "e": EXPERTS},
    implied=(*SILU, ("topk_method", ("noaux_tc",)), ("n_shared_experts", (0,))),
    mtp=True,
)

MIMO = replace(QWEN2, hf=("MiMoForCausalLM",), hparams=BASE, drop=(*QWEN2.drop, r"^model\.mtp_layers\."))

ARCHS = (MIMO, MIMO2)
