"""gpt-oss: experts of four bits with biases, an attention that may rest on a sink, windows in every other layer."""

from __future__ import annotations

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import AS_READ, BIAS, WEIGHT, Arch, exact, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import TRANSPOSE
from gguf_forge.convert.packed import PACK_MXFP4
from gguf_forge.convert.rows import every

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
    affine,
    layer,
    windows_unless_usual,
)

EXPERTS = "model.layers.{l}.mlp.experts"
GATE_UP = ("blk.{l}.ffn_gate_exps", "blk.{l}.ffn_up_exps")
DOWN = "blk.{l}.ffn_down_exps"
WEIGHTS = tuple(f"{name}.weight" for name in GATE_UP)


def _file_type(facts: Facts) -> int:
    """MXFP4_MOE where experts are packed, under every outtype; otherwise the outtype's."""
    return 38 if any(name.endswith("down_proj_blocks") for name in facts.headers) else 0


GPT_OSS = Arch(
    "gpt-oss",
    hf=("GptOssForCausalLM",),
    hparams=BASE
    | u32("general.file_type", value=_file_type)
    | u32("attention.sliding_window", "sliding_window", required=True)
    | u32("expert_feed_forward_length", "intermediate_size", required=True)
    | windows_unless_usual("gpt-oss"),
    tensors=DECODER.without("blk.{l}.ffn_norm", *GATED)
    | rule("blk.{l}.attn_sinks", "model.layers.{l}.self_attn.sinks", ends=WEIGHT)
    | rule("blk.{l}.post_attention_norm", "model.layers.{l}.post_attention_layernorm")
    | rule("blk.{l}.ffn_gate_inp", "model.layers.{l}.mlp.router")
    | exact(
        f"{DOWN}.weight",
        f"{EXPERTS}.down_proj_blocks",
        f"{EXPERTS}.down_proj_scales",
        verb=PACK_MXFP4,
        first=AS_READ,
    )
    | exact(
        WEIGHTS,
        f"{EXPERTS}.gate_up_proj_blocks",
        f"{EXPERTS}.gate_up_proj_scales",
        verb=PACK_MXFP4 | every(2),
        first=AS_READ,
    )
    | exact(f"{DOWN}.weight", f"{EXPERTS}.down_proj", verb=TRANSPOSE, variant="plain")
    | exact(WEIGHTS, f"{EXPERTS}.gate_up_proj", verb=TRANSPOSE | every(2), variant="plain")
    | rule(DOWN, f"{EXPERTS}.down_proj", ends=BIAS)
    | rule(GATE_UP, f"{EXPERTS}.gate_up_proj", ends=BIAS, verb=every(2)),
    needs=(
        *TRUNK[:-1],
        "output",
        *QKV,
        *MIXTURE,
        *layer("attn_sinks", "post_attention_norm"),
        *affine(*layer("attn_output", "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")),
    ),
    vocab=(vocab.bpe,),
    renames=(*WRAPPERS, (r"\.sinks$", ".sinks.weight"), (r"_proj_bias$", "_proj.bias")),
    # InternVL 3.5 has one beside its images.
    drop=(*BUFFERS, *MULTIMODAL),
    implied=(*SILU, ("swiglu_limit", (7.0,))),
)

ARCHS = (GPT_OSS,)
