"""DeepSeek-V4, whose experts stay the 4-bit floats they are stored as, and the DSpark draft model beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import (
    EXPERTS,
    Arch,
    Axis,
    Drop,
    Either,
    Rule,
    Source,
    Table,
    boolean,
    exact,
    f32,
    optional,
    string,
    u32,
)
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import STACK, Cast, Verb, Views
from gguf_forge.convert.packed import PACK_MXFP4, SCALED, has_scale
from gguf_forge.convert.view import F32, Array, View, changed, widen
from gguf_forge.errors import ConversionError
from gguf_forge.format import values

from .common import BASE, MULTIMODAL, SILU, layer, main_dropped, main_layers, nextn_layers
from .mla import FURTHER_OR_OWN, HYPER, HYPER_KEYS, INDEXER_KEYS, NEXTN

FP4 = ("I8", "U8")


@dataclass(frozen=True)
class Beside(Verb):
    """Matrices of equal height side by side, in float32: their columns one after the other."""

    def views(self, sources: Views, facts: Facts) -> list[View]:
        """The one matrix."""
        if len({source.count for source in sources}) > 1:
            raise ConversionError(f"{sources[0].name} and {sources[-1].name} are not equally high")
        first = sources[0]

        def rows(start: int, stop: int) -> Array:
            return np.concatenate([widen(s.rows(start, stop), s.type) for s in sources], axis=1, dtype=np.float32)

        return [changed(first, shape=(first.count, sum(s.width for s in sources)), type=F32, rows=rows)]


def _stored_type(sources: Sequence[View]) -> str | bool:
    """The type under all outtypes: what 8-bit floats lose least in, BF16 and F32 themselves, else the outtype's."""
    if has_scale(sources):
        return "Q8_0"
    kind = sources[0].type.name
    return kind if kind in ("BF16", "F32") else False


def _weight(out: str, source: str) -> Rule:
    """A matrix that may be stored as 8-bit floats."""
    weight, scale = f"{source}.weight", f"{source}.scale"
    return exact(f"{out}.weight", weight, (scale, weight), verb=SCALED, type=_stored_type)


def _plain(out: str, source: Source) -> Rule:
    """A tensor that is stored as it is used."""
    return exact(out, source, type=_stored_type)


#: Names of a layer's matrices in GGUF and in the checkpoint.
MATRICES = {
    "attn_q_a": "attn.wq_a",
    "attn_q_b": "attn.wq_b",
    "attn_kv": "attn.wkv",
    "attn_output_a": "attn.wo_a",
    "attn_output_b": "attn.wo_b",
    "ffn_gate_inp": "ffn.gate",
    "ffn_gate_shexp": "ffn.shared_experts.w1",
    "ffn_down_shexp": "ffn.shared_experts.w2",
    "ffn_up_shexp": "ffn.shared_experts.w3",
}
VECTORS = {
    "attn_norm.weight": "attn_norm.weight",
    "ffn_norm.weight": "ffn_norm.weight",
    "attn_q_a_norm.weight": "attn.q_norm.weight",
    "attn_kv_a_norm.weight": "attn.kv_norm.weight",
    "attn_sinks.weight": "attn.attn_sink",
    "exp_probs_b.bias": "ffn.gate.bias",
    **{f"{part}.weight": part for part in HYPER},
}
#: What makes one key of several tokens, and what finds the tokens to read: in the layers that have them.
COMPRESSORS = {"attn_compressor": "attn.compressor", "indexer_compressor": "attn.indexer.compressor"}
INDEXER = {"indexer.attn_q_b": "attn.indexer.wq_b", "indexer.proj": "attn.indexer.weights_proj"}
HEAD = ("fn", "base", "scale")
PARTS = {"gate": "w1", "down": "w2", "up": "w3"}


def _packed(root: str) -> Callable[[Facts], bool]:
    return lambda facts: facts.headers[f"{root}layers.{facts.layer}.ffn.experts.0.w1.weight"].dtype in FP4


def _experts(root: str, part: str, name: str) -> tuple[Rule, Rule]:
    """Experts as 4-bit floats, which come before all else in the file, or as others."""
    out, source = f"blk.{{l}}.ffn_{part}_exps.weight", f"{root}layers.{{l}}.ffn.experts.{{e}}.{name}"
    weight, scale = f"{source}.weight", f"{source}.scale"
    fp4 = _packed(root)
    return (
        exact(out, weight, scale, verb=PACK_MXFP4 | STACK, first=2, when=fp4),
        exact(
            out,
            weight,
            (scale, weight),
            verb=SCALED | STACK,
            type=_stored_type,
            group="experts",
            variant="floats",
            when=lambda facts: not fp4(facts),
        ),
    )


def _layers(root: str = "") -> Table[Rule]:
    """What all layers have; `root` is what names begin with."""
    at = f"{root}layers.{{l}}."
    return Table(
        (
            *(each for part, name in PARTS.items() for each in _experts(root, part, name)),
            *(_weight(f"blk.{{l}}.{out}", at + source) for out, source in MATRICES.items()),
            *(_plain(f"blk.{{l}}.{out}", at + source) for out, source in VECTORS.items()),
        )
    )


def _head(*roots: str) -> Table[Rule]:
    return Table(
        tuple(_plain(f"output_hc_{part}.weight", tuple(f"{root}hc_head_{part}" for root in roots)) for part in HEAD)
    )


def _all_layers(facts: Facts) -> int:
    """Layers that predict further tokens are there only alone."""
    return main_layers(facts) + (nextn_layers(NEXTN)(facts) if facts.options.mtp == "only" else 0)


def _span(facts: Facts) -> int | range:
    return range(main_layers(facts), _all_layers(facts)) if facts.options.mtp == "only" else main_layers(facts)


def _further_name(match: re.Match[str], facts: Facts) -> str:
    """Names under mtp.N as those of layers after the model's own."""
    number, rest = main_layers(facts) + int(match[1]), match[2]
    if rest.startswith("hc_head_"):
        return f"mtp.{rest}"
    if rest.startswith(("e_proj.", "h_proj.", "enorm.", "hnorm.")):
        return f"layers.{number}.nextn.{rest}"
    return f"layers.{number}.nextn.shared_head_norm.weight" if rest == "norm.weight" else f"layers.{number}.{rest}"


def _template(facts: Facts) -> str:
    """The release of July 31 has a template of its own; no checkpoint has one in it."""
    return vocab.shipped("deepseek-v4-0731.jinja" if "0731" in facts.directory.name else "deepseek-v4.jinja")


def _file_type(facts: Facts) -> int:
    """MXFP4_MOE where experts are packed, under every outtype; otherwise the outtype's."""
    packed = any(".ffn.experts.0.w1.weight" in name and h.dtype in FP4 for name, h in facts.headers.items())
    return 38 if packed else 0


def _limits(layers: Callable[[Facts], int]) -> Callable[[Facts], list[float]]:
    return lambda facts: [facts.config["swiglu_limit"]] * layers(facts)


def _keys(layers: Callable[[Facts], int]) -> Table[Any]:
    return (
        BASE
        | string("tokenizer.chat_template", value=_template, early=True)
        | u32("block_count", value=layers)
        | u32("general.file_type", value=_file_type)
        | u32("rope.dimension_count", "qk_rope_head_dim", required=True)
        | u32("attention.q_lora_rank", "q_lora_rank", required=True)
        | u32("attention.sliding_window", "sliding_window", required=True)
        | u32("expert_feed_forward_length", "moe_intermediate_size", required=True)
        | u32("expert_shared_count", "n_shared_experts", required=True)
        | f32("expert_weights_scale", "routed_scaling_factor", required=True)
        | boolean("expert_weights_norm", "norm_topk_prob", required=True)
        | f32("swiglu_clamp_exp", value=_limits(layers))
        | f32("swiglu_clamp_shexp", value=_limits(layers))
        | INDEXER_KEYS
        | u32("attention.output_group_count", "o_groups", required=True)
        | u32("attention.output_lora_rank", "o_lora_rank", required=True)
        | u32("attention.compress_ratios", "compress_ratios", required=True)
        | f32("attention.compress_rope_freq_base", "compress_rope_theta", required=True)
        | HYPER_KEYS
        | u32("hash_layer_count", "num_hash_layers", required=True)
    )


NEEDS = (
    "output_norm",
    *(f"output_hc_{part}" for part in HEAD),
    *layer("ffn_gate_exps", "ffn_down_exps", "ffn_up_exps", *MATRICES),
    *layer(*(name for name in VECTORS if name != "exp_probs_b.bias")),
)
NEXT = "layers.{l}.nextn"

DEEPSEEK4 = Arch(
    "deepseek4",
    hf=("DeepseekV4ForCausalLM",),
    hparams=_keys(_all_layers)
    | u32("embedding_length_out", value=lambda facts: facts.number("hidden_size") * facts.number("hc_mult"))
    | u32("nextn_predict_layers", value=lambda facts: _all_layers(facts) - main_layers(facts) or None),
    tensors=_layers()
    | _head("mtp.", "")
    | Table(
        (
            _weight("token_embd", "embed"),
            _plain("output_norm.weight", "norm.weight"),
            _weight("output", "head"),
            exact(
                "blk.{l}.ffn_gate_tid2eid.weight", "layers.{l}.ffn.gate.tid2eid", verb=Cast("I32"), type="I32", first=3
            ),
            _plain("blk.{l}.exp_probs_b_vl.bias", "layers.{l}.ffn.gate.bias_vl"),
            *(
                row
                for out, source in COMPRESSORS.items()
                for row in (
                    _plain(f"blk.{{l}}.{out}_ape.weight", f"layers.{{l}}.{source}.ape"),
                    _plain(f"blk.{{l}}.{out}_norm.weight", f"layers.{{l}}.{source}.norm.weight"),
                    _weight(f"blk.{{l}}.{out}_kv", f"layers.{{l}}.{source}.wkv"),
                    _weight(f"blk.{{l}}.{out}_gate", f"layers.{{l}}.{source}.wgate"),
                )
            ),
            *(_weight(f"blk.{{l}}.{out}", f"layers.{{l}}.{source}") for out, source in INDEXER.items()),
            exact(
                "blk.{l}.nextn.eh_proj.weight",
                f"{NEXT}.e_proj.weight",
                f"{NEXT}.h_proj.weight",
                (f"{NEXT}.e_proj.scale", f"{NEXT}.e_proj.weight"),
                (f"{NEXT}.h_proj.scale", f"{NEXT}.h_proj.weight"),
                verb=SCALED | Beside(),
                type="Q8_0",
                first=1,
            ),
            *(
                _plain(f"blk.{{l}}.nextn.{part}.weight", f"{NEXT}.{part}.weight")
                for part in ("enorm", "hnorm", "shared_head_norm")
            ),
        )
    ),
    needs=(
        *NEEDS,
        "token_embd",
        "output",
        Either((layer("ffn_gate_tid2eid"), layer("exp_probs_b.bias"))),
        optional(*layer(*(f"attn_compressor_{part}" for part in ("ape", "norm", "kv", "gate")))),
        optional(*layer(*INDEXER, *(f"indexer_compressor_{part}" for part in ("ape", "norm", "kv", "gate")))),
        FURTHER_OR_OWN,
    ),
    vocab=(vocab.bpe,),
    renames=((r"^mtp\.(\d+)\.(.+)$", _further_name),),
    drop=(
        *MULTIMODAL,
        r"^(aligner\.|image_)",
        Drop(r"^mtp\.", lambda _match, facts: facts.options.mtp != "only"),
        Drop(r"^hc_head_", lambda _match, facts: facts.options.mtp == "only"),
        main_dropped(r"^layers\."),
        # Layers that route by the token itself compute no scores to be corrected.
        Drop(r"^layers\.(\d+)\.ffn\.gate\.bias$", lambda m, facts: int(m[1]) < facts.number("num_hash_layers")),
    ),
    axes={"l": Axis(_span), "e": EXPERTS},
    implied=SILU,
    mtp=True,
)


def _stages(facts: Facts) -> int:
    """The draft model's layers, which only the names of its tensors count."""
    found = [re.match(r"draft\.layers\.(\d+)\.", name) for name in facts.headers]
    return 1 + max((int(match[1]) for match in found if match), default=-1)


#: What the draft model has once, though its names count layers there, too.
ONCE = r"main_proj|main_norm|markov_head|confidence_head|hc_head_(?:fn|base|scale)$|norm\.weight$"


@vocab.step
def mask_token(job: vocab.VocabJob) -> vocab.Changes:
    """The token that stands for those to be predicted."""
    return {"tokenizer.ggml.mask_token_id": values.u32(job.config["dspark_noise_token_id"])}


DSPARK = Arch(
    "dflash",
    hf=("DeepseekV4DSparkModel",),
    hparams=_keys(_stages)
    | u32("attention.compress_ratios", value=lambda facts: [0] * _stages(facts))
    | u32("hash_layer_count", value=lambda facts: 0)
    | u32("block_size", "dspark_block_size", required=True)
    | u32("target_layers", value=lambda facts: [layer + 1 for layer in facts.config["dspark_target_layer_ids"]]),
    tensors=_layers("draft.")
    | _head("draft.")
    | Table(
        (
            _plain("output_norm.weight", "draft.norm.weight"),
            _plain("enc.output_norm.weight", "draft.main_norm.weight"),
            _weight("fc", "draft.main_proj"),
            _plain("markov_w1.weight", "draft.markov_head.markov_w1.weight"),
            _plain("markov_w2.weight", "draft.markov_head.markov_w2.weight"),
            _plain("conf_proj.weight", "draft.confidence_head.proj.weight"),
        )
    ),
    needs=(*NEEDS, *layer("exp_probs_b.bias"), "enc.output_norm", "fc"),
    vocab=(vocab.in_target(vocab.bpe), mask_token),
    renames=((rf"^mtp\.\d+\.(?={ONCE})", "draft."), (r"^mtp\.(\d+)\.", r"draft.layers.\1.")),
    drop=(r"^(?!mtp\.|draft\.)", r"\.ffn\.gate\.bias_vl$"),
    axes={"l": Axis(_stages), "e": EXPERTS},
    implied=SILU,
    draft=True,
    beside=("DeepseekV4ForCausalLM",),
)

ARCHS = (DEEPSEEK4, DSPARK)
